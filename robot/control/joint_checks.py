"""The checks of an arm that follows the motion of its joints."""

import numpy as np

from robot.control.clearance import Clearance
from robot.control.joint_motion import JointMotion
from robot.control.kinematics import ArmModel
from robot.control.limits import JointLimits
from robot.control.safety import HUGE, Check, Clamp, Fault, Gripper, JointRange, JointVelocity, Situation

OVERSHOOT = 1.2
"""A measured joint may be this much faster than its reference ever is until that is a fault."""


class FiniteReference(Check):
    """A target that is not finite is replaced with the one before it, at rest."""

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Keep the previous positions instead of nonsense."""
        if (np.abs(target) < HUGE).all():
            return Clamp.NONE
        n = len(situation.q)
        target[:n], target[n : 3 * n], target[-1] = situation.previous[:n], 0.0, situation.previous[-1]
        return Clamp.REJECTED


class JointTracking(Check):
    """Measured joints stay near the reference. They may not for a while; afterwards something holds or pushes them."""

    def __init__(self, limits: JointLimits, dt_s: float) -> None:
        self._limits, self._dt_s = limits, dt_s
        self.reset()

    def reset(self) -> None:
        """Forget how long the arm has been away."""
        self._away_s = 0.0

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Stop when the distance has been too long for too long."""
        n = len(situation.q)
        is_near = (np.abs(target[:n] - situation.q) <= self._limits.tracking_rad).all()
        self._away_s = 0.0 if is_near else self._away_s + self._dt_s
        return Clamp.NONE if self._away_s <= self._limits.tracking_time_s else Fault.TRACKING


def joint_checks(limits: JointLimits, dt_s: float, model: ArmModel) -> list[Check]:
    """All checks, in order, for a loop of period `dt_s` [s]."""
    return [
        FiniteReference(),
        Gripper(),
        JointMotion(limits, dt_s),
        Clearance(limits, dt_s, model),
        JointRange(limits),
        JointVelocity(limits, OVERSHOOT),
        JointTracking(limits, dt_s),
    ]
