"""The conformance tests pass on a small world, and fail on one that breaks the contract."""

from typing import Any

import numpy as np
import pytest

from robot.conformance.environment import EnvironmentConformance
from robot.contract import EnvironmentSpecs, Observation
from robot.specs import ArraySpec


class PointWorld:
    """A point on a line; the action is its velocity."""

    def __init__(self, validates: bool = True) -> None:
        state = ArraySpec("observation.state", (1,), unit="m", names=("x",))
        action = ArraySpec("action", (1,), low=-1.0, high=1.0, names=("v",))
        self.specs = EnvironmentSpecs({state.key: state}, action, "joint_position", 0.1, "point", "Reach the end.")
        self._validates = validates
        self._x, self._steps = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        self._x, self._steps = float(np.random.default_rng(seed).uniform(0, 0.5)), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self._validates:
            action = self.specs.action.validate(action)
        self._x, self._steps = self._x + 0.1 * float(action[0]), self._steps + 1
        success = self._x >= 1.0
        return self._observe(), float(success), success, not success and self._steps >= 20, {"success": success}

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        """Holds nothing."""

    def _observe(self) -> Observation:
        return {"observation.state": np.array([self._x], np.float32)}


class TestPointWorld(EnvironmentConformance):
    def make(self) -> PointWorld:
        return PointWorld()


def test_a_world_that_takes_nan_is_found_out() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        EnvironmentConformance().test_refuses_a_wrong_action_and_does_not_move(PointWorld(validates=False), "nan")
