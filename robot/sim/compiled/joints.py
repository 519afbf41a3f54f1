"""Joint-space control, as robosuite's JOINT_POSITION, JOINT_VELOCITY and JOINT_TORQUE do it."""

from typing import Any

import numpy as np

from robot.sim.compiled.calls import inner
from robot.sim.compiled.records import JOINT_POSITION, RING


@inner
def joint_goal(arm: Any, qpos: np.ndarray) -> None:
    """Turn what was asked for into a goal: of positions relative to those reached now, unless they are absolute."""
    for j in range(arm.n):
        value = arm.asked[j]
        if arm.kind == JOINT_POSITION and arm.is_relative:
            value += qpos[arm.qpos[j]]
        arm.goal[j] = min(max(value, arm.goal_low[j]), arm.goal_high[j])


@inner
def position_torque(arm: Any, qpos: np.ndarray, qvel: np.ndarray) -> None:
    """Spring and damper to the goal times the mass matrix, without gravity, into `arm.torque`."""
    n = arm.n
    for j in range(n):
        arm.pull[j] = arm.kp[j] * (arm.goal[j] - qpos[arm.qpos[j]]) - arm.kd[j] * qvel[arm.dof[j]]
    for i in range(n):
        value = 0.0
        for j in range(n):
            value += arm.mass[i, j] * arm.pull[j]
        arm.torque[i] = value


@inner
def velocity_torque(arm: Any, qvel: np.ndarray, bias: np.ndarray) -> None:
    """Proportional, integral and smoothed derivative of the velocity's error, without gravity, into `arm.torque`.

    The integral waits while the torque, gravity included, is clipped.
    """
    arm.ring_at = (arm.ring_at + 1) % RING
    arm.ring_size = min(arm.ring_size + 1, RING)
    is_saturated = False
    for j in range(arm.n):
        dof = arm.dof[j]
        error = arm.goal[j] - qvel[dof]
        arm.ring[arm.ring_at, j] = error - arm.last_error[j]
        arm.last_error[j] = error
        if not arm.is_saturated:
            arm.integral[j] += error
        change = 0.0
        for k in range(arm.ring_size):
            change += arm.ring[k, j]
        torque = arm.kp[j] * error + arm.ki[j] * arm.integral[j] + arm.kd[j] * change / arm.ring_size + bias[dof]
        clipped = min(max(torque, arm.own_low[j]), arm.own_high[j])
        is_saturated = is_saturated or clipped != torque
        arm.torque[j] = clipped - bias[dof]
    arm.is_saturated = is_saturated
