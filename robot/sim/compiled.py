"""Compiled: all physics substeps of a control period, and the operational-space torques between their two halves.

MuJoCo's C functions are called by their integer addresses, which arrive as arguments. That keeps numba's on-disk cache
usable; ctypes functions as globals would defeat it and cost a compilation in every process.

Everything compiled lives in this one file, because numba's cache watches only the file of the function that is called
(and the types of its arguments, which are those of `plant.py`).

Legend: n arm joints, nv degrees of freedom of the world, g finger joints. Vectors and matrices are float64; poses are
in the world unless the name ends in `_base`.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as _intrinsic

from robot.sim.plant import Gains, Goal, Plant, Work

intrinsic: Any = _intrinsic  # numba types it as if the typing context were an argument of the call

SMALLEST_PIVOT = 1e-10
"""Below this share of the largest diagonal element a matrix counts as near-singular and is inverted by its spectrum."""

PINV_CUTOFF = 1e-15
"""Share of the largest eigenvalue below which one counts as zero: `numpy.linalg.pinv`'s default."""

NULLSPACE_KP = 10.0
"""Stiffness of the posture task in the null space [1/s^2], robosuite's."""


_options: Any = njit  # numba's types do not know the flags about wrappers
_entry = _options(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
# What Python never calls needs no wrapper for Python, whose unpacking of the tuples takes longest to compile.
_inner = _options(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@intrinsic
def _call_step(typingctx: Any, function: Any, model: Any, data: Any) -> Any:
    """`void function(model, data)` at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _call_jac(typingctx: Any, function: Any, model: Any, data: Any, jac_pos: Any, jac_rot: Any, site: Any) -> Any:
    """`void function(model, data, double*, double*, int site)` at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, number = ir.IntType(64), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4 + [number])
        last = builder.trunc(args[5], number)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*args[1:5], last])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def _call_full(typingctx: Any, function: Any, model: Any, out: Any, inertia: Any) -> Any:
    """`void function(model, double* out, const double* inertia)` at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@_entry
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


@_inner
def _solve_factored(factor: np.ndarray, b: np.ndarray, at: int, n: int) -> None:
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


@_inner
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


@_inner
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


@_entry
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


@_inner
def _solve_block(work: Work, b: np.ndarray, at: int, n: int) -> None:
    """x := pinv(A) x for x = b[at : at + n] and A the diagonal block of J M^-1 J^T in the same rows."""
    for i in range(n):
        for j in range(n):
            work.square[i, j] = work.inverse_lambda[at + i, at + j]
    if cholesky(work.square, n):
        _solve_factored(work.square, b, at, n)
        return
    for i in range(n):
        for j in range(n):
            work.square[i, j] = work.inverse_lambda[at + i, at + j]
    solve_spectral(work.square, work.vectors, b, at, n)


@_inner
def _read_dynamics(plant: Plant, work: Work) -> None:
    """Jacobian of the tool and mass matrix of the arm, from the state that `mj_step1` has just computed."""
    n = plant.arm_dof.shape[0]
    _call_jac(plant.jac_site, plant.model, plant.data, work.jac_pos_at, work.jac_rot_at, plant.site)
    for j in range(n):
        dof = plant.arm_dof[j]
        for i in range(3):
            work.jac[i, j] = work.jac_pos[i, dof]
            work.jac[3 + i, j] = work.jac_rot[i, dof]
    if work.use_given_mass[0]:
        work.use_given_mass[0] = False
        return
    _call_full(plant.full_m, plant.model, work.full_at, plant.inertia)
    for i in range(n):
        for j in range(n):
            work.mass[i, j] = work.full[plant.arm_dof[i], plant.arm_dof[j]]


@_inner
def _invert_lambda(work: Work, n: int) -> None:
    """J M^-1 J^T, through M = L L^T and L^-1 J^T."""
    for i in range(n):
        for j in range(n):
            work.factor[i, j] = work.mass[i, j]
    cholesky(work.factor, n)
    for c in range(6):
        for i in range(n):
            value = work.jac[c, i]
            for k in range(i):
                value -= work.factor[i, k] * work.half[k, c]
            work.half[i, c] = value / work.factor[i, i]
    for r in range(6):
        for c in range(r + 1):
            value = 0.0
            for k in range(n):
                value += work.half[k, r] * work.half[k, c]
            work.inverse_lambda[r, c] = value
            work.inverse_lambda[c, r] = value


@_inner
def _desired_wrench(plant: Plant, gains: Gains, goal: Goal, work: Work) -> None:
    """Spring and damper from the tool to its goal, as an acceleration in `work.wrench`."""
    n = plant.arm_dof.shape[0]
    for i in range(6):
        velocity = 0.0
        for j in range(n):
            velocity += work.jac[i, j] * plant.qvel[plant.arm_dof[j]]
        work.wrench[i] = -gains.kd[i] * velocity
    for i in range(3):
        wanted = plant.base_pos[i]
        for k in range(3):
            wanted += plant.base_mat[3 * i + k] * goal.pos_base[k]
        work.wrench[i] += gains.kp[i] * (wanted - plant.tool_pos[i])
    for c in range(3):
        w0, w1, w2 = 0.0, 0.0, 0.0
        for k in range(3):
            w0 += plant.base_mat[k] * goal.mat_base[k, c]
            w1 += plant.base_mat[3 + k] * goal.mat_base[k, c]
            w2 += plant.base_mat[6 + k] * goal.mat_base[k, c]
        t0, t1, t2 = plant.tool_mat[c], plant.tool_mat[3 + c], plant.tool_mat[6 + c]
        work.wrench[3] += gains.kp[3] * 0.5 * (t1 * w2 - t2 * w1)
        work.wrench[4] += gains.kp[4] * 0.5 * (t2 * w0 - t0 * w2)
        work.wrench[5] += gains.kp[5] * 0.5 * (t0 * w1 - t1 * w0)


@_inner
def _posture_torque(plant: Plant, goal: Goal, work: Work) -> None:
    """M (kp (q0 - q) - kv dq), critically damped, in `work.posture`; J times the bracket in `work.rhs`."""
    n = plant.arm_dof.shape[0]
    kv = 2.0 * np.sqrt(NULLSPACE_KP)
    for j in range(n):
        pull = NULLSPACE_KP * (goal.posture[j] - plant.qpos[plant.arm_qpos[j]])
        work.torque[j] = pull - kv * plant.qvel[plant.arm_dof[j]]
    for i in range(n):
        value = 0.0
        for j in range(n):
            value += work.mass[i, j] * work.torque[j]
        work.posture[i] = value
    for i in range(6):
        value = 0.0
        for j in range(n):
            value += work.jac[i, j] * work.torque[j]
        work.rhs[i] = value


@_inner
def _control(plant: Plant, gains: Gains, goal: Goal, work: Work) -> None:
    """Operational-space torques (Khatib 1987) with gravity compensation and a posture in the null space, into ctrl.

    The null-space projection N^T tau = tau - J^T Lambda J M^-1 tau needs no M^-1, because tau = M x.
    """
    n = plant.arm_dof.shape[0]
    _read_dynamics(plant, work)
    _invert_lambda(work, n)
    _desired_wrench(plant, gains, goal, work)
    # Sizes that the compiler does not know: it would make a variant of everything below for each number.
    six = work.jac.shape[0]
    block = work.jac_pos.shape[0] if gains.is_uncoupled else six
    for at in range(0, six, block):
        _solve_block(work, work.wrench, at, block)
    _posture_torque(plant, goal, work)
    for at in range(0, six, six):
        _solve_block(work, work.rhs, at, six)
    for j in range(n):
        value = plant.bias[plant.arm_dof[j]] + work.posture[j]
        for i in range(6):
            value += work.jac[i, j] * (work.wrench[i] - work.rhs[i])
        plant.ctrl[plant.arm_ctrl[j]] = min(max(value, gains.torque_low[j]), gains.torque_high[j])


@_entry
def rotation(vector: np.ndarray, out: np.ndarray) -> None:
    """Rotation matrix of an axis-angle vector, rounded through float32 where robosuite's `quat2mat` is."""
    angle = np.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])
    half = np.sin(0.5 * angle) / angle if angle > 0.0 else 0.0
    w, x = np.float32(np.cos(0.5 * angle)), np.float32(vector[0] * half)
    y, z = np.float32(vector[1] * half), np.float32(vector[2] * half)
    # Single-precision products, summed in double precision and rounded, as the BLAS under numpy does it.
    norm = np.float32(np.float64(w * w) + np.float64(x * x) + np.float64(y * y) + np.float64(z * z))
    scale = np.sqrt(2.0 / np.float64(norm))
    w, x, y, z = np.float32(w * scale), np.float32(x * scale), np.float32(y * scale), np.float32(z * scale)
    out[0, 0], out[0, 1], out[0, 2] = 1.0 - y * y - z * z, x * y - z * w, x * z + y * w
    out[1, 0], out[1, 1], out[1, 2] = x * y + z * w, 1.0 - x * x - z * z, y * z - x * w
    out[2, 0], out[2, 1], out[2, 2] = x * z - y * w, y * z + x * w, 1.0 - x * x - y * y


