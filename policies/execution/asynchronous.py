"""Think while playing: the next chunk is asked for while the present one plays; rows that come too late are skipped.

A chunk is asked for `n_action_steps` ticks after the one before it, sooner where its rows would run out otherwise. At
the seam, old and new rows are mixed for a few ticks, because two chunks of one policy need not agree.
"""

from dataclasses import dataclass

import numpy as np

from policies.execution.base import Execution, ExecutionConfig
from robot.contract import ActionChunk, Policy, PolicySpecs
from robot.errors import ConfigError


class Asynchronous(Execution):
    """Late inference costs freshness but never shifts rows in time."""

    def __init__(self, specs: PolicySpecs, blend_rows: int = 0) -> None:
        """Nothing is planned yet.

        Args:
            specs: Of the policy.
            blend_rows: Rows at a seam that are mixtures; row j of them is (j + 1) / (blend_rows + 1) new.
        """
        super().__init__(specs)
        self._new_part = np.arange(1, blend_rows + 1)[:, None] / (blend_rows + 1)
        self._next = 0

    def begin(self, chunk: ActionChunk) -> None:
        """Forget the last episode (see `Execution.begin`)."""
        super().begin(chunk)
        self._next = self._interval()

    def _is_time(self, tick: int) -> bool:
        return tick >= self._next

    def _merged(self, actions: np.ndarray, asked: int, tick: int) -> np.ndarray:
        self._next = asked + self._interval()
        new, old = self._still_ahead(actions, asked, tick), self.rows_from(tick)
        n = min(len(self._new_part), len(new), len(old))
        if n == 0:
            return new
        part = self._new_part[:n]
        mixed = ((1 - part) * old[:n] + part * new[:n]).astype(new.dtype)
        return np.concatenate([mixed, new[n:]])

    def _interval(self) -> int:
        """Ticks from one ask to the next: rows meant to be played, fewer if the successor would come late."""
        return max(1, min(self.specs.n_action_steps, self.specs.horizon - self.delay.rows))


@dataclass(kw_only=True)
class AsynchronousConfig(ExecutionConfig):
    """Keys of `configs/execution/asynchronous.yaml`.

    Attributes:
        blend_rows: Rows at a seam that are mixtures of old and new; 0 for none.
    """

    blend_rows: int = 3

    def __post_init__(self) -> None:
        if self.blend_rows < 0:
            raise ConfigError(f"execution.blend_rows is {self.blend_rows}, expected 0 or more.")

    def build(self, policy: Policy) -> Asynchronous:
        """The execution for a policy; any will do."""
        return Asynchronous(policy.specs, self.blend_rows)
