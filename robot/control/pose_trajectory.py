"""A way of the tool through timestamped poses, smooth up to its linear and angular acceleration.

Position is a vector and goes as joints do. Rotation goes piece by piece: R(t) = R_k Exp(φ(t)), where the rotation
vector φ is a quintic from zero to Log(R_kᵀ R_k+1), the shortest way. At a waypoint the rotation vectors to its
neighbours, seen from it, say how fast and how curved to pass it: there, φ being zero, derivatives of φ are angular
velocity and acceleration in the body. At the other end of a piece the right Jacobian (`robot.control.so3`) turns the
ones into the others, so that both are continuous. Between two waypoints at rest the way is the geodesic. Nothing
depends on the frame that poses are given in.
"""

import numpy as np

from robot.control.compiling import entry
from robot.control.joint_trajectory import check_waypoints
from robot.control.knots import fill_knots, fill_moment, fill_piece, piece_at
from robot.control.so3 import (
    fill_body_rates,
    fill_exp,
    fill_from_rot6d,
    fill_log,
    fill_product,
    fill_rotvec_rates,
    turn,
)
from robot.errors import SpecError

START = 21
"""Elements of a state: position (3,), 6-D rotation (6,), twist (6,), its derivative (6,)."""


class PoseTrajectory:
    """A way of the tool, C2 on SE(3), replaced whenever a new one is planned."""

    def __init__(self, capacity: int = 128) -> None:
        """Make room for plans of up to `capacity` waypoints, and compile."""
        self._capacity = capacity
        self._times_ns = np.zeros(capacity + 1, np.int64)
        self._points, self._frames = np.zeros((capacity + 1, 3)), np.zeros((capacity + 1, 3, 3))
        self._h_s, self._chords = np.zeros(capacity), np.zeros((capacity, 6))
        self._v, self._a = np.zeros((capacity + 1, 6)), np.zeros((capacity + 1, 6))
        self._pieces = np.zeros((capacity, 5, 6))
        self._start, self._state = np.zeros(START), np.zeros(START)
        self._count = self._at = 0
        rot6d = np.array([1.0, 0, 0, 0, 1, 0])
        waypoint = np.concatenate((np.zeros(3), rot6d))
        self.plan(0, np.zeros(3), rot6d, np.zeros(6), np.zeros(6), np.array([1]), waypoint[None])
        self.sample(0, np.zeros(3), rot6d, np.zeros(6), np.zeros(6))

    @property
    def end_ns(self) -> int:
        """When it comes to rest."""
        return int(self._times_ns[self._count])

    def plan(
        self,
        now_ns: int,
        pos: np.ndarray,
        rot6d: np.ndarray,
        twist: np.ndarray,
        acceleration: np.ndarray,
        times_ns: np.ndarray,
        waypoints: np.ndarray,
    ) -> None:
        """Replace the way by one from a state through waypoints, at rest at the last.

        Args:
            now_ns: When the state is, or was, commanded.
            pos: Commanded position (3,) [m].
            rot6d: Commanded rotation (6,).
            twist: Commanded velocity and angular velocity (6,), both in the base frame [m/s, rad/s].
            acceleration: Its derivative (6,).
            times_ns: When to be at each waypoint (N,), strictly increasing and after `now_ns`.
            waypoints: Position and 6-D rotation (N, 9), 1 <= N <= capacity.

        Raises:
            SpecError: Something does not fit, is not finite or no rotation, or times do not increase. The way is what
                it was.
        """
        times, goals = np.asarray(times_ns, np.int64), np.array(waypoints, np.float64)
        check_waypoints(now_ns, times, goals, 9, self._capacity)
        start = np.concatenate((pos, rot6d, twist, acceleration))
        if start.shape != (START,) or not np.isfinite(start).all():
            raise SpecError(f"The state to start from is {start.tolist()}, expected {START} finite numbers.")
        count = len(times)
        frames = np.empty((count + 1, 3, 3))
        bad = _fill_frames(start, goals, frames)
        if bad >= 0:
            which = f"waypoint {bad - 1}" if bad else "the state to start from"
            raise SpecError(f"The rotation of {which} is none: its columns have no length or are not apart.")
        self._start[:], self._points[0], self._points[1 : count + 1] = start, start[:3], goals[:, :3]
        self._frames[: count + 1] = frames
        self._times_ns[0], self._times_ns[1 : count + 1] = now_ns, times
        self._v[0], self._a[0] = start[9:15], start[15:21]
        knots = (self._h_s, self._chords, self._v, self._a)
        _plan(self._times_ns, self._points, self._frames, count, knots, self._pieces)
        self._count, self._at = count, 0

    def sample(
        self, t_ns: int, pos: np.ndarray, rot6d: np.ndarray, twist: np.ndarray, acceleration: np.ndarray
    ) -> None:
        """Fill position, rotation, twist and acceleration for a time: rest at the last waypoint after the end.

        Before the beginning they are those of the state that the way starts from.
        """
        state = self._state
        self._at = _sample(
            self._times_ns,
            self._points,
            self._frames,
            (self._start, self._pieces),
            (self._count, self._at, t_ns),
            state,
        )
        pos[:], rot6d[:], twist[:], acceleration[:] = state[:3], state[3:9], state[9:15], state[15:]


