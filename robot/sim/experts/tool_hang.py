"""The scripted expert of ToolHang.

The frame lies on its side and has to stand; the hand cannot turn it by a right angle when it takes it from straight
above. It takes it at 45 degrees instead, from the hook's end, and puts it in at 45 degrees the other way. The tool is
dropped with its hole over the upturned end of the hook, and lowered by its handle until it hangs.

Points on stand, frame and tool are in the frames of their bodies, and were read off robosuite's model of the task.
"""

from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import rotvec_from_matrix
from robot.sim.experts.base import (
    ENVIRONMENT_STATE,
    STATE,
    STRAIGHT_RAD,
    UP,
    Expert,
    PoseReader,
    flip_back,
    ramp,
    steer,
)

HOLE = np.array([0.0, 0.045, 0.080])
"""On the stand: the middle of the hole's rim."""

SEATED_M = 0.134
"""How far the tip is in the hole, which is 15 cm deep, when the frame stands: robosuite asks for 13.3 cm."""

TIP, GRIP, HOOK = np.array([0.04375, 0.0, -0.1345]), np.array([0.04375, 0.0, 0.0525]), np.array([-0.04375, 0.0, 0.102])
"""On the frame: the tip that goes in; the middle of the grip; the end of the hook, which points along z."""

BAR_M = 0.012
"""Height of the hook's end above the bar that the tool hangs on."""

RING, RING_HALF_M = np.array([-0.0935, 0.0, 0.0]), 0.0035
"""On the tool: the middle of the hole that it hangs by, and half the height of the ring around it."""

LEAN = np.pi / 4
"""How far the hand leans from the side of the frame's grip towards its tip [rad]."""

FRAME_M, TOOL_M, MARGIN_M = 0.0254, 0.030, 0.006
"""How far the fingers are apart on the grips of frame and tool, and within what."""

OPEN_M, EMPTY_M = 0.070, 0.016
"""How far the fingers are apart: open; closed on nothing."""

HOVER_M, RISE_M = 0.08, 0.14
"""How far before a grip the hand is turned to it; how far above it while it is to be turned far."""

LET_GO_RAD = 1.05
"""How far the tool's handle is lowered when it is let go."""

SLOW, SPEED = 0.3, 0.6
"""Shares of the largest displacement: in contact, and elsewhere."""

TURN_RAD, STEP_M = 0.15, 0.012
"""Longest turn, and longest step down or up near contact, that are commanded at once."""


@dataclass(frozen=True)
class _Pose:
    """Position (3,) [m] and rotation (3, 3) in the base frame."""

    at: np.ndarray
    R: np.ndarray

    def point(self, local: np.ndarray) -> np.ndarray:
        """A point on it, in the base frame."""
        return self.at + self.R @ local


@dataclass(frozen=True)
class _Scene:
    """Poses, how far the fingers are apart [m], and q6, which bends the hand outwards [rad]."""

    hand: _Pose
    stand: _Pose
    frame: _Pose
    tool: _Pose
    opening: float
    wrist: float

    @property
    def depth(self) -> float:
        """How far the frame's tip is below the hole's rim [m]."""
        return float((self.stand.point(HOLE) - self.frame.point(TIP))[2])

    @property
    def aside(self) -> float:
        """How far the frame's tip is off the hole's axis [m]."""
        return float(np.hypot(*(self.stand.point(HOLE) - self.frame.point(TIP))[:2]))


class ToolHangExpert(Expert):
    """Puts the frame into the stand and hangs the tool on the frame's hook."""

    READS = {  # noqa: RUF012 (never changed)
        STATE: ("ee_x", "finger_left", "finger_right", "q4", "q6"),
        ENVIRONMENT_STATE: ("stand_x", "frame_x", "tool_x"),
    }

    def __init__(self, specs: EnvironmentSpecs) -> None:
        """See `Expert`."""
        super().__init__(specs)
        names = specs.observation[STATE].names
        self._fingers = [names.index("finger_left"), names.index("finger_right")]
        self._bends = [names.index("q4"), names.index("q6")]
        self._hand = PoseReader(names, "ee")
        named = specs.observation[ENVIRONMENT_STATE].names
        self._stand, self._frame, self._tool = (PoseReader(named, name) for name in ("stand", "frame", "tool"))

    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """See `Expert.decide`."""
        left, right = state[self._fingers]
        stand, frame, tool = (_Pose(*read(environment)) for read in (self._stand, self._frame, self._tool))
        hand, (elbow, wrist) = _Pose(*self._hand(state)), state[self._bends]
        scene = _Scene(hand, stand, frame, tool, float(left - right), float(wrist))
        if elbow > STRAIGHT_RAD:
            return flip_back(hand.at, np.zeros(3), 1.0 if EMPTY_M < scene.opening < TOOL_M + MARGIN_M else -1.0)
        if _stands(scene):
            return _hang(scene)
        if _holds(scene, scene.frame.point(GRIP), FRAME_M):
            return _insert(scene)
        return _take(scene, scene.frame.point(GRIP), _frame_grasp(scene))


