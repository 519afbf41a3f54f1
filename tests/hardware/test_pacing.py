import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware import pacing
from hardware.pacing import Pacer

PERIOD = 2_000_000


class Clock:
    """A clock of the test's own, in place of the module `time`: sleeps as long as it is told to, and some more."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self.now = 10**12
        self.suspended = self.oversleep = 0

    def monotonic_ns(self) -> int:
        self.now += 50
        return self.now

    def clock_gettime_ns(self, clock: int) -> int:
        assert clock == self.CLOCK_BOOTTIME
        return self.now + self.suspended

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += round(seconds * 1e9) + self.oversleep


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(pacing, "time", fake)
    return fake


stalls = st.one_of(st.integers(0, 100_000), st.integers(0, 3 * PERIOD), st.integers(0, 500 * PERIOD))


@settings(deadline=None)
@given(st.lists(st.tuples(stalls, stalls), min_size=2, max_size=100), st.sampled_from([0, 200]))
def test_no_pattern_of_stalls_makes_a_burst(pattern: list[tuple[int, int]], spin_us: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(pacing, "time", clock)
        pacer = Pacer(500, spin_us=spin_us)
        begin, woke, skipped = pacer._due_ns, [], 0
        for busy, oversleep in pattern:
            clock.now += busy
            clock.oversleep = oversleep
            woke.append(pacer.wait())
            assert woke[-1] >= pacer._due_ns
            assert pacer.skipped >= skipped
            skipped = pacer.skipped
        gaps = [later - earlier for earlier, later in pairwise(woke)]
        assert min(gaps) >= PERIOD // 2
        # Every deadline lies on the grid, and every period of it was either kept or counted.
        assert pacer._due_ns - begin == (len(pattern) + pacer.skipped) * PERIOD
        assert pacer.overruns <= pacer.skipped


def test_a_punctual_loop_keeps_every_period(clock: Clock) -> None:
    pacer = Pacer(500)
    clock.oversleep = 60_000
    begin = clock.now
    for _ in range(1000):
        clock.now += 300_000
        pacer.wait()
    assert pacer.skipped == pacer.overruns == 0
    assert clock.now - begin == pytest.approx(1000 * PERIOD, abs=100_000)
    assert 60 <= pacer.lateness.percentile_us(50) <= 65
    assert 300 <= pacer.busy.percentile_us(50) <= 365
    assert pacer.gap_ns == pytest.approx(PERIOD, abs=1000)


def test_the_spin_ends_on_the_deadline(clock: Clock) -> None:
    pacer = Pacer(500, spin_us=200)
    clock.oversleep = 150_000
    for _ in range(10):
        pacer.wait()
    # The fake clock's steps are 50 ns.
    assert pacer.lateness.max_us <= 0.1


def test_the_gap_shows_a_suspended_machine_and_a_new_beat_forgives(clock: Clock) -> None:
    pacer = Pacer(500)
    pacer.wait()
    assert pacer.gap_ns == pytest.approx(PERIOD, abs=1000)
    clock.suspended += 10**11
    pacer.wait()
    assert pacer.gap_ns == pytest.approx(10**11 + PERIOD, abs=1000)
    pacer.wait()
    assert pacer.gap_ns == pytest.approx(PERIOD, abs=1000)
    clock.now += 10**9
    pacer.restart()
    assert pacer.gap_ns == 0
    pacer.wait()
    assert pacer.gap_ns == pytest.approx(PERIOD, abs=1000)
    assert pacer.busy.max_us < 1
    assert pacer.skipped == 0


def beaten(clock: Clock, pacer: Pacer, at: int) -> int:
    """One cycle of a loop that a robot clocks, which beats at `at`."""
    woke = pacer.wait()
    assert woke == clock.now
    clock.now = max(clock.now, at)
    began = pacer.arrived(woke)
    clock.now += 200_000
    return began


def test_the_robots_beat_is_followed_though_its_clock_is_not_ours(clock: Clock) -> None:
    for drift in (-100e-6, 0.0, 100e-6):
        pacer, begin = Pacer(500, "robot"), clock.now
        for index in range(1, 5000):
            at = begin + round(index * PERIOD * (1 + drift))
            assert beaten(clock, pacer, at) == pytest.approx(at, abs=200)
        assert pacer.skipped == pacer.overruns == 0
        assert pacer.lateness.max_us < 20
        assert 200 <= pacer.busy.percentile_us(50) <= 205


def test_beats_that_the_robot_leaves_out_are_counted(clock: Clock) -> None:
    pacer, begin = Pacer(500, "robot"), clock.now
    for index in (1, 2, 3, 7, 8, 9, 10, 60, 61, 62):
        beaten(clock, pacer, begin + index * PERIOD)
        expected = {7: 4, 60: 50}.get(index, 1) * PERIOD
        assert pacer.gap_ns == pytest.approx(expected, abs=1000)
    assert (pacer.overruns, pacer.skipped) == (2, 3 + 49)
    assert pacer.lateness.count == 10
    assert pacer.lateness.max_us == pytest.approx(49 * PERIOD / 1000, rel=0.01)


def test_a_loop_with_a_beat_of_its_own_does_not_listen(clock: Clock) -> None:
    pacer = Pacer(500)
    woke = pacer.wait()
    clock.now += 500_000
    assert pacer.arrived(woke) == woke
    assert pacer.lateness.count == 1


def test_restart_forgives() -> None:
    pacer = Pacer(1000)
    time.sleep(0.02)
    pacer.restart()
    pacer.wait()
    assert pacer.busy.max_us < 15_000


@pytest.mark.parametrize("rate_hz", [50, 500])
def test_mean_rate_is_exact(rate_hz: float) -> None:
    pacer, cycles = Pacer(rate_hz), int(rate_hz * 0.4)
    begin = time.monotonic_ns()
    for _ in range(cycles):
        pacer.wait()
    periods = cycles + pacer.skipped
    assert time.monotonic_ns() - begin >= periods * pacer.period_ns
    assert pacer._due_ns - begin == pytest.approx(periods * pacer.period_ns, abs=2e6)


def test_a_stopped_process_sees_its_gap_and_does_not_catch_up() -> None:
    program = (
        "from hardware.pacing import Pacer\n"
        "pacer, gaps, woke = Pacer(500), [], []\n"
        "print('go', flush=True)\n"
        "while not gaps or max(gaps) < 1e8:\n"
        "    woke.append(pacer.wait()); gaps.append(pacer.gap_ns)\n"
        "for _ in range(20):\n"
        "    woke.append(pacer.wait()); gaps.append(pacer.gap_ns)\n"
        "close = min(b - a for a, b in zip(woke, woke[1:]))\n"
        "print(max(gaps), close, pacer.skipped)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(0.15)
    os.kill(process.pid, signal.SIGCONT)
    gap, closest, skipped = map(int, process.communicate(timeout=10)[0].split())
    assert gap >= 140_000_000
    assert closest >= PERIOD // 2
    assert skipped >= 70
