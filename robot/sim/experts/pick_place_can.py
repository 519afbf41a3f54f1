"""The scripted expert of PickPlaceCan."""

from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.sim.experts.base import ENVIRONMENT_STATE, STATE, UP, Expert, PoseReader, ramp, steer
from robot.sim.experts.grasping import Hand, HandReader, holds, take, upright, wrapped

WIDTH_M = 0.050
"""Diameter of the can."""

GRASP_M = 0.015
"""How far above its middle a standing can is taken."""

CARRY_M, LET_GO_M = 0.125, 0.030
"""Heights above its place in the compartment at which the can crosses the walls, and at which it is let go."""

NEARER_M = np.array([-0.040, -0.050, 0.0])
"""From the middle of the compartment, where the Panda's arm is stretched out, to where the can is put down."""

INSIDE_M, LOW_M = np.array([0.070, 0.095]), 0.045
"""How far off the middle of the compartment, and how high above its place, a can that is in there may be."""

STANDS = 0.7
"""Cosine of the tilt up to which a can is taken for standing."""

YAW = np.pi / 2
"""Yaw of the tool for a can that stands: any would do, and this is the one that the arm begins with."""


@dataclass(frozen=True)
class _Scene:
    """Positions (3,) and the can's axis (3,) in the base frame."""

    hand: Hand
    can: np.ndarray
    axis: np.ndarray
    target: np.ndarray

    @property
    def is_inside(self) -> bool:
        """Whether the can is in its compartment, so low that it may be let go."""
        off = self.can - self.target
        return bool(np.all(np.abs(off[:2]) < INSIDE_M) and off[2] < LOW_M)

    @property
    def grasp(self) -> np.ndarray:
        """Where the tool takes the can (3,) [m]."""
        return self.can + UP * GRASP_M * ramp(abs(self.axis[2]), STANDS, 1.0)


class PickPlaceCanExpert(Expert):
    """Puts the can into its compartment: takes it from above, lifts it over the walls, lets it down and go."""

    READS = {  # noqa: RUF012 (never changed)
        STATE: HandReader.NAMES,
        ENVIRONMENT_STATE: ("can_x", "target_x"),
    }

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """See `Expert`."""
        super().__init__(specs)
        self._hand = HandReader(specs)
        named = specs.observation[ENVIRONMENT_STATE].names
        self._can, self._target = PoseReader(named, "can"), PoseReader(named, "target")

    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """See `Expert.decide`."""
        hand = self._hand(state)
        can, R_can = self._can(environment)
        scene = _Scene(hand, can, R_can[:, 2], self._target(environment)[0])
        if scene.is_inside:
            return _retreat(scene)
        if holds(hand, scene.grasp, WIDTH_M):
            return _carry(scene)
        return take(hand, scene.grasp, WIDTH_M, _yaw_error(scene))


def _retreat(scene: _Scene) -> np.ndarray:
    """Open, and go up once the fingers are off the can."""
    free = ramp(scene.hand.opening, WIDTH_M + 0.006, WIDTH_M + 0.018)
    rise = UP * (scene.target[2] + 0.15 - scene.hand.tool[2])
    return steer(rise * free, upright(scene.hand, 0.0), -1.0)


def _carry(scene: _Scene) -> np.ndarray:
    """Up, across the walls and down."""
    over = scene.target + NEARER_M - scene.can
    aside, height = float(np.hypot(*over[:2])), -float(over[2])
    # A funnel that ends in the compartment.
    away = ramp(aside, 0.010, 0.050)
    may_cross = ramp(height, CARRY_M - 0.035, CARRY_M - 0.010) if aside > 0.030 else 1.0
    goal = over * [may_cross, may_cross, 1.0] + UP * (CARRY_M * away + (LET_GO_M - 0.005) * (1.0 - away))
    return steer(goal, upright(scene.hand, _turn(scene.hand, YAW)), 1.0)


def _yaw_error(scene: _Scene) -> float:
    """Turn about the vertical [rad] that brings the fingers across the can."""
    if abs(scene.axis[2]) > STANDS:
        return _turn(scene.hand, YAW)
    return _turn(scene.hand, float(np.arctan2(scene.axis[1], scene.axis[0])) + np.pi / 2)


def _turn(hand: Hand, yaw: float) -> float:
    """To a yaw, or to the one opposite if that is nearer to what the arm begins with [rad]."""
    return wrapped(yaw - YAW, np.pi) - wrapped(hand.yaw - YAW, 2 * np.pi)
