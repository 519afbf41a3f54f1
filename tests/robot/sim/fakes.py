"""A world without physics: small arrays of several types, episodes that end both ways, and faults on demand."""

import os
import signal
from typing import Any

import gymnasium
import numpy as np

from robot.contract import EnvironmentSpecs, Observation
from robot.errors import DeviceError
from robot.sim.config import EnvConfig
from robot.sim.spaces import box
from robot.specs import ArraySpec

DIE, FAIL, REFUSE = 0.5, 0.25, 0.125
"""First elements of an action that make the world die by SIGKILL, divide by zero, and raise an error of ours."""

SPECS = EnvironmentSpecs(
    observation={
        "observation.state": ArraySpec("observation.state", (3,), names=("draw", "step", "sum")),
        "observation.images.front": ArraySpec("observation.images.front", (4, 5, 3), "uint8", 0, 255),
        "observation.depth": ArraySpec("observation.depth", (2, 2), "float64"),
    },
    action=ArraySpec("action", (2,), low=-1.0, high=1.0, names=("x", "y")),
    action_space="ee_delta",
    dt_s=0.05,
    robot="none",
    task="Count.",
)


class CountingWorld(gymnasium.Env[Observation, np.ndarray]):
    """Counts its steps; each episode draws its length and how it will end."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    render_mode = "rgb_array"
    specs = SPECS

    def __init__(self) -> None:
        self.observation_space: Any = gymnasium.spaces.Dict({key: box(spec) for key, spec in SPECS.observation.items()})
        self.action_space: Any = box(SPECS.action)
        self.closed = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.draw = float(self.np_random.random())
        if options:
            if np.size(options["state"]) != 1:
                raise DeviceError("This state is of another world.")
            self.draw = float(options["state"][0])
        self.length, self.count, self.sum = int(3 + 7 * self.draw), 0, 0.0
        return self._observation(), {"success": False, "drawn": {"length": self.length}}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if action[0] == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if action[0] == REFUSE:
            raise DeviceError("The world is out of order.")
        self.count += 1
        self.sum += 1 / 0 if action[0] == FAIL else float(action.sum(dtype=np.float64))
        over, by_success = self.count >= self.length, self.length % 2 == 0
        info: dict[str, Any] = {"success": over and by_success}
        return self._observation(), self.sum, over and by_success, over and not by_success, info

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), self.count, np.uint8)

    def close(self) -> None:
        self.closed += 1

    def _observation(self) -> Observation:
        return {
            "observation.state": np.array([self.draw, self.count, self.sum], np.float32),
            "observation.images.front": np.full((4, 5, 3), self.count + 100, np.uint8),
            "observation.depth": np.full((2, 2), self.draw * 1e-9),
        }


def counting(config: EnvConfig) -> CountingWorld:
    """A world for a worker process."""
    return CountingWorld()


def broken(config: EnvConfig) -> CountingWorld:
    """Fails where it is made."""
    raise KeyError("a missing mesh")
