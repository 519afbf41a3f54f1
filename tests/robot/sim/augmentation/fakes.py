"""A table without physics: a tool that goes half of the way it is sent, a cube that follows fingers closed on it."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.control.action_spaces import ROT6D_NAMES, ee_delta, rot6d_from_matrix
from robot.episodes import folder
from robot.episodes.collecting import Demonstration, Job
from robot.sim.augmentation.augment import AugmentConfig
from robot.sim.augmentation.demonstration import ENVIRONMENT_STATE, STATE, goal
from robot.sim.augmentation.poses import gap, inverse, matrix, poses_of, shifted
from robot.sim.config import EnvConfig
from robot.sim.experts.base import steer
from robot.specs import ArraySpec

WORDS = "Lift the cube from the table."
HOME = matrix(np.array([0.0, 0.0, 0.3]), np.diag([1.0, -1.0, -1.0]))


def pose_elements(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for part in ("x", "y", "z", *ROT6D_NAMES))


def specs(robot: str = "table", task: str = WORDS, sees: bool = True, dt_s: float = 0.05) -> EnvironmentSpecs:
    state = (*pose_elements("ee"), "finger_left", "finger_right")
    observation = {STATE: ArraySpec(STATE, (11,), frame="base", names=state)}
    if sees:
        observation[ENVIRONMENT_STATE] = ArraySpec(ENVIRONMENT_STATE, (9,), frame="base", names=pose_elements("cube"))
    return EnvironmentSpecs(observation, ee_delta(), "ee_delta", dt_s, robot, task)


def about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def flat(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([pose[:3, 3], rot6d_from_matrix(pose[:3, :3])])


class TableWorld(gymnasium.Env[Observation, np.ndarray]):
    """The cube lies at 0.02 m; it is lifted at 0.12 m. Where `slippery`, it falls before."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    render_mode = "rgb_array"
    observation_space = gymnasium.spaces.Dict({})

    def __init__(self, sees: bool = True, slippery: bool = False, step_s: float = 0.0, horizon: int = 120) -> None:
        self.specs = specs(sees=sees)
        self._slippery, self._step_s, self._horizon = slippery, step_s, horizon

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        rng = np.random.default_rng(seed)
        self.cube = matrix(np.array([*rng.uniform(-0.2, 0.2, 2), 0.02]), about_z(rng.uniform(-np.pi, np.pi)))
        self.tool = shifted(HOME, np.array([*rng.normal(0.0, 0.01, 3), 0.0, 0.0, 0.0]))
        self.opening, self._held, self._steps = 0.08, None, 0
        return self._observed(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        time.sleep(self._step_s)
        self.specs.action.validate(action)
        wanted = goal(self.specs, action, self.tool)
        self.tool = shifted(self.tool, gap(self.tool, wanted), 0.5)
        self._grip(float(action[6]))
        self._steps += 1
        success = bool(self.cube[2, 3] > 0.12)
        truncated = not success and self._steps >= self._horizon
        return self._observed(), float(success), success, truncated, {"success": success}

    def _grip(self, action: float) -> None:
        self.opening = float(np.clip(self.opening - 0.01 * action, 0.0, 0.08))
        near = np.linalg.norm(self.tool[:3, 3] - self.cube[:3, 3]) < 0.012
        if self._held is None and action > 0 and near and self.opening <= 0.045:
            self._held = inverse(self.tool) @ self.cube
        if action < 0 or (self._slippery and self.tool[2, 3] > 0.05):
            self._held = None
        if self._held is not None:
            self.opening = max(self.opening, 0.04)
            self.cube = self.tool @ self._held
        else:
            self.cube[2, 3] = max(0.02, self.cube[2, 3] - 0.02)

    def _observed(self) -> Observation:
        fingers = [self.opening / 2, -self.opening / 2]
        found = {STATE: np.concatenate([flat(self.tool), fingers]).astype(np.float32)}
        if ENVIRONMENT_STATE in self.specs.observation:
            found[ENVIRONMENT_STATE] = flat(self.cube).astype(np.float32)
        return found

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        self._steps = 0


class Picker(Policy):
    """Above the cube, turned with it, down, close, up. It sees where the cube is from the world itself."""

    def __init__(self, world: TableWorld) -> None:
        self._world = world
        self.specs = PolicySpecs(world.specs, 1, 1, 1)

    def reset(self, seed=None) -> None:
        pass

    def act(self, observation: Observation) -> ActionChunk:
        names = self.specs.environment.observation[STATE].names
        tool = poses_of(observation[STATE][-1], names, "ee")
        cube, opening = self._world.cube, float(observation[STATE][-1][9] * 2)
        offset = cube[:3, 3] - tool[:3, 3]
        turn = gap(tool, matrix(cube[:3, 3], cube[:3, :3] @ np.diag([1.0, -1.0, -1.0])))[3:]
        aside = float(np.hypot(*offset[:2]))
        if np.linalg.norm(offset) < 0.008 and opening < 0.05:
            action = steer(np.array([0.0, 0.0, 0.05]), turn, 1.0)
        elif np.linalg.norm(offset) < 0.006:
            action = steer(offset, turn, 1.0)
        else:
            hover = 0.08 * np.clip((aside - 0.005) / 0.03, 0.0, 1.0)
            action = steer(offset + np.array([0.0, 0.0, hover]), turn, -1.0)
        return ActionChunk(action.astype(np.float32)[None], 0.05)


def undisturbed(seed: int):
    return np.array


def world(env: EnvConfig, **how: Any) -> TableWorld:
    return TableWorld(**how)


def record_demonstrations(out: Path, count: int = 4, sees: bool = True, first: int = 0) -> list[Path]:
    environment = TableWorld(sees=sees)
    demonstration = Demonstration(environment, Picker(environment), undisturbed)
    job = Job(partial(world, EnvConfig()), out / ".attempts", 0, "expert", "clean")
    for number in range(first, first + count):
        attempt = demonstration.attempt(job, number)
        assert attempt.success
        attempt.path.rename(folder.episode_path(out, number))
    job.folder.rmdir()
    return folder.finished(out)


def config(episodes: Path, out: Path, **changes: Any) -> AugmentConfig:
    values: dict[str, Any] = {
        "episodes": str(episodes),
        "out": str(out),
        "count": 3,
        "guide": "coverage",
        "select": "nearest",
        "neighbours": 2,
        "segments": "declared",
        "noise": 0.0,
        "speed_m": 0.4,
        "turn_rad": 3.0,
        "keep": "success",
        "codec": "jpeg",
        "seed": 1000,
        "workers": 1,
    }
    return AugmentConfig(**{**values, **changes})
