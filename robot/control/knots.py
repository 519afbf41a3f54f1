"""Quintic pieces between waypoints, and how fast to pass the waypoints between the first and the last.

**Speed and acceleration at a knot** are those of the parabola through the waypoint and its two neighbours (non-uniform
Catmull-Rom, which de Boor 1978 calls Bessel's: second order where waypoints sample a smooth curve). The first waypoint
has the arm on one side, which may be anywhere and any moment before: the shorter that piece is against the next one,
the more the parabola through the first three waypoints counts instead. What an arm does after a waypoint then hardly
depends on when the plan came.

**No overshoot.** Along its chord, a piece must not go back. The velocity of a quintic is a quartic, whose five
Bernstein coefficients (Farouki 2012, "The Bernstein polynomial basis: a centennial retrospective") are, with the
piece's duration as unit of time,

    v0,  v0 + a0/4,  5 chord - (2 v0 + a0/4) - (2 v1 - a1/4),  v1 - a1/4,  v1

and it is nowhere negative if none of them is. So velocity is cut to point along both chords, acceleration is scaled
until the second and fourth coefficients hold, and velocity and acceleration of a knot together until the third does, as
Fritsch and Carlson (1980, "Monotone piecewise cubic interpolation") do it for cubics. Scaling a knot down never breaks
what holds already, as its terms in the third coefficient are not negative. A waypoint where the motion turns back is
passed at rest, two equal waypoints are held exactly. The piece that begins with the arm moving faster than its chord
asks for, or the other way, is left alone: it has to catch up.

Everything is per group of `size` neighbouring columns: 1 for joints, each for itself; 3 for positions and rotation
vectors, for which the path is then the same in any frame.
"""

import math

import numpy as np

from robot.control.compiling import inner

QUICK_START = 2.5
"""Of the five chords in the third coefficient, how many a first piece may begin with and still be shaped."""

ROUNDING = 1e-12
"""What is left, as a share, of a vector that has been taken away along another."""


@inner
def fill_piece(chord: np.ndarray, h_s: float, knots: np.ndarray, out: np.ndarray) -> None:
    """Fill coefficients (5, n) of u, u² ... u⁵ of a piece that leads over `chord` (n,) in `h_s` seconds, u in [0, 1].

    `knots` (4, n) are velocity and acceleration at the beginning, then at the end.
    """
    for j in range(len(chord)):
        x = chord[j]
        v0, a0, v1, a1 = knots[0, j] * h_s, knots[1, j] * h_s * h_s, knots[2, j] * h_s, knots[3, j] * h_s * h_s
        out[0, j] = v0
        out[1, j] = 0.5 * a0
        out[2, j] = 10.0 * x - 6.0 * v0 - 4.0 * v1 - 1.5 * a0 + 0.5 * a1
        out[3, j] = -15.0 * x + 8.0 * v0 + 7.0 * v1 + 1.5 * a0 - a1
        out[4, j] = 6.0 * x - 3.0 * v0 - 3.0 * v1 - 0.5 * a0 + 0.5 * a1


@inner
def fill_moment(piece: np.ndarray, u: float, h_s: float, out: np.ndarray) -> None:
    """Fill way from the beginning, velocity and acceleration (3, n) of a piece at u in [0, 1]."""
    for j in range(piece.shape[1]):
        c1, c2, c3, c4, c5 = piece[0, j], piece[1, j], piece[2, j], piece[3, j], piece[4, j]
        out[0, j] = u * (c1 + u * (c2 + u * (c3 + u * (c4 + u * c5))))
        out[1, j] = (c1 + u * (2.0 * c2 + u * (3.0 * c3 + u * (4.0 * c4 + u * 5.0 * c5)))) / h_s
        out[2, j] = (2.0 * c2 + u * (6.0 * c3 + u * (12.0 * c4 + u * 20.0 * c5))) / (h_s * h_s)


@inner
def piece_at(times_ns: np.ndarray, count: int, now_ns: int, at: int) -> int:
    """Index of the piece that `now_ns` lies in, for increasing `times_ns` (count + 1,); search begins at `at`."""
    at = min(max(at, 0), count - 1)
    while at > 0 and now_ns < times_ns[at]:
        at -= 1
    while at < count - 1 and now_ns >= times_ns[at + 1]:
        at += 1
    return at


