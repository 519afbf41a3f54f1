"""Rotations and how fast they turn, compiled: exponential, logarithm, right Jacobian.

The right Jacobian leads from derivatives of a rotation vector to angular velocities in the body.

From Solà, Deray and Atchuthan 2018, "A micro Lie theory for state estimation in robotics" (appendix B: equations 134,
143, 144); derivatives of the Jacobian are by the product rule. Everything holds for rotation vectors up to π long, and
uses power series where the closed forms cancel.
"""

import math

import numpy as np

from robot.control.compiling import entry, inner

SMALL = 0.25
"""Below this angle squared [rad²] power series replace the closed forms; six terms leave less than 1e-15."""


@inner
def fill_product(a: np.ndarray, b: np.ndarray, is_transposed: bool, out: np.ndarray) -> None:
    """Fill a b, or aᵀ b, for 3 × 3 matrices."""
    for i in range(3):
        for j in range(3):
            if is_transposed:
                out[i, j] = a[0, i] * b[0, j] + a[1, i] * b[1, j] + a[2, i] * b[2, j]
            else:
                out[i, j] = a[i, 0] * b[0, j] + a[i, 1] * b[1, j] + a[i, 2] * b[2, j]


@inner
def turn(R: np.ndarray, vector: np.ndarray, is_transposed: bool, out: np.ndarray) -> None:
    """Fill R v, or Rᵀ v; `out` is not `vector`."""
    for i in range(3):
        if is_transposed:
            out[i] = R[0, i] * vector[0] + R[1, i] * vector[1] + R[2, i] * vector[2]
        else:
            out[i] = R[i, 0] * vector[0] + R[i, 1] * vector[1] + R[i, 2] * vector[2]


@entry
def fill_from_rot6d(rot6d: np.ndarray, out: np.ndarray) -> bool:
    """Fill the rotation (3, 3) nearest, by Gram-Schmidt, to two columns (6,); False where they are none."""
    a, b = rot6d[:3], rot6d[3:]
    length = math.sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2])
    if not (length > 1e-6 and length < 1e6):
        return False
    for i in range(3):
        out[i, 0] = a[i] / length
    along = out[0, 0] * b[0] + out[1, 0] * b[1] + out[2, 0] * b[2]
    for i in range(3):
        out[i, 1] = b[i] - along * out[i, 0]
    length = math.sqrt(out[0, 1] ** 2 + out[1, 1] ** 2 + out[2, 1] ** 2)
    if not (length > 1e-6 and length < 1e6):
        return False
    for i in range(3):
        out[i, 1] /= length
    out[0, 2] = out[1, 0] * out[2, 1] - out[2, 0] * out[1, 1]
    out[1, 2] = out[2, 0] * out[0, 1] - out[0, 0] * out[2, 1]
    out[2, 2] = out[0, 0] * out[1, 1] - out[1, 0] * out[0, 1]
    return True


@inner
def _series(x: float, c0: float, c1: float, c2: float, c3: float, c4: float, c5: float) -> float:
    return c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * c5))))


@inner
def coefficients(x: float) -> tuple[float, float, float, float, float]:
    """sin θ / θ, A = (1 - cos θ) / θ², B = (θ - sin θ) / θ³, dA/dx and dB/dx, for x = θ²."""
    if x < SMALL:
        sine = _series(x, 1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800)
        a = _series(x, 1 / 2, -1 / 24, 1 / 720, -1 / 40320, 1 / 3628800, -1 / 479001600)
        b = _series(x, 1 / 6, -1 / 120, 1 / 5040, -1 / 362880, 1 / 39916800, -1 / 6227020800)
        da = _series(x, -1 / 24, 2 / 720, -3 / 40320, 4 / 3628800, -5 / 479001600, 6 / 87178291200)
        db = _series(x, -1 / 120, 2 / 5040, -3 / 362880, 4 / 39916800, -5 / 6227020800, 6 / 1307674368000)
        return sine, a, b, da, db
    angle = math.sqrt(x)
    sine, cosine = math.sin(angle), math.cos(angle)
    a, b = (1.0 - cosine) / x, (angle - sine) / (x * angle)
    return sine / angle, a, b, (0.5 * sine / angle - a) / x, (0.5 * a - 1.5 * b) / x


@inner
def fill_exp(rotvec: np.ndarray, out: np.ndarray) -> None:
    """Fill the rotation (3, 3) of a rotation vector, by way of its quaternion: orthonormal to rounding."""
    x, y, z = rotvec[0], rotvec[1], rotvec[2]
    quarter, _, _, _, _ = coefficients(0.25 * (x * x + y * y + z * z))
    w = math.cos(0.5 * math.sqrt(x * x + y * y + z * z))
    x, y, z = 0.5 * quarter * x, 0.5 * quarter * y, 0.5 * quarter * z
    s = 2.0 / (w * w + x * x + y * y + z * z)
    out[0, 0], out[0, 1], out[0, 2] = 1.0 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)
    out[1, 0], out[1, 1], out[1, 2] = s * (x * y + z * w), 1.0 - s * (x * x + z * z), s * (y * z - x * w)
    out[2, 0], out[2, 1], out[2, 2] = s * (x * z - y * w), s * (y * z + x * w), 1.0 - s * (x * x + y * y)


