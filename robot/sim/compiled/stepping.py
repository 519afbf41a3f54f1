"""The entry points: goals in, substeps, observations out. They hold no lock and allocate nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np

from robot.sim.compiled.algebra import orthonormal
from robot.sim.compiled.calls import call_full, call_step, entry, floats, inner
from robot.sim.compiled.joints import joint_goal, position_torque, velocity_torque
from robot.sim.compiled.osc import osc_goal, osc_torque
from robot.sim.compiled.records import JOINT_POSITION, JOINT_TORQUE, JOINT_VELOCITY, OSC_POSE, OSC_POSITION


@inner
def _resolve(arm: Any, qpos: np.ndarray) -> None:
    if arm.kind == OSC_POSE or arm.kind == OSC_POSITION:
        osc_goal(arm)
    else:
        joint_goal(arm, qpos)
    arm.is_pending = 0


@inner
def _read_mass(world: Any, arm: Any) -> None:
    if arm.use_given_mass:
        arm.use_given_mass = 0
        return
    full, nv = floats(world.full_at, world.nv * world.nv), world.nv
    for i in range(arm.n):
        row = nv * arm.dof[i]
        for j in range(arm.n):
            arm.mass[i, j] = full[row + arm.dof[j]]


@inner
def _control(world: Any, arm: Any, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """One arm's torques and finger settings, from the state that `mj_step1` has just computed, into ctrl."""
    bias, ctrl = floats(world.bias_at, world.nv), floats(world.ctrl_at, world.nu)
    if arm.is_pending:
        _resolve(arm, qpos)
    _read_mass(world, arm)
    if arm.kind == JOINT_POSITION:
        position_torque(arm, qpos, qvel)
    elif arm.kind == JOINT_VELOCITY:
        velocity_torque(arm, qvel, bias)
    elif arm.kind == JOINT_TORQUE:
        for j in range(arm.n):
            arm.torque[j] = arm.goal[j]
    else:
        osc_torque(world, arm, qpos, qvel)
    for j in range(arm.n):
        torque = arm.torque[j] + bias[arm.dof[j]]
        ctrl[arm.ctrl[j]] = min(max(torque, arm.torque_low[j]), arm.torque_high[j])
    for i in range(arm.g):
        low, high = arm.finger_low[i], arm.finger_high[i]
        ctrl[arm.finger_ctrl[i]] = 0.5 * (high + low) + 0.5 * (high - low) * arm.finger[i]


def _make_advance(version: int) -> Callable[..., None]:
    def advance(worlds: np.ndarray, arms: np.ndarray, substeps: int) -> None:
        """Run physics substeps with the controllers between the halves of each."""
        if version < 0:
            return
        world = worlds[0]
        qpos, qvel = floats(world.qpos_at, world.nq), floats(world.qvel_at, world.nv)
        for _ in range(substeps):
            call_step(world.step1, world.model, world.data)
            if world.needs_mass:
                call_full(world.full_m, world.model, world.full_at, world.inertia_at)
            for a in range(len(arms)):
                _control(world, arms[a], qpos, qvel)
            call_step(world.step2, world.model, world.data)

    return advance


@inner
def _move_fingers(arm: Any, command: float, steps: float) -> None:
    for i in range(arm.g):
        setting = arm.finger[i] + steps * arm.finger_rate[i] * np.sign(command)
        arm.finger[i] = min(max(setting, -1.0), 1.0)


def _make_move_fingers(version: int) -> Callable[..., None]:
    def move_fingers(arms: np.ndarray, a: int, command: float, steps: float) -> None:
        """Move the fingers' settings towards closed (command > 0) or open (< 0) at the gripper's speed."""
        if version < 0:
            return
        _move_fingers(arms[a], command, steps)

    return move_fingers


@inner
def _ask(arm: Any, action: np.ndarray, at: int) -> int:
    """Take one arm's part of an action, which begins at `at`; where it ends, or -1 if its rotation is none."""
    if arm.kind == OSC_POSE and arm.is_absolute:
        if not orthonormal(action, at + 3, arm.mat_base):
            return -1
        for i in range(3):
            arm.pos_base[i] = action[at + i]
        arm.is_pending = 0
        at += 9
    else:
        width = 6 if arm.kind == OSC_POSE else 3 if arm.kind == OSC_POSITION else arm.n
        for i in range(width):
            value = action[at + i]
            arm.asked[i] = value if arm.is_absolute else value * arm.scale[i] + arm.shift[i]
        arm.is_pending, arm.is_relative = 1, not arm.is_absolute
        at += width
    if arm.has_gripper:
        _move_fingers(arm, action[at], 1.0)
        at += 1
    return at


def _make_ask(version: int) -> Callable[..., int]:
    def ask(arms: np.ndarray, action: np.ndarray, low: np.ndarray, high: np.ndarray) -> int:
        """Give all arms their goals; 0, or 1 and no change where the action (A,) is not inside its range or finite,
        or 2 where a 6-D rotation is none.
        """
        if version < 0:
            return 0
        for i in range(len(action)):
            if not (action[i] >= low[i] and action[i] <= high[i] and np.isfinite(action[i])):
                return 1
        at = 0
        for a in range(len(arms)):
            at = _ask(arms[a], action, at)
            if at < 0:
                return 2
        return 0

    return ask


advance = entry(_make_advance)
move_fingers = entry(_make_move_fingers)
ask = entry(_make_ask)