@inner
def fill_knots(h_s: np.ndarray, chords: np.ndarray, size: int, v: np.ndarray, a: np.ndarray) -> None:
    """Fill velocities and accelerations (K + 1, n) at the knots of K pieces of durations `h_s` and `chords` (K, n).

    Row 0 holds the state to start from; the last knot is at rest.
    """
    count, n = chords.shape
    scale(v[count], 0.0)
    scale(a[count], 0.0)
    for k in range(1, count):
        _fill_parabola(h_s, chords, k, v[k], a[k])
        for j in range(0, n, size):
            group = slice(j, j + size)
            is_first_free = k == 1 and not _can_shape(h_s[0], chords[0, group], v[0, group], a[0, group])
            _point_forward(h_s[k - 1 : k + 1], chords[k - 1 : k + 1, group], is_first_free, v[k, group], a[k, group])
    for j in range(0, n, size):
        _scale(h_s, chords[:, j : j + size], v[:, j : j + size], a[:, j : j + size])


@inner
def _fill_parabola(h_s: np.ndarray, chords: np.ndarray, k: int, v: np.ndarray, a: np.ndarray) -> None:
    before, after = h_s[k - 1], h_s[k]
    share = min(1.0, before / after) if k == 1 else 1.0
    for j in range(len(v)):
        slope_before, slope = chords[k - 1, j] / before, chords[k, j] / after
        curve = 2.0 * (slope - slope_before) / (before + after)
        curve_ahead = 0.0
        if k + 1 < len(h_s):
            curve_ahead = 2.0 * (chords[k + 1, j] / h_s[k + 1] - slope) / (after + h_s[k + 1])
        a[j] = share * curve + (1.0 - share) * curve_ahead
        v[j] = slope - 0.5 * after * a[j]


@inner
def _left(h_s: float, chord: np.ndarray, v: np.ndarray, a: np.ndarray) -> float:
    """What the beginning of a piece takes of the third coefficient's 5 chord², chord as unit of length."""
    return h_s * (2.0 * _dot(v, chord) + 0.25 * h_s * _dot(a, chord))


@inner
def _right(h_s: float, chord: np.ndarray, v: np.ndarray, a: np.ndarray) -> float:
    return h_s * (2.0 * _dot(v, chord) - 0.25 * h_s * _dot(a, chord))


@inner
def _can_shape(h_s: float, chord: np.ndarray, v: np.ndarray, a: np.ndarray) -> bool:
    """Whether a piece that begins with this state need not go back along its chord."""
    speed, bend = _dot(v, chord), h_s * _dot(a, chord)
    return speed >= 0.0 and bend >= -4.0 * speed and _left(h_s, chord, v, a) <= QUICK_START * _dot(chord, chord)


@inner
def _point_forward(h_s: np.ndarray, chords: np.ndarray, is_first_free: bool, v: np.ndarray, a: np.ndarray) -> None:
    """Cut a knot's velocity and acceleration so that the pieces before and after it move along their chords there."""
    _cut(chords[1], v)
    if not is_first_free:
        _cut(chords[0], v)
        if _dot(v, chords[1]) < -ROUNDING * math.sqrt(_dot(v, v) * _dot(chords[1], chords[1])):
            scale(v, 0.0)
    share = 1.0
    for side in range(2):
        if side == 0 and is_first_free:
            continue
        chord, sign = chords[side], 1.0 if side == 1 else -1.0
        bend, most = -sign * h_s[side] * _dot(a, chord), 4.0 * max(0.0, _dot(v, chord))
        if bend > most:
            share = min(share, most / bend)
        if _dot(chord, chord) == 0.0:
            share = 0.0
    scale(a, share)


@inner
def _cut(chord: np.ndarray, v: np.ndarray) -> None:
    """Take from v what points against the chord, or all of it where there is no chord."""
    square, along = _dot(chord, chord), _dot(v, chord)
    if square == 0.0:
        scale(v, 0.0)
    elif along < 0.0:
        for i in range(len(v)):
            v[i] -= (along / square) * chord[i]


@inner
def _scale(h_s: np.ndarray, chords: np.ndarray, v: np.ndarray, a: np.ndarray) -> None:
    """Scale the knots between the first and the last until no piece has to go back in its middle."""
    before = 1.0
    for k in range(len(h_s)):
        most = 5.0 * _dot(chords[k], chords[k])
        left, right = _left(h_s[k], chords[k], v[k], a[k]), _right(h_s[k], chords[k], v[k + 1], a[k + 1])
        share = 1.0
        if k == 0:
            if _can_shape(h_s[0], chords[0], v[0], a[0]) and left + right > most:
                share = (most - left) / right
        elif left + right > most:
            share = most / (left + right)
        if k > 0:
            both = min(before, share)
            # Not before its other piece has been seen: that piece's share is found with the knot as it was.
            scale(v[k], both)
            scale(a[k], both)
        before = share


@inner
def scale(vector: np.ndarray, factor: float) -> None:
    """Multiply in place. Loops compile many times faster than the same in NumPy's notation."""
    for i in range(len(vector)):
        vector[i] *= factor


@inner
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total
