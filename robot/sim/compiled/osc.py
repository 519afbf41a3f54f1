"""Operational-space control (Khatib 1987), as robosuite's OSC_POSE and OSC_POSITION do it."""

from typing import Any

import numpy as np

from robot.sim.compiled.algebra import cholesky, rotation, solve_factored, solve_spectral
from robot.sim.compiled.calls import call_jac, floats, inner
from robot.sim.compiled.records import OSC_POSE

NULLSPACE_KP = 10.0
"""Stiffness of the posture task in the null space [1/s^2], robosuite's."""


@inner
def _solve(arm: Any) -> None:
    """x := pinv(A) x for each of the arm's systems, where A is a diagonal block of J M^-1 J^T."""
    square, vectors, whole, solved = arm.square, arm.vectors, arm.inverse_lambda, arm.solved
    for system in range(arm.n_systems):
        at, row, n = arm.system_at[system], arm.system_row[system], arm.system_size[system]
        for i in range(n):
            for j in range(n):
                square[i, j] = whole[row + i, row + j]
        if cholesky(square, n):
            solve_factored(square, solved, at, n)
            continue
        for i in range(n):
            for j in range(n):
                square[i, j] = whole[row + i, row + j]
        solve_spectral(square, vectors, solved, at, n)


@inner
def _read_jacobian(world: Any, arm: Any) -> None:
    """Jacobian of the tool, from the state that `mj_step1` has just computed."""
    nv = world.nv
    call_jac(world.jac_site, world.model, world.data, world.jac_pos_at, world.jac_rot_at, arm.site)
    pos, rot = floats(world.jac_pos_at, 3 * nv), floats(world.jac_rot_at, 3 * nv)
    for j in range(arm.n):
        dof = arm.dof[j]
        for i in range(3):
            arm.jac[i, j] = pos[i * nv + dof]
            arm.jac[3 + i, j] = rot[i * nv + dof]


@inner
def _read_base_velocity(world: Any, arm: Any, qvel: np.ndarray) -> None:
    """Velocity of the base: of an arm whose base frame sits on its first link, as IIWA's does in robosuite."""
    nv, out = world.nv, arm.base_velocity
    call_jac(world.jac_site, world.model, world.data, world.jac_pos_at, world.jac_rot_at, arm.base_site)
    pos, rot = floats(world.jac_pos_at, 3 * nv), floats(world.jac_rot_at, 3 * nv)
    for i in range(3):
        out[i] = out[3 + i] = 0.0
        for j in range(nv):
            out[i] += pos[i * nv + j] * qvel[j]
            out[3 + i] += rot[i * nv + j] * qvel[j]


@inner
def _invert_lambda(arm: Any) -> None:
    """J M^-1 J^T, through M = L L^T and L^-1 J^T."""
    n, jac, factor, half, out = arm.n, arm.jac, arm.factor, arm.half, arm.inverse_lambda
    for i in range(n):
        for j in range(n):
            factor[i, j] = arm.mass[i, j]
    cholesky(factor, n)
    for c in range(6):
        for i in range(n):
            value = jac[c, i]
            for k in range(i):
                value -= factor[i, k] * half[k, c]
            half[i, c] = value / factor[i, i]
    for r in range(6):
        for c in range(r + 1):
            value = 0.0
            for k in range(n):
                value += half[k, r] * half[k, c]
            out[r, c] = value
            out[c, r] = value


