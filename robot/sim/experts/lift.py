"""The scripted expert of Lift."""

import numpy as np

from robot.control.action_spaces import matrix_from_rot6d, rotvec_from_matrix
from robot.sim.experts.base import ENVIRONMENT_STATE, STATE, UP, Expert, ramp, steer

HOVER_M = 0.09
"""Height above the cube from which it is approached."""

HOLD_Z_M = 0.02
"""Height of the lifted cube in the base frame: 13 cm above the table of robosuite's Panda."""

OPEN_M, PASSED_M, EMPTY_M = 0.075, 0.066, 0.02
"""How far the fingers are apart: open; closing on the cube; closed on nothing."""

CUBE_M, MARGIN_M = 0.042, 0.006
"""Width of the cube (4.0 to 4.4 cm), and how near the fingers have to be to it to count as closed on it."""


class LiftExpert(Expert):
    """Lifts the cube: above it, turned to its nearest face, down, close, up."""

    READS = {STATE: ("ee_x", "finger_left"), ENVIRONMENT_STATE: ("cube_x", "cube_dx")}  # noqa: RUF012 (never changed)

    def decide(self, state: np.ndarray, environment: np.ndarray) -> np.ndarray:
        """See `Expert.decide`."""
        tool, R_base_tool = state[:3], matrix_from_rot6d(state[3:9])
        cube, R_base_cube = environment[:3], matrix_from_rot6d(environment[3:9])
        opening = state[9] - state[10]
        turn, yaw_error = _turn_to_face(R_base_tool, R_base_cube)
        goal, gripper = _goal(tool, cube, opening, yaw_error)
        return steer(goal - tool, turn, gripper)


def _goal(tool: np.ndarray, cube: np.ndarray, opening: float, yaw_error: float) -> tuple[np.ndarray, float]:
    """Where the tool should be, and what the gripper should do."""
    aside = float(np.hypot(*(cube - tool)[:2]))
    below = abs(float(cube[2] - tool[2]))
    is_ready = aside < 0.012 and below < 0.010
    is_around = aside < 0.020 and below < 0.020 and opening < PASSED_M
    if is_ready or is_around:
        # Between the fingers the cube is wider when it is turned.
        width = CUBE_M * (np.cos(yaw_error) + abs(np.sin(yaw_error)))
        grasped = ramp(opening, width + 2 * MARGIN_M, width + MARGIN_M)
        goal = cube + UP * grasped * np.clip(HOLD_Z_M - cube[2], -0.05, 0.05)
        return goal, -1.0 if opening < EMPTY_M else 1.0
    # A funnel: the farther aside, the less open or the more turned away, the higher above the cube.
    hover = max(ramp(aside, 0.008, 0.040), ramp(opening, OPEN_M, 0.050), ramp(abs(yaw_error), 0.1, 0.4))
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