@_inner
def _resolve_delta(plant: Plant, goal: Goal, work: Work) -> None:
    """Turn the waiting delta into a goal, relative to the pose reached now."""
    rotation(goal.delta[3:], work.square)
    for i in range(3):
        position = goal.delta[i]
        for k in range(3):
            position += plant.base_mat[3 * k + i] * (plant.tool_pos[k] - plant.base_pos[k])
            work.vectors[i, k] = 0.0
            for r in range(3):
                work.vectors[i, k] += plant.base_mat[3 * r + i] * plant.tool_mat[3 * r + k]
        goal.pos_base[i] = position
    for i in range(3):
        for j in range(3):
            value = 0.0
            for k in range(3):
                value += work.square[i, k] * work.vectors[k, j]
            goal.mat_base[i, j] = value
    goal.is_pending[0] = False


@_entry
def move_fingers(goal: Goal, gains: Gains, command: float, steps: float) -> None:
    """Move the fingers' settings towards closed (command > 0) or open (< 0) at the gripper's speed."""
    for i in range(goal.finger.shape[0]):
        setting = goal.finger[i] + steps * gains.finger_rate[i] * np.sign(command)
        goal.finger[i] = min(max(setting, -1.0), 1.0)


@_entry
def advance(plant: Plant, gains: Gains, goal: Goal, work: Work, substeps: int) -> None:
    """Run physics substeps with the controller between the halves of each. Holds no lock and allocates nothing."""
    for substep in range(substeps):
        _call_step(plant.step1, plant.model, plant.data)
        if substep == 0 and goal.is_pending[0]:
            _resolve_delta(plant, goal, work)
        _control(plant, gains, goal, work)
        for i in range(plant.finger_ctrl.shape[0]):
            low, high = gains.finger_low[i], gains.finger_high[i]
            plant.ctrl[plant.finger_ctrl[i]] = 0.5 * (high + low) + 0.5 * (high - low) * goal.finger[i]
        _call_step(plant.step2, plant.model, plant.data)


@_entry
def pose_in_base(pos: np.ndarray, mat: np.ndarray, base_pos: np.ndarray, base_mat: np.ndarray, out: np.ndarray) -> None:
    """Position and 6-D rotation in the base frame, into out (9,).

    Args:
        pos: (3,) in the world.
        mat: (9,) rotation row by row.
        base_pos: (3,) of the base in the world.
        base_mat: (9,) of the base in the world.
        out: x y z, first column, second column of the rotation.
    """
    for i in range(3):
        x, first, second = 0.0, 0.0, 0.0
        for k in range(3):
            share = base_mat[3 * k + i]
            x += share * (pos[k] - base_pos[k])
            first += share * mat[3 * k]
            second += share * mat[3 * k + 1]
        out[i], out[3 + i], out[6 + i] = x, first, second