@inner
def fill_log(R: np.ndarray, out: np.ndarray) -> None:
    """Fill the rotation vector, at most π long, of a rotation (3, 3).

    By the row of the quaternion's outer product with itself that is best conditioned (Shepperd 1978).
    """
    a, b, c = R[0, 0], R[1, 1], R[2, 2]
    w, x, y, z = 1.0 + a + b + c, R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    if w < 1.0:
        if a >= b and a >= c:
            w, x, y, z = R[2, 1] - R[1, 2], 1.0 + a - b - c, R[0, 1] + R[1, 0], R[0, 2] + R[2, 0]
        elif b >= c:
            w, x, y, z = R[0, 2] - R[2, 0], R[0, 1] + R[1, 0], 1.0 - a + b - c, R[1, 2] + R[2, 1]
        else:
            w, x, y, z = R[1, 0] - R[0, 1], R[0, 2] + R[2, 0], R[1, 2] + R[2, 1], 1.0 - a - b + c
    sine = math.sqrt(x * x + y * y + z * z)
    if w < 0.0:
        w, x, y, z = -w, -x, -y, -z
    scale = 2.0 / w if sine < 1e-12 * w else 2.0 * math.atan2(sine, w) / sine
    out[0], out[1], out[2] = scale * x, scale * y, scale * z


@inner
def fill_body_rates(moment: np.ndarray, omega: np.ndarray, alpha: np.ndarray) -> None:
    """Fill angular velocity and acceleration in the body from rotation vector φ and its derivatives: rows of (3, 3).

    ω = J φ̇ and α = J φ̈ + J̇ φ̇ with the right Jacobian J = I - A [φ] + B [φ]².
    """
    phi, dphi, ddphi = moment[0], moment[1], moment[2]
    _, a, b, da, db = coefficients(phi[0] * phi[0] + phi[1] * phi[1] + phi[2] * phi[2])
    _fill_turned(phi, dphi, -a, b, omega)
    _fill_turned(phi, ddphi, -a, b, alpha)
    _add_bending(phi, dphi, b, da, db, 1.0, alpha)


@inner
def fill_rotvec_rates(
    phi: np.ndarray, omega: np.ndarray, alpha: np.ndarray, dphi: np.ndarray, ddphi: np.ndarray
) -> None:
    """Fill the derivatives of rotation vector φ from angular velocity and acceleration in the body: the inverse.

    φ̇ = J⁻¹ ω and φ̈ = J⁻¹ (α - J̇ φ̇) with J⁻¹ = I + [φ] / 2 + C [φ]², C = 1/θ² - (1 + cos θ) / (2 θ sin θ). Overwrites
    `alpha`.
    """
    x = phi[0] * phi[0] + phi[1] * phi[1] + phi[2] * phi[2]
    sine, a, b, da, db = coefficients(x)
    c = _series(x, 1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160, 691 / 1307674368000)
    if x >= SMALL:
        c = (1.0 - 0.5 * sine / a) / x
    _fill_turned(phi, omega, 0.5, c, dphi)
    _add_bending(phi, dphi, b, da, db, -1.0, alpha)
    _fill_turned(phi, alpha, 0.5, c, ddphi)


@inner
def _fill_turned(phi: np.ndarray, v: np.ndarray, first: float, second: float, out: np.ndarray) -> None:
    """Fill v + first φ × v + second φ × (φ × v); `out` is not `v`."""
    x, y, z = phi[1] * v[2] - phi[2] * v[1], phi[2] * v[0] - phi[0] * v[2], phi[0] * v[1] - phi[1] * v[0]
    out[0] = v[0] + first * x + second * (phi[1] * z - phi[2] * y)
    out[1] = v[1] + first * y + second * (phi[2] * x - phi[0] * z)
    out[2] = v[2] + first * z + second * (phi[0] * y - phi[1] * x)


@inner
def _add_bending(
    phi: np.ndarray, dphi: np.ndarray, b: float, da: float, db: float, sign: float, out: np.ndarray
) -> None:
    """Add ± J̇ φ̇ = ± (-Ȧ φ × φ̇ + Ḃ φ × (φ × φ̇) + B φ̇ × (φ × φ̇)), where Ȧ = 2 φ·φ̇ dA/dx and Ḃ likewise."""
    dx = 2.0 * (phi[0] * dphi[0] + phi[1] * dphi[1] + phi[2] * dphi[2])
    x = phi[1] * dphi[2] - phi[2] * dphi[1]
    y = phi[2] * dphi[0] - phi[0] * dphi[2]
    z = phi[0] * dphi[1] - phi[1] * dphi[0]
    # Both of the last terms are a vector × (φ × φ̇).
    u, v, w = dx * db * phi[0] + b * dphi[0], dx * db * phi[1] + b * dphi[1], dx * db * phi[2] + b * dphi[2]
    out[0] += sign * (-dx * da * x + v * z - w * y)
    out[1] += sign * (-dx * da * y + w * x - u * z)
    out[2] += sign * (-dx * da * z + u * y - v * x)
