"""A world of one point on a line, a demonstrator that drives it to the origin, and datasets of random numbers."""

import os
import resource
import signal
import time

import numpy as np

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.episodes.dataset import Dataset
from robot.specs import ArraySpec

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"


def point_specs(robot: str = "point", dt_s: float = 0.05, names: tuple[str, ...] = ("x", "v")) -> EnvironmentSpecs:
    state = ArraySpec(STATE, (len(names),), names=names, unit="m m/s", frame="base")
    goal = ArraySpec(ENVIRONMENT_STATE, (1,), names=("goal",), unit="m", frame="base")
    action = ArraySpec("action", (3,), low=-1.0, high=1.0, names=("a", "b", "c"))
    return EnvironmentSpecs({STATE: state, ENVIRONMENT_STATE: goal}, action, "ee_delta", dt_s, robot, "reach the goal")


def random_episode(specs: EnvironmentSpecs, length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    episode = {
        key: rng.normal(size=(length, *spec.shape)).astype(np.float32) for key, spec in specs.observation.items()
    }
    episode["action"] = rng.uniform(-1, 1, (length, *specs.action.shape)).astype(np.float32)
    episode["next.reward"] = rng.uniform(size=length).astype(np.float32)
    episode["next.success"] = rng.uniform(size=length) > 0.5
    episode["next.terminated"] = np.arange(length) == length - 1
    episode["next.truncated"] = np.zeros(length, bool)
    return episode


def random_dataset(lengths: tuple[int, ...] = (5, 1, 9), seed: int = 0) -> Dataset:
    specs = point_specs()
    return Dataset.from_episodes(specs, [random_episode(specs, n, seed + i) for i, n in enumerate(lengths)])


class PointWorld:
    """A point that starts at random and is pushed by the first element of the action.

    Seeds whose draw exceeds `hard` never succeed, so that some attempts fail.
    """

    def __init__(self, horizon: int = 12, hard: float = 0.75, step_s: float = 0.0) -> None:
        self.specs = point_specs()
        self._horizon, self._hard, self._step_s = horizon, hard, step_s
        self._x = self._v = 0.0
        self._steps = 0
        self._is_hard = False

    def reset(self, *, seed=None, options=None):
        rng = np.random.default_rng(seed)
        self._x, self._v, self._steps = float(rng.uniform(-1, 1)), 0.0, 0
        self._is_hard = bool(rng.uniform() > self._hard)
        return self._observe(), {"success": False}

    def step(self, action):
        time.sleep(self._step_s)
        self.specs.action.validate(action)
        self._v = float(action[0]) / 3
        self._x += self._v
        self._steps += 1
        success = abs(self._x) < 0.05 and not self._is_hard
        truncated = not success and self._steps >= self._horizon
        return self._observe(), -abs(self._x), success, truncated, {"success": success}

    def _observe(self) -> Observation:
        return {
            STATE: np.array([self._x, self._v], np.float32),
            ENVIRONMENT_STATE: np.zeros(1, np.float32),
        }

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        self._steps = 0


class PointPusher(Policy):
    def __init__(self, specs: EnvironmentSpecs) -> None:
        self.specs = PolicySpecs(specs, 1, 1, 1)

    def reset(self, seed=None) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Observation) -> ActionChunk:
        push = np.clip(-3 * observation[STATE][-1, 0], -1, 1)
        action = np.array([[push, self._rng.uniform(-0.5, 0.5), 0.1]], np.float32)
        return ActionChunk(action, self.specs.environment.dt_s)


class KilledPusher(PointPusher):
    """Dies as by `kill -9` in the first episode whose start is left of -0.5."""

    def act(self, observation: Observation) -> ActionChunk:
        if observation[STATE][-1, 0] < -0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().act(observation)


class DiskFiller(PointPusher):
    """From its first action on, no file of its process may grow beyond some bytes."""

    def act(self, observation: Observation) -> ActionChunk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        return super().act(observation)


class BrokenPusher(PointPusher):
    def act(self, observation: Observation) -> ActionChunk:
        raise ZeroDivisionError("a defect in the demonstrator")


def seeded_noise(seed: int):
    rng = np.random.default_rng(seed)

    def disturb(action: np.ndarray) -> np.ndarray:
        return np.clip(action + rng.normal(0, 0.05, action.shape), -1, 1).astype(np.float32)

    return disturb