@inner
def _desired_wrench(arm: Any, qvel: np.ndarray) -> None:
    """Spring and damper from the tool to its goal, as an acceleration in `arm.solved[:6]`."""
    base_pos, base_mat = floats(arm.base_pos_at, 3), floats(arm.base_mat_at, 9)
    tool_pos, tool_mat = floats(arm.tool_pos_at, 3), floats(arm.tool_mat_at, 9)
    wrench, kp, pos_base, mat_base = arm.solved, arm.kp, arm.pos_base, arm.mat_base
    for i in range(6):
        velocity = -arm.base_velocity[i]
        for j in range(arm.n):
            velocity += arm.jac[i, j] * qvel[arm.dof[j]]
        wrench[i] = -arm.kd[i] * velocity
    for i in range(3):
        wanted = base_pos[i]
        for k in range(3):
            wanted += base_mat[3 * i + k] * pos_base[k]
        wrench[i] += kp[i] * (wanted - tool_pos[i])
    for c in range(3):
        w0, w1, w2 = 0.0, 0.0, 0.0
        for k in range(3):
            w0 += base_mat[k] * mat_base[k, c]
            w1 += base_mat[3 + k] * mat_base[k, c]
            w2 += base_mat[6 + k] * mat_base[k, c]
        t0, t1, t2 = tool_mat[c], tool_mat[3 + c], tool_mat[6 + c]
        wrench[3] += kp[3] * 0.5 * (t1 * w2 - t2 * w1)
        wrench[4] += kp[4] * 0.5 * (t2 * w0 - t0 * w2)
        wrench[5] += kp[5] * 0.5 * (t0 * w1 - t1 * w0)


@inner
def _posture_torque(arm: Any, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """M (kp (q0 - q) - kv dq), critically damped, in `arm.torque`; J times the bracket in `arm.solved[6:]`."""
    n, pull, kv = arm.n, arm.pull, 2.0 * np.sqrt(NULLSPACE_KP)
    for j in range(n):
        pull[j] = NULLSPACE_KP * (arm.posture[j] - qpos[arm.qpos[j]]) - kv * qvel[arm.dof[j]]
    for i in range(n):
        value = 0.0
        for j in range(n):
            value += arm.mass[i, j] * pull[j]
        arm.torque[i] = value
    for i in range(6):
        value = 0.0
        for j in range(n):
            value += arm.jac[i, j] * pull[j]
        arm.solved[6 + i] = value


@inner
def osc_torque(world: Any, arm: Any, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """Torques towards the goal with a posture in the null space, without gravity, into `arm.torque`.

    The null-space projection N^T tau = tau - J^T Lambda J M^-1 tau needs no M^-1, because tau = M x.
    """
    _read_jacobian(world, arm)
    if arm.base_moves:
        _read_base_velocity(world, arm, qvel)
    _invert_lambda(arm)
    _desired_wrench(arm, qvel)
    _posture_torque(arm, qpos, qvel)
    _solve(arm)
    for j in range(arm.n):
        value = arm.torque[j]
        for i in range(6):
            value += arm.jac[i, j] * (arm.solved[i] - arm.solved[6 + i])
        arm.torque[j] = value


@inner
def _turn(arm: Any, out: np.ndarray) -> None:
    """The rotation that was asked for; none where a position is all that is."""
    if arm.kind == OSC_POSE:
        rotation(arm.asked, 3, out)
        return
    for i in range(3):
        for j in range(3):
            out[i, j] = 1.0 if i == j else 0.0


@inner
def osc_goal(arm: Any) -> None:
    """Turn what was asked for into a goal, relative to the pose reached now.

    Of a position alone the attitude reached now is held; an absolute one is where the tool should be, in the base
    frame.
    """
    base_pos, base_mat = floats(arm.base_pos_at, 3), floats(arm.base_mat_at, 9)
    tool_pos, tool_mat = floats(arm.tool_pos_at, 3), floats(arm.tool_mat_at, 9)
    turn, here = arm.square, arm.vectors
    _turn(arm, turn)
    for i in range(3):
        position = arm.asked[i]
        for k in range(3):
            if arm.is_relative:
                position += base_mat[3 * k + i] * (tool_pos[k] - base_pos[k])
            here[i, k] = 0.0
            for r in range(3):
                here[i, k] += base_mat[3 * r + i] * tool_mat[3 * r + k]
        arm.pos_base[i] = position
    for i in range(3):
        for j in range(3):
            value = 0.0
            for k in range(3):
                value += turn[i, k] * here[k, j]
            arm.mat_base[i, j] = value
