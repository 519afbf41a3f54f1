import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.lease import Claim, LeaseDesk
from hardware.shared_memory import Word
from robot.bridge.schema import Priority
from robot.errors import LeaseError

S = 10**9


def words() -> np.ndarray:
    return np.zeros(len(Word), np.int64)


def test_one_holder_until_silence_or_release() -> None:
    desk = LeaseDesk(words())
    desk.acquire(Claim(1, "first", 0.5), S, False)
    with pytest.raises(LeaseError, match="BUSY: 'first'"):
        desk.acquire(Claim(2, "second", 0.5), S + S // 4, False)
    assert desk.holder(S) == "first"
    assert desk.renew(1, S + S // 4, S + S // 4)
    assert not desk.renew(2, S + S // 4, S + S // 4)
    assert desk.holds(1, S + S * 7 // 10)
    assert not desk.holds(1, S + S * 8 // 10)
    assert not desk.renew(1, 2 * S, 2 * S)
    desk.acquire(Claim(2, "second", 0.5), 2 * S, True)
    desk.release(1, 2 * S)
    assert desk.holds(2, 2 * S)
    desk.release(2, 2 * S)
    assert not desk.is_held(2 * S)
    assert desk.holder(2 * S) == ""


def test_no_session_holds_nothing_and_times_are_bounded() -> None:
    desk = LeaseDesk(words())
    assert not desk.holds(0, 0)
    for ttl_s in (0.01, 60.0, float("nan")):
        with pytest.raises(LeaseError, match="lease lasts"):
            desk.acquire(Claim(1, "first", ttl_s), 0, False)


def test_a_sign_of_life_counts_from_when_it_was_given() -> None:
    memory = words()
    desk = LeaseDesk(memory)
    desk.acquire(Claim(1, "first", 0.5), S, False)
    assert desk.renew(1, S + S // 10, S + S * 4 // 10)
    assert memory[Word.LEASE_ALIVE_NS] == S + S // 10
    assert memory[Word.LEASE_UNTIL_NS] == S + S * 6 // 10
    # One that was given earlier and comes later takes nothing back.
    assert desk.renew(1, S, S + S * 5 // 10)
    assert memory[Word.LEASE_ALIVE_NS] == S + S // 10


def test_who_outranks_takes_over_at_standstill() -> None:
    memory = words()
    desk = LeaseDesk(memory)
    desk.acquire(Claim(1, "policy", 0.5), S, False)
    with pytest.raises(LeaseError, match=r"BUSY: 'policy' drives the arm, which moves.*blend=True"):
        desk.acquire(Claim(2, "teleop", 0.5, Priority.TELEOP), S, True)
    desk.acquire(Claim(2, "teleop", 0.5, Priority.TELEOP), S, False)
    assert desk.holds(2, S)
    assert memory[Word.LEASE_PRIORITY] == Priority.TELEOP
    assert memory[Word.LEASE_BLEND_SESSION] == 0
    for priority in Priority:
        with pytest.raises(LeaseError, match="priority teleop, yours is"):
            desk.acquire(Claim(1, "policy", 0.5, priority, blend=True), S, True)


class Watched(dict[int, int]):
    """Words that remember what was written to them, in order."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(Word, 0))
        self.writes: list[tuple[int, int]] = []

    def __setitem__(self, key: int, value: int) -> None:
        self.writes.append((key, value))
        super().__setitem__(key, value)


def test_a_blend_is_agreed_before_the_session_changes_and_leaves_no_gap() -> None:
    memory, desk = Watched(), LeaseDesk(words())
    desk._words = memory  # type: ignore[assignment]
    desk.acquire(Claim(1, "policy", 0.5), S, True)
    memory.writes.clear()
    desk.acquire(Claim(2, "teleop", 0.5, Priority.TELEOP, blend=True), S + S // 4, True)
    order = [word for word, _ in memory.writes]
    assert order.index(Word.LEASE_BLEND_SESSION) < order.index(Word.LEASE_SESSION)
    assert (Word.LEASE_UNTIL_NS, 0) not in memory.writes
    assert memory[Word.LEASE_BLEND_SESSION] == memory[Word.LEASE_SESSION] == 2
    # Whoever takes over at standstill takes no agreement along, nor does a session that comes back.
    desk.release(2, S + S // 4)
    desk.acquire(Claim(3, "next", 0.5), S + S // 4, True)
    assert memory[Word.LEASE_BLEND_SESSION] == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acquire", "renew", "release"]),
            st.integers(1, 3),
            st.sampled_from(Priority),
            st.booleans(),
            st.booleans(),
            st.integers(0, 10**9),
        ),
        max_size=30,
    )
)
def test_a_lease_changes_hands_only_by_its_end_or_by_rank(
    steps: list[tuple[str, int, Priority, bool, bool, int]],
) -> None:
    memory, now = words(), S
    desk = LeaseDesk(memory)
    for what, session, priority, blend, is_moving, later in steps:
        now += later
        was_held, before = desk.is_held(now), int(memory[Word.LEASE_SESSION])
        rank = int(memory[Word.LEASE_PRIORITY])
        if what == "acquire":
            try:
                desk.acquire(Claim(session, str(session), 0.5, priority, blend), now, is_moving)
            except LeaseError:
                assert was_held
        elif what == "renew":
            desk.renew(session, now, now)
        else:
            desk.release(session, now)
        after = int(memory[Word.LEASE_SESSION])
        if was_held and after != before:
            assert priority > rank
            assert blend or not is_moving
            assert (memory[Word.LEASE_BLEND_SESSION] == after) == is_moving
