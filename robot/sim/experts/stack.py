"""The scripted expert of Stack."""

from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.sim.experts.base import ENVIRONMENT_STATE, SPEED, STATE, UP, Expert, PoseReader, ramp, steer
from robot.sim.experts.grasping import MIDDLE_YAW, REACH_YAW, Hand, HandReader, holds, take, upright, wrapped

WIDTH_M, STACKED_M = 0.040, 0.045
"""Width of the upper cube, and how far its middle is above that of the lower one when it stands on it."""

AIM_M, LEVEL_M = 0.012, 0.004
"""How far off the middle of the lower cube the upper one may be let go, and how much too high."""

CARRY_M = 0.035
"""Height above its place at which the upper cube is carried there."""

SLOW = 0.35
"""Share of the largest displacement with which the upper cube is let down."""


@dataclass(frozen=True)
class _Scene:
    """Positions (3,) and the rotation of the upper cube (3, 3) in the base frame."""

    hand: Hand
    upper: np.ndarray
    R_upper: np.ndarray
    lower: np.ndarray

    @property
    def over(self) -> np.ndarray:
        """From the upper cube to its place on the lower one (3,) [m]."""
        return self.lower + UP * STACKED_M - self.upper

    @property
    def aside(self) -> float:
        """How far the upper cube is off the middle of the lower one [m]."""
        return float(np.hypot(*self.over[:2]))


class StackExpert(Expert):
    """Puts the red cube on the green one: takes it, lifts it, carries it there, lets it down and go."""

    READS = {  # noqa: RUF012 (never changed)
        STATE: HandReader.NAMES,
        ENVIRONMENT_STATE: ("cube_a_x", "cube_b_x"),
    }

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """See `Expert`."""
        super().__init__(specs)
        self._hand = HandReader(specs)
        named = specs.observation[ENVIRONMENT_STATE].names
        self._upper, self._lower = PoseReader(named, "cube_a"), PoseReader(named, "cube_b")

    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """See `Expert.decide`."""
        hand = self._hand(state)
        scene = _Scene(hand, *self._upper(environment), lower=self._lower(environment)[0])
        if scene.aside < AIM_M and abs(scene.over[2]) < LEVEL_M:
            return _retreat(scene)
        yaw_error = _yaw_to_faces(scene)
        width = WIDTH_M * (np.cos(yaw_error) + abs(np.sin(yaw_error))) if abs(yaw_error) < np.pi / 4 else WIDTH_M
        if holds(hand, scene.upper, width):
            return _carry(scene)
        return take(hand, scene.upper, width, yaw_error)


def _retreat(scene: _Scene) -> np.ndarray:
    """Open, and go up once the fingers are off the cube."""
    free = ramp(scene.hand.opening, WIDTH_M + 0.012, WIDTH_M + 0.028)
    rise = UP * (scene.upper[2] + 0.12 - scene.hand.tool[2])
    return steer(rise * free, upright(scene.hand, 0.0), -1.0)


def _carry(scene: _Scene) -> np.ndarray:
    """Up, across and down onto the lower cube."""
    height = -float(scene.over[2])
    # Too low to go over the lower cube: up first.
    may_cross = ramp(height, 0.004, 0.020) if AIM_M < scene.aside < 0.12 else 1.0
    # A funnel that ends on the lower cube, a little inside it so that the upper one arrives.
    away = ramp(scene.aside, 0.004, 0.030)
    goal = scene.over * [may_cross, may_cross, 1.0] + UP * (CARRY_M * away - 0.004 * (1.0 - away))
    return steer(goal, upright(scene.hand, 0.0), 1.0, SLOW if scene.aside < 0.015 else SPEED)


def _yaw_to_faces(scene: _Scene) -> float:
    """Turn about the vertical [rad] that brings the fingers onto faces of the upper cube, clear of the lower one."""
    R, yaw = scene.R_upper, scene.hand.yaw
    level = R[:, np.argmin(np.abs(R[2]))]
    face = float(np.arctan2(level[1], level[0]))
    begin = wrapped(yaw - MIDDLE_YAW, 2 * np.pi)
    ways = []
    for quarter in range(4):
        end = wrapped(face + quarter * np.pi / 2 - MIDDLE_YAW, 2 * np.pi)
        cost = abs(end - begin) + 2.0 * max(abs(end) - REACH_YAW, 0.0) + _in_the_way(scene, end + MIDDLE_YAW)
        ways.append((cost, end - begin))
    return min(ways)[1]


def _in_the_way(scene: _Scene, yaw: float) -> float:
    """Cost [rad] of a yaw at which a finger comes down on the lower cube."""
    shift = scene.lower - scene.upper
    along = abs(float(shift[0] * np.cos(yaw) + shift[1] * np.sin(yaw)))
    across = abs(float(shift[1] * np.cos(yaw) - shift[0] * np.sin(yaw)))
    return 2.0 * ramp(along, 0.115, 0.095) * ramp(across, 0.055, 0.040)
