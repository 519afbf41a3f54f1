import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.pacing import BIN_US, Histogram, Pacer


@given(st.lists(st.integers(0, 39_000_000), min_size=1, max_size=200), st.floats(1, 100))
def test_percentiles_are_right_to_a_bin(durations: list[int], percent: float) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    exact = np.percentile(durations, percent, method="inverted_cdf") / 1000
    assert exact <= histogram.percentile_us(percent) + 1e-9
    assert histogram.percentile_us(percent) <= exact + BIN_US
    assert histogram.max_us == max(durations) / 1000
    assert histogram.count == len(durations)


def test_durations_beyond_the_bins_and_none() -> None:
    histogram = Histogram()
    assert histogram.percentile_us(99) == 0
    histogram.add(10**12)
    histogram.add(-5)
    assert histogram.percentile_us(99) == 1e9
    assert histogram.count == 2


def test_wakes_on_the_grid_and_skips_whole_periods_after_an_overrun() -> None:
    pacer = Pacer(200)
    begin = pacer._deadline_ns
    pacer.wait()
    time.sleep(0.0175)
    woke = pacer.wait()
    assert (pacer._deadline_ns - begin) % pacer.period_ns == 0
    assert woke >= pacer._deadline_ns
    assert pacer.overruns >= 1
    assert pacer.skipped >= 3
    before = pacer.skipped
    # Never a burst: the next cycle is a whole period later.
    assert pacer.wait() - woke > pacer.period_ns / 2
    assert pacer.skipped == before or pacer.overruns >= 2


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
    assert pacer._deadline_ns - begin == pytest.approx(periods * pacer.period_ns, abs=2e6)
