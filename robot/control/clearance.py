"""Clearance: the arm could always stop inside its workspace box, clear of the table and of itself.

Looking at where the arm is would be too late at speed. Each next state of the reference is therefore judged by where
braking from it would end. As long as that is good, the state is taken; otherwise the arm brakes, from a state whose own
end was good. An arm that begins outside may move, but only so that it gets better.
"""

import numpy as np

from robot.control.braking import Braking
from robot.control.kinematics import ArmModel
from robot.control.limits import JointLimits
from robot.control.safety import Check, Clamp, Fault, Situation

BOX_TOLERANCE_M = 0.002
"""A goal on the face of the box, and what inverse kinematics and filtering add to it."""
STILL_RADPS = 1e-6


class Clearance(Check):
    """Never towards a state from which braking would end outside the box or too near to the table or the arm itself."""

    def __init__(self, limits: JointLimits, dt_s: float, model: ArmModel) -> None:
        n = self._n = len(limits.joint_low_rad)
        self._dt, self._model, self._braking = dt_s, model, Braking(limits)
        self._low, self._high = np.array(limits.workspace_low_m), np.array(limits.workspace_high_m)
        self._least_m = limits.clearance_m
        self._end, self._pos, self._rot6d = np.zeros(n), np.zeros(3), np.zeros(6)
        self._refused, self._reason = np.zeros(n), Clamp.NONE
        self.reset()

    def reset(self) -> None:
        """Take the next state as the one to begin with."""
        self._allowed: tuple[float, float] | None = None
        self._is_refusing = False
        self.clearance_m = -1.0

    def apply(self, target: np.ndarray, situation: Situation) -> Clamp | Fault:
        """Brake instead, where the end of braking would be bad."""
        n = self._n
        state = target[: 3 * n].reshape(3, n)
        now = situation.previous[: 3 * n].reshape(3, n)
        if self._allowed is None:
            self._allowed = self._badness(now)
        if self._is_refusing and not self._may_try_again(now, situation.wanted):
            self._braking.step(now, self._dt, state)
            return self._reason
        badness = self._badness(state)
        self._reason = Clamp.NONE
        if not badness[0] <= max(0.0, self._allowed[0]) + 1e-9:
            self._reason |= Clamp.WORKSPACE
        if not badness[1] <= max(0.0, self._allowed[1]) + 1e-9:
            self._reason |= Clamp.CLEARANCE
        if self._reason:
            self._is_refusing = True
            self._refused[:] = situation.wanted
            self._braking.step(now, self._dt, state)
        else:
            self._is_refusing, self._allowed = False, badness
        return self._reason

    def _badness(self, state: np.ndarray) -> tuple[float, float]:
        """How far braking from a state (3, n) would end outside the box, and too near to something [m]."""
        self._braking.rest(state, self._end)
        self._model.pose(self._end, self._pos, self._rot6d)
        outside = np.maximum(self._low - self._pos, self._pos - self._high).max() - BOX_TOLERANCE_M
        self.clearance_m = self._model.clearance(self._end)
        return float(outside), self._least_m - self.clearance_m

    def _may_try_again(self, now: np.ndarray, wanted: np.ndarray) -> bool:
        """Once at rest, and only for a goal other than the one that was refused: no trembling at the boundary."""
        is_still = bool((np.abs(now[1:]) <= STILL_RADPS).all())
        return is_still and not np.array_equal(wanted, self._refused)
