"""How regularly the messages of a channel came."""

from dataclasses import dataclass

import numpy as np

GAP = 3.0
"""An interval is a gap where it is so many times the median one."""


@dataclass(frozen=True)
class Timing:
    """Of one channel.

    Attributes:
        count: Messages.
        rate_hz: Messages a second, on average; 0 for a single one.
        median_s: Median interval [s].
        p99_s: 99th percentile of the intervals [s].
        longest_s: Longest interval [s].
        gaps_s: Begin and end of each gap, in seconds after `origin_ns` of `timing`, shape (N, 2).
    """

    count: int
    rate_hz: float
    median_s: float
    p99_s: float
    longest_s: float
    gaps_s: np.ndarray

    def words(self) -> str:
        """`500 Hz, p99 2.1 ms, longest 12.0 ms, 1 gap`."""
        if self.count < 2:
            return f"{self.count} message"
        gaps = f", {len(self.gaps_s)} gap{'s' if len(self.gaps_s) > 1 else ''}" if len(self.gaps_s) else ""
        p99, longest = 1000 * self.p99_s, 1000 * self.longest_s
        return f"{self.rate_hz:.4g} Hz, p99 {p99:.1f} ms, longest {longest:.1f} ms{gaps}"


def timing(t_ns: np.ndarray, origin_ns: int) -> Timing:
    """Of messages at these times (N,), of which there is at least one."""
    intervals = np.diff(t_ns) / 1e9
    if not len(intervals):
        return Timing(len(t_ns), 0.0, 0.0, 0.0, 0.0, np.zeros((0, 2)))
    median = float(np.median(intervals))
    at = np.flatnonzero(intervals > GAP * median)
    gaps = np.stack([t_ns[at] - origin_ns, t_ns[at + 1] - origin_ns], axis=1) / 1e9
    p99 = float(np.quantile(intervals, 0.99))
    return Timing(len(t_ns), float(1 / intervals.mean()), median, p99, float(intervals.max()), gaps)
