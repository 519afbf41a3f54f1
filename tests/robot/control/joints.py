"""Limits of a seven-joint arm, for tests."""

from typing import Any

import numpy as np

from robot.control.limits import JointLimits

JOINT_LIMITS: dict[str, Any] = {
    "workspace_low_m": [0.2, -0.5, 0.05],
    "workspace_high_m": [0.8, 0.5, 0.8],
    "linear_speed_mps": 1.0,
    "angular_speed_radps": 3.0,
    "joint_low_rad": [-2.9, -1.76, -2.9, -3.07, -2.9, -0.01, -2.9],
    "joint_high_rad": [2.9, 1.76, 2.9, -0.07, 2.9, 3.75, 2.9],
    "joint_velocity_radps": [2.1, 2.1, 2.1, 2.1, 2.6, 2.6, 2.6],
    "joint_acceleration_radps2": [10.0, 7.0, 10.0, 12.0, 15.0, 20.0, 20.0],
    "joint_jerk_radps3": [500.0, 400.0, 500.0, 600.0, 700.0, 1000.0, 1000.0],
    "table_z_m": 0.0,
    "clearance_m": 0.02,
    "tracking_rad": 0.1,
    "tracking_time_s": 0.2,
    "home_q_rad": [0.0, -0.785398, 0.0, -2.356194, 0.0, 1.570796, 0.785398],
    "home_speed": 0.2,
    "gateway_timeout_s": 0.5,
    "silence_s": 0.1,
    "max_ahead_s": 1.0,
    "max_age_s": 1.0,
}
HOME = np.array(JOINT_LIMITS["home_q_rad"])


def joint_limits(**changed: Any) -> JointLimits:
    return JointLimits.from_mapping({**JOINT_LIMITS, **changed})


def worst_of(q: np.ndarray, dt_s: float, limits: JointLimits) -> dict[str, float]:
    """Highest share of each limit that positions (N, n), sampled `dt_s` apart, use: by differences, nothing else."""
    low, high = np.array(limits.joint_low_rad), np.array(limits.joint_high_rad)
    middle, half = (low + high) / 2, (high - low) / 2
    dq = np.diff(q, axis=0) / dt_s
    ddq = np.diff(dq, axis=0) / dt_s
    dddq = np.diff(ddq, axis=0) / dt_s
    return {
        "q": float((np.abs(q - middle) / half).max()),
        "dq": float((np.abs(dq) / limits.joint_velocity_radps).max()),
        "ddq": float((np.abs(ddq) / limits.joint_acceleration_radps2).max()),
        "dddq": float((np.abs(dddq) / limits.joint_jerk_radps3).max()),
    }
