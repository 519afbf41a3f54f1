"""The most similar frames of other episodes, on a scale that units do not change.

Legend: N frames, D dimensions, E episodes, k neighbours.

Limits. With few episodes, or many dimensions that vary independently, the nearest frame is not near: every result
therefore comes with its distance, and what is estimated from neighbours says more where that is small. Dimensions that
carry the same thing twice (a pose and the joints that make it) count twice.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from tqdm import tqdm

_CHUNK = 4096
"""Queries at a time, which bounds memory."""
_CONSTANT = 1e-6
"""A dimension that spreads less than this share of its magnitude is constant: float32 cannot tell its values apart."""


@dataclass(frozen=True)
class Scale:
    """Affine scaling of each dimension, made so that the squared distance of two rows is a mean over dimensions.

    Attributes:
        centre: Mean, shape (D,).
        spread: Standard deviation, shape (D,); infinite where a dimension is constant, which drops it.
    """

    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, weights: np.ndarray | None = None) -> "Scale":
        """The scale of rows (N, D), each counted `weights` (N,) times."""
        weights = np.ones(len(rows)) if weights is None else weights
        centre = np.average(rows, axis=0, weights=weights)
        spread = np.sqrt(np.average(np.square(rows - centre), axis=0, weights=weights))
        varies = spread > _CONSTANT * np.maximum(np.abs(rows).max(axis=0, initial=0.0), np.finfo(np.float32).tiny)
        return cls(centre, np.where(varies, spread, np.inf))

    @property
    def dimensions(self) -> int:
        """How many dimensions vary."""
        return int(np.isfinite(self.spread).sum())

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows in standard deviations over sqrt(dimensions), constant dimensions zero; (N, D) to (N, D).

        The distance of two scaled rows is then the root mean square, over the dimensions that vary, of their difference
        in standard deviations: comparable between datasets of different dimension.
        """
        return (rows - self.centre) / self.spread / np.sqrt(max(1, self.dimensions))


@dataclass(frozen=True)
class Neighbours:
    """For each of Q query frames, the nearest frames of k other groups, nearest first.

    Attributes:
        queries: Their frames, int64, shape (Q,).
        indices: Frames of the neighbours, int64, shape (Q, k).
        distances: Shape (Q, k).
    """

    queries: np.ndarray
    indices: np.ndarray
    distances: np.ndarray

    @property
    def k(self) -> int:
        """How many neighbours each query has."""
        return self.indices.shape[1]


def nearest_elsewhere(
    points: np.ndarray,
    groups: np.ndarray,
    k: int,
    used: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
) -> Neighbours:
    """The nearest frame of each of the k nearest other groups of the same kind.

    At most one frame of a group counts, because successive frames of one episode are nearly the same observation: k
    frames of one neighbour would look like k experts who agree.

    Args:
        points: Scaled, shape (N, D).
        groups: Group of each frame, integers, shape (N,): its episode, or one number for episodes that are copies of
            each other.
        k: How many; fewer if no kind has so many other groups.
        used: Frames that are asked for and searched, shape (M,); all if None.
        kinds: Kind of each frame, integers, shape (N,), e.g. its task; all the same if None.

    Returns:
        Neighbours of the used frames, without those of kinds that have fewer than k other groups. k is 0 where no kind
        has two groups.
    """
    used = np.arange(len(points)) if used is None else used
    kinds = np.zeros(len(points), np.int64) if kinds is None else kinds
    parts = [used[kinds[used] == kind] for kind in np.unique(kinds[used])]
    others = [len(np.unique(groups[part])) - 1 for part in parts]
    k = min(k, max(others, default=0))
    found = [_nearest(points, groups, k, part) for part, count in zip(parts, others, strict=True) if count >= k > 0]
    if not found:
        return Neighbours(used[:0], np.zeros((0, 0), np.int64), np.zeros((0, 0)))
    queries = np.concatenate([one.queries for one in found])
    order = np.argsort(queries, kind="stable")
    indices, distances = (np.concatenate([getattr(one, name) for one in found]) for name in ("indices", "distances"))
    return Neighbours(queries[order], indices[order], distances[order])


def _nearest(points: np.ndarray, groups: np.ndarray, k: int, used: np.ndarray) -> Neighbours:
    """Of frames that hold at least k + 1 groups."""
    indices = np.zeros((len(used), k), np.int64)
    distances = np.zeros((len(used), k))
    tree = cKDTree(points[used])
    hidden = None if len(used) > 2 * _CHUNK else True
    for begin in tqdm(range(0, len(used), _CHUNK), "comparing", unit="chunk", leave=False, disable=hidden):
        rows = np.arange(begin, min(begin + _CHUNK, len(used)))
        width = 8 * k
        while len(rows):
            width = min(width, len(used))
            at, near = _first_of_groups(tree, points[used[rows]], groups[used], groups[used[rows]], (k, width))
            done = np.isfinite(at).all(axis=1)
            distances[rows[done]], indices[rows[done]] = at[done], used[near[done]]
            rows, width = rows[~done], 4 * width
    return Neighbours(used, indices, distances)


def _first_of_groups(
    tree: cKDTree, points: np.ndarray, groups: np.ndarray, own: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and positions of the first k distinct other groups among the `width` nearest; inf where too few."""
    k, width = size
    distances, near = tree.query(points, width, workers=-1)
    distances, near = distances.reshape(len(points), width), near.reshape(len(points), width)
    found = groups[near]
    order = np.argsort(found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, axis=1)
    is_first = np.ones_like(ordered, bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    counts = np.zeros_like(is_first)
    np.put_along_axis(counts, order, is_first, axis=1)
    counts &= found != own[:, None]
    chosen = np.argsort(~counts, axis=1, kind="stable")[:, :k]
    return (
        np.where(np.take_along_axis(counts, chosen, axis=1), np.take_along_axis(distances, chosen, axis=1), np.inf),
        np.take_along_axis(near, chosen, axis=1),
    )
