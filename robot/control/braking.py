"""Braking: the quickest way to rest that keeps acceleration and jerk inside their limits.

What a reference may do next is decided by where it would come to rest. For one joint the quickest way has three parts:
jerk towards the acceleration that is needed, that acceleration held, jerk back to none (the velocity profile of
Biagiotti and Melchiorri 2008, "Trajectory Planning for Automatic Machines and Robots", section 3.4, from any
acceleration on). Of all ways to rest it runs least far, so that a joint that overruns its range was lost before.
"""

import math

import numpy as np

from robot.control.compiling import entry
from robot.control.limits import JointLimits


@entry
def stopping(dq: float, ddq: float, most_ddq: float, jerk: float) -> tuple[float, float, float, float]:
    """The jerk of the first part, with its sign, and how long each of the three parts lasts [s]."""
    # Seen so that velocity has to rise to zero; after the acceleration has been taken back it is not positive.
    left = dq + ddq * abs(ddq) / (2.0 * jerk)
    sign = -1.0 if left > 0.0 else 1.0
    v, a = sign * dq, min(max(sign * ddq, -most_ddq), most_ddq)
    peak = math.sqrt(max(0.0, 0.5 * a * a - jerk * v))
    held = 0.0
    if peak > most_ddq:
        peak = most_ddq
        held = max(0.0, (-v - (2.0 * peak * peak - a * a) / (2.0 * jerk)) / peak)
    return sign * jerk, max(0.0, (peak - a) / jerk), held, peak / jerk


@entry
def moved(q: float, dq: float, ddq: float, dddq: float, time_s: float) -> tuple[float, float, float]:
    """Position, velocity and acceleration after a time of constant jerk."""
    return (
        q + time_s * (dq + time_s * (ddq / 2.0 + time_s * dddq / 6.0)),
        dq + time_s * (ddq + time_s * dddq / 2.0),
        ddq + time_s * dddq,
    )


@entry
def stopping_range(q: float, dq: float, ddq: float, most_ddq: float, jerk: float) -> tuple[float, float, float]:
    """Where a joint comes to rest, and its lowest and highest position until then."""
    first, t1, t2, t3 = stopping(dq, ddq, most_ddq, jerk)
    low = high = q
    if first * dq > 0.0:
        # It first moves away from where it comes to rest: as far as the moment at which its velocity is zero.
        root = ddq * ddq - 2.0 * first * dq
        if root >= 0.0:
            turn = (-ddq - math.copysign(math.sqrt(root), first)) / first
            at = moved(q, dq, ddq, first, max(0.0, turn))[0]
            low, high = min(low, at), max(high, at)
    p, v, a = moved(q, dq, ddq, first, t1)
    p, v, a = moved(p, v, a, 0.0, t2)
    p, v, a = moved(p, v, a, -first, t3)
    return p, min(low, p), max(high, p)


@entry
def _rest(state: np.ndarray, most_ddq: np.ndarray, jerk: np.ndarray, out: np.ndarray) -> None:
    for j in range(state.shape[1]):
        out[j] = stopping_range(state[0, j], state[1, j], state[2, j], most_ddq[j], jerk[j])[0]


@entry
def _brake(state: np.ndarray, most_ddq: np.ndarray, jerk: np.ndarray, time_s: float, out: np.ndarray) -> None:
    for j in range(state.shape[1]):
        q, dq, ddq = state[0, j], state[1, j], state[2, j]
        first, t1, t2, t3 = stopping(dq, ddq, most_ddq[j], jerk[j])
        left = time_s
        for lasts, dddq in ((t1, first), (t2, 0.0), (t3, -first)):
            q, dq, ddq = moved(q, dq, ddq, dddq, min(left, lasts))
            left = max(0.0, left - lasts)
        if left > 0.0:
            dq, ddq = 0.0, 0.0
        out[0, j], out[1, j], out[2, j] = q, dq, ddq


class Braking:
    """How the joints of one arm come to rest. A state is (3, n): positions, velocities, accelerations."""

    def __init__(self, limits: JointLimits) -> None:
        self._acceleration = np.array(limits.joint_acceleration_radps2)
        self._jerk = np.array(limits.joint_jerk_radps3)

    def rest(self, state: np.ndarray, out: np.ndarray) -> None:
        """Fill the positions (n,) at which the joints come to rest."""
        _rest(state, self._acceleration, self._jerk, out)

    def step(self, state: np.ndarray, time_s: float, out: np.ndarray) -> None:
        """Fill the state (3, n) after some time of braking [s]; at rest once it is over."""
        _brake(state, self._acceleration, self._jerk, time_s, out)
