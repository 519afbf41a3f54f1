"""A small world, its dataset and its heads, for tests of policies."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from policies.act import ACTConfig
from policies.diffusion import DiffusionConfig
from policies.train import TrainConfig, train
from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.errors import RenderingError
from robot.sim.states import StoredState
from robot.specs import ArraySpec

STATE, GOAL = "observation.state", "observation.environment_state"

SPECS = EnvironmentSpecs(
    observation={STATE: ArraySpec(STATE, (2,), names=("x", "y")), GOAL: ArraySpec(GOAL, (3,))},
    action=ArraySpec("action", (2,), low=-1.0, high=1.0),
    action_space="ee_delta",
    dt_s=0.05,
    robot="Point",
    task="go to the goal",
)


def diffusion(**changes: Any) -> DiffusionConfig:
    return DiffusionConfig(
        **{"horizon": 8, "n_action_steps": 4, "down_dims": [16, 32], "step_embedding": 16, "inference_timesteps": 5}
        | changes
    )


def act(**changes: Any) -> ACTConfig:
    return ACTConfig(
        **{"horizon": 8, "n_action_steps": 4, "width": 32, "n_heads": 2, "feedforward": 32, "style_size": 4} | changes
    )


HEADS = {"diffusion": diffusion, "act": act}


def demonstrations(episodes: int = 12, frames: int = 20) -> Dataset:
    """A point that goes to its goal; the third number of the goal is constant."""
    rng = np.random.default_rng(0)
    recorded = []
    for _ in range(episodes):
        position, goal = rng.uniform(-1, 1, (2, 2))
        states, actions = [], []
        for _ in range(frames):
            action = np.clip(2 * (goal - position), -1, 1)
            states.append(position)
            actions.append(action)
            position = position + 0.1 * action
        goals = np.tile([*goal, 0.5], (frames, 1))
        recorded.append({STATE: np.array(states), GOAL: goals, "action": np.array(actions)})
    return Dataset.from_episodes(SPECS, recorded)


def train_config(out: Path, head: str = "diffusion", **changes: Any) -> TrainConfig:
    policy = changes.pop("policy", None) or HEADS[head]()
    values = {
        "dataset": "unused",
        "steps": 6,
        "batch_size": 16,
        "lr": 1e-3,
        "log_every": 2,
        "save_every": 3,
        "threads": 1,
    } | changes
    return TrainConfig(policy=policy, out=str(out), **values)


def trained(out: Path, head: str = "diffusion", **changes: Any) -> Path:
    """A run folder with a checkpoint."""
    train(train_config(out, head, **changes), demonstrations(), lambda: False)
    return out


class PointWorld:
    """The world of the demonstrations; cannot render where `renders` is false."""

    def __init__(self, renders: bool = True, specs: EnvironmentSpecs = SPECS) -> None:
        self.specs = specs
        self._renders = renders
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        rng = np.random.default_rng(seed)
        self._position, self._goal = rng.uniform(-1, 1, (2, 2))
        self._steps = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.specs.action.validate(action)
        self._position = self._position + 0.1 * action
        self._steps += 1
        success = bool(np.linalg.norm(self._position - self._goal) < 0.1)
        return self._observation(), float(success), success, self._steps >= 30, {"success": success}

    def render(self) -> np.ndarray:
        if not self._renders:
            raise RenderingError("no OpenGL here")
        return np.full((32, 48, 3), self._steps, np.uint8)

    def close(self) -> None:
        self._steps = 0

    def _observation(self) -> dict[str, np.ndarray]:
        goal = np.array([*self._goal, 0.5], np.float32)
        return {STATE: self._position.astype(np.float32), GOAL: goal}


def dying_world() -> PointWorld:
    import os

    os._exit(3)


blind_world = partial(PointWorld, False)


class StatefulWorld(PointWorld):
    """A point world that can begin where a stored state puts the point and its goal."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        if options is not None:
            self._position, self._goal = options["state"].flat[1:3].copy(), options["state"].flat[3:5].copy()
        return self._observation(), {}


def stored(position: np.ndarray, goal: np.ndarray) -> StoredState:
    """A state of `StatefulWorld`."""
    nothing = np.zeros(0)
    return StoredState("Point", "0" * 64, np.concatenate([[0.0], position, goal]), nothing, np.zeros((0, 7)), nothing)
