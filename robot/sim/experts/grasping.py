"""What experts that take a thing from above with two fingers have in common.

The tool's x axis is the one along which the fingers move; its z axis points out of the hand.
"""

from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import rotvec_from_matrix
from robot.sim.experts.base import STATE, UP, PoseReader, ramp, steer

OPEN_M, EMPTY_M = 0.072, 0.012
"""How far the fingers are apart: open; closed on nothing."""

HOVER_M = 0.09
"""Height above a thing from which it is approached."""

TURN_RAD = 0.2
"""Longest turn that is commanded at once."""

MIDDLE_YAW, REACH_YAW = 3 * np.pi / 4, 2.2
"""Yaw of the tool with the Panda's last joint in the middle of its range, and how far it turns from there with ease."""


@dataclass(frozen=True)
class Hand:
    """Where the tool is in the base frame, (3,) [m] and (3, 3), and how far its fingers are apart [m]."""

    tool: np.ndarray
    R_tool: np.ndarray
    opening: float

    @property
    def yaw(self) -> float:
        """Of the direction in which the fingers move [rad]."""
        return float(np.arctan2(self.R_tool[1, 0], self.R_tool[0, 0]))


class HandReader:
    """Reads the hand from `observation.state`, by the names of its elements."""

    NAMES = ("ee_x", "finger_left", "finger_right")

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """Find tool and fingers."""
        names = specs.observation[STATE].names
        self._tool = PoseReader(names, "ee")
        self._fingers = [names.index("finger_left"), names.index("finger_right")]

    def __call__(self, state: np.ndarray) -> Hand:
        """The hand as it is in `observation.state`."""
        left, right = state[self._fingers]
        return Hand(*self._tool(state), opening=left - right)


def wrapped(angle: float, period: float) -> float:
    """`angle` plus a multiple of `period`, within half a period of zero [rad]."""
    return float((angle + period / 2) % period - period / 2)


def upright(hand: Hand, yaw_error: float) -> np.ndarray:
    """Axis-angle (3,) [rad] that points the tool down and turns it about the vertical, some way at a time."""
    c, s = np.cos(hand.yaw + yaw_error), np.sin(hand.yaw + yaw_error)
    turn = rotvec_from_matrix(np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]]) @ hand.R_tool.T)
    return turn * min(1.0, TURN_RAD / max(float(np.linalg.norm(turn)), TURN_RAD))


def holds(hand: Hand, at: np.ndarray, width: float) -> bool:
    """Whether what is `width` wide between the fingers is held at the point `at` (3,), in the base frame [m]."""
    across, along, below = np.abs(hand.R_tool.T @ (at - hand.tool))
    return bool(EMPTY_M < hand.opening < width + 0.006 and across < 0.012 and along < 0.020 and below < 0.018)


def take(hand: Hand, at: np.ndarray, width: float, yaw_error: float) -> np.ndarray:
    """The `ee_delta` (7,) that comes to the point `at` (3,) from above, turned by `yaw_error` [rad], and closes there.

    Args:
        hand: The hand as it is.
        at: Where the tool should be when the fingers close, in the base frame [m].
        width: Of the thing between the fingers [m].
        yaw_error: From the hand's yaw to the one it should have.
    """
    offset = at - hand.tool
    aside, below = float(np.hypot(*offset[:2])), abs(float(offset[2]))
    is_ready = aside < 0.010 and below < 0.010 and abs(yaw_error) < 0.25
    is_around = aside < 0.018 and below < 0.018 and hand.opening < width + 0.024
    turn = upright(hand, yaw_error)
    if (is_ready or is_around) and hand.opening > EMPTY_M:
        return steer(offset, turn, 1.0)
    # A funnel: the farther aside, the less open or the more turned away, the higher above the thing.
    hover = max(ramp(aside, 0.006, 0.035), ramp(hand.opening, OPEN_M, 0.050), ramp(abs(yaw_error), 0.1, 0.4))
    return steer(offset + UP * HOVER_M * hover, turn, -1.0)
