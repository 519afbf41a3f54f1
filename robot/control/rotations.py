"""How far apart two rotations are, and the way from one to another; cheap enough for every cycle of a control loop.

Rotations are given by their first two columns (6,), which have to be orthonormal (Zhou et al. 2019).
"""

import math

import numpy as np

from robot.control.action_spaces import matrix_from_rot6d, matrix_from_rotvec, rotvec_from_matrix


def angle_between(first: np.ndarray, second: np.ndarray) -> float:
    """Angle between two rotations (6,) [rad], in [0, π].

    The trace of R1ᵀ R2 needs no third column: (a1 × b1)·(a2 × b2) = (a1·a2)(b1·b2) - (a1·b2)(b1·a2) (Lagrange).
    """
    a1, b1, a2, b2 = first[:3], first[3:], second[:3], second[3:]
    aa, bb = float(a1 @ a2), float(b1 @ b2)
    trace = aa + bb + aa * bb - float(a1 @ b2) * float(b1 @ a2)
    return math.acos(max(-1.0, min(1.0, (trace - 1.0) / 2.0)))


def turn_part(first: np.ndarray, second: np.ndarray, part: float) -> None:
    """Replace rotation `second` (6,) by the one at `part` in [0, 1] of the shortest way from `first` to it."""
    R_first = matrix_from_rot6d(first)
    rotvec = rotvec_from_matrix(R_first.T @ matrix_from_rot6d(second))
    turned = R_first @ matrix_from_rotvec(part * rotvec)
    second[:3], second[3:] = turned[:, 0], turned[:, 1]


def is_orthonormal(rot6d: np.ndarray) -> bool:
    """Whether two columns (6,) have length one and a right angle between them, up to 1e-6; NaN has not."""
    a, b = rot6d[:3], rot6d[3:]
    return bool((abs(a @ a - 1.0) <= 1e-6) & (abs(b @ b - 1.0) <= 1e-6) & (abs(a @ b) <= 1e-6))


def fill_matrix(rot6d: np.ndarray, out: np.ndarray) -> None:
    """Fill the rotation matrix (3, 3) of two orthonormal columns (6,)."""
    ax, ay, az, bx, by, bz = rot6d.tolist()
    out[:, 0], out[:, 1] = rot6d[:3], rot6d[3:]
    out[0, 2], out[1, 2], out[2, 2] = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
