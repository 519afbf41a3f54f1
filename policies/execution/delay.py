"""How many rows pass while a chunk is being made: a high quantile of what was seen lately."""

import math
from collections import deque

import numpy as np

WINDOW = 20
"""Inferences that count. One that took long is forgotten after so many others."""
QUANTILE = 0.9


class DelayEstimate:
    """Counts rows that were consumed, not seconds: what is measured is what has to be bridged."""

    def __init__(self) -> None:
        self._seen: deque[int] = deque(maxlen=WINDOW)

    def add(self, rows: int) -> None:
        """Count one inference: rows that were played, or should have been, from its observation to its chunk."""
        self._seen.append(rows)

    @property
    def rows(self) -> int:
        """Rows that will have passed when the next chunk is ready; 0 before anything was measured."""
        return math.ceil(np.quantile(self._seen, QUANTILE, method="higher")) if self._seen else 0
