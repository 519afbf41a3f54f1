"""The plan: rows of actions with their times, and the target that follows from them at any moment.

A row is valid from its beginning to its end. When one begins, its delta is laid on the pose that the tool has reached
then, as robosuite's controller does with `goal_update_mode="achieved"`; the resulting target is held for the row. After
the last row the target is held a little, then comes to rest at the tool.
"""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from robot.control.limits import Limits, PoseLimits
from robot.control.rotations import angle_between, turn_part
from robot.control.safety import Clamp, Situation

MAX_ROWS = 128
"""Longest accepted chunk."""

ToTarget = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
"""Fills a target (10,) from an action (A,), tool position (3,) and 6-D rotation (6,), all in the base frame."""


class Reject(IntEnum):
    """Why a chunk was not accepted."""

    NONE = 0
    NO_LEASE = 1
    NOT_ARMED = 2
    SHAPE = 3
    NOT_FINITE = 4
    SEQUENCE = 5
    TOO_LATE = 6
    TOO_FAR_AHEAD = 7
    FULL = 8
    BAD_FRAME = 9
    PERIOD = 10
    """The rows are not one control period long, so that their deltas mean another speed."""
    ROTATION = 11
    """The two columns of a row's rotation are not apart, or have no length."""


class Plan:
    """Accepted rows in the order of their times. Allocates only when a chunk is added."""

    def __init__(self, limits: Limits, width: int) -> None:
        self._ahead_ns, self._age_ns = int(limits.max_ahead_s * 1e9), int(limits.max_age_s * 1e9)
        self._begin, self._end = np.zeros(2 * MAX_ROWS, np.int64), np.zeros(2 * MAX_ROWS, np.int64)
        self._sequence = np.zeros(2 * MAX_ROWS, np.int64)
        self._rows = np.zeros((2 * MAX_ROWS, width))
        self._last_sequence = -1
        self.stale_rows = 0
        self.clear()

    def clear(self) -> None:
        """Forget all rows, but not which sequence numbers were used."""
        self._count = self._at = 0
        self._started = False

    def begin_session(self) -> None:
        """Forget all rows and sequence numbers: somebody else sends from now on."""
        self.clear()
        self._last_sequence = -1

    def add(self, sequence: int, t0_ns: int, dt_ns: int, rows: np.ndarray, now_ns: int) -> Reject:
        """Take a chunk in place of everything from the beginning of its first row that is not over.

        Args:
            sequence: Greater than that of every chunk before it in this session.
            t0_ns: When row 0 begins [ns].
            dt_ns: Length of a row [ns].
            rows: Actions (N, A).
            now_ns: The present [ns].
        """
        reason = self._refusal(sequence, t0_ns, dt_ns, rows, now_ns)
        if reason != Reject.NONE:
            return reason
        over = min(max(0, (now_ns - t0_ns) // dt_ns), len(rows) - 1)
        begin = t0_ns + over * dt_ns
        kept = slice(self._at, self._at + int(np.searchsorted(self._begin[self._at : self._count], begin)))
        first, count = kept.stop - kept.start, kept.stop - kept.start + len(rows) - over
        if count > len(self._rows):
            return Reject.FULL
        was_playing = self._started and first > 0
        for array in (self._begin, self._end, self._sequence, self._rows):
            array[:first] = array[kept].copy()
        np.minimum(self._end[:first], begin, out=self._end[:first])
        self._begin[first:count] = begin + dt_ns * np.arange(count - first)
        self._end[first:count] = self._begin[first:count] + dt_ns
        self._sequence[first:count] = sequence
        self._rows[first:count] = rows[over:]
        self._at, self._count, self._started = 0, count, was_playing
        self._last_sequence = sequence
        self.stale_rows += over
        return Reject.NONE

    def _refusal(self, sequence: int, t0_ns: int, dt_ns: int, rows: np.ndarray, now_ns: int) -> Reject:
        if rows.ndim != 2 or rows.shape[1] != self._rows.shape[1] or not 1 <= len(rows) <= MAX_ROWS or dt_ns <= 0:
            return Reject.SHAPE
        if not np.isfinite(rows).all():
            return Reject.NOT_FINITE
        if not sequence > self._last_sequence:
            return Reject.SEQUENCE
        if t0_ns > now_ns + self._ahead_ns:
            return Reject.TOO_FAR_AHEAD
        if t0_ns < now_ns - self._age_ns or t0_ns + len(rows) * dt_ns <= now_ns:
            return Reject.TOO_LATE
        return Reject.NONE

    def pending(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows that are not over: when they begin and end [ns], their actions, which are of the last chunk."""
        left = slice(self._at, self._count)
        return self._begin[left], self._end[left], self._rows[left], self._sequence[left] == self._last_sequence

    def advance(self, now_ns: int) -> tuple[int, bool]:
        """Index of the row that is valid now, or -1, and whether it has just begun."""
        while self._at < self._count and now_ns >= self._end[self._at]:
            self._at += 1
            self._started = False
        if self._at == self._count or now_ns < self._begin[self._at]:
            return -1, False
        begins, self._started = not self._started, True
        return self._at, begins

    def row(self, index: int) -> np.ndarray:
        """The action of a row that `advance` gave."""
        return self._rows[index]

    def sequence(self, index: int) -> int:
        """Sequence number of the chunk that a row came with."""
        return int(self._sequence[index])

    def length_ns(self, index: int) -> int:
        """Length of a row [ns]."""
        return int(self._end[index] - self._begin[index])


class Follower:
    """Makes the target of every cycle from a plan and the measured pose of the tool."""

    def __init__(self, plan: Plan, limits: PoseLimits, to_target: ToTarget) -> None:
        self._plan, self._to_target = plan, to_target
        self._hold_periods, self._brake_ns = limits.hold_periods, int(limits.brake_s * 1e9)
        self._goal = np.zeros(10)
        self._quiet_ns: int | None = None
        self.row_index = -1
        self.is_resting = True
        self.applied_sequence = -1
        self.clamp = Clamp.NONE

    def rest(self, situation: Situation, gripper: float | None = None) -> None:
        """Make the tool's pose the target, until a row begins."""
        self._goal[:3], self._goal[3:9] = situation.ee_pos, situation.ee_rot6d
        if gripper is not None:
            self._goal[9] = gripper
        self.is_resting, self.row_index = True, -1

    def brake(self, now_ns: int) -> None:
        """Drop the plan and come to rest from now on."""
        self._plan.clear()
        self._quiet_ns = min(now_ns, self._quiet_ns) if self.row_index < 0 and self._quiet_ns else now_ns

    def lead_home(self, now_ns: int, situation: Situation) -> bool:
        """False: where such an arm's home is, its device knows."""
        return False

    def replan(self, now_ns: int, situation: Situation) -> None:
        """Nothing: a row is laid on the pose that the tool has reached when it begins."""
        return

    def fill(self, now_ns: int, situation: Situation, target: np.ndarray) -> None:
        """Fill `target` (10,) for now, from the measured pose of the tool."""
        ee_pos, ee_rot6d = situation.ee_pos, situation.ee_rot6d
        index, begins = self._plan.advance(now_ns)
        self.row_index = index
        if index >= 0:
            if begins:
                self._to_target(self._plan.row(index), ee_pos, ee_rot6d, self._goal)
                self.applied_sequence = self._plan.sequence(index)
            self.is_resting = False
            self._quiet_ns = now_ns + int(self._hold_periods * self._plan.length_ns(index))
        target[:] = self._goal
        if index < 0 and not self.is_resting and self._quiet_ns is not None and now_ns >= self._quiet_ns:
            self._slow_down((now_ns - self._quiet_ns) / self._brake_ns, situation, target)

    def _slow_down(self, part: float, situation: Situation, target: np.ndarray) -> None:
        """Draw the target from the last goal towards the tool, with a cubic that has no corner at either end."""
        ee_pos, ee_rot6d = situation.ee_pos, situation.ee_rot6d
        if part >= 1:
            self.rest(situation)
            target[:] = self._goal
            return
        drawn = part * part * (3 - 2 * part)
        target[:3] += drawn * (ee_pos - target[:3])
        if angle_between(target[3:9], ee_rot6d) > 0:
            measured = ee_rot6d.copy()
            turn_part(target[3:9], measured, drawn)
            target[3:9] = measured
