"""The reference: from rows of actions to the motion that an arm's joints are to follow, sampled in every cycle.

Every row is a waypoint that is reached when the row ends. A new chunk replaces the waypoints from its beginning on, and
the way to them begins in the state that was commanded last, so that neither velocity nor acceleration jumps. Poses are
joined by a way in SE(3), along which inverse kinematics finds the joints' waypoints; what the joints cannot do in time
takes longer. After the last waypoint the arm rests: a plan that nobody renews ends by itself.
"""

from enum import Enum

import numpy as np

from robot.control.braking import Braking
from robot.control.joint_trajectory import JointTrajectory
from robot.control.kinematics import ArmModel
from robot.control.limits import JointLimits
from robot.control.plan import MAX_ROWS, Plan
from robot.control.pose_trajectory import PoseTrajectory
from robot.control.safety import Clamp, Situation
from robot.control.waypoints import next_pose, stretched

ASTRAY_RAD = 0.1
"""A reference farther than this from its way has been held back; the next way begins where it is."""
REACHED_M, REACHED_RAD = 0.002, 0.02
"""Inverse kinematics that stays farther away than this is reported."""
PEAK_OF_QUINTIC = 1.875
"""Highest speed of a quintic from rest to rest, as a part of its mean speed."""
SOONEST_NS = 4_000_000
"""A waypoint that is due sooner is left out, unless it is the last: being off it by little would take a jump."""
KNOT_S = 0.025
"""Longest time between two waypoints of the joints on a way of poses."""
KNOTS = 4 * MAX_ROWS


class _Lead(Enum):
    """What the reference follows."""

    REST = 0
    WAY = 1
    BRAKE = 2


