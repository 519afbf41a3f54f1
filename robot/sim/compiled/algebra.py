"""Small dense linear algebra and rotations, without allocation."""

import numpy as np

from robot.control.action_spaces import SMALLEST_NORM
from robot.sim.compiled.calls import inner

SMALLEST_PIVOT = 1e-10
"""Below this share of the largest diagonal element a matrix counts as near-singular and is inverted by its spectrum."""

PINV_CUTOFF = 1e-15
"""Share of the largest eigenvalue below which one counts as zero: `numpy.linalg.pinv`'s default."""


@inner
def cholesky(a: np.ndarray, n: int) -> bool:
    """Lower Cholesky factor of the leading n x n block, in place; False where a pivot is too small to be trusted."""
    largest = 0.0
    for i in range(n):
        largest = max(largest, a[i, i])
    is_sound = True
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot -= a[j, k] * a[j, k]
        is_sound = is_sound and pivot > SMALLEST_PIVOT * largest
        root = np.sqrt(pivot)
        a[j, j] = root
        for i in range(j + 1, n):
            value = a[i, j]
            for k in range(j):
                value -= a[i, k] * a[j, k]
            a[i, j] = value / root
    return is_sound


@inner
def solve_factored(factor: np.ndarray, b: np.ndarray, at: int, n: int) -> None:
    """Solve L L^T x = b[at : at + n] in place."""
    for i in range(n):
        value = b[at + i]
        for k in range(i):
            value -= factor[i, k] * b[at + k]
        b[at + i] = value / factor[i, i]
    for i in range(n - 1, -1, -1):
        value = b[at + i]
        for k in range(i + 1, n):
            value -= factor[k, i] * b[at + k]
        b[at + i] = value / factor[i, i]


@inner
def _rotate(a: np.ndarray, v: np.ndarray, n: int, p: int, q: int) -> None:
    """One Jacobi rotation that clears a[p, q]."""
    theta = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
    t = 1.0 / (abs(theta) + np.sqrt(theta * theta + 1.0))
    if theta < 0.0:
        t = -t
    c = 1.0 / np.sqrt(t * t + 1.0)
    s = t * c
    for k in range(n):
        left, right = a[k, p], a[k, q]
        a[k, p], a[k, q] = c * left - s * right, s * left + c * right
    for k in range(n):
        left, right = a[p, k], a[q, k]
        a[p, k], a[q, k] = c * left - s * right, s * left + c * right
    for k in range(n):
        left, right = v[k, p], v[k, q]
        v[k, p], v[k, q] = c * left - s * right, s * left + c * right


@inner
def _diagonalise(a: np.ndarray, v: np.ndarray, n: int) -> None:
    """Eigenvalues of a symmetric a onto its diagonal, eigenvectors into the columns of v: the cyclic Jacobi method
    (Golub and Van Loan, Matrix Computations, 8.5).
    """
    for i in range(n):
        for j in range(n):
            v[i, j] = 1.0 if i == j else 0.0
    for _ in range(12):
        for p in range(n - 1):
            for q in range(p + 1, n):
                if a[p, q] != 0.0:
                    _rotate(a, v, n, p, q)


@inner
def solve_spectral(a: np.ndarray, v: np.ndarray, b: np.ndarray, at: int, n: int) -> None:
    """x := pinv(a) x for x = b[at : at + n] and a symmetric a; overwrites a and v."""
    _diagonalise(a, v, n)
    largest = 0.0
    for i in range(n):
        largest = max(largest, abs(a[i, i]))
    for i in range(n):
        share = 0.0
        if abs(a[i, i]) > PINV_CUTOFF * largest:
            for k in range(n):
                share += v[k, i] * b[at + k]
            share /= a[i, i]
        a[i, 0] = share
    for k in range(n):
        b[at + k] = 0.0
        for i in range(n):
            b[at + k] += a[i, 0] * v[k, i]


@inner
def rotation(vector: np.ndarray, at: int, out: np.ndarray) -> None:
    """Rotation matrix of the axis-angle vector[at : at + 3], rounded to float32 where robosuite's `quat2mat` is."""
    v0, v1, v2 = vector[at], vector[at + 1], vector[at + 2]
    angle = np.sqrt(v0 * v0 + v1 * v1 + v2 * v2)
    half = np.sin(0.5 * angle) / angle if angle > 0.0 else 0.0
    w, x = np.float32(np.cos(0.5 * angle)), np.float32(v0 * half)
    y, z = np.float32(v1 * half), np.float32(v2 * half)
    # Single-precision products, summed in double precision and rounded, as the BLAS under numpy does it.
    norm = np.float32(np.float64(w * w) + np.float64(x * x) + np.float64(y * y) + np.float64(z * z))
    scale = np.sqrt(2.0 / np.float64(norm))
    w, x, y, z = np.float32(w * scale), np.float32(x * scale), np.float32(y * scale), np.float32(z * scale)
    out[0, 0], out[0, 1], out[0, 2] = 1.0 - y * y - z * z, x * y - z * w, x * z + y * w
    out[1, 0], out[1, 1], out[1, 2] = x * y + z * w, 1.0 - x * x - z * z, y * z - x * w
    out[2, 0], out[2, 1], out[2, 2] = x * z - y * w, y * z + x * w, 1.0 - x * x - y * y


@inner
def orthonormal(vector: np.ndarray, at: int, out: np.ndarray) -> bool:
    """Rotation matrix of the 6-D rotation vector[at : at + 6], into out (3, 3); False where the two are not apart."""
    a0, a1, a2 = vector[at], vector[at + 1], vector[at + 2]
    b0, b1, b2 = vector[at + 3], vector[at + 4], vector[at + 5]
    length = np.sqrt(a0 * a0 + a1 * a1 + a2 * a2)
    if not length > SMALLEST_NORM:
        return False
    a0, a1, a2 = a0 / length, a1 / length, a2 / length
    along = a0 * b0 + a1 * b1 + a2 * b2
    b0, b1, b2 = b0 - along * a0, b1 - along * a1, b2 - along * a2
    length = np.sqrt(b0 * b0 + b1 * b1 + b2 * b2)
    if not length > SMALLEST_NORM:
        return False
    b0, b1, b2 = b0 / length, b1 / length, b2 / length
    out[0, 0], out[1, 0], out[2, 0] = a0, a1, a2
    out[0, 1], out[1, 1], out[2, 1] = b0, b1, b2
    out[0, 2], out[1, 2], out[2, 2] = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    return True
