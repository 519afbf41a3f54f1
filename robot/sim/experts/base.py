"""What the scripted experts have in common.

They are closed-loop, and functions of the present observation alone. There is no hidden phase. Whether to approach,
close or lift follows from where the object is between the fingers and how far they are apart, so a policy that sees
the same observation can learn the same answer, and whatever goes wrong (a slip, a push, a grasp of nothing) leads back
to the beginning by itself.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.control.action_spaces import POSITION_SCALE_M, ROTATION_SCALE_RAD, matrix_from_rot6d
from robot.errors import ConfigError, SpecError

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"

UP = np.array([0.0, 0.0, 1.0])
POSITION_GAIN = 1.2
"""Commanded displacement per displacement wanted: the arm covers about half of what one control period asks for."""

SPEED = 0.7
"""Share of the largest displacement that is commanded: unhurried enough for a chunk of actions to be foreseen."""

ROTATION_GAIN = 1.5


class Expert(Policy):
    """One `ee_delta` action for one observation. A subclass names what it reads and implements `decide`.

    Attributes:
        READS: Names of elements by key of the observation that it cannot do without.
    """

    READS: Mapping[str, tuple[str, ...]]

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """Check that the environment is one that this expert can read and act in.

        Raises:
            ConfigError: Its action space is not `ee_delta`, or its observations are those of another task.
        """
        name = type(self).__name__
        if specs.action_space != "ee_delta":
            raise ConfigError(f"{name} acts in ee_delta, the environment takes {specs.action_space}.")
        for key, names in self.READS.items():
            if key not in specs.observation or not set(names) <= set(specs.observation[key].names):
                raise ConfigError(f"{name} reads {', '.join(names)} in {key!r}, the environment has them not.")
        self.specs = PolicySpecs(environment=specs, n_obs_steps=1, horizon=1, n_action_steps=1)

    def reset(self, seed: int | None = None) -> None:
        """Nothing to forget, nothing to draw: the expert is a function of the observation."""

    def act(self, observation: Observation) -> ActionChunk:
        """One `ee_delta` action. Raises `SpecError` where an observation is missing or does not fit."""
        state, environment = (self._newest(observation, key) for key in (STATE, ENVIRONMENT_STATE))
        action = self.decide(state, environment)
        return ActionChunk(action.astype(np.float32)[None], self.specs.environment.dt_s)

    @abstractmethod
    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """The action (7,) that answers `observation.state` and `observation.environment_state`, float64."""

    def _newest(self, observation: Observation, key: str) -> np.ndarray:
        if key not in observation:
            raise SpecError(f"{type(self).__name__} needs {key!r}, got {sorted(observation)}.")
        return self.specs.environment.observation[key].validate(observation[key][-1]).astype(np.float64)


def steer(shift: np.ndarray, turn: np.ndarray, gripper: float, speed: float = SPEED) -> np.ndarray:
    """The `ee_delta` (7,) towards a displacement (3,) [m] and a turn (3,), axis-angle [rad], both in the base frame.

    Args:
        shift: From the tool to where it should be.
        turn: From the tool's attitude to the one it should have.
        gripper: -1 opens, 1 closes.
        speed: Share of the largest displacement in a control period that is asked for at most.
    """
    move = POSITION_GAIN * shift / POSITION_SCALE_M
    move *= min(1.0, speed / max(float(np.abs(move).max()), 1e-9))
    rotate = np.clip(ROTATION_GAIN * turn / ROTATION_SCALE_RAD, -1.0, 1.0)
    return np.concatenate([move, rotate, [gripper]])


def ramp(x: float, zero: float, one: float) -> float:
    """From 0 at `zero` to 1 at `one`, straight between and flat beyond."""
    return float(np.clip((x - zero) / (one - zero), 0.0, 1.0))


class PoseReader:
    """Reads the pose of one thing from an observation vector, by the names of the vector's elements."""

    def __init__(self, names: Sequence[str], name: str) -> None:
        """Find `name`_x and the eight elements after it among `names`. Raises `ConfigError` where it is not there."""
        if f"{name}_x" not in names:
            raise ConfigError(f"No pose of {name!r} among {', '.join(names)}.")
        self._at = names.index(f"{name}_x")

    def __call__(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) in the base frame."""
        return vector[self._at : self._at + 3], matrix_from_rot6d(vector[self._at + 3 : self._at + 9])


STRAIGHT_RAD = -0.47
"""Angle q4 at which the Panda's shoulder, elbow and wrist are in line; beyond it the elbow is swung through."""


def flip_back(tool: np.ndarray, turn: np.ndarray, gripper: float) -> np.ndarray:
    """The `ee_delta` (7,) that stretches a Panda's arm, outwards and up, until a swung-through elbow springs back.

    Forces inwards would only press the elbow against its limit.

    Args:
        tool: Position of the tool [m], off the base's axis.
        turn: As for `steer`.
        gripper: As for `steer`.
    """
    outwards = tool * [1.0, 1.0, 0.0] / float(np.hypot(*tool[:2]))
    return steer(0.1 * (outwards + 0.5 * UP), turn, gripper)