class JointFollower:
    """Makes what is wanted of the joints in every cycle: states (3, n) and the gripper, as a `joint_reference`."""

    def __init__(self, plan: Plan, limits: JointLimits, model: ArmModel, action_space: str) -> None:
        n = self._n = len(limits.joint_low_rad)
        self._plan, self._limits, self._model, self._space = plan, limits, model, action_space
        model.set_range(np.array(limits.joint_low_rad), np.array(limits.joint_high_rad))
        model.posture[:] = limits.home_q_rad
        self._tool = np.array([*limits.workspace_low_m, *limits.workspace_high_m, 0.0, 0.0])
        self._velocity = np.array(limits.joint_velocity_radps)
        self._acceleration = np.array(limits.joint_acceleration_radps2)
        self._braking = Braking(limits)
        self._poses, self._way = PoseTrajectory(MAX_ROWS + 2), JointTrajectory(n, KNOTS)
        self._lead, self._hold, self._gripper = _Lead.REST, np.zeros(n), 0.0
        self._fill_ns = 0
        self.row_index = -1
        self.is_resting = True
        self.applied_sequence = -1
        self.clamp = self._way_clamp = Clamp.NONE
        # Compile now what a loop must not wait for.
        pose = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        next_pose(pose, np.append(pose, 0.0), True, self._tool, pose.copy())
        stretched(np.ones(1), self._hold[None], np.zeros((3, n)), self._velocity, self._acceleration)

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
        home, state = np.array(self._limits.home_q_rad), self._state(situation)
        speed = self._velocity * self._limits.home_speed
        way_s = max(0.5, float((PEAK_OF_QUINTIC * np.abs(home - state[0]) / speed).max()))
        self._way.plan(
            now_ns, state[0], state[1], state[2], np.array([now_ns + int(way_s * 1e9)], np.int64), home[None]
        )
        self._lead, self.is_resting, self._way_clamp = _Lead.WAY, False, Clamp.NONE
        return True

    def replan(self, now_ns: int, situation: Situation) -> None:
        """Make the way through the rows that the plan holds now."""
        self._way_clamp = Clamp.NONE
        begins, ends, rows, is_new = (part[self._plan.pending()[1] > now_ns] for part in self._plan.pending())
        state, first = self._state(situation), int(np.argmax(is_new))
        # Rows that were there before keep their waypoints, which lie on the old way; the new ones follow from its end.
        # Nothing moves towards a row before the row begins: that is a waypoint, too.
        times = np.append(begins[0], ends)[: first + 1]
        old = np.array([self._old(now_ns, int(time), state) for time in times])
        waypoints = old[:, 0]
        if self._space == "joint_position":
            new_times, new = ends[first:], rows[first:, : self._n].astype(np.float64)
        else:
            new_times, new = self._through_poses(int(times[-1]), old[-1], begins, ends, rows, first)
        times, waypoints = np.append(times, new_times), np.vstack([waypoints, new])
        is_ahead = times >= now_ns + SOONEST_NS
        is_ahead[-1] = True
        times, waypoints = np.maximum(times[is_ahead], now_ns + SOONEST_NS), waypoints[is_ahead]
        times_s = 1e-9 * (times - now_ns)
        if stretched(times_s, waypoints, state, self._velocity, self._acceleration):
            self._way_clamp |= Clamp.JOINT_MOTION
        # Strictly increasing, whatever rounding does to waypoints that are nanoseconds apart.
        order = np.arange(len(times_s))
        ends_ns = now_ns + np.maximum.accumulate((1e9 * times_s).astype(np.int64) - order) + order
        self._way.plan(now_ns, state[0], state[1], state[2], ends_ns, waypoints)
        self._lead, self.is_resting = _Lead.WAY, False

    def fill(self, now_ns: int, situation: Situation, target: np.ndarray) -> None:
        """Fill `target` (3 n + 1,) with what is wanted now."""
        n = self._n
        index, begins = self._plan.advance(now_ns)
        self.row_index = index
        if index >= 0 and begins:
            self._gripper = float(self._plan.row(index)[-1])
            self.applied_sequence = self._plan.sequence(index)
        wanted, now = target[: 3 * n].reshape(3, n), self._state(situation)
        self.clamp = Clamp.NONE
        if self._lead is _Lead.WAY:
            self._way.sample(now_ns, *wanted)
            self.clamp = self._way_clamp
        elif self._lead is _Lead.BRAKE:
            self._braking.step(now, 1e-9 * max(1, now_ns - self._fill_ns), wanted)
        else:
            wanted[0], wanted[1:] = self._hold, 0.0
        self._fill_ns = now_ns
        target[-1] = self._gripper
        is_over = self._lead is not _Lead.WAY or self._way.is_over(now_ns)
        if index < 0 and is_over and not self.is_resting and _is_still(now):
            self._hold[:] = now[0]
            self._lead, self.is_resting = _Lead.REST, True

    def _state(self, situation: Situation) -> np.ndarray:
        """The state (3, n) that was commanded last."""
        return situation.previous[: 3 * self._n].reshape(3, self._n)

    def _old(self, now_ns: int, t_ns: int, state: np.ndarray) -> np.ndarray:
        """The state (3, n) of the old way at some time; of the reference now, if it has no way or was kept from it."""
        if self._lead is _Lead.WAY:
            old = np.zeros((3, self._n))
            self._way.sample(now_ns, *old)
            if np.abs(old[0] - state[0]).max() <= ASTRAY_RAD:
                self._way.sample(t_ns, *old)
                return old
        return state.copy()

    def _through_poses(
        self, t0_ns: int, start: np.ndarray, begins: np.ndarray, ends: np.ndarray, rows: np.ndarray, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times (N,) and joint positions (N, n) along a way through the poses of rows, from a state (3, n)."""
        poses, jacobian = np.empty((len(rows) - first + 1, 9)), np.zeros((6, self._n))
        self._model.pose(start[0], poses[0, :3], poses[0, 3:])
        self._model.jacobian(start[0], jacobian)
        for i, row in enumerate(rows[first:]):
            lasts_s = 1e-9 * int(ends[first + i] - begins[first + i])
            self._tool[6] = self._limits.linear_speed_mps * lasts_s
            self._tool[7] = self._limits.angular_speed_radps * lasts_s
            self._way_clamp |= Clamp(next_pose(poses[i], row, self._space == "ee_pose", self._tool, poses[i + 1]))
        rates = jacobian @ start[1], jacobian @ start[2]
        self._poses.plan(t0_ns, poses[0, :3], poses[0, 3:], *rates, ends[first:], poses[1:])
        times: list[int] = []
        for begin, end in zip([t0_ns, *ends[first:-1].tolist()], ends[first:].tolist(), strict=True):
            parts = min(4, -(-(end - begin) // int(KNOT_S * 1e9)))
            times += [begin + (end - begin) * k // parts for k in range(1, parts + 1)]
        times = times[: KNOTS - MAX_ROWS]
        waypoints = np.empty((len(times), self._n))
        pos, rot6d, unused = np.zeros(3), np.zeros(6), np.zeros((2, 6))
        q = start[0]
        for i, time in enumerate(times):
            self._poses.sample(time, pos, rot6d, *unused)
            error_m, error_rad = self._model.solve(q, pos, rot6d, waypoints[i])
            if error_m > REACHED_M or error_rad > REACHED_RAD:
                self._way_clamp |= Clamp.REACH
            q = waypoints[i]
        return np.array(times, np.int64), waypoints


def _is_still(state: np.ndarray) -> bool:
    return not state[1:].any()
