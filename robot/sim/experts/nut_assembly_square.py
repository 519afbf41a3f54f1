"""The scripted expert of NutAssemblySquare."""

from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import matrix_from_rotvec, rotvec_from_matrix
from robot.sim.experts.base import (
    ENVIRONMENT_STATE,
    SPEED,
    STATE,
    STRAIGHT_RAD,
    UP,
    Expert,
    PoseReader,
    flip_back,
    ramp,
    steer,
)

HOVER_M = 0.07
"""Height above the handle from which it is approached."""

PEG_HALF_M = 0.10
"""Half the height of robosuite's peg1."""

CARRY_M = 0.024
"""Height of the nut above the peg's end at which it is carried there."""

AROUND_M, AIM_M = 0.015, 0.0040
"""How far off the peg's axis a nut is that has to be around it, being that low, and one that is let down onto it.

The hole leaves 6.75 mm to the sides, and a nut beside the peg is 6 cm off.
"""

SEATED_M = -0.085
"""Height of the nut relative to the peg's end at which it is let go: robosuite counts it as seated from -0.08 on."""

OPEN_M, PASSED_M, EMPTY_M, HELD_M = 0.070, 0.060, 0.020, 0.038
"""How far the fingers are apart: open; closing on the handle; closed on nothing; closed on it (3.2 cm wide)."""

MIDDLE_YAW = 3 * np.pi / 4
"""Yaw of the tool's x axis, along which the fingers move, with the Panda's last joint in the middle of its range."""

FACINGS = ((np.pi, 0.0), (-np.pi / 2, 4.0), (np.pi / 2, 4.0))
"""Yaws of a handle by the peg, relative to the peg's, and what they cost, in radians of turning.

Best on the robot's side; beside the peg the arm is nearly stretched out, and beyond it it would be.
"""

GRASP_M = 0.008
"""How far outside the middle of the nut's arm, where robosuite's site is, the fingers go, to be clear of the square."""

TURN_RAD = 0.15
"""Longest turn that is commanded at once."""

SLOW = 0.35
"""Share of the largest displacement with which the nut is let down."""


@dataclass(frozen=True)
class _Scene:
    """Positions (3,) and rotations (3, 3) in the base frame, and how far the fingers are apart [m]."""

    tool: np.ndarray
    R_tool: np.ndarray
    nut: np.ndarray
    R_nut: np.ndarray
    handle: np.ndarray
    top: np.ndarray
    R_peg: np.ndarray
    opening: float

    @property
    def aside(self) -> float:
        """How far the nut is off the peg's axis, per axis of the square at most [m]."""
        return float(np.abs(self.R_peg.T @ (self.nut - self.top))[:2].max())

    @property
    def height(self) -> float:
        """How far the nut is above the peg's end [m]."""
        return float(self.nut[2] - self.top[2])


class NutAssemblySquareExpert(Expert):
    """Puts the nut onto the peg: takes it by its handle, lifts, turns and carries it, lets it down and go."""

    READS = {  # noqa: RUF012 (never changed)
        STATE: ("ee_x", "finger_left", "finger_right", "q4"),
        ENVIRONMENT_STATE: ("nut_x", "handle_x", "peg_x"),
    }

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """See `Expert`."""
        super().__init__(specs)
        names = specs.observation[STATE].names
        self._fingers = [names.index("finger_left"), names.index("finger_right")]
        self._elbow = names.index("q4")
        self._tool = PoseReader(names, "ee")
        named = specs.observation[ENVIRONMENT_STATE].names
        self._nut, self._handle, self._peg = (PoseReader(named, name) for name in ("nut", "handle", "peg"))

    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """See `Expert.decide`."""
        left, right = state[self._fingers]
        (handle, R_handle), (peg, R_peg) = self._handle(environment), self._peg(environment)
        scene = _Scene(
            *self._tool(state),
            *self._nut(environment),
            handle=handle + R_handle[:, 0] * GRASP_M,
            top=peg + UP * PEG_HALF_M,
            R_peg=R_peg,
            opening=left - right,
        )
        if state[self._elbow] > STRAIGHT_RAD:
            return flip_back(scene.tool, _upright(scene.R_tool, 0.0), 1.0 if _is_held(scene) else -1.0)
        if _is_seated(scene):
            return _retreat(scene)
        if _is_held(scene):
            return _carry(scene)
        return _take(scene)


def _is_seated(scene: _Scene) -> bool:
    return scene.aside < AROUND_M and scene.height < SEATED_M


def _is_around(scene: _Scene) -> bool:
    return scene.aside < AROUND_M and scene.height < -0.012


def _is_held(scene: _Scene) -> bool:
    across, along, below = np.abs(scene.R_tool.T @ (scene.handle - scene.tool))
    return bool(EMPTY_M < scene.opening < HELD_M and across < 0.010 and along < 0.022 and below < 0.015)


def _retreat(scene: _Scene) -> np.ndarray:
    """Open, pressing down until the fingers are off the handle, then go up."""
    free = ramp(scene.opening, HELD_M, HELD_M + 0.01)
    return steer(UP * (0.06 * free - 0.01), _upright(scene.R_tool, 0.0), -1.0)


