"""The reference: from rows of actions to the motion that an arm's joints are to follow, sampled in every cycle.

Every row is a waypoint that is reached when the row ends. A new chunk replaces the waypoints from its beginning on, and
the way to them begins in the state that was commanded last, so that neither velocity nor acceleration jumps. After the
last waypoint the arm rests: a plan that nobody renews ends by itself.
"""

from enum import Enum

import numpy as np

from robot.control.action_spaces import (
    POSITION_SCALE_M,
    ROTATION_SCALE_RAD,
    matrix_from_rot6d,
    matrix_from_rotvec,
    rot6d_from_matrix,
)
from robot.control.braking import Braking
from robot.control.joint_trajectory import JointTrajectory
from robot.control.kinematics import ArmModel
from robot.control.limits import JointLimits
from robot.control.plan import MAX_ROWS, Plan
from robot.control.pose_trajectory import PoseTrajectory
from robot.control.rotations import angle_between, turn_part
from robot.control.safety import Clamp, Situation

STILL_RADPS, STILL_RADPS2 = 1e-4, 1e-2
"""A reference slower than this rests."""
ASTRAY_M, ASTRAY_RAD = 0.005, 0.05
"""Farther from its way than this the reference has been held back; the next way begins where it is."""
REACHED_M, REACHED_RAD = 0.001, 0.01
"""Inverse kinematics that stays farther away than this is reported."""
PEAK_OF_QUINTIC = 1.875
"""Highest speed of a quintic from rest to rest, as a part of its mean speed."""


class _Lead(Enum):
    """What the reference follows."""

    REST = 0
    POSES = 1
    JOINTS = 2
    BRAKE = 3


