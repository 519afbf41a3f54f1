"""Which windows are visited when. Every order is a pure function of the position in an endless sequence.

Position p is sample p of a training: batch k of size B holds positions k B ... k B + B - 1. A resumed run therefore
sees what the interrupted one would have seen, and nothing has to be saved.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from robot.errors import DatasetError

DRAWN = 2**20
"""Up to here a permutation is drawn at random and kept, 8 MB at most; beyond, it is computed where it is asked for."""

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SHARES = 2**20
"""Shares of a mixture are multiples of one in so many: integers, so that counts never drift."""


class Order(Protocol):
    """An endless sequence of windows."""

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Windows at some positions >= 0; int64 in and out, shape (B,)."""
        ...


class Permutation:
    """A pseudo-random permutation of 0 ... n - 1 that is computed element by element and takes no memory.

    A Feistel network over pairs of digits to the base ceil(sqrt(n)), whose few values beyond n walk on along their
    cycle until they are inside (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """

    def __init__(self, n: int, entropy: Sequence[int]) -> None:
        self._n = np.uint64(n)
        root = int(np.sqrt(n))
        self._base = np.uint64(next(base for base in (root - 1, root, root + 1) if base > 0 and base * base >= n))
        self._keys = np.random.SeedSequence(list(entropy)).generate_state(_ROUNDS, np.uint64)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Where some elements go; int64 in [0, n) in and out."""
        values = self._encrypted(np.asarray(positions).astype(np.uint64))
        outside = np.flatnonzero(values >= self._n)
        while len(outside):
            values[outside] = self._encrypted(values[outside])
            outside = outside[values[outside] >= self._n]
        return values.astype(np.int64)

    def _encrypted(self, values: np.ndarray) -> np.ndarray:
        left, right = np.divmod(values, self._base)
        for key in self._keys:
            left, right = right, (left + scrambled(right + key) % self._base) % self._base
        return left * self._base + right


class Shuffled:
    """Every window once an epoch, each epoch in another random order."""

    def __init__(self, n: int, seed: int, stream: Sequence[int] = ()) -> None:
        """Shuffle windows 0 ... n - 1.

        Args:
            n: Number of windows, at least 1.
            seed: Not negative.
            stream: Numbers that tell this order from others of the same seed.

        Raises:
            DatasetError: There is no window, or the seed is negative.
        """
        if n < 1 or seed < 0:
            raise DatasetError(f"An order of windows wants n >= 1 and seed >= 0, got {n} and {seed}.")
        self._n, self._seed, self._stream = n, seed, tuple(stream)
        self._drawn: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """See `Order`."""
        positions = np.asarray(positions, np.int64)
        epoch = int(positions[0]) // self._n if len(positions) else 0
        offsets = positions - epoch * self._n
        if not len(offsets) or (offsets.min() >= 0 and offsets.max() < self._n):  # most batches are of one epoch
            return self._permuted(epoch, offsets)
        epochs, offsets = np.divmod(positions, self._n)
        windows = np.empty_like(offsets)
        for epoch in np.unique(epochs):
            own = epochs == epoch
            windows[own] = self._permuted(int(epoch), offsets[own])
        return windows

    def _permuted(self, epoch: int, offsets: np.ndarray) -> np.ndarray:
        entropy = [self._seed, epoch, *self._stream]
        if self._n > DRAWN:
            return Permutation(self._n, entropy).at(offsets)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, np.random.default_rng(entropy).permutation(self._n))
        return self._drawn[1][offsets]


class Weighted:
    """Windows drawn with replacement, each as often as its weight says."""

    def __init__(self, weights: np.ndarray, seed: int, stream: Sequence[int] = ()) -> None:
        """Draw window i with probability `weights[i] / weights.sum()`.

        Args:
            weights: Shape (N,), finite, not negative, not all zero.
            seed: Not negative.
            stream: Numbers that tell this order from others of the same seed.

        Raises:
            DatasetError: The weights or the seed are not so.
        """
        weights = np.asarray(weights, np.float64)
        if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise DatasetError(
                f"Weights of windows are finite numbers >= 0, not all of them zero; got shape {weights.shape}, "
                f"{int((~np.isfinite(weights)).sum())} not finite and {int((weights < 0).sum())} negative."
            )
        if seed < 0:
            raise DatasetError(f"An order of windows wants seed >= 0, got {seed}.")
        self._cumulative = np.cumsum(weights)
        self._last = int(np.flatnonzero(weights)[-1])
        self._key = np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """See `Order`."""
        numbers = scrambled(self._key + (np.asarray(positions).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        uniform = (numbers >> np.uint64(11)) * 2.0**-53  # in [0, 1)
        drawn = np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")
        return np.minimum(drawn, self._last)


class Interleaved:
    """Which of several orders each position belongs to, so that shares hold in every stretch and not only on average.

    Order d has share_d p of the first p positions, rounded; its own positions count without a gap.
    """

    def __init__(self, shares: Sequence[float] | np.ndarray) -> None:
        """Interleave as many orders as there are shares; they need not sum to one.

        Raises:
            DatasetError: A share is not a number above zero.
        """
        given = np.asarray(shares, np.float64)
        if given.ndim != 1 or not len(given) or not (np.isfinite(given) & (given > 0)).all():
            raise DatasetError(f"Shares of a mixture are numbers above zero, got {list(shares)}.")
        self._shares = np.maximum(1, np.round(given / given.sum() * _SHARES)).astype(np.int64)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each position the number of its order and the position there; int64, shape (B,) each."""
        own = np.array(positions, np.int64)
        numbers = np.full(len(own), len(self._shares) - 1)
        open_ = np.arange(len(own))  # positions that no order has taken yet
        for number, share in enumerate(self._shares[:-1]):
            total, at = self._shares[number:].sum(), own[open_]
            before = at * share // total  # how many of the first `at` are of this order
            is_own = (at + 1) * share // total > before
            own[open_] = np.where(is_own, before, at - before)
            numbers[open_[is_own]] = number
            open_ = open_[~is_own]
        return numbers, own


def scrambled(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): uint64 in and out, every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
