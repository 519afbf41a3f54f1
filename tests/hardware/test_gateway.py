"""The gateway and its clients, with something that answers for the real-time process."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hardware.sessions import MAX_SESSIONS
from hardware.shared_memory import Word
from robot.bridge import client as client_module
from robot.bridge.client import BridgeClient
from robot.bridge.schema import Mode, Priority
from robot.bridge.wire import Frame, FrameType, Reason, chunk_payload, encode, pack
from robot.contract import ActionChunk
from robot.control.plan import Reject
from robot.errors import BridgeError, LeaseError
from tests.hardware.gateways import StandIn, standing_in, watch

ROWS = np.full((4, 7), 0.1)
DT_S = 0.05


@pytest.fixture
def bridge() -> Iterator[StandIn]:
    with standing_in() as one:
        yield one


@pytest.fixture
def driver(bridge: StandIn) -> Iterator[BridgeClient]:
    with bridge.client("driver") as client:
        client.acquire()
        client.arm()
        while client.state().mode != Mode.ARMED:
            pass
        yield client


def refused(bridge: StandIn) -> dict[str, int]:
    return bridge.gateway.front.counters()


def command(driver: BridgeClient, **changed: Any) -> bytes:
    """A command of the driver's, for a gateway that has taken all that the driver sent before."""
    time.sleep(0.01)
    fields: dict[str, Any] = {
        "type": FrameType.CHUNK,
        "payload": chunk_payload(ROWS, DT_S),
        "boot_id": driver._boot_id,
        "session": driver._session,
        "sequence": 7,
        "t_send_ns": driver.now_ns(),
        "t_exec_ns": driver.now_ns(),
    }
    return encode(Frame(**fields | changed))


def test_states_come_as_soon_as_they_are_written(bridge: StandIn, driver: BridgeClient) -> None:
    ages = []
    for _ in range(200):
        ages.append(driver.now_ns() - driver.state().t_ns)
    assert np.median(ages) < 1_000_000


def test_a_chunk_arrives_whole(bridge: StandIn, driver: BridgeClient) -> None:
    t0_ns = driver.now_ns()
    sequence = driver.send_chunk(ActionChunk(ROWS, DT_S), t0_ns)
    while driver.state().status("last_sequence") != sequence:
        pass
    got = bridge.chunks[0]
    assert (got.number, got.session, got.t0_ns, got.dt_ns) == (sequence, driver._session, t0_ns, 50_000_000)
    np.testing.assert_array_equal(got.rows, ROWS)
    assert refused(bridge) == {}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"boot_id": 1}, Reason.BOOT),
        ({"session": 5}, Reason.SESSION),
        ({"type": FrameType.REQUEST, "payload": pack({"op": "hello"})}, Reason.CHANNEL),
        ({"t_send_ns": 0}, Reason.REPLAY),
        ({"t_send_ns": time.monotonic_ns() + 10**13}, Reason.CLOCK),
        ({"payload": chunk_payload(np.full((2, 7), np.nan), DT_S)}, Reason.NOT_FINITE),
        ({"payload": chunk_payload(ROWS, 7.0)}, Reason.ROWS),
        ({"payload": b"123"}, Reason.PAYLOAD),
        ({"sequence": 2**53}, Reason.SEQUENCE),
    ],
    ids=lambda value: str(value) if isinstance(value, Reason) else "",
)
def test_every_refusal_has_its_reason(
    bridge: StandIn, driver: BridgeClient, changed: dict[str, Any], reason: Reason
) -> None:
    bridge.gateway.take_command([command(driver, **changed)])
    assert refused(bridge) == {str(reason): 1}
    assert bridge.chunks == []


def test_a_recorded_command_moves_nothing_and_is_no_sign_of_life(bridge: StandIn, driver: BridgeClient) -> None:
    data = command(driver)
    bridge.gateway.take_command([data])
    alive_ns = int(bridge.memory.words[Word.LEASE_ALIVE_NS])
    for _ in range(5):
        bridge.gateway.take_command([data])
    assert refused(bridge) == {"replayed": 5}
    assert bridge.memory.words[Word.LEASE_ALIVE_NS] == alive_ns
    time.sleep(0.01)
    assert len(bridge.chunks) == 1


def test_a_ring_that_is_full_refuses(bridge: StandIn, driver: BridgeClient) -> None:
    push = bridge.memory.commands.push
    bridge.memory.commands.push = lambda _: False  # type: ignore[method-assign]
    bridge.gateway.take_command([command(driver)])
    bridge.memory.commands.push = push  # type: ignore[method-assign]
    assert refused(bridge) == {str(Reason.FULL): 1}
    watch(driver, 5)
    assert driver.state().status("refusal") == Reject.FULL


def test_teleop_takes_over_from_a_policy_at_standstill(bridge: StandIn, driver: BridgeClient) -> None:
    with bridge.client("hand", priority=Priority.TELEOP) as hand:
        driver.send_chunk(ActionChunk(ROWS, DT_S), driver.now_ns())
        while not bridge.chunks:
            driver.state()
        with pytest.raises(LeaseError, match="BUSY: 'driver' drives the arm, which moves"):
            hand.acquire()
        time.sleep(len(ROWS) * DT_S)
        driver.state()
        bridge.speed = 1.0
        time.sleep(0.01)
        with pytest.raises(LeaseError, match="which moves"):
            hand.acquire()
        bridge.speed = 0.0
        time.sleep(0.01)
        hand.acquire()
        with pytest.raises(LeaseError, match="'hand' has taken the arm over"):
            watch(driver)
        driver.state()
        with pytest.raises(LeaseError, match="BUSY: 'hand' drives the arm with priority teleop, yours is policy"):
            driver.acquire(blend=True)
        driver.send_chunk(ActionChunk(ROWS, DT_S), driver.now_ns())
        time.sleep(0.02)
        assert len(bridge.chunks) == 1
        assert refused(bridge)["no lease"] >= 1


