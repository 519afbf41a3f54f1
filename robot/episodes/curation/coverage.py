"""What the demonstrations cover, and which are copies of each other.

Legend: E episodes, S state dimensions, M points of a resampled episode.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist, squareform

from robot.episodes.curation.neighbours import Scale

BINS = 10
"""Cells along each of the first `COMPONENTS` principal components."""
COMPONENTS = 3
_POINTS = 24
_COARSE = 12
_BANDWIDTH = 0.5
"""Standard deviations at which two episodes count as rather alike; it only sets the unit of `effective_number`."""


@dataclass(frozen=True)
class Coverage:
    """Totals of a dataset. Copies of an episode change none of them.

    Attributes:
        occupied: Share of the cells of a grid over the first three principal components of the states that hold any.
        evenness: Effective number of those cells over the occupied ones, exp(entropy) / count: 1 is even.
        dimensions: Effective number of independent state dimensions, (sum lambda)^2 / sum lambda^2 of the correlations.
        starts: Effective number of different initial states (see `effective_number`).
        episodes: Effective number of different episodes as a whole.
        start_spread: Standard deviation of the initial states in their own units, (S,).
    """

    occupied: float
    evenness: float
    dimensions: float
    starts: float
    episodes: float
    start_spread: np.ndarray


def resampled(rows: np.ndarray, points: int = _POINTS) -> np.ndarray:
    """An episode (T, D) at equal shares of its duration, (points, D), linear in between."""
    at = np.linspace(0, len(rows) - 1, points)
    below = np.minimum(at.astype(int), max(0, len(rows) - 2))
    above = np.minimum(below + 1, len(rows) - 1)
    share = (at - below)[:, None]
    return rows[below] * (1 - share) + rows[above] * share


def groups_of_copies(states: list[np.ndarray], actions: list[np.ndarray], tolerance: float) -> np.ndarray:
    """Number of the group of each episode, from 0: one number for episodes that are nearly the same.

    Two are where their lengths differ by at most 2 % and the root mean square difference of their states and actions,
    each resampled to 24 points, is at most `tolerance` standard deviations. Chains of such pairs are one group.

    Args:
        states: Of each episode, (T, S).
        actions: Of each episode, (T, A).
        tolerance: In standard deviations of the frames; 0 finds exact copies only.
    """
    count, rows = len(states), [np.hstack(pair) for pair in zip(states, actions, strict=True)]
    scale = Scale.of(np.concatenate(rows))
    # Scaled distances are root mean squares over dimensions; over the points as well after this division.
    flat = np.array([resampled(scale(part)).ravel() for part in rows]) / np.sqrt(_POINTS)
    lengths = np.array([len(part) for part in rows])
    # Some of the coordinates bound the distance from below, so that few pairs are left to be compared in all of them.
    widest = np.argsort(-flat.var(axis=0), kind="stable")[:_COARSE]
    first, second = cKDTree(flat[:, widest]).query_pairs(tolerance, output_type="ndarray").T
    close = np.linalg.norm(flat[first] - flat[second], axis=1) <= tolerance
    close &= np.abs(lengths[first] - lengths[second]) <= 0.02 * np.maximum(lengths[first], lengths[second])
    pairs = coo_array((np.ones(int(close.sum())), (first[close], second[close])), (count, count))
    component = connected_components(pairs, directed=False)[1]
    begins = np.full(count, count)
    np.minimum.at(begins, component, np.arange(count))
    return np.unique(begins[component], return_inverse=True)[1].astype(np.int64)


def coverage(states: list[np.ndarray], groups: np.ndarray, most: int = 1000) -> Coverage:
    """What a set of episodes covers.

    Args:
        states: Of each episode, (T, S).
        groups: See `groups_of_copies`; only the first episode of each group counts.
        most: Of how many episodes, evenly chosen, the effective numbers are computed (cubic cost).
    """
    kept = [states[i] for i in np.unique(groups, return_index=True)[1]]
    frames = np.concatenate(kept)
    scaled = Scale.of(frames)(frames)
    components, shares = principal(scaled)
    cells = _cells(components[:, :COMPONENTS])
    counts = np.unique(cells, axis=0, return_counts=True)[1]
    shown = [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int))]
    starts = np.array([part[0] for part in kept])
    scale = Scale.of(frames)
    return Coverage(
        occupied=len(counts) / BINS ** cells.shape[1],
        evenness=float(np.exp(_entropy(counts / counts.sum())) / len(counts)),
        dimensions=float(shares.sum() ** 2 / np.square(shares).sum()) if shares.sum() > 0 else 0.0,
        starts=effective_number(Scale.of(starts)(np.array([part[0] for part in shown]))),
        episodes=effective_number(np.array([resampled(scale(part)).ravel() for part in shown]) / np.sqrt(_POINTS)),
        start_spread=starts.std(axis=0),
    )


def principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centred rows on their principal axes, (N, D), and the variance along each, (D,), greatest first."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    order = np.argsort(values)[::-1]
    return centred @ vectors[:, order], np.maximum(values[order], 0.0)


def effective_number(points: np.ndarray) -> float:
    """How many of the points are different: exp of the entropy of the eigenvalues of K / n, a Gaussian kernel K.

    1 if all are equal, n if all are far from each other; a copy adds nothing but weight. Friedman, Dieng, "The Vendi
    Score", TMLR 2023.

    Args:
        points: Shape (n, D), scaled so that distances are in standard deviations.
    """
    if len(points) < 2:
        return float(len(points))
    kernel = np.exp(-squareform(pdist(points, "sqeuclidean")) / (2 * _BANDWIDTH**2))
    values = np.linalg.eigvalsh(kernel / len(points))
    return float(np.exp(_entropy(values)))


def _cells(points: np.ndarray) -> np.ndarray:
    """The cell of each point in a grid between two quantiles; what lies outside is in the outer cells."""
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    width = np.where(high > low, high - low, 1.0)
    return np.clip(((points - low) / width * BINS).astype(int), 0, BINS - 1)


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 1e-12]
    return float(-(shares * np.log(shares)).sum())
