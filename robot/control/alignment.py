"""How much later one signal is than another: the shift at which the first best explains the second.

For every candidate shift the reference is *interpolated* at the times of the observations minus that shift; the
observations themselves never move, so every candidate is judged on the same samples, no lag has fewer of them, and the
normalised correlation has no bias towards short lags. (Looking up the best lag in an array with masked entries, as is
easily done, answers with the index of another lag; here a lag and its score are never apart.) The best of a grid is
refined by a parabola through its neighbours.

Sign: positive where the observations come later: `observed(t)` goes with `reference(t - delay)`.
"""

from dataclasses import dataclass

import numpy as np

from robot.errors import SpecError

STEP_S = 0.002
"""Distance of candidate shifts [s]."""
COMPONENTS = 1
"""Ways of changing that a picture is reduced to: the strongest, without what flickers beside it."""


@dataclass(frozen=True)
class Delay:
    """How late observations are.

    Attributes:
        delay_s: The shift; at the edge of what was searched if `is_inside` is not set [s].
        score: Correlation of observations and shifted reference there, 0 to 1 (of several columns or powers, the root
            of the share of the observations' variance that the reference explains).
        sign: 1 where both move the same way, -1 where they move opposite ways; 1 for columns, which have no direction.
        is_inside: Whether the best shift is not at the edge.
    """

    delay_s: float
    score: float
    sign: int
    is_inside: bool


def delay(
    times_s: np.ndarray,
    observed: np.ndarray,
    reference: tuple[np.ndarray, np.ndarray],
    span_s: tuple[float, float],
    degree: int = 1,
) -> Delay:
    """How much later observations are than a reference.

    The observations are fitted to powers of the reference, and not the reference to the observations: among many
    columns there is always something that moves like a velocity, with which any fit could shift the time itself.

    Args:
        times_s: When each observation was made (T,) [s].
        observed: (T,), or (T, K) of which each column counts by how much it varies.
        reference: Times (N,), increasing [s], and values (N,); before the first and after the last it rests there.
        span_s: Shortest and longest shift that is looked for [s].
        degree: Highest power of the reference; 1 for what is proportional to it.

    Raises:
        SpecError: An array has another shape, or a value is not finite.
    """
    columns = observed[:, None] if observed.ndim == 1 else observed
    _check(times_s, columns, *reference)
    trend = np.stack([np.ones(len(times_s)), times_s - times_s.mean()], 1)
    trend /= np.linalg.norm(trend, axis=0)
    centred = _without(columns, trend)
    least = 1e-9 * float(np.linalg.norm(columns))
    energy = float((centred**2).sum())
    scale = max(float(np.ptp(reference[1])), 1e-12)
    middle = float(np.mean(reference[1]))
    shifts = np.arange(span_s[0], span_s[1] + STEP_S / 2, STEP_S)
    scores = np.zeros(len(shifts))
    for index, shift in enumerate(shifts if energy > least**2 else ()):
        shifted = (np.interp(times_s - shift, *reference) - middle) / scale
        basis = _orthonormal(_without(np.stack([shifted**power for power in range(1, degree + 1)], 1), trend), 1e-9)
        scores[index] = np.sqrt(((basis.T @ centred) ** 2).sum() / energy)
    best = int(np.argmax(scores))
    inside = 0 < best < len(shifts) - 1
    at = shifts[best] + (STEP_S * _vertex(*scores[best - 1 : best + 2]) if inside else 0.0)
    alike = observed.ndim > 1 or float(centred[:, 0] @ np.interp(times_s - shifts[best], *reference)) >= 0
    return Delay(float(at), float(scores[best]), 1 if alike else -1, inside)


def principal(rows: np.ndarray, count: int = COMPONENTS) -> np.ndarray:
    """Coordinates (T, at most `count`) of rows (T, P) along the directions in which they vary most."""
    centred = np.asarray(rows, np.float64) - np.mean(rows, axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(count, int((s > 1e-9 * max(1e-12, s[0])).sum()))
    return u[:, :kept] * s[:kept]


def along_main_axis(positions: np.ndarray) -> np.ndarray:
    """Way (T,) along the direction in which positions (T, 3) vary most, with the unit of the positions."""
    return principal(positions, 1)[:, 0] if np.ptp(positions, axis=0).max() > 0 else np.zeros(len(positions))


def _check(times_s: np.ndarray, columns: np.ndarray, reference_s: np.ndarray, reference: np.ndarray) -> None:
    fits = columns.ndim == 2 and len(columns) == len(times_s) > columns.shape[1] + 2 and columns.shape[1] > 0
    if not fits or reference.shape != reference_s.shape or len(reference) < 2:
        raise SpecError(
            f"Observations {columns.shape} at {times_s.shape} times and a reference {reference.shape} at "
            f"{reference_s.shape} times cannot be aligned: expected T > K + 2 and two vectors of one length."
        )
    if not all(np.isfinite(array).all() for array in (times_s, columns, reference_s, reference)):
        raise SpecError("Signals that are to be aligned have values that are not finite.")
    if (np.diff(reference_s) <= 0).any():
        raise SpecError("The times of a reference do not increase.")


def _without(columns: np.ndarray, trend: np.ndarray) -> np.ndarray:
    """Columns (T, K) less their mean and slope, which say nothing about time and everything about drift."""
    return columns - trend @ (trend.T @ columns)


def _orthonormal(columns: np.ndarray, least: float) -> np.ndarray:
    """Orthonormal columns of the same span, without what changes by `least` or less."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    return u[:, s > max(least, 1e-12)]


def _vertex(before: float, best: float, after: float) -> float:
    """Where the parabola through three scores has its top, in steps from the middle."""
    bend = before - 2 * best + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
