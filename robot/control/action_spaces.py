"""The action spaces by name, and conversions between them and between forms of a rotation.

All poses are of the tool in the robot's base frame. A 6-D rotation is the first two columns of the rotation matrix,
column by column (Zhou et al. 2019, "On the continuity of rotation representations in neural networks").
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from robot.errors import SpecError, unknown_name
from robot.specs import ArraySpec

POSITION_SCALE_M = 0.05
"""Translation that 1 stands for in an `ee_delta` [m]: robosuite's OSC_POSE default."""

ROTATION_SCALE_RAD = 0.5
"""Rotation that 1 stands for in an `ee_delta` [rad]: robosuite's OSC_POSE default."""

ROT6D_NAMES = ("r11", "r21", "r31", "r12", "r22", "r32")
SMALLEST_NORM = 1e-6
"""Shortest vector that Gram-Schmidt still takes for a direction."""


def ee_delta() -> ArraySpec:
    """Displacement in one control period: position / 0.05 m, axis-angle / 0.5 rad, gripper (-1 opens, 1 closes)."""
    names = ("dx", "dy", "dz", "rx", "ry", "rz", "gripper")
    return ArraySpec("action", (7,), low=-1.0, high=1.0, frame="base", names=names)


def ee_pose() -> ArraySpec:
    """Absolute pose: position [m], 6-D rotation, gripper (-1 opens, 1 closes)."""
    low = (*[-np.inf] * 3, *[-1.0] * 7)
    high = (*[np.inf] * 3, *[1.0] * 7)
    names = ("x", "y", "z", *ROT6D_NAMES, "gripper")
    return ArraySpec("action", (10,), low=low, high=high, unit="m m m 1 1 1 1 1 1 1", frame="base", names=names)


def joints(n: int, low: float = -np.inf, high: float = np.inf, unit: str = "rad") -> ArraySpec:
    """One value for each of n joints, then the gripper (-1 opens, 1 closes)."""
    names = (*[f"q{i + 1}" for i in range(n)], "gripper")
    return ArraySpec("action", (n + 1,), low=(*[low] * n, -1.0), high=(*[high] * n, 1.0), unit=unit, names=names)


def joint_reference(n: int) -> ArraySpec:
    """What n joints follow at one moment: positions [rad], velocities, accelerations, then the gripper."""
    names = [f"{prefix}{i + 1}" for prefix in ("q", "dq", "ddq") for i in range(n)]
    return ArraySpec(
        "target",
        (3 * n + 1,),
        unit=" ".join(["rad"] * n + ["rad/s"] * n + ["rad/s²"] * n + ["1"]),
        names=(*names, "gripper"),
    )


def positions(low: float, high: float, prefix: str = "", unit: str = "") -> ArraySpec:
    """A displacement or position alone, then the gripper; the attitude is held."""
    names = (f"{prefix}x", f"{prefix}y", f"{prefix}z", "gripper")
    lows, highs = (*[low] * 3, -1.0), (*[high] * 3, 1.0)
    return ArraySpec("action", (4,), low=lows, high=highs, unit=unit, frame="base", names=names)


def spec(name: str, n_joints: int = 7) -> ArraySpec:
    """The spec of an action space by name. Raises `UnknownNameError`.

    `joint_position` is absolute [rad]; `joint_delta`, `joint_velocity` and `joint_torque` are robosuite's, scaled to
    [-1, 1]. `ee_delta_position` and `ee_position` are `ee_delta` and `ee_pose` without rotation.
    """
    spaces = {
        "ee_delta": ee_delta,
        "ee_pose": ee_pose,
        "ee_delta_position": lambda: positions(-1.0, 1.0, "d"),
        "ee_position": lambda: positions(-np.inf, np.inf, unit="m m m 1"),
        "joint_position": lambda: joints(n_joints),
        "joint_delta": lambda: joints(n_joints, -1.0, 1.0, unit=""),
        "joint_velocity": lambda: joints(n_joints, -1.0, 1.0, unit=""),
        "joint_torque": lambda: joints(n_joints, -1.0, 1.0, unit=""),
    }
    if name not in spaces:
        raise unknown_name("action space", name, spaces)
    return spaces[name]()


def without_gripper(action: ArraySpec) -> ArraySpec:
    """The action spec of an arm that has none: its last element goes."""
    low, high = action.bounds()
    units = action.unit.split()
    return dataclasses.replace(
        action,
        shape=(action.shape[0] - 1,),
        low=tuple(low[:-1]),
        high=tuple(high[:-1]),
        unit=" ".join(units[:-1]) if len(units) > 1 else action.unit,
        names=action.names[:-1],
    )


