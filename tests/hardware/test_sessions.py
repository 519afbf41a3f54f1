import pytest

from hardware.sessions import FUTURE_NS, IDLE_S, MAX_SESSIONS, STALE_NS, Session, Sessions, Tally
from robot.bridge.wire import Frame, FrameType, Reason
from robot.errors import BridgeError, WireError

S = 10**9


def beat(t_send_ns: int) -> Frame:
    return Frame(FrameType.HEARTBEAT, t_send_ns=t_send_ns)


def test_the_33rd_hello_is_refused_until_one_was_silent() -> None:
    sessions = Sessions()
    for number in range(1, MAX_SESSIONS + 1):
        sessions.open(number, "x", "", number)
    with pytest.raises(BridgeError, match="32 clients"):
        sessions.open(99, "x", "", S)
    assert sessions.open(1, "x", "", S).name == "x"
    sessions.open(99, "late", "", int(IDLE_S * S) + 2)
    assert len(sessions) == MAX_SESSIONS - 1
    with pytest.raises(WireError) as caught:
        sessions.get(1)
    assert caught.value.reason == Reason.SESSION


def test_a_session_is_its_users() -> None:
    sessions = Sessions()
    sessions.open(1, "alice", "key a", 0)
    with pytest.raises(BridgeError, match="somebody else"):
        sessions.open(1, "bob", "key b", 0)
    assert sessions.drop({"key b": "bob"}) == [1]
    assert len(sessions) == 0


@pytest.mark.parametrize(
    ("t_send_ns", "reason"),
    [
        (5 * S, Reason.REPLAY),
        (5 * S - 1, Reason.REPLAY),
        (10 * S - STALE_NS - 1, Reason.CLOCK),
        (10 * S + FUTURE_NS + 1, Reason.CLOCK),
    ],
)
def test_replayed_overtaken_old_and_future_commands_are_told_apart(t_send_ns: int, reason: Reason) -> None:
    session = Session("x", "", 0, sent_ns=5 * S)
    with pytest.raises(WireError) as caught:
        session.fresh(beat(t_send_ns), 10 * S)
    assert caught.value.reason == reason
    assert session.sent_ns == 5 * S


def test_a_sign_of_life_is_never_from_the_future() -> None:
    session = Session("x", "", 0)
    assert session.fresh(beat(S - 7), S) == S - 7
    assert session.fresh(beat(S + 7), S) == S


def test_requests_are_noted_once_and_old_ones_are_replays() -> None:
    session = Session("x", "", 0)
    assert session.begin(1, S)
    assert not session.begin(1, S)
    for number in range(2, 9):
        assert session.begin(number, S)
    assert not session.begin(6, S)
    with pytest.raises(WireError) as caught:
        session.begin(1, S)
    assert caught.value.reason == Reason.REPLAY
    assert len(session.answers) <= 4


def test_a_tally_adds_up() -> None:
    tally = Tally()
    for reason in (Reason.CRC, Reason.CRC, Reason.FULL):
        tally.refuse(reason)
    assert tally.refused == {"crc": 2, "too many at once": 1}
