"""Scripted experts: closed-loop, and a function of the present observation alone.

There is no hidden phase. Whether to approach, close or lift follows from where the object is between the fingers and
how far they are apart, so a policy that sees the same observation can learn the same answer, and whatever goes wrong
(a slip, a push, a grasp of nothing) leads back to the beginning by itself.
"""

from collections.abc import Callable

import numpy as np

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.control.action_spaces import (
    POSITION_SCALE_M,
    ROTATION_SCALE_RAD,
    matrix_from_rot6d,
    rotvec_from_matrix,
)
from robot.errors import ConfigError, SpecError, unknown_name
from robot.loop import Disturbance

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"

UP = np.array([0.0, 0.0, 1.0])
POSITION_GAIN = 1.2
"""Commanded displacement per displacement wanted: the arm covers about half of what one control period asks for."""

SPEED = 0.7
"""Share of the largest displacement that is commanded: unhurried enough for a chunk of actions to be foreseen."""

ROTATION_GAIN = 1.5
HOVER_M = 0.09
"""Height above the cube from which it is approached."""

HOLD_Z_M = 0.02
"""Height of the lifted cube in the base frame: 13 cm above the table of robosuite's Panda."""

OPEN_M, PASSED_M, EMPTY_M = 0.075, 0.066, 0.02
"""How far the fingers are apart: open; closing on the cube; closed on nothing."""

CUBE_M, MARGIN_M = 0.042, 0.006
"""Width of the cube (4.0 to 4.4 cm), and how near the fingers have to be to it to count as closed on it."""


class LiftExpert(Policy):
    """Lifts the cube: above it, turned to its nearest face, down, close, up."""

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """Check that the environment is one that this expert can read and act in.

        Raises:
            ConfigError: Its action space is not `ee_delta`, or the observations are not those of Lift.
        """
        if specs.action_space != "ee_delta":
            raise ConfigError(f"The lift expert acts in ee_delta, the environment takes {specs.action_space}.")
        for key, names in ((STATE, ("ee_x", "finger_left")), (ENVIRONMENT_STATE, ("cube_x", "cube_dx"))):
            if key not in specs.observation or not set(names) <= set(specs.observation[key].names):
                raise ConfigError(f"The lift expert reads {', '.join(names)} in {key!r}, the environment has them not.")
        self.specs = PolicySpecs(environment=specs, n_obs_steps=1, horizon=1, n_action_steps=1)

    def reset(self, seed: int | None = None) -> None:
        """Nothing to forget, nothing to draw: the expert is a function of the observation."""

    def act(self, observation: Observation) -> ActionChunk:
        """One `ee_delta` action. Raises `SpecError` where an observation is missing or does not fit."""
        state, environment = (self._newest(observation, key) for key in (STATE, ENVIRONMENT_STATE))
        tool, R_base_tool = state[:3], matrix_from_rot6d(state[3:9])
        cube, R_base_cube = environment[:3], matrix_from_rot6d(environment[3:9])
        opening = state[9] - state[10]
        turn, yaw_error = _turn_to_face(R_base_tool, R_base_cube)
        goal, gripper = _goal(tool, cube, opening, yaw_error)
        move = POSITION_GAIN * (goal - tool) / POSITION_SCALE_M
        move *= min(1.0, SPEED / max(float(np.abs(move).max()), 1e-9))
        rotate = np.clip(ROTATION_GAIN * turn / ROTATION_SCALE_RAD, -1.0, 1.0)
        action = np.concatenate([move, rotate, [gripper]]).astype(np.float32)
        return ActionChunk(action[None], self.specs.environment.dt_s)

    def _newest(self, observation: Observation, key: str) -> np.ndarray:
        if key not in observation:
            raise SpecError(f"The lift expert needs {key!r}, got {sorted(observation)}.")
        return self.specs.environment.observation[key].validate(observation[key][-1]).astype(np.float64)