class JointFollower:
    """Makes what is wanted of the joints in every cycle: states (3, n) and the gripper, as a `joint_reference`."""

    def __init__(self, plan: Plan, limits: JointLimits, model: ArmModel, action_space: str) -> None:
        n = self._n = len(limits.joint_low_rad)
        self._plan, self._limits, self._model, self._space = plan, limits, model, action_space
        self._low, self._high = np.array(limits.workspace_low_m), np.array(limits.workspace_high_m)
        self._braking = Braking(limits)
        self._poses, self._joints = PoseTrajectory(MAX_ROWS + 2), JointTrajectory(n, MAX_ROWS + 2)
        self._lead, self._hold, self._gripper = _Lead.REST, np.zeros(n), 0.0
        self._solved, self._solved_dq, self._solved_ns = np.zeros(n), np.zeros(n), 0
        self._pos, self._rot6d = np.zeros(3), np.zeros(6)
        self._twist, self._acceleration = np.zeros(6), np.zeros(6)
        self.row_index = -1
        self.is_resting = True
        self.applied_sequence = -1
        self.clamp = self._way_clamp = Clamp.NONE

    def rest(self, situation: Situation, gripper: float | None = None) -> None:
        """Hold the reference where it is; where the arm is, if it has been moved away from its reference meanwhile."""
        n, reference = self._n, situation.previous
        is_near = (np.abs(reference[:n] - situation.q) <= self._limits.tracking_rad / 2).all()
        self._hold[:] = reference[:n] if is_near else situation.q
        np.clip(self._hold, self._limits.joint_low_rad, self._limits.joint_high_rad, out=self._hold)
        reference[:n], reference[n : 3 * n] = self._hold, 0.0
        if gripper is not None:
            self._gripper = gripper
        self._lead, self.is_resting, self.row_index = _Lead.REST, True, -1

    def brake(self, now_ns: int) -> None:
        """Drop the plan and come to rest as quickly as the limits allow."""
        self._plan.clear()
        if not self.is_resting:
            self._lead = _Lead.BRAKE

    def lead_home(self, now_ns: int, situation: Situation) -> bool:
        """Go to the home position, every joint within its share of its speed, all arriving together."""
        n, home = self._n, np.array(self._limits.home_q_rad)
        state = situation.previous[: 3 * n].reshape(3, n)
        speed = np.array(self._limits.joint_velocity_radps) * self._limits.home_speed
        way_s = max(0.5, float((PEAK_OF_QUINTIC * np.abs(home - state[0]) / speed).max()))
        end_ns = np.array([now_ns + int(way_s * 1e9)], np.int64)
        self._joints.plan(now_ns, *state, end_ns, home[None])
        self._lead, self.is_resting = _Lead.JOINTS, False
        return True

    def replan(self, now_ns: int, situation: Situation) -> None:
        """Make the way through the rows that the plan holds now."""
        self._way_clamp = Clamp.NONE
        begins, ends, rows, is_new = self._plan.pending()
        if self._space == "joint_position":
            self._replan_joints(now_ns, situation, begins, ends, rows)
        else:
            self._replan_poses(now_ns, situation, begins, ends, rows, is_new)
        self.is_resting = False

    def fill(self, now_ns: int, situation: Situation, target: np.ndarray) -> None:
        """Fill `target` (3 n + 1,) with what is wanted now."""
        n = self._n
        index, begins = self._plan.advance(now_ns)
        self.row_index, self.clamp = index, self._way_clamp if index >= 0 else Clamp.NONE
        if index >= 0 and begins:
            self._gripper = float(self._plan.row(index)[-1])
            self.applied_sequence = self._plan.sequence(index)
        wanted = target[: 3 * n].reshape(3, n)
        now = situation.previous[: 3 * n].reshape(3, n)
        if self._lead is _Lead.POSES:
            self._fill_from_pose(now_ns, now, wanted)
        elif self._lead is _Lead.JOINTS:
            self._joints.sample(now_ns, *wanted)
        elif self._lead is _Lead.BRAKE:
            self._braking.step(now, 1e-9 * max(1, now_ns - self._solved_ns), wanted)
        else:
            wanted[0], wanted[1:] = self._hold, 0.0
        self._solved_ns = now_ns
        target[-1] = self._gripper
        if index < 0 and self._is_over(now_ns) and not self.is_resting and _is_still(now):
            self._hold[:] = now[0]
            self._lead, self.is_resting = _Lead.REST, True

    def _is_over(self, now_ns: int) -> bool:
        if self._lead is _Lead.POSES:
            return self._poses.is_over(now_ns)
        return self._lead is not _Lead.JOINTS or self._joints.is_over(now_ns)

    def _fill_from_pose(self, now_ns: int, now: np.ndarray, wanted: np.ndarray) -> None:
        """The joints that take the tool to the pose of this moment, and how they have to move for it."""
        self._poses.sample(now_ns, self._pos, self._rot6d, self._twist, self._acceleration)
        error_m, error_rad = self._model.solve(self._solved, self._pos, self._rot6d, wanted[0])
        if error_m > REACHED_M or error_rad > REACHED_RAD:
            self.clamp |= Clamp.REACH
        passed_s = 1e-9 * max(1, now_ns - self._solved_ns)
        wanted[1] = (wanted[0] - self._solved) / passed_s
        wanted[2] = (wanted[1] - self._solved_dq) / passed_s
        self._solved[:], self._solved_dq[:] = wanted[0], wanted[1]

    def _replan_joints(
        self, now_ns: int, situation: Situation, begins: np.ndarray, ends: np.ndarray, rows: np.ndarray
    ) -> None:
        n = self._n
        state = situation.previous[: 3 * n].reshape(3, n)
        times, waypoints = ends, rows[:, :n].astype(np.float64)
        if begins[0] > now_ns:
            # Nothing moves towards a row before the row begins.
            start = state[0].copy()
            if self._lead is _Lead.JOINTS:
                self._joints.sample(int(begins[0]), start, np.zeros(n), np.zeros(n))
            times, waypoints = np.append(begins[0], ends), np.vstack([start, waypoints])
        self._joints.plan(now_ns, *state, times, waypoints)
        self._lead = _Lead.JOINTS

    def _replan_poses(
        self,
        now_ns: int,
        situation: Situation,
        begins: np.ndarray,
        ends: np.ndarray,
        rows: np.ndarray,
        is_new: np.ndarray,
    ) -> None:
        """Rows that were there before keep their waypoints, which lie on the old way; new ones follow from its end."""
        self._begin_poses(now_ns, situation)
        first = int(np.argmax(is_new))
        count = len(rows)
        # One more waypoint at the beginning, so that nothing moves towards a row before the row begins.
        times = np.empty(count + 1, np.int64)
        positions, rot6ds = np.empty((count + 1, 3)), np.empty((count + 1, 6))
        times[0], times[1:] = begins[0], ends
        scratch = np.zeros(6), np.zeros(6)
        for index in range(first + 1):
            self._old_pose(int(times[index]), positions[index], rot6ds[index], scratch)
        for index in range(first, count):
            self._append(positions, rot6ds, index, rows[index], 1e-9 * int(ends[index] - begins[index]))
        skipped = 0 if begins[0] > now_ns else 1
        self._poses.plan(
            now_ns,
            *(self._start_pos, self._start_rot6d, self._start_twist, self._start_acceleration),
            *(times[skipped:], positions[skipped:], rot6ds[skipped:]),
        )
        if self._lead is not _Lead.POSES:
            self._solved[:] = situation.previous[: self._n]
            self._solved_dq[:] = situation.previous[self._n : 2 * self._n]
        self._lead = _Lead.POSES

    def _begin_poses(self, now_ns: int, situation: Situation) -> None:
        """The commanded state of the tool now: on the old way where the reference could keep to it."""
        n = self._n
        pos, rot6d = np.zeros(3), np.zeros(6)
        self._model.pose(situation.previous[:n], pos, rot6d)
        self._keeps_way = False
        if self._lead is _Lead.POSES:
            self._poses.sample(now_ns, self._pos, self._rot6d, self._twist, self._acceleration)
            near = np.abs(pos - self._pos).max() <= ASTRAY_M
            self._keeps_way = bool(near and angle_between(rot6d, self._rot6d) <= ASTRAY_RAD)
        if self._keeps_way:
            self._start_pos, self._start_rot6d = self._pos.copy(), self._rot6d.copy()
            self._start_twist, self._start_acceleration = self._twist.copy(), self._acceleration.copy()
            return
        jacobian = np.zeros((6, n))
        self._model.jacobian(situation.previous[:n], jacobian)
        self._start_pos, self._start_rot6d = pos, rot6d
        self._start_twist = jacobian @ situation.previous[n : 2 * n]
        self._start_acceleration = jacobian @ situation.previous[2 * n : 3 * n]

    def _old_pose(self, t_ns: int, pos: np.ndarray, rot6d: np.ndarray, scratch: tuple[np.ndarray, np.ndarray]) -> None:
        if self._keeps_way:
            self._poses.sample(t_ns, pos, rot6d, *scratch)
        else:
            pos[:], rot6d[:] = self._start_pos, self._start_rot6d

    def _append(self, positions: np.ndarray, rot6ds: np.ndarray, index: int, row: np.ndarray, lasts_s: float) -> None:
        """Waypoint `index + 1` from the one before it and a row: inside the box, and no faster than the tool may go."""
        before, turned = positions[index], rot6ds[index]
        pos, rot6d = positions[index + 1], rot6ds[index + 1]
        if self._space == "ee_pose":
            pos[:] = row[:3]
            rot6d[:] = rot6d_from_matrix(matrix_from_rot6d(row[3:9]))
        else:
            pos[:] = before + POSITION_SCALE_M * row[:3]
            turn = matrix_from_rotvec(ROTATION_SCALE_RAD * np.asarray(row[3:6], np.float64))
            rot6d[:] = rot6d_from_matrix(turn @ matrix_from_rot6d(turned))
        if ((pos < self._low) | (pos > self._high)).any():
            np.clip(pos, self._low, self._high, out=pos)
            self._way_clamp |= Clamp.WORKSPACE
        way = pos - before
        part = self._limits.linear_speed_mps * lasts_s / max(float(np.sqrt(way @ way)), 1e-9)
        if part < 1.0:
            pos[:] = before + part * way
            self._way_clamp |= Clamp.LINEAR_SPEED
        part = self._limits.angular_speed_radps * lasts_s / max(angle_between(turned, rot6d), 1e-9)
        if part < 1.0:
            turn_part(turned, rot6d, part)
            self._way_clamp |= Clamp.ANGULAR_SPEED


def _is_still(state: np.ndarray) -> bool:
    return bool((np.abs(state[1]) <= STILL_RADPS).all() and (np.abs(state[2]) <= STILL_RADPS2).all())
