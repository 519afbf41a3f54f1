"""Joint motion: whatever is wanted, the reference stays inside q, dq, ddq and dddq, and could always stop.

The reference is a trajectory whose jerk is bounded everywhere; a cycle takes a sample of it. Where what is wanted moves
within the limits, the reference follows as a linear filter of third order, without a step in acceleration. Where that
would break a limit, or lead where no braking could keep the joint in its range, the joint takes the quickest admissible
way instead, which Ruckig plans (Berscheid and Kröger 2021, "Jerk-limited Real-time Trajectory Generation with Arbitrary
Target States"). A state from which braking stays in the range is never left for one from which it does not.
"""

import numpy as np
from ruckig import InputParameter, Result, Ruckig, Synchronization, Trajectory

from robot.control.braking import Braking, moved, stopping_range
from robot.control.compiling import entry
from robot.control.limits import JointLimits
from robot.control.safety import Check, Clamp, Fault, Situation

RANGE_MARGIN_RAD = 0.02
"""The reference keeps this far from the ends of a joint's range: the measured joint is never exactly where it is."""
POLES_RADPS = (125.0, 60.0)
"""How quickly the filter follows: three poles at the first of these that keeps the joint inside its limits."""
LONGEST_LEAD_S = 0.3
ROUNDING = 1e-9
"""Ruckig refuses a state that is beyond its limits; rounding may put one there by this part."""


@entry
def _filter(
    now: np.ndarray, wanted: np.ndarray, bounds: np.ndarray, poles: np.ndarray, dt_s: float, out: np.ndarray
) -> int:
    """Fill the states (3, n) one filter step on; the joints that may take it, as bits.

    `bounds` (5, n) are lowest and highest position, velocity, acceleration, jerk.
    """
    safe = 0
    for j in range(now.shape[1]):
        low, high, most_dq, most_ddq, most_dddq = bounds[:, j]
        if wanted[1, j] == 0.0 and wanted[2, j] == 0.0 and low <= wanted[0, j] <= high:
            # So near to rest that being there in the next cycle takes less jerk than there is: no endless creeping.
            q_left, dq_left = abs(wanted[0, j] - now[0, j]), abs(now[1, j])
            if 8.0 * q_left / dt_s**3 + 4.0 * dq_left / dt_s**2 + 2.0 * abs(now[2, j]) / dt_s <= 0.5 * most_dddq:
                out[0, j], out[1, j], out[2, j] = wanted[0, j], 0.0, 0.0
                safe |= 1 << j
                continue
        q, dq, ddq = moved(now[0, j], now[1, j], now[2, j], 0.0, dt_s)
        jerk = 0.0
        for pole in poles:
            jerk = pole**3 * (wanted[0, j] - q) + 3 * pole**2 * (wanted[1, j] - dq) + 3 * pole * (wanted[2, j] - ddq)
            if abs(jerk) <= most_dddq:
                break
        if not abs(jerk) <= most_dddq:
            continue
        q, dq, ddq = moved(now[0, j], now[1, j], now[2, j], jerk, dt_s)
        # Its speed once acceleration has been taken back as quickly as it can be, and its bulge between two samples.
        peak = max(abs(dq), abs(dq + ddq * abs(ddq) / (2.0 * most_dddq))) + most_dddq * dt_s * dt_s / 8.0
        if not (peak <= most_dq and abs(ddq) <= most_ddq):
            continue
        _, lowest, highest = stopping_range(q, dq, ddq, most_ddq, most_dddq)
        if lowest >= low and highest <= high:
            out[0, j], out[1, j], out[2, j] = q, dq, ddq
            safe |= 1 << j
    return safe


@entry
def _admissible(now: np.ndarray, after: np.ndarray, bounds: np.ndarray, dt_s: float) -> int:
    """The joints that may go from one state (3, n) to another in a cycle, as bits: the limits, judged afresh."""
    slack, good = 1.0 + 10 * ROUNDING, 0
    for j in range(now.shape[1]):
        low, high, most_dq, most_ddq, most_dddq = bounds[:, j]
        q, dq, ddq = moved(now[0, j], now[1, j], now[2, j], 0.0, dt_s)
        is_smooth = abs(after[2, j] - ddq) <= slack * most_dddq * dt_s
        is_smooth &= abs(after[1, j] - dq) <= slack * most_dddq * dt_s**2 / 2
        is_smooth &= abs(after[0, j] - q) <= slack * most_dddq * dt_s**3 / 6 + ROUNDING**1.5
        is_slow = abs(after[1, j]) <= slack * most_dq and abs(after[2, j]) <= slack * most_ddq
        _, lowest, highest = stopping_range(after[0, j], after[1, j], after[2, j], most_ddq, most_dddq)
        if is_smooth and is_slow and lowest >= low - ROUNDING and highest <= high + ROUNDING:
            good |= 1 << j
    return good


