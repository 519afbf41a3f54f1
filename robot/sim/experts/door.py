"""The scripted expert of Door."""

from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import matrix_from_rotvec, rotvec_from_matrix
from robot.sim.experts.base import ENVIRONMENT_STATE, STATE, UP, Expert, PoseReader, ramp, steer
from robot.sim.experts.grasping import EMPTY_M, OPEN_M, TURN_RAD, Hand, HandReader, holds

WIDTH_M, LEVER_M = 0.040, 0.125
"""Height of the handle, and how far from the axis of its latch the tool takes it: at robosuite's site."""

HINGE_M = 0.255
"""From the middle of the door to its hinge."""

BEFORE_M = 0.09
"""How far in front of the handle the hand is put in place."""

R_HANDLE_TOOL = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
"""Attitude of the tool to the handle: pointing at the door, with a finger above it and one below."""

TURNED_RAD, FREE_RAD = -1.45, -1.32
"""Angle that the latch is turned to, and the one from which it lets the door go.

The handle is turned up: either way will do, and this is the one that the Panda's last joint has room for.
"""

AJAR_RAD, WIDE_RAD = 0.06, 0.36
"""Angle of the hinge from which the latch no longer matters, and the one that the door is opened to."""

LEAD_RAD = 0.2
"""How far ahead of the handle the tool is sent as it turns it."""

LEAD_DOOR_RAD = 0.08
"""How far ahead of the door the tool is sent as it opens it."""


@dataclass(frozen=True)
class _Scene:
    """Positions (3,) and rotations (3, 3) in the base frame, angles of the hinge and the latch [rad]."""

    hand: Hand
    handle: np.ndarray
    R_handle: np.ndarray
    door: np.ndarray
    R_door: np.ndarray
    hinge: float
    latch: float

    @property
    def turn(self) -> np.ndarray:
        """Axis-angle (3,) from the tool's attitude to the one that it grasps the handle with [rad]."""
        return rotvec_from_matrix(self.R_handle @ R_HANDLE_TOOL @ self.hand.R_tool.T)


class DoorExpert(Expert):
    """Opens the door: the hand in front of the handle, around it, close, turn the latch, pull."""

    READS = {  # noqa: RUF012 (never changed)
        STATE: HandReader.NAMES,
        ENVIRONMENT_STATE: ("handle_x", "door_x", "hinge", "latch"),
    }

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """See `Expert`."""
        super().__init__(specs)
        self._hand = HandReader(specs)
        named = specs.observation[ENVIRONMENT_STATE].names
        self._handle, self._door = PoseReader(named, "handle"), PoseReader(named, "door")
        self._joints = [named.index("hinge"), named.index("latch")]

    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """See `Expert.decide`."""
        hinge, latch = environment[self._joints]
        hand = self._hand(state)
        scene = _Scene(hand, *self._handle(environment), *self._door(environment), hinge, latch)
        return _open(scene) if holds(hand, scene.handle, WIDTH_M) else _take(scene)


def _open(scene: _Scene) -> np.ndarray:
    """Turn the held handle about the latch's axis, then swing it about the hinge's."""
    turned = ramp(scene.latch, FREE_RAD + 0.1, FREE_RAD) if scene.hinge < AJAR_RAD else 1.0
    Q_latch = matrix_from_rotvec(scene.R_handle[:, 1] * np.clip(TURNED_RAD - scene.latch, -LEAD_RAD, LEAD_RAD))
    Q_hinge = matrix_from_rotvec(UP * np.clip(WIDE_RAD - scene.hinge, -LEAD_DOOR_RAD, LEAD_DOOR_RAD) * turned)
    pivot = scene.handle - scene.R_handle[:, 0] * LEVER_M
    post = scene.door + scene.R_door[:, 0] * HINGE_M
    goal = post + Q_hinge @ (pivot + Q_latch @ (scene.handle - pivot) - post)
    R_goal = Q_hinge @ Q_latch @ scene.R_handle @ R_HANDLE_TOOL
    return steer(goal - scene.hand.tool, _shortened(rotvec_from_matrix(R_goal @ scene.hand.R_tool.T)), 1.0)


def _take(scene: _Scene) -> np.ndarray:
    """Come to the handle from the front with the fingers above and below it, and close."""
    hand, out = scene.hand, -scene.R_handle[:, 1]
    offset = scene.handle - hand.tool
    depth = abs(float(offset @ out))
    aside = float(np.linalg.norm(offset - out * (offset @ out)))
    turned_away = float(np.linalg.norm(scene.turn))
    is_ready = aside < 0.010 and depth < 0.012 and turned_away < 0.25
    is_around = aside < 0.016 and depth < 0.020 and hand.opening < WIDTH_M + 0.024
    if (is_ready or is_around) and hand.opening > EMPTY_M:
        return steer(offset, _shortened(scene.turn), 1.0)
    # A funnel: the farther aside, the less open or the more turned away, the farther in front of the handle.
    before = max(ramp(aside, 0.006, 0.035), ramp(hand.opening, OPEN_M, 0.050), ramp(turned_away, 0.1, 0.4))
    return steer(offset + out * BEFORE_M * before, _shortened(scene.turn), -1.0)


def _shortened(turn: np.ndarray) -> np.ndarray:
    return turn * min(1.0, TURN_RAD / max(float(np.linalg.norm(turn)), TURN_RAD))
