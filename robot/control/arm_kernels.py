"""Kinematics, inverse kinematics and distances of an arm, compiled, over plain arrays.

An arm is a tree of bodies in order, parents first. Of body b: `parent[b]`, `joint[b]` (-1 where it is fixed to its
parent), and where it is in its parent at q = 0: `place[b]` and `attitude[b]`. Joints turn about `axis[joint]` through
the body's origin. The last body is the tool. Capsule c belongs to body `owner[c]`; its axis leads from `ends[c, 0]` to
`ends[c, 1]` in that body, its radius is `radius[c]`.
"""

import math

import numpy as np

from robot.control.compiling import entry, inner
from robot.control.so3 import fill_exp, fill_log, fill_product, turn

ROTATION_LENGTH_M = 0.3
"""How many metres an error of one radian counts as: the reach of a hand."""
ITERATIONS = 12
TOLERANCE = 1e-12
"""Inverse kinematics ends when an iteration's step is this small [rad]: joints are differentiated twice at 1 kHz."""
DAMPING = 1e-8
"""Least damping [m²]: only singular directions, with less than 0.1 mm of the tool per radian, feel it."""
LONGEST_STEP_RAD = 0.5

Tree = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@entry
def forward(tree: Tree, q: np.ndarray, R: np.ndarray, p: np.ndarray) -> None:
    """Fill rotation (B, 3, 3) and origin (B, 3) of every body in the base frame."""
    parent, joint, axis, place, attitude = tree
    vector, turned, held = np.empty(3), np.empty((3, 3)), np.empty((3, 3))
    for b in range(len(parent)):
        for i in range(3):
            vector[i] = q[joint[b]] * axis[joint[b], i] if joint[b] >= 0 else 0.0
        fill_exp(vector, turned)
        if parent[b] < 0:
            fill_product(attitude[b], turned, False, R[b])
            for i in range(3):
                p[b, i] = place[b, i]
        else:
            fill_product(attitude[b], turned, False, held)
            fill_product(R[parent[b]], held, False, R[b])
            turn(R[parent[b]], place[b], False, p[b])
            for i in range(3):
                p[b, i] += p[parent[b], i]


@entry
def fill_jacobian(tree: Tree, R: np.ndarray, p: np.ndarray, out: np.ndarray) -> None:
    """Fill (6, n): velocity and angular velocity of the tool in the base frame, by the joints' velocities."""
    parent, joint, axis, _, _ = tree
    for j in range(out.shape[1]):
        for i in range(6):
            out[i, j] = 0.0
    b = len(parent) - 1
    tool, z = p[b], np.empty(3)
    while b >= 0:
        j = joint[b]
        if j >= 0:
            turn(R[b], axis[j], False, z)
            x, y, w = tool[0] - p[b, 0], tool[1] - p[b, 1], tool[2] - p[b, 2]
            out[0, j], out[1, j], out[2, j] = z[1] * w - z[2] * y, z[2] * x - z[0] * w, z[0] * y - z[1] * x
            out[3, j], out[4, j], out[5, j] = z[0], z[1], z[2]
        b = parent[b]


@inner
def _fill_error(R: np.ndarray, p: np.ndarray, goal_R: np.ndarray, goal_p: np.ndarray, out: np.ndarray) -> float:
    """Fill what leads from tool to goal (6,) in the base frame, rotation as a length; half its square."""
    relative, vector = np.empty((3, 3)), np.empty(3)
    fill_product(R, goal_R, True, relative)
    fill_log(relative, vector)
    turn(R, vector, False, out[3:])
    square = 0.0
    for i in range(3):
        out[i] = goal_p[i] - p[i]
        out[3 + i] *= ROTATION_LENGTH_M
        square += out[i] * out[i] + out[3 + i] * out[3 + i]
    return 0.5 * square


