"""Temporal ensembling (Zhao et al. 2023, "Learning fine-grained bimanual manipulation with low-cost hardware", IV-B).

A chunk is made as often as inference allows, and what plays is the weighted mean of what all of them say about a tick.
The oldest one that says anything has weight 1, the next exp(-m), the one after it exp(-2 m): with m > 0 the oldest
counts most, as in the paper, whose public code has m = 0.01; with m < 0 the newest. A chunk says something about a tick
where it has a row for it, whatever its numbers are: an action of zeros is an action.
"""

import math
from dataclasses import dataclass

import numpy as np

from policies.execution.base import Execution, ExecutionConfig
from robot.contract import ActionChunk, Policy, PolicySpecs
from robot.errors import ConfigError


class Ensembling(Execution):
    """Asks at every tick at which nothing is being inferred."""

    def __init__(self, specs: PolicySpecs, decay: float) -> None:
        """Nothing is planned yet.

        Args:
            specs: Of the policy.
            decay: m: weights fall by exp(-m) from each chunk to the next newer one.
        """
        super().__init__(specs)
        self._decay = decay
        self._chunks: list[tuple[int, np.ndarray]] = []

    def begin(self, chunk: ActionChunk) -> None:
        """Forget the last episode (see `Execution.begin`)."""
        super().begin(chunk)
        self._chunks = [(0, chunk.actions)]

    def _is_time(self, tick: int) -> bool:
        return True

    def _merged(self, actions: np.ndarray, asked: int, tick: int) -> np.ndarray:
        self._chunks.append((asked, actions))
        self._chunks = [(begin, rows) for begin, rows in self._chunks if begin + len(rows) > tick]
        if not self._chunks:
            return self._still_ahead(actions, asked, tick)
        self.dropped_rows += min(tick - asked, len(actions))
        last = max(begin + len(rows) for begin, rows in self._chunks)
        return np.stack([self._mean(at) for at in range(tick, last)]).astype(actions.dtype)

    def _mean(self, tick: int) -> np.ndarray:
        rows = np.stack([rows[tick - begin] for begin, rows in self._chunks if tick < begin + len(rows)])
        weights = np.exp(-self._decay * np.arange(len(rows)))
        return weights @ rows / weights.sum()


@dataclass(kw_only=True)
class EnsemblingConfig(ExecutionConfig):
    """Keys of `configs/execution/ensembling.yaml`.

    Attributes:
        decay: The m of Zhao et al.; above 0 the oldest chunk counts most, below 0 the newest.
    """

    decay: float = 0.01

    def __post_init__(self) -> None:
        if not math.isfinite(self.decay):
            raise ConfigError(f"execution.decay is {self.decay}, expected a finite number.")

    def build(self, policy: Policy) -> Ensembling:
        """The execution for a policy; any will do."""
        return Ensembling(policy.specs, self.decay)
