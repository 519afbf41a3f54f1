"""How long things took, counted in bins: cheap enough for every cycle, drawn when the loop has ended."""

from collections.abc import Iterable

import numpy as np

BIN_US = 5
"""Width of a bin [µs]."""
EDGES_US = tuple(step * 10**power for power in range(5) for step in (1, 2, 5) if 5 <= step * 10**power <= 20_000)
"""Upper edges of the rows of a picture [µs]; whatever is longer is one more row."""
_BINS = 8000
_BAR = 40

Rows = list[tuple[float | None, int]]
"""Upper edge [µs], None for the last one, and how many durations lie below it and not below the one before."""


class Histogram:
    """Durations in fixed bins; adding allocates nothing that stays."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, np.int64)
        self._max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration [ns]; negative ones count as zero."""
        self._counts[min(max(duration_ns, 0) // (1000 * BIN_US), _BINS)] += 1
        self._max_ns = max(self._max_ns, duration_ns)

    def percentile_us(self, percent: float) -> float:
        """Upper edge of the bin that holds the percentile [µs], at most the maximum; 0 without samples."""
        cumulated = self._counts.cumsum()
        if not cumulated[-1]:
            return 0.0
        at = int(np.searchsorted(cumulated, np.ceil(percent / 100 * cumulated[-1])))
        return self.max_us if at == _BINS else min((at + 1.0) * BIN_US, self.max_us)

    @property
    def max_us(self) -> float:
        """Longest duration [µs]."""
        return self._max_ns / 1000

    @property
    def count(self) -> int:
        """Number of durations."""
        return int(self._counts.sum())

    def rows(self) -> Rows:
        """The counts between `EDGES_US`, plain JSON."""
        ends = [edge // BIN_US for edge in EDGES_US]
        parts = np.add.reduceat(self._counts, [0, *ends]).tolist()
        return list(zip((*map(float, EDGES_US), None), parts, strict=True))


def drawn(rows: Iterable[tuple[float | None, int]]) -> list[str]:
    """A line of plain ASCII for each row from the first to the last that is not empty."""
    rows = list(rows)
    filled = [index for index, (_, count) in enumerate(rows) if count]
    if not filled:
        return []
    total = sum(count for _, count in rows)
    most = max(count for _, count in rows)
    lines = []
    for index in range(filled[0], filled[-1] + 1):
        edge, count = rows[index]
        label = f"over {EDGES_US[-1] / 1000:7.3f} ms" if edge is None else f"to   {edge / 1000:7.3f} ms"
        # Whatever happened at all is seen: one late cycle in a million matters.
        bar = "#" * max(round(_BAR * count / most), min(count, 1))
        lines.append(f"  {label}  {bar:<{_BAR}}  {count:>9d}  {100 * count / total:7.3f}%")
    return lines