def _carry(scene: _Scene) -> np.ndarray:
    """Turn the held nut to the peg's faces high above them, move it over, let it down along the axis."""
    yaw_error = _yaw_to_peg(scene)
    over = scene.top - scene.nut
    # A funnel that ends on the peg: the farther aside or the more turned away, the higher.
    away = max(ramp(scene.aside, AIM_M, 0.012), ramp(abs(yaw_error), 0.04, 0.12))
    if _is_around(scene):
        away = 0.0
    # Too low to go over the peg: up first.
    may_cross = ramp(scene.height, 0.010, 0.016) if 0.007 < scene.aside < 0.09 else 1.0
    if abs(yaw_error) > 0.3 and not _is_around(scene):
        # Turned here, the handle does not swing out of reach over the peg.
        may_cross *= np.clip(1.0 - 0.15 / max(scene.aside, 1e-3), -0.5, 1.0)
    goal = over * [may_cross, may_cross, 1.0] + UP * (CARRY_M * away + (SEATED_M - 0.02) * (1.0 - away))
    speed = SLOW if scene.aside < 0.015 else SPEED
    turn = _upright(scene.R_tool, yaw_error)
    # The tool goes round the nut as it turns it.
    arm = scene.tool - scene.nut
    return steer(goal + matrix_from_rotvec(turn) @ arm - arm, turn, 1.0, speed)


def _take(scene: _Scene) -> np.ndarray:
    """Approach the handle from above with the fingers across it, and close."""
    yaw_error = _yaw_to_handle(scene)
    offset = scene.handle - scene.tool
    aside, below = float(np.hypot(*offset[:2])), abs(float(offset[2]))
    is_ready = aside < 0.008 and below < 0.008 and abs(yaw_error) < 0.2
    is_around = aside < 0.015 and below < 0.012 and scene.opening < PASSED_M
    turn = _upright(scene.R_tool, yaw_error)
    if (is_ready or is_around) and scene.opening > EMPTY_M:
        return steer(offset, turn, 1.0)
    hover = max(ramp(aside, 0.004, 0.030), ramp(scene.opening, OPEN_M, 0.050), ramp(abs(yaw_error), 0.1, 0.3))
    return steer(offset + UP * HOVER_M * hover, turn, -1.0)


def _yaw(rotation: np.ndarray) -> float:
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def _wrapped(angle: float, period: float) -> float:
    return float((angle + period / 2) % period - period / 2)


def _off_middle(yaw: float) -> float:
    """A yaw of the tool from the middle of the last joint's range, which does not reach all the way round."""
    return _wrapped(yaw - MIDDLE_YAW, 2 * np.pi)


def _travel(scene: _Scene, quarter: float) -> tuple[float, float, float]:
    """How far the nut is to be turned over the peg [rad] if it is held with the tool's yaw a `quarter` off its own.

    Both turns are to be made without passing the end of the last joint's range.

    Returns:
        Its cost [rad], the turn, and from where: the tool's yaw off its middle with the nut in hand.
    """
    begin = _off_middle(_yaw(scene.R_nut) + quarter)
    ways = []
    for facing, cost in FACINGS:
        end = _off_middle(_yaw(scene.R_peg) + facing + quarter)
        ways.append((cost + abs(end - begin) + 2.0 * max(abs(end) - 2.4, 0.0), end - begin))
    cost, turn = min(ways)
    return cost + 2.0 * max(abs(begin) - 2.2, 0.0), turn, begin


def _yaw_to_peg(scene: _Scene) -> float:
    """Turn about the vertical that lays the square of the nut onto that of the peg [rad].

    Around the peg the nearest one; elsewhere one that leaves the handle on the robot's side of the peg, or beside it.
    """
    if _is_around(scene):
        return _wrapped(_yaw(scene.R_peg) - _yaw(scene.R_nut), np.pi / 2)
    held_at = _wrapped(_yaw(scene.R_tool) - _yaw(scene.R_nut), 2 * np.pi)
    return _travel(scene, np.copysign(np.pi / 2, held_at))[1]


def _yaw_to_handle(scene: _Scene) -> float:
    """Turn about the vertical that brings the fingers across the handle: the one with less to turn in all."""
    yaw, ways = _off_middle(_yaw(scene.R_tool)), []
    for quarter in (-np.pi / 2, np.pi / 2):
        cost, _, begin = _travel(scene, quarter)
        ways.append((cost + abs(begin - yaw), begin - yaw))
    return min(ways)[1]


def _upright(R_tool: np.ndarray, yaw_error: float) -> np.ndarray:
    """Axis-angle (3,) [rad] that points the tool down and turns it about the vertical, some way at a time."""
    yaw = _yaw(R_tool) + yaw_error
    c, s = np.cos(yaw), np.sin(yaw)
    turn = rotvec_from_matrix(np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]]) @ R_tool.T)
    return turn * min(1.0, TURN_RAD / max(float(np.linalg.norm(turn)), TURN_RAD))
