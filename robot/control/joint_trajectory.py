"""A way of the joints through timestamped waypoints, smooth up to its acceleration.

It starts from the last commanded state, passes every waypoint at its time, and comes to rest at the last one: quintic
pieces that meet with equal velocity and acceleration, planned and sampled in a control loop without allocation.
"""

import numpy as np

from robot.control.compiling import entry
from robot.control.knots import fill_knots, fill_moment, fill_piece, piece_at
from robot.errors import SpecError


class JointTrajectory:
    """A way of n joints (or of anything else that is a vector), C2, replaced whenever a new one is planned."""

    def __init__(self, n: int, capacity: int = 128) -> None:
        """Make room for plans of up to `capacity` waypoints, and compile."""
        self._n, self._capacity = n, capacity
        self._times_ns = np.zeros(capacity + 1, np.int64)
        self._points = np.zeros((capacity + 1, n))
        self._h_s, self._chords = np.zeros(capacity), np.zeros((capacity, n))
        self._v, self._a = np.zeros((capacity + 1, n)), np.zeros((capacity + 1, n))
        self._pieces = np.zeros((capacity, 5, n))
        self._start, self._moment = np.zeros((3, n)), np.zeros((3, n))
        self._count = self._at = 0
        rest = np.zeros(n)
        self.plan(0, rest, rest, rest, np.array([1]), rest[None])
        self.sample(0, rest, rest.copy(), rest.copy())

    @property
    def end_ns(self) -> int:
        """When it comes to rest."""
        return int(self._times_ns[self._count])

    def is_over(self, t_ns: int) -> bool:
        """Whether it is at rest at its last waypoint."""
        return t_ns >= self._times_ns[self._count]

    def plan(
        self, now_ns: int, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, times_ns: np.ndarray, waypoints: np.ndarray
    ) -> None:
        """Replace the way by one from a state through waypoints, at rest at the last.

        Args:
            now_ns: When the state is, or was, commanded.
            q: Commanded positions (n,) [rad].
            dq: Commanded velocities (n,).
            ddq: Commanded accelerations (n,).
            times_ns: When to be at each waypoint (N,), strictly increasing and after `now_ns`.
            waypoints: Positions (N, n), 1 <= N <= capacity.

        Raises:
            SpecError: Something does not fit, is not finite, or times do not increase; the way is what it was.
        """
        points, times = np.asarray(waypoints, np.float64), np.asarray(times_ns, np.int64)
        check_waypoints(now_ns, times, points, self._n, self._capacity)
        start = np.concatenate((q, dq, ddq))
        if len(start) != 3 * self._n or not np.isfinite(start).all():
            raise SpecError(
                f"The state to start from is {start.tolist()}, expected finite numbers for {self._n} joints."
            )
        count = len(times)
        self._start[:] = start.reshape(3, self._n)
        self._points[0], self._points[1 : count + 1] = self._start[0], points
        self._times_ns[0], self._times_ns[1 : count + 1] = now_ns, times
        self._v[0], self._a[0] = self._start[1], self._start[2]
        _plan(self._times_ns, self._points, count, (self._h_s, self._chords, self._v, self._a), self._pieces)
        self._count, self._at = count, 0

    def sample(self, t_ns: int, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray) -> None:
        """Fill positions, velocities and accelerations, (n,) each, for a time: rest at the last waypoint after the end.

        Before the beginning they are those of the state that the way starts from.
        """
        moment = self._moment
        way, when = (self._start, self._pieces), (self._count, self._at, t_ns)
        self._at = _sample(self._times_ns, self._points, way, when, moment)
        q[:], dq[:], ddq[:] = moment[0], moment[1], moment[2]


def check_waypoints(now_ns: int, times_ns: np.ndarray, waypoints: np.ndarray, width: int, capacity: int) -> None:
    """Raise `SpecError` unless waypoints (N, width) fit their times (N,): after `now_ns`, increasing, all finite."""
    if waypoints.ndim != 2 or waypoints.shape[1] != width or times_ns.shape != waypoints.shape[:1]:
        raise SpecError(
            f"Waypoints have shape {waypoints.shape} and times {times_ns.shape}, expected (N, {width}) and (N,)."
        )
    if not 1 <= len(times_ns) <= capacity:
        raise SpecError(f"A plan of {len(times_ns)} waypoints, expected 1 to {capacity}.")
    if not (times_ns[0] > now_ns and (times_ns[1:] > times_ns[:-1]).all()):
        raise SpecError(
            f"Times {times_ns.tolist()} ns of waypoints do not increase from {now_ns}. Drop late ones, sort the rest."
        )
    if not np.isfinite(waypoints).all():
        raise SpecError("A waypoint is not finite.")


@entry
def _plan(
    times_ns: np.ndarray,
    points: np.ndarray,
    count: int,
    knots: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    pieces: np.ndarray,
) -> None:
    h_s, chords, v, a = knots
    for k in range(count):
        h_s[k] = 1e-9 * (times_ns[k + 1] - times_ns[k])
        for j in range(points.shape[1]):
            chords[k, j] = points[k + 1, j] - points[k, j]
    fill_knots(h_s[:count], chords[:count], 1, v[: count + 1], a[: count + 1])
    ends = np.empty((4, points.shape[1]))
    for k in range(count):
        for j in range(points.shape[1]):
            ends[0, j], ends[1, j], ends[2, j], ends[3, j] = v[k, j], a[k, j], v[k + 1, j], a[k + 1, j]
        fill_piece(chords[k], h_s[k], ends, pieces[k])


@entry
def _sample(
    times_ns: np.ndarray,
    points: np.ndarray,
    way: tuple[np.ndarray, np.ndarray],
    when: tuple[int, int, int],
    moment: np.ndarray,
) -> int:
    """Fill position, velocity and acceleration (3, n); the piece that they are on."""
    (start, pieces), (count, at, t_ns) = way, when
    n = points.shape[1]
    if t_ns <= times_ns[0]:
        for j in range(n):
            moment[0, j], moment[1, j], moment[2, j] = start[0, j], start[1, j], start[2, j]
        return 0
    if t_ns >= times_ns[count]:
        for j in range(n):
            moment[0, j], moment[1, j], moment[2, j] = points[count, j], 0.0, 0.0
        return count - 1
    at = piece_at(times_ns, count, t_ns, at)
    length_ns = times_ns[at + 1] - times_ns[at]
    fill_moment(pieces[at], (t_ns - times_ns[at]) / length_ns, 1e-9 * length_ns, moment)
    for j in range(n):
        moment[0, j] += points[at, j]
    return at