@entry
def _fill_frames(start: np.ndarray, goals: np.ndarray, frames: np.ndarray) -> int:
    """Index of the first rotation that is none, or -1."""
    if not fill_from_rot6d(start[3:9], frames[0]):
        return 0
    for k in range(len(goals)):
        if not fill_from_rot6d(goals[k, 3:], frames[k + 1]):
            return k + 1
    return -1


@entry
def _plan(
    times_ns: np.ndarray,
    points: np.ndarray,
    frames: np.ndarray,
    count: int,
    knots: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    pieces: np.ndarray,
) -> None:
    h_s, chords, v, a = knots
    relative, body = np.empty((3, 3)), np.empty(3)
    for k in range(count):
        h_s[k] = 1e-9 * (times_ns[k + 1] - times_ns[k])
        for i in range(3):
            chords[k, i] = points[k + 1, i] - points[k, i]
        fill_product(frames[k], frames[k + 1], True, relative)
        fill_log(relative, chords[k, 3:])
    # In the body: d/dt (R ω) = R ω̇, as ω × ω is nothing.
    for rates in (v, a):
        turn(frames[0], rates[0, 3:], True, body)
        for i in range(3):
            rates[0, 3 + i] = body[i]
    fill_knots(h_s[:count], chords[:count], 3, v[: count + 1], a[: count + 1])
    ends = np.empty((4, 6))
    for k in range(count):
        for i in range(6):
            ends[0, i], ends[1, i], ends[2, i], ends[3, i] = v[k, i], a[k, i], v[k + 1, i], a[k + 1, i]
        for i in range(3):
            body[i] = a[k + 1, 3 + i]
        fill_rotvec_rates(chords[k, 3:], v[k + 1, 3:], body, ends[2, 3:], ends[3, 3:])
        fill_piece(chords[k], h_s[k], ends, pieces[k])


@entry
def _sample(
    times_ns: np.ndarray,
    points: np.ndarray,
    frames: np.ndarray,
    way: tuple[np.ndarray, np.ndarray],
    when: tuple[int, int, int],
    state: np.ndarray,
) -> int:
    """Fill a state (21,); the piece that it was on."""
    (start, pieces), (count, at, t_ns) = way, when
    if t_ns <= times_ns[0]:
        for i in range(START):
            state[i] = start[i]
        return 0
    if t_ns >= times_ns[count]:
        for i in range(9, START):
            state[i] = 0.0
        for i in range(3):
            state[i], state[3 + i], state[6 + i] = points[count, i], frames[count, i, 0], frames[count, i, 1]
        return count - 1
    at = piece_at(times_ns, count, t_ns, at)
    length_ns = times_ns[at + 1] - times_ns[at]
    moment = np.empty((3, 6))
    fill_moment(pieces[at], (t_ns - times_ns[at]) / length_ns, 1e-9 * length_ns, moment)
    turned, R, rates = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    fill_exp(moment[0, 3:], turned)
    fill_product(frames[at], turned, False, R)
    for i in range(3):
        state[i], state[9 + i], state[15 + i] = points[at, i] + moment[0, i], moment[1, i], moment[2, i]
        state[3 + i], state[6 + i] = R[i, 0], R[i, 1]
    fill_body_rates(moment[:, 3:], rates[0], rates[1])
    turn(R, rates[0], False, state[12:15])
    turn(R, rates[1], False, state[18:21])
    return at
