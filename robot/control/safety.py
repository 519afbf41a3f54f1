"""Safety: small checks that every target passes on its way to the driver.

Too much is clamped and reported, nonsense is rejected, a measured violation latches a stop. A check never trusts what
came before it: the comparison is always "accept only if inside", so that NaN is never accepted.

This is not safety-rated software. It does not replace an emergency stop in hardware.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

import numpy as np

from robot.control.action_spaces import matrix_from_rot6d
from robot.control.limits import Limits, PoseLimits
from robot.control.rotations import angle_between, is_orthonormal, turn_part
from robot.errors import SpecError

HUGE = 1e6
"""No element of a target is this large: squares of such numbers are still finite."""


class Clamp(IntFlag):
    """What was cut down, as bits of `clamp_mask`."""

    NONE = 0
    ACTION = 1
    WORKSPACE = 2
    LINEAR_SPEED = 4
    ANGULAR_SPEED = 8
    GRIPPER = 16
    REJECTED = 32
    """The whole target was nonsense; the one before it was kept."""
    JOINT_RANGE = 64
    JOINT_MOTION = 128
    """Speed, acceleration, jerk or braking distance of a joint."""
    CLEARANCE = 256
    """The arm would have come too near to itself or the table; it brakes."""
    REACH = 512
    """No joint positions take the tool there; it goes as near as it can."""


class Fault(IntEnum):
    """Why a stop is latched."""

    NONE = 0
    ESTOP = 1
    JOINT_RANGE = 2
    JOINT_VELOCITY = 3
    TRACKING = 4
    DEVICE = 5
    MEASUREMENT = 6


@dataclass(frozen=True)
class Situation:
    """What the checks compare a target with: views that the control loop keeps up to date.

    Attributes:
        previous: Target of the cycle before, in the arm's target space.
        q: Measured joint positions [rad].
        dq: Measured joint velocities [rad/s].
        ee_pos: Measured tool position (3,), base frame [m].
        ee_rot6d: Measured tool rotation (6,), base frame.
        wanted: Joint positions that were asked for before motion was limited [rad]; filled by the check that limits
            it, of no length for an arm that follows poses.
    """

    previous: np.ndarray
    q: np.ndarray
    dq: np.ndarray
    ee_pos: np.ndarray
    ee_rot6d: np.ndarray
    wanted: np.ndarray = field(default_factory=lambda: np.empty(0))


class Check(ABC):
    """One check."""

    @abstractmethod
    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Cut `target` (10,) down in place and say so, or say why the arm has to stop; `Clamp.NONE` if all is well."""

    def reset(self) -> None:
        """Forget the past; called when the arm is armed."""
        return


class Finite(Check):
    """A target that is not finite, or whose rotation is none, is replaced with the one before it."""

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Keep the previous target instead of nonsense; make the rotation orthonormal."""
        if not (np.abs(target) < HUGE).all():
            target[:] = situation.previous
            return Clamp.REJECTED
        if is_orthonormal(target[3:9]):
            return Clamp.NONE
        try:
            R = matrix_from_rot6d(target[3:9])
        except SpecError:
            target[:] = situation.previous
            return Clamp.REJECTED
        target[3:6], target[6:9] = R[:, 0], R[:, 1]
        return Clamp.NONE


class Gripper(Check):
    """The gripper command lies in [-1, 1]."""

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Clamp to the range."""
        wanted = target[-1]
        target[-1] = min(max(wanted, -1.0), 1.0)
        return Clamp.NONE if target[-1] == wanted else Clamp.GRIPPER


