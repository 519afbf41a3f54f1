import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hardware.histogram import BIN_US, EDGES_US, Histogram, drawn


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


@given(st.lists(st.integers(0, 100_000_000), max_size=200))
def test_rows_count_everything_between_their_edges(durations: list[int]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    edges = np.array([0.0, *EDGES_US, np.inf])
    wanted, _ = np.histogram(np.array(durations) / 1000, edges)
    assert [count for _, count in histogram.rows()] == wanted.tolist()


def test_a_picture_shows_the_one_late_cycle_and_no_empty_ends() -> None:
    histogram = Histogram()
    for _ in range(100_000):
        histogram.add(60_000)
    histogram.add(900_000)
    lines = drawn(histogram.rows())
    assert len(lines) == 4
    assert lines[0].split() == ["to", "0.100", "ms", "#" * 40, "100000", "99.999%"]
    assert lines[-1].split() == ["to", "1.000", "ms", "#", "1", "0.001%"]
    assert "#" not in lines[1] + lines[2]
    assert "\n".join(lines).isascii()
    assert drawn(Histogram().rows()) == []
