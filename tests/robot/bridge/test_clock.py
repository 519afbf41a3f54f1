from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.bridge.clock import DRIFT, KEPT, ClockSync

MS = 1_000_000


def exchange(sync: ClockSync, now: int, there: Callable[[int], int], out: int, back: int, think: int = 0) -> None:
    """One exchange at our time `now`, with a bridge whose clock shows `there(ours)`."""
    received = now + out + think + back
    sync.add(now, there(now + out), there(now + out + think), received)


@given(
    st.integers(-(10**15), 10**15),
    st.lists(st.tuples(st.integers(0, 300 * MS), st.integers(0, 300 * MS), st.integers(0, MS)), min_size=1),
)
def test_the_true_offset_is_within_the_uncertainty(offset: int, trips: list[tuple[int, int, int]]) -> None:
    sync, now = ClockSync(), 10**12
    for out, back, think in trips:
        exchange(sync, now, lambda t: t + offset, out, back, think)
        now += 1000 * MS
        assert abs(sync.offset_ns - offset) <= sync.uncertainty_ns
    assert sync.steps == 0


@given(st.floats(-0.9 * DRIFT, 0.9 * DRIFT), st.lists(st.integers(0, 20 * MS), min_size=5, max_size=60))
def test_clocks_that_drift_are_followed(drift: float, delays: list[int]) -> None:
    sync, now = ClockSync(), 0

    def there(ours: int) -> int:
        return ours + 123 + int(drift * ours)

    for delay in delays:
        exchange(sync, now, there, delay, 0)
        received = now + delay
        assert abs(sync.offset_ns - (there(received) - received)) <= sync.uncertainty_ns + 2
        now += 1000 * MS
    assert sync.steps == 0


@pytest.mark.parametrize("step", [-10_000 * MS, -3 * MS, 3 * MS, 10_000 * MS])
def test_a_clock_that_jumps_is_noticed_at_the_next_exchange(step: int) -> None:
    sync = ClockSync()
    for i in range(20):
        exchange(sync, i * 1000 * MS, lambda t: t + 50 * MS, MS // 5, MS // 5)
    exchange(sync, 20_000 * MS, lambda t: t + 50 * MS + step, MS // 5, MS // 5)
    assert sync.steps == 1
    assert abs(sync.offset_ns - (50 * MS + step)) <= sync.uncertainty_ns < MS
    exchange(sync, 21_000 * MS, lambda t: t + 50 * MS + step, MS, 0)
    assert sync.steps == 1


def test_the_least_delayed_exchange_counts_while_it_is_remembered() -> None:
    sync = ClockSync()
    exchange(sync, 0, lambda t: t, 1000, 1000)
    good = sync.uncertainty_ns
    for i in range(1, KEPT):
        exchange(sync, i * 1000, lambda t: t, 40 * MS, 0)
        assert good <= sync.uncertainty_ns < MS
    exchange(sync, KEPT * 1000, lambda t: t, 40 * MS, 0)
    assert sync.uncertainty_ns > 19 * MS


def test_times_that_run_backwards_are_no_exchange() -> None:
    sync = ClockSync()
    exchange(sync, 0, lambda t: t + 5, 10, 10)
    before = (sync.offset_ns, sync.uncertainty_ns)
    sync.add(100, 200, 150, 300)
    sync.add(100, 0, 10**9, 200)
    sync.add(300, 200, 200, 100)
    assert (sync.offset_ns, sync.uncertainty_ns) == before