def _stands(scene: _Scene) -> bool:
    """Whether the frame is in the stand as far as robosuite asks for, or only lifted a little by the tool in hand."""
    if scene.depth > SEATED_M and scene.aside < 0.006:
        return True
    return scene.depth > 0.08 and scene.aside < 0.015 and _holds(scene, scene.tool.at, TOOL_M)


def _holds(scene: _Scene, grip: np.ndarray, width: float) -> bool:
    """Whether the fingers are closed on a grip of that width, wherever along them and along it."""
    offset = np.abs(scene.hand.R.T @ (grip - scene.hand.at))
    return bool(abs(scene.opening - width) < MARGIN_M and offset[0] < 0.008 and offset[1:].max() < 0.03)


def _frame_grasp(scene: _Scene) -> np.ndarray:
    """Rotation of the hand (3, 3) that takes the frame's square grip, leaning towards the frame's tip.

    It comes from above where the frame lies, from the front where it stands.
    """
    R = scene.frame.R
    sides = [R[:, 0], -R[:, 0], R[:, 1], -R[:, 1]]
    into = max(sides, key=lambda side: float(-side[2] - 0.4 * side[0]))
    # The Panda's wrist ends at 3.75 rad: where it does not bend as far as that, the hand leans less.
    lean = LEAN * (1.0 - 0.6 * ramp(scene.wrist, 3.5, 3.7))
    approach = np.cos(lean) * into - np.sin(lean) * R[:, 2]
    across = np.cross(into, R[:, 2])
    return np.stack([across, np.cross(approach, across), approach], axis=1)


def _standing(scene: _Scene) -> np.ndarray:
    """Rotation (3, 3) of the frame in the hole: of the four that fit, the one with the hand pointing back most."""
    quarters = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
    fits = [scene.stand.R @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) for c, s in quarters]
    into = scene.frame.R.T @ scene.hand.R[:, 2]
    return min(fits, key=lambda R: float((R @ into)[0]))


def _take(scene: _Scene, grip: np.ndarray, R_goal: np.ndarray) -> np.ndarray:
    """Approach a grip along the hand's axis, and close."""
    turn = rotvec_from_matrix(R_goal @ scene.hand.R.T)
    angle = float(np.linalg.norm(turn))
    approach = R_goal[:, 2]
    offset = grip - 0.004 * approach - scene.hand.at
    before = float(offset @ approach)
    aside = float(np.linalg.norm(offset - before * approach))
    is_ready = aside < 0.006 and abs(before) < 0.008 and angle < 0.15
    is_around = aside < 0.012 and abs(before) < 0.012 and scene.opening < 0.060
    if (is_ready or is_around) and scene.opening > EMPTY_M:
        return steer(offset, _limited(turn), 1.0, SPEED)
    hover = max(ramp(aside, 0.004, 0.030), ramp(scene.opening, OPEN_M, 0.050), ramp(angle, 0.08, 0.30))
    shift = offset - HOVER_M * hover * approach
    # A hand that is to be turned far is not turned by the table.
    shift[2] = max(shift[2], float(offset[2]) + RISE_M * ramp(angle, 0.5, 0.9))
    return steer(shift, _limited(turn), -1.0, SPEED)


def _insert(scene: _Scene) -> np.ndarray:
    """Stand the held frame up over the hole, let it down into it."""
    R_goal = _standing(scene)
    turn = rotvec_from_matrix(R_goal @ scene.frame.R.T)
    angle = float(np.linalg.norm(turn))
    # Where the tip would be if the frame were turned on the spot.
    arm = R_goal @ scene.frame.R.T @ (scene.frame.point(TIP) - scene.hand.at)
    over = scene.stand.point(HOLE) - (scene.hand.at + arm)
    aside = float(np.hypot(*over[:2]))
    # A funnel that ends in the hole: the farther aside or the more turned away, the higher.
    is_inside = scene.depth > 0.002 and scene.aside < 0.0055 + 0.003 * ramp(scene.depth, 0.01, 0.03)
    away = 0.0 if is_inside else max(ramp(scene.aside, 0.002, 0.005), ramp(angle, 0.04, 0.15))
    shift = over + UP * (0.03 * away - 0.2 * (1.0 - away))
    # Too low to go over the rim: up first.
    if not is_inside and 0.004 < aside < 0.15:
        shift[:2] *= ramp(min(-scene.depth, -float(over[2])), 0.004, 0.012)
    if scene.aside < 0.02:
        shift[2] = np.clip(shift[2], -STEP_M, STEP_M)
        return steer(shift, _limited(turn), 1.0, SLOW)
    if angle > 0.3:
        # The rod does not swing against the stand.
        shift[:2] *= np.clip(1.0 - 0.12 / max(aside, 1e-3), -0.5, 1.0)
    return steer(shift, _limited(turn), 1.0, SPEED)


