"""Poses as matrices (..., 4, 4): made from observations, inverted, compared, moved a part of the way.

`T_a_b` maps coordinates in frame b to coordinates in frame a. Everything here is in the base frame of the arm.
"""

from collections.abc import Sequence

import numpy as np

from robot.control.action_spaces import ROT6D_NAMES, matrix_from_rot6d, matrix_from_rotvec, rotvec_from_matrix

ANGLE_M = 0.1
"""Distance that a turn by one radian counts as [m]: about what it moves the rim of a thing that a gripper takes."""

FREE = 0
"""Symmetry of what looks the same however it is turned about its own z axis."""


def pose_names(name: str) -> tuple[str, ...]:
    """Names of the nine elements of a vector that say where the thing `name` is."""
    return tuple(f"{name}_{part}" for part in ("x", "y", "z", *ROT6D_NAMES))


def poses_of(vectors: np.ndarray, names: Sequence[str], name: str) -> np.ndarray:
    """Poses (..., 4, 4) of one thing, read from vectors (..., D) whose elements have these names.

    Raises:
        SpecError: A rotation is none.
        ValueError: The thing is not among the names.
    """
    picked = np.asarray(vectors, np.float64)[..., [list(names).index(element) for element in pose_names(name)]]
    return matrix(picked[..., :3], matrix_from_rot6d(picked[..., 3:]))


def matrix(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Poses (..., 4, 4) of positions (..., 3) [m] and rotations (..., 3, 3)."""
    poses = np.zeros((*np.shape(position)[:-1], 4, 4))
    poses[..., :3, :3], poses[..., :3, 3], poses[..., 3, 3] = rotation, position, 1.0
    return poses


def inverse(poses: np.ndarray) -> np.ndarray:
    """The inverse of each pose (..., 4, 4)."""
    R_inverse = np.swapaxes(poses[..., :3, :3], -1, -2)
    return matrix(-np.einsum("...ij,...j->...i", R_inverse, poses[..., :3, 3]), R_inverse)


def gap(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """What leads from one pose (4, 4) to another: shift (3,) [m], turn (3,), axis-angle in the base frame [rad]."""
    turn = rotvec_from_matrix(goal[:3, :3] @ start[:3, :3].T)
    return np.concatenate([goal[:3, 3] - start[:3, 3], turn])


def shifted(pose: np.ndarray, by: np.ndarray, part: float = 1.0) -> np.ndarray:
    """A pose (4, 4) moved by a part of a `gap` (6,); `shifted(a, gap(a, b))` is b."""
    moved = np.array(pose)
    moved[:3, 3] += part * by[:3]
    moved[:3, :3] = matrix_from_rotvec(part * by[3:]) @ pose[:3, :3]
    return moved


def size(gap: np.ndarray) -> float:
    """How far a `gap` (6,) leads [m], a turn counting as `ANGLE_M` a radian."""
    return float(np.hypot(np.linalg.norm(gap[:3]), ANGLE_M * np.linalg.norm(gap[3:])))


def same_turned(old: np.ndarray, new: np.ndarray, symmetry: int) -> np.ndarray:
    """The turn Z (4, 4) about its own z axis after which a thing looks the same, and new Z is turned least from old.

    Args:
        old: Pose (4, 4) that the thing had.
        new: Pose (4, 4) that it has.
        symmetry: After how many equal turns about its z axis it has gone round and looked the same each time; 1 where
            only after a whole one, `FREE` where always.
    """
    old_to_new = old[:3, :3].T @ new[:3, :3]
    # The turn that leaves the largest trace of (old to new) Z, so the smallest angle in all.
    angle = float(np.arctan2(old_to_new[0, 1] - old_to_new[1, 0], old_to_new[0, 0] + old_to_new[1, 1]))
    if symmetry != FREE:
        step = 2.0 * np.pi / symmetry
        angle = float(np.round(angle / step) * step)
    turned = np.eye(4)
    turned[:3, :3] = matrix_from_rotvec(np.array([0.0, 0.0, angle]))
    return turned


def displacement(old: np.ndarray, new: np.ndarray, symmetry: int = 1) -> np.ndarray:
    """The rigid transform (4, 4) that takes a thing from its old pose (4, 4) to a new one: new inv(old).

    Of a thing that looks the same after some turns it is the one that turns least; see `same_turned`.
    """
    return new @ same_turned(old, new, symmetry) @ inverse(old)


def distances(old: np.ndarray, new: np.ndarray, symmetry: int = 1) -> np.ndarray:
    """How far each of N poses (N, 4, 4) of a thing is from each of M (M, 4, 4) [m], shape (N, M).

    Turns after which it looks the same do not count.
    """
    shifts = np.linalg.norm(old[:, None, :3, 3] - new[None, :, :3, 3], axis=-1)
    turns = np.einsum("nji,mjk->nmik", old[:, :3, :3], new[:, :3, :3])
    sine, cosine = turns[..., 0, 1] - turns[..., 1, 0], turns[..., 0, 0] + turns[..., 1, 1]
    angle = np.arctan2(sine, cosine)
    if symmetry != FREE:
        angle = np.round(angle * symmetry / (2.0 * np.pi)) * 2.0 * np.pi / symmetry
    trace = np.cos(angle) * cosine + np.sin(angle) * sine + turns[..., 2, 2]
    return np.hypot(shifts, ANGLE_M * np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))


def distance(old: np.ndarray, new: np.ndarray, symmetry: int = 1) -> float:
    """The only one of `distances` between two poses (4, 4) [m]."""
    return float(distances(old[None], new[None], symmetry)[0, 0])