class Workspace(Check):
    """The position lies in a box in the base frame."""

    def __init__(self, limits: Limits) -> None:
        self._low, self._high = np.array(limits.workspace_low_m), np.array(limits.workspace_high_m)

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Move the position to the nearest point of the box."""
        position = target[:3]
        if self.contains(position):
            return Clamp.NONE
        np.clip(position, self._low, self._high, out=position)
        return Clamp.WORKSPACE

    def contains(self, position: np.ndarray) -> bool:
        """Whether a position (3,) lies in the box; NaN does not."""
        return bool(((position >= self._low) & (position <= self._high)).all())


class TargetSpeed(Check):
    """Linear and angular speed of the target against the one before it, averaged over a window.

    Each is a budget that fills at the speed limit and holds at most speed × window: one action may jump as far as an
    action may at all, and a stream of jumps is held to the speed. Box and ball are convex, so that cutting the way
    short never leaves the workspace.
    """

    def __init__(self, limits: PoseLimits, dt_s: float) -> None:
        self._income_m, self._income_rad = limits.linear_speed_mps * dt_s, limits.angular_speed_radps * dt_s
        self._full_m = max(limits.linear_speed_mps * limits.speed_window_s, self._income_m)
        self._full_rad = max(limits.angular_speed_radps * limits.speed_window_s, self._income_rad)
        self.reset()

    def reset(self) -> None:
        """Begin with full budgets: the target rests when an arm is armed."""
        self._budget_m, self._budget_rad = self._full_m, self._full_rad

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Shorten the step to what the budgets allow."""
        clamp = Clamp.NONE
        previous = situation.previous
        self._budget_m = min(self._budget_m + self._income_m, self._full_m)
        self._budget_rad = min(self._budget_rad + self._income_rad, self._full_rad)
        step = target[:3] - previous[:3]
        distance = math.sqrt(step @ step)
        if distance > self._budget_m:
            target[:3] = previous[:3] + step * (self._budget_m / distance)
            distance, clamp = self._budget_m, Clamp.LINEAR_SPEED
        self._budget_m -= distance
        angle = angle_between(previous[3:9], target[3:9])
        if angle > self._budget_rad:
            turn_part(previous[3:9], target[3:9], self._budget_rad / angle)
            angle, clamp = self._budget_rad, clamp | Clamp.ANGULAR_SPEED
        self._budget_rad -= angle
        return clamp


class JointRange(Check):
    """Measured joint positions lie in their range."""

    def __init__(self, limits: Limits) -> None:
        self._low, self._high = np.array(limits.joint_low_rad), np.array(limits.joint_high_rad)

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Stop outside the range."""
        inside = ((situation.q >= self._low) & (situation.q <= self._high)).all()
        return Clamp.NONE if inside else Fault.JOINT_RANGE


class JointVelocity(Check):
    """Measured joint speeds are below their limits."""

    def __init__(self, limits: Limits, overshoot: float = 1.0) -> None:
        self._high = np.array(limits.joint_velocity_radps) * overshoot

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Stop above the limit."""
        return Clamp.NONE if (np.abs(situation.dq) <= self._high).all() else Fault.JOINT_VELOCITY


class Tracking(Check):
    """The tool stays near its target. It may not for a while; afterwards something holds or pushes it."""

    def __init__(self, limits: PoseLimits, dt_s: float) -> None:
        self._limits, self._dt_s = limits, dt_s
        self.reset()

    def reset(self) -> None:
        """Forget how long the tool has been away."""
        self._away_s = 0.0

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Stop when the distance has been too long for too long."""
        error = target[:3] - situation.ee_pos
        near = math.sqrt(error @ error) <= self._limits.tracking_m
        aligned = angle_between(situation.ee_rot6d, target[3:9]) <= self._limits.tracking_rad
        self._away_s = 0.0 if near and aligned else self._away_s + self._dt_s
        return Clamp.NONE if self._away_s <= self._limits.tracking_time_s else Fault.TRACKING


def pose_checks(limits: PoseLimits, dt_s: float) -> list[Check]:
    """All checks of targets that are poses, in order, for a loop of period `dt_s` [s]."""
    return [
        Finite(),
        Gripper(),
        Workspace(limits),
        TargetSpeed(limits, dt_s),
        JointRange(limits),
        JointVelocity(limits),
        Tracking(limits, dt_s),
    ]