def _goal(tool: np.ndarray, cube: np.ndarray, opening: float, yaw_error: float) -> tuple[np.ndarray, float]:
    """Where the tool should be, and what the gripper should do."""
    aside = float(np.hypot(*(cube - tool)[:2]))
    below = abs(float(cube[2] - tool[2]))
    is_ready = aside < 0.012 and below < 0.010
    is_around = aside < 0.020 and below < 0.020 and opening < PASSED_M
    if is_ready or is_around:
        # Between the fingers the cube is wider when it is turned.
        width = CUBE_M * (np.cos(yaw_error) + abs(np.sin(yaw_error)))
        grasped = _ramp(opening, width + 2 * MARGIN_M, width + MARGIN_M)
        goal = cube + UP * grasped * np.clip(HOLD_Z_M - cube[2], -0.05, 0.05)
        return goal, -1.0 if opening < EMPTY_M else 1.0
    # A funnel: the farther aside, the less open or the more turned away, the higher above the cube.
    hover = max(_ramp(aside, 0.008, 0.040), _ramp(opening, OPEN_M, 0.050), _ramp(abs(yaw_error), 0.1, 0.4))
    return cube + UP * HOVER_M * hover, -1.0


def _turn_to_face(R_base_tool: np.ndarray, R_base_cube: np.ndarray) -> tuple[np.ndarray, float]:
    """Axis-angle [rad] that points the tool down with its fingers along the nearest face, and the yaw in it [rad]."""
    level = R_base_cube[:, np.argmin(np.abs(R_base_cube[2]))]
    yaw = np.arctan2(R_base_tool[1, 0], R_base_tool[0, 0])
    quarter = np.pi / 2
    error = (np.arctan2(level[1], level[0]) - yaw + quarter / 2) % quarter - quarter / 2
    c, s = np.cos(yaw + error), np.sin(yaw + error)
    R_base_goal = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])
    return rotvec_from_matrix(R_base_goal @ R_base_tool.T), float(error)


def _ramp(x: float, zero: float, one: float) -> float:
    """From 0 at `zero` to 1 at `one`, straight between and flat beyond."""
    return float(np.clip((x - zero) / (one - zero), 0.0, 1.0))


EXPERTS: dict[str, Callable[[EnvironmentSpecs], Policy]] = {"lift": LiftExpert}


def expert(task: str, specs: EnvironmentSpecs) -> Policy:
    """The scripted expert for a task. Raises `UnknownNameError`."""
    if task not in EXPERTS:
        raise unknown_name("task with a scripted expert", task, EXPERTS)
    return EXPERTS[task](specs)


class ActionNoise:
    """Disturbs `ee_delta` actions on their way to the robot, so that demonstrations show how to recover.

    A small wander (Ornstein-Uhlenbeck), and now and then a blow of a few control periods: a push, a turn, or fingers
    that do the opposite. Laskey et al. 2017 (DART) is the reason. Blows are strong, short and rare rather than weak
    and steady: a policy that predicts chunks can learn what follows an observation only where no new blow falls.
    """

    WANDER_STD, WANDER_DECAY = 0.05, 0.8
    BLOW_RATE, BLOW_STEPS = 0.04, (2, 6)
    PUSH_SIZE, TURN_SIZE = (0.7, 2.0), (0.5, 2.0)

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._wander = np.zeros(6)
        self._blow = np.zeros(6)
        self._grip = 1.0
        self._left = 0

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """The action that is sent instead, (7,), inside [-1, 1]."""
        drawn = self._rng.normal(size=6) * self.WANDER_STD * np.sqrt(1.0 - self.WANDER_DECAY**2)
        self._wander = self.WANDER_DECAY * self._wander + drawn
        self._left -= 1
        if self._left <= 0:
            self._blow, self._grip = np.zeros(6), 1.0
            if self._rng.random() < self.BLOW_RATE:
                self._strike()
        sent = np.array(action, np.float32)
        sent[:6] += self._wander + self._blow
        sent[6] *= self._grip
        return np.clip(sent, -1.0, 1.0)

    def _strike(self) -> None:
        rng = self._rng
        self._left = int(rng.integers(*self.BLOW_STEPS))
        kind = rng.choice(["push", "turn", "grip"], p=[0.5, 0.25, 0.25])
        if kind == "push":
            direction = rng.normal(size=3)
            self._blow[:3] = rng.uniform(*self.PUSH_SIZE) * direction / np.abs(direction).max()
        elif kind == "turn":
            self._blow[5] = rng.uniform(*self.TURN_SIZE) * rng.choice([-1.0, 1.0])
        else:
            self._grip = -1.0


def action_noise(seed: int) -> Disturbance:
    """A disturbance for one episode of `ee_delta` actions; equal seeds give equal ones."""
    return ActionNoise(seed)
