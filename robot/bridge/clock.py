"""The bridge's clock as a client knows it: offset and uncertainty from exchanges of four times."""

from collections import deque

KEPT = 16
"""Exchanges that are remembered."""
DRIFT = 1e-4
"""How far two clocks may part, as a share of time: 100 ppm, twice what cheap crystals do."""


class ClockSync:
    """Keeps the best of the last exchanges (RFC 5905, section 8) and notices when a clock has jumped.

    The true offset lies within half the time that an exchange was under way. An exchange that contradicts what is known
    means a clock has jumped (a machine was suspended, or is another one now): then only the new one counts.

    Attributes:
        offset_ns: What to add to our CLOCK_MONOTONIC to have the bridge's.
        uncertainty_ns: How far off that may be.
        steps: How many times a clock has jumped.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=KEPT)
        self.offset_ns = self.uncertainty_ns = self.steps = 0

    def add(self, sent: int, arrived: int, left: int, received: int) -> None:
        """Count one exchange: when the request was sent (ours), arrived and the answer left (the bridge's), and came.

        One whose times run backwards is no exchange and is left out.
        """
        under_way = (received - sent) - (left - arrived)
        if under_way < 0 or received < sent or left < arrived:
            return
        offset, half = ((arrived - sent) + (left - received)) // 2, under_way // 2 + 1
        if self._samples and abs(offset - self.offset_ns) > half + self._best(received)[0]:
            self._samples.clear()
            self.steps += 1
        self._samples.append((half, offset, received))
        self.uncertainty_ns, self.offset_ns = self._best(received)

    def _best(self, now: int) -> tuple[int, int]:
        """Least uncertainty now, and its offset; what is known grows less certain as clocks drift apart."""
        return min((half + int(DRIFT * abs(now - when)), offset) for half, offset, when in self._samples)