def side_by_side(actions: Sequence[ArraySpec]) -> ArraySpec:
    """The action spec of several arms: theirs one after the other, names prefixed `robot0_`, `robot1_`, ..."""
    if len(actions) == 1:
        return actions[0]
    units = [action.unit.split() for action in actions]
    whole = [list(unit) if len(unit) > 1 else unit * a.shape[0] for unit, a in zip(units, actions, strict=True)]
    return ArraySpec(
        "action",
        (sum(action.shape[0] for action in actions),),
        low=tuple(float(x) for action in actions for x in action.bounds()[0]),
        high=tuple(float(x) for action in actions for x in action.bounds()[1]),
        unit=" ".join(unit for units in whole for unit in units),
        frame=actions[0].frame,
        names=tuple(f"robot{i}_{name}" for i, action in enumerate(actions) for name in action.names),
    )


def rot6d_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """First two columns, (..., 6), of rotation matrices (..., 3, 3)."""
    columns = np.swapaxes(np.asarray(matrix), -1, -2)[..., :2, :]
    return columns.reshape(*columns.shape[:-2], 6)


def matrix_from_rot6d(rot6d: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) nearest in the sense of Gram-Schmidt to 6-D rotations (..., 6).

    Raises:
        SpecError: A vector is not finite, has no length, or the two point the same way.
    """
    a, b = np.asarray(rot6d)[..., :3], np.asarray(rot6d)[..., 3:]
    first = _direction(a)
    second = _direction(b - np.sum(first * b, axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def matrix_from_rotvec(rotvec: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of an axis-angle vector (3,) [rad], by Rodrigues' formula."""
    angle = float(np.linalg.norm(rotvec))
    x, y, z = rotvec
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    # np.sinc(t) is sin(pi t) / (pi t), which is smooth through zero.
    sine, versine = np.sinc(angle / np.pi), 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    return np.eye(3) + sine * cross + versine * cross @ cross


def rotvec_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Axis-angle vector (3,) [rad], at most pi long, of a rotation matrix (3, 3), by way of its quaternion."""
    m = np.asarray(matrix, np.float64)
    # Four times the outer product of the quaternion with itself; its largest row is the best conditioned (Shepperd).
    outer = np.array(
        [
            [1 + m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], 1 - m[0, 0] + m[1, 1] - m[2, 2], m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 - m[0, 0] - m[1, 1] + m[2, 2]],
        ]
    )
    quat_wxyz = outer[np.argmax(np.diag(outer))]
    quat_wxyz = quat_wxyz / np.linalg.norm(quat_wxyz) * (1.0 if quat_wxyz[0] >= 0 else -1.0)
    sine = float(np.linalg.norm(quat_wxyz[1:]))
    half = np.arctan2(sine, quat_wxyz[0])
    return quat_wxyz[1:] * (2.0 if sine < 1e-12 else 2.0 * half / sine)


def ee_pose_from_delta(action: np.ndarray, pos_base: np.ndarray, R_base_tool: np.ndarray) -> np.ndarray:
    """The `ee_pose` (10,) that an `ee_delta` (7,) leads to from a tool pose: position (3,) [m], rotation (3, 3)."""
    turn = matrix_from_rotvec(ROTATION_SCALE_RAD * np.asarray(action[3:6], np.float64))
    goal = rot6d_from_matrix(turn @ R_base_tool)
    return np.concatenate([pos_base + POSITION_SCALE_M * np.asarray(action[:3], np.float64), goal, action[6:7]])


def ee_delta_from_pose(pose: np.ndarray, pos_base: np.ndarray, R_base_tool: np.ndarray) -> np.ndarray:
    """The `ee_delta` (7,) that leads from a tool pose to an `ee_pose` (10,).

    Not clipped: beyond [-1, 1] where the pose is farther than one control period reaches.
    """
    turn = matrix_from_rot6d(pose[3:9]) @ np.asarray(R_base_tool).T
    shift = (pose[:3] - pos_base) / POSITION_SCALE_M
    return np.concatenate([shift, rotvec_from_matrix(turn) / ROTATION_SCALE_RAD, pose[9:10]])


def _direction(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector, axis=-1, keepdims=True)
    if not np.all((norm > SMALLEST_NORM) & np.isfinite(norm)):
        raise SpecError("Not a 6-D rotation: its two vectors are not finite, not apart, or have no length.")
    return vector / norm