class JointMotion(Check):
    """The reference moves towards what is wanted, with bounded speed, acceleration and jerk, and can always stop."""

    def __init__(self, limits: JointLimits, dt_s: float) -> None:
        n = self._n = len(limits.joint_low_rad)
        self._dt = dt_s
        self._bounds = np.array(
            [
                np.add(limits.joint_low_rad, RANGE_MARGIN_RAD),
                np.subtract(limits.joint_high_rad, RANGE_MARGIN_RAD),
                limits.joint_velocity_radps,
                limits.joint_acceleration_radps2,
                limits.joint_jerk_radps3,
            ]
        )
        self._poles = np.minimum(POLES_RADPS, 0.25 / dt_s)
        self._braking = Braking(limits)
        self._input = InputParameter(n)
        self._input.max_velocity = [v * (1 + ROUNDING) for v in limits.joint_velocity_radps]
        self._input.max_acceleration = [a * (1 + ROUNDING) for a in limits.joint_acceleration_radps2]
        self._input.max_jerk = list(limits.joint_jerk_radps3)
        self._input.synchronization = Synchronization.No
        self._input.target_acceleration = [0.0] * n
        self._ruckig, self._trajectory = Ruckig(n), Trajectory(n)
        self._next, self._lead_s = np.zeros((3, n)), np.zeros(n)
        self._all = (1 << n) - 1
        # Compile now what a loop must not wait for.
        state = np.vstack([0.5 * (self._bounds[0] + self._bounds[1]), np.zeros((2, n))])
        _filter(state, state, self._bounds, self._poles, dt_s, self._next)
        self._hurry(state, state, 0)

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Replace what is wanted, `target` (3 n + 1,), by the next state of the reference."""
        n = self._n
        wanted = target[: 3 * n].reshape(3, n)
        now = situation.previous[: 3 * n].reshape(3, n)
        clamp = Clamp.NONE
        is_outside = (wanted[0] < self._bounds[0]) | (wanted[0] > self._bounds[1])
        if is_outside.any():
            # Beyond its range a joint is not to be kept moving either.
            np.clip(wanted[0], self._bounds[0], self._bounds[1], out=wanted[0])
            wanted[1:, is_outside] = 0.0
            clamp = Clamp.JOINT_RANGE
        situation.wanted[:] = wanted[0]
        safe = _filter(now, wanted, self._bounds, self._poles, self._dt, self._next)
        if safe != self._all:
            clamp |= Clamp.JOINT_MOTION
            self._hurry(now, wanted, safe)
        wanted[:] = self._next
        return clamp

    def _hurry(self, now: np.ndarray, wanted: np.ndarray, safe: int) -> None:
        """Fill the next state of the other joints with a step of the quickest way, or of braking where that is none.

        Ruckig keeps to the limits of motion but knows no range, and is not to be trusted with it either: whatever it
        says is judged. Braking needs no judging, because every state so far was one from which it stays in the range.
        """
        most = self._bounds[2]
        others = np.array([not safe >> j & 1 for j in range(self._n)])
        # What is wanted moves on while a joint is on its way: aim at where it will be.
        self._lead_s[~others] = 0.0
        speed = wanted[1] + self._lead_s * wanted[2]
        np.clip(speed, -0.95 * most, 0.95 * most, out=speed)
        aim = np.clip(wanted[0] + 0.5 * self._lead_s * (wanted[1] + speed), self._bounds[0], self._bounds[1])
        good = 0
        if self._plan(now, aim, speed):
            quickest = np.asarray(self._trajectory.at_time(self._dt))
            good = _admissible(now, quickest, self._bounds, self._dt)
            durations = np.minimum(self._trajectory.independent_min_durations, LONGEST_LEAD_S)
            np.maximum(0.0, durations - self._dt, out=self._lead_s)
            self._next[:, others] = quickest[:, others]
        if good | safe != self._all:
            braked = np.empty((3, self._n))
            self._braking.step(now, self._dt, braked)
            lost = np.array([not (good | safe) >> j & 1 for j in range(self._n)])
            self._next[:, lost] = braked[:, lost]

    def _plan(self, now: np.ndarray, q: np.ndarray, dq: np.ndarray) -> bool:
        self._input.current_position, self._input.current_velocity = now[0].tolist(), now[1].tolist()
        self._input.current_acceleration = now[2].tolist()
        self._input.target_position, self._input.target_velocity = q.tolist(), dq.tolist()
        return self._ruckig.calculate(self._input, self._trajectory) in (Result.Working, Result.Finished)