@inner
def _solve(A: np.ndarray, b: np.ndarray) -> None:
    """Solve A x = b in place by Cholesky's factors of A, which is symmetric, positive, and given by its lower half."""
    n = len(b)
    for j in range(n):
        for k in range(j):
            A[j, j] -= A[j, k] * A[j, k]
        A[j, j] = math.sqrt(max(A[j, j], 1e-18))
        for i in range(j + 1, n):
            for k in range(j):
                A[i, j] -= A[i, k] * A[j, k]
            A[i, j] /= A[j, j]
    for i in range(n):
        for k in range(i):
            b[i] -= A[i, k] * b[k]
        b[i] /= A[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            b[i] -= A[k, i] * b[k]
        b[i] /= A[i, i]


@inner
def _fill_step(J: np.ndarray, error: np.ndarray, rest: np.ndarray, damping: float, out: np.ndarray) -> None:
    """Fill Jᵀ (J Jᵀ + λ)⁻¹ (e - J z) + z: towards the goal, and towards z as far as that leaves the tool alone."""
    n = J.shape[1]
    A, b = np.empty((6, 6)), np.empty(6)
    for i in range(6):
        b[i] = error[i]
        for k in range(n):
            b[i] -= J[i, k] * rest[k]
        for j in range(i + 1):
            A[i, j] = damping if i == j else 0.0
            for k in range(n):
                A[i, j] += J[i, k] * J[j, k]
    _solve(A, b)
    for k in range(n):
        out[k] = rest[k]
        for i in range(6):
            out[k] += J[i, k] * b[i]


@inner
def _weigh(J: np.ndarray, error: np.ndarray, q: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Count J's rotation as a length, and take out the joints that stand at an end of their range and would go on."""
    for k in range(J.shape[1]):
        for i in range(3, 6):
            J[i, k] *= ROTATION_LENGTH_M
        pull = 0.0
        for i in range(6):
            pull += J[i, k] * error[i]
        if (q[k] <= low[k] and pull < 0.0) or (q[k] >= high[k] and pull > 0.0):
            for i in range(6):
                J[i, k] = 0.0


@entry
def inverse(
    tree: Tree,
    goal_R: np.ndarray,
    goal_p: np.ndarray,
    posture: tuple[np.ndarray, float],
    bounds: tuple[np.ndarray, np.ndarray],
    q: np.ndarray,
) -> tuple[float, float]:
    """Lead q (n,) to where the tool is at a goal or as near as it gets; distance and angle left [m, rad].

    Levenberg and Marquardt's steps in J's row space, damped by the error itself (Sugihara 2011,
    "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method"), never leaving `bounds`.
    """
    n = len(q)
    (aim, gain), (low, high) = posture, bounds
    R, p = np.empty((len(tree[0]), 3, 3)), np.empty((len(tree[0]), 3))
    J, error, rest, step, tried = np.empty((6, n)), np.empty(6), np.zeros(n), np.zeros(n), np.empty(n)
    _walk(q, step, bounds, tried)
    forward(tree, tried, R, p)
    cost = _fill_error(R[-1], p[-1], goal_R, goal_p, error)
    for k in range(n):
        q[k] = tried[k]
        rest[k] = gain * math.sqrt(2.0 * cost) * (aim[k] - q[k])
    extra = 1.0
    for _ in range(ITERATIONS):
        fill_jacobian(tree, R, p, J)
        _weigh(J, error, q, low, high)
        _fill_step(J, error, rest, DAMPING + extra * cost, step)
        moved = _walk(q, step, bounds, tried)
        forward(tree, tried, R, p)
        new_cost = _fill_error(R[-1], p[-1], goal_R, goal_p, error)
        is_better = new_cost <= cost
        if not is_better:
            forward(tree, q, R, p)
            new_cost = _fill_error(R[-1], p[-1], goal_R, goal_p, error)
        cost, extra = new_cost, max(0.1, 0.5 * extra) if is_better else 8.0 * extra
        for k in range(n):
            rest[k] = 0.0
            q[k] = tried[k] if is_better else q[k]
        if moved <= TOLERANCE:
            break
    return math.sqrt(_square(error[:3])), math.sqrt(_square(error[3:])) / ROTATION_LENGTH_M


@inner
def _walk(q: np.ndarray, step: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], out: np.ndarray) -> float:
    """Fill where a step leads, shortened to `LONGEST_STEP_RAD` and cut at the bounds; how far a joint moves at most."""
    longest = LONGEST_STEP_RAD
    for k in range(len(q)):
        longest = max(longest, abs(step[k]))
    moved = 0.0
    for k in range(len(q)):
        out[k] = min(max(q[k] + step[k] * LONGEST_STEP_RAD / longest, bounds[0][k]), bounds[1][k])
        moved = max(moved, abs(out[k] - q[k]))
    return moved


@inner
def _square(v: np.ndarray) -> float:
    return v[0] * v[0] + v[1] * v[1] + v[2] * v[2]


@entry
def place_capsules(owner: np.ndarray, ends: np.ndarray, R: np.ndarray, p: np.ndarray, out: np.ndarray) -> None:
    """Fill the ends (C, 2, 3) of every capsule's axis in the base frame."""
    for c in range(len(owner)):
        for e in range(2):
            turn(R[owner[c]], ends[c, e], False, out[c, e])
            for i in range(3):
                out[c, e, i] += p[owner[c], i]


@inner
def axes_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Least distance between two line segments, each given by its ends (2, 3) (Ericson 2004, "Real-Time Collision
    Detection", 5.1.9).
    """
    a = b = c = d = e = 0.0
    for i in range(3):
        u, v, w = first[1, i] - first[0, i], second[1, i] - second[0, i], first[0, i] - second[0, i]
        a, b, c, d, e = a + u * u, b + u * v, c + v * v, d + u * w, e + v * w
    s = 0.0
    if a > 0.0:
        square = a * c - b * b
        s = min(max((b * e - c * d) / square, 0.0), 1.0) if square > 1e-12 * a * c else 0.0
    t = (b * s + e) / c if c > 0.0 else 0.0
    if t < 0.0:
        t, s = 0.0, min(max(-d / a, 0.0), 1.0) if a > 0.0 else 0.0
    elif t > 1.0:
        t, s = 1.0, min(max((b - d) / a, 0.0), 1.0) if a > 0.0 else 0.0
    total = 0.0
    for i in range(3):
        u, v, w = first[1, i] - first[0, i], second[1, i] - second[0, i], first[0, i] - second[0, i]
        total += (w + s * u - t * v) ** 2
    return math.sqrt(total)


@entry
def least_distance(
    capsules: tuple[np.ndarray, np.ndarray], pairs: np.ndarray, over_table: np.ndarray, table_z_m: float
) -> tuple[float, int]:
    """Least distance of pairs of capsules, and of some from the table [m]; its index in pairs, then in `over_table`."""
    (ends, radius), least, nearest = capsules, math.inf, -1
    for k in range(len(pairs)):
        c, d = pairs[k]
        distance = axes_distance(ends[c], ends[d]) - radius[c] - radius[d]
        if distance < least:
            least, nearest = distance, k
    for k in range(len(over_table)):
        c = over_table[k]
        distance = min(ends[c, 0, 2], ends[c, 1, 2]) - radius[c] - table_z_m
        if distance < least:
            least, nearest = distance, len(pairs) + k
    return least, nearest