def test_a_plan_that_is_rejected_keeps_nobody_out(bridge: StandIn, driver: BridgeClient) -> None:
    driver.send_chunk(ActionChunk(ROWS, DT_S), driver.now_ns() + 10**15)
    while not bridge.chunks:
        driver.state()
    with bridge.client("hand", priority=Priority.TELEOP) as hand:
        hand.acquire()


def test_a_request_under_another_key_is_none(bridge: StandIn, driver: BridgeClient) -> None:
    session = driver._session
    frame = Frame(FrameType.REQUEST, pack({"op": "release"}), driver._boot_id, session, 10**6, driver.now_ns())
    bridge.gateway.take_request(b"peer", [encode(frame)], user="somebody else's")
    assert refused(bridge) == {"key": 1}
    assert driver.holder() == "driver"


def test_a_blend_takes_over_in_motion(bridge: StandIn, driver: BridgeClient) -> None:
    bridge.speed = 1.0
    with bridge.client("hand", priority=Priority.TELEOP) as hand:
        hand.acquire(blend=True)
        assert bridge.memory.words[Word.LEASE_BLEND_SESSION] == hand._session
        assert hand.holder() == "hand"


def test_a_disarmed_arm_may_be_taken_over_whatever_it_measures(bridge: StandIn) -> None:
    bridge.speed = 1.0
    with bridge.client("policy") as policy, bridge.client("hand", priority=Priority.TELEOP) as hand:
        policy.acquire()
        hand.acquire()
        assert bridge.memory.words[Word.LEASE_BLEND_SESSION] == 0


def test_the_end_of_a_lease_is_said_once(bridge: StandIn, driver: BridgeClient) -> None:
    driver.state()
    bridge.memory.words[Word.LEASE_UNTIL_NS] = 0
    with pytest.raises(LeaseError, match="no sign of life"):
        watch(driver)
    driver.state()


def test_names_that_would_upset_a_terminal_are_cleaned(bridge: StandIn) -> None:
    with bridge.client("a\x1b[2J\nb" + "x" * 100) as client:
        client.acquire()
        assert client.holder() == "a[2Jb" + "x" * 57


def test_one_client_too_many_is_told(bridge: StandIn) -> None:
    for number in range(1, MAX_SESSIONS + 1):
        bridge.gateway.front.sessions.open(number, "x", "", time.monotonic_ns())
    with pytest.raises(BridgeError, match="32 clients are connected"), bridge.client():
        pass
    assert refused(bridge) == {"request": 1}


def test_requests_of_an_unknown_session_are_told_to_connect_anew(bridge: StandIn, driver: BridgeClient) -> None:
    driver._session = secrets.randbelow(2**61) + 1
    with pytest.raises(BridgeError, match="Connect anew"):
        driver.acquire()
    assert refused(bridge)["session"] >= 1


def test_a_recorded_reset_releases_no_later_estop(bridge: StandIn, driver: BridgeClient) -> None:
    frame = Frame(FrameType.ESTOP, pack({"op": "reset"}), driver._boot_id, driver._session, 50)
    estop = bridge.gateway._estop
    words = bridge.memory.words
    words[Word.ESTOP] = 1
    estop.take(b"x", [encode(frame)])
    assert words[Word.ESTOP] == 0
    words[Word.ESTOP] = 1
    for sequence in (50, 49):
        again = Frame(FrameType.ESTOP, pack({"op": "reset"}), driver._boot_id, driver._session, sequence)
        estop.take(b"x", [encode(again)])
    other_boot = Frame(FrameType.ESTOP, pack({"op": "reset"}), 1, driver._session, 51)
    estop.take(b"x", [encode(other_boot)])
    assert words[Word.ESTOP] == 1
    assert refused(bridge) == {"replayed": 1, "boot id": 1}
    words[Word.ESTOP] = 0


def test_clocks_are_compared_again_and_a_jump_is_noticed(
    bridge: StandIn, driver: BridgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert abs(driver.offset_ns) <= driver.uncertainty_ns
    real = time.monotonic_ns
    monkeypatch.setattr(client_module, "CLOCK_EVERY_S", 0.01)

    class Suspended:
        """Our clock as if this machine had slept: everybody else is ten seconds ahead."""

        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def monotonic_ns() -> int:
            return real() - 10_000_000_000

    monkeypatch.setattr(client_module, "time", Suspended)
    driver.send_chunk(ActionChunk(ROWS, DT_S), driver.now_ns())
    until = time.monotonic() + 2
    while driver.clock_steps == 0 and time.monotonic() < until:
        driver.state()
    assert driver.clock_steps == 1
    assert abs(driver.offset_ns - 10_000_000_000) < 1_000_000 + driver.uncertainty_ns
    # What was stamped with the wrong time moved nothing, and was counted.
    assert bridge.chunks == []
    assert refused(bridge)["replayed"] + refused(bridge).get(str(Reason.CLOCK), 0) >= 1
    sequence = driver.send_chunk(ActionChunk(ROWS, DT_S), driver.now_ns())
    while driver.state().status("last_sequence") != sequence:
        assert time.monotonic() < until + 1
    assert len(bridge.chunks) == 1
