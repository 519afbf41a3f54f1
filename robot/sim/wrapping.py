"""What wraps a world has its methods: this passes on those that a wrapper leaves as they are."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from robot.contract import EnvironmentSpecs, Observation
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.states import StoredState
from robot.sim.stepping import Stepper


class WorldWrapper(gymnasium.Wrapper[Observation, np.ndarray, Observation, np.ndarray]):
    """A wrapped `RobosuiteEnvironment`, or a wrapper of one.

    Attributes:
        specs: What it gives and takes.
    """

    env: "RobosuiteEnvironment | WorldWrapper"

    def __init__(self, environment: "RobosuiteEnvironment | WorldWrapper") -> None:
        super().__init__(environment)
        self.specs: EnvironmentSpecs = environment.specs

    @property
    def model(self) -> Any:
        """The world's `mujoco.MjModel`."""
        return self.env.model

    @property
    def data(self) -> Any:
        """The world's `mujoco.MjData`."""
        return self.env.data

    @property
    def stepper(self) -> Stepper | None:
        """The compiled controller and physics, or None where robosuite's own loop runs."""
        return self.env.stepper

    @property
    def n_substeps(self) -> int:
        """Steps of physics in a control period."""
        return self.env.n_substeps

    @property
    def n_arms(self) -> int:
        """Number of arms."""
        return self.env.n_arms

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one control period; takes and raises what the wrapped environment does."""
        return self.env.step(action)

    def render(self) -> np.ndarray:
        """The world as a camera beside the table sees it: RGB, uint8, (H, W, 3), upright."""
        return self.env.render()

    def fill_observation(self, out: Mapping[str, np.ndarray]) -> None:
        """Write the present observation into arrays by key."""
        self.env.fill_observation(out)

    def stored_state(self) -> StoredState:
        """The present state, for `reset(options={"state": ...})` of an environment of the same model."""
        return self.env.stored_state()

    def success(self) -> bool:
        """Whether the task is fulfilled now, by robosuite's criterion."""
        return self.env.success()

    def appearance_changed(self) -> None:
        """Pass on that something has changed how the world looks."""
        self.env.appearance_changed()
