"""Think, play, think again: the arm holds while a chunk is made. Nothing is ever stale, and nothing flows."""

from dataclasses import dataclass

import numpy as np

from policies.execution.base import Execution, ExecutionConfig
from robot.contract import Policy


class Synchronous(Execution):
    """Plays the first `n_action_steps` rows of a chunk, then asks for the next and waits."""

    def _begun(self, actions: np.ndarray) -> np.ndarray:
        return actions[: self.specs.n_action_steps]

    def _is_time(self, tick: int) -> bool:
        return tick >= self.end

    def _merged(self, actions: np.ndarray, asked: int, tick: int) -> np.ndarray:
        # The arm stood still since the observation, so that row 0 is as good now as it was then.
        return self._begun(actions)


@dataclass(kw_only=True)
class SynchronousConfig(ExecutionConfig):
    """Has no keys."""

    def build(self, policy: Policy) -> Synchronous:
        """The execution for a policy; any will do."""
        return Synchronous(policy.specs)