def _hang(scene: _Scene) -> np.ndarray:
    """The frame stands: let it go, then take the tool, put it over the hook, lower it, let it go."""
    if _holds(scene, scene.tool.at, TOOL_M):
        return _thread(scene)
    near = float(np.linalg.norm(scene.hand.at - scene.frame.point(GRIP)))
    if _is_threaded(scene):
        return _leave(scene, TOOL_M)
    if near < 0.10:
        return _leave(scene, FRAME_M)
    return _take(scene, scene.tool.at, _tool_grasp(scene))


def _leave(scene: _Scene, width: float) -> np.ndarray:
    """Open, then go back along the hand's axis."""
    free = ramp(scene.opening, width + 0.01, width + 0.02)
    return steer(-0.08 * free * scene.hand.R[:, 2], np.zeros(3), -1.0, SPEED)


def _tool_grasp(scene: _Scene) -> np.ndarray:
    """Rotation of the hand (3, 3) that takes the tool from above, fingers across it."""
    along = scene.tool.R[:, 0] if abs(scene.tool.R[2, 0]) < 0.9 else scene.tool.R[:, 1]
    across = np.cross(UP, along)
    across /= np.linalg.norm(across)
    # Of the two ways round the one in the middle of the range of the Panda's last joint.
    across = across if across @ np.array([-1.0, 1.0, 0.0]) > 0.0 else -across
    return np.stack([across, np.cross(-UP, across), -UP], axis=1)


def _hook_axes(scene: _Scene) -> tuple[np.ndarray, np.ndarray]:
    """The end of the hook (3,), and the horizontal direction (3,) in which it points away from the rod."""
    out = -scene.frame.R[:, 0] * [1.0, 1.0, 0.0]
    return scene.frame.point(HOOK), out / np.linalg.norm(out)


def _is_threaded(scene: _Scene) -> bool:
    """Whether the bar goes through the tool's hole."""
    end, out = _hook_axes(scene)
    ring = scene.tool.point(RING) - end
    along = float(ring @ out)
    beside = float(np.linalg.norm(ring - along * out - ring[2] * UP))
    return beside < 0.008 and -0.08 < along < 0.008 and -0.024 < ring[2] < -0.001


def _thread(scene: _Scene) -> np.ndarray:
    """Bring the held tool's hole over the hook, let it down, and lower the handle until it hangs."""
    end, out = _hook_axes(scene)
    x = scene.tool.R[:, 0]
    tilt = float(np.arcsin(np.clip(-x[2], -1.0, 1.0)))
    threaded = _is_threaded(scene)
    if threaded and tilt > LET_GO_RAD:
        return steer(np.zeros(3), np.zeros(3), -1.0, SLOW)
    ring = scene.tool.point(RING) - end
    seat = _seat(tilt, out)
    lowered = 1.0 - ramp(float((ring - seat)[2]), 0.001, 0.004)
    goal_tilt = tilt + 0.25 * lowered if threaded else 0.0
    x_goal = np.cos(goal_tilt) * out - np.sin(goal_tilt) * UP
    z_goal = np.sin(goal_tilt) * out + np.cos(goal_tilt) * UP
    if scene.tool.R[2, 2] < 0.0:
        z_goal = -z_goal
    R_goal = np.stack([x_goal, np.cross(z_goal, x_goal), z_goal], axis=1)
    turn = rotvec_from_matrix(R_goal @ scene.tool.R.T)
    angle = float(np.linalg.norm(turn))
    arm = R_goal @ scene.tool.R.T @ (scene.tool.point(RING) - scene.hand.at)
    over = end - (scene.hand.at + arm)
    if threaded:
        return steer(over + seat, _limited(turn), 1.0, SLOW)
    aside = float(np.hypot(*over[:2]))
    away = max(ramp(aside, 0.002, 0.006), ramp(angle, 0.05, 0.15))
    shift = over + UP * (0.025 * away - 0.03 * (1.0 - away))
    if aside < 0.03:
        shift[2] = np.clip(shift[2], -STEP_M, STEP_M)
    # Too low to go over the hook: up first.
    if 0.006 < aside < 0.25:
        shift[:2] *= ramp(-float(over[2]), 0.008, 0.018)
    return steer(shift, _limited(turn), 1.0, SLOW if aside < 0.03 else SPEED)


def _seat(tilt: float, out: np.ndarray) -> np.ndarray:
    """Where the middle of the ring is, from the hook's end, when its far side lies on the bar behind the hook.

    The ring is 19.4 mm wide inside, and hook and bar are 7.5 mm thick: its near side has to get past the end of the bar
    before it is drawn in.
    """
    inwards = 0.0085 * ramp(tilt, 0.6, 1.2)
    height = RING_HALF_M * np.cos(tilt) - 0.0097 * np.sin(tilt) + 0.001
    seat: np.ndarray = UP * (height - BAR_M) - out * inwards
    return seat


def _limited(turn: np.ndarray) -> np.ndarray:
    """The same axis, at most some angle at a time."""
    return turn * min(1.0, TURN_RAD / max(float(np.linalg.norm(turn)), TURN_RAD))
