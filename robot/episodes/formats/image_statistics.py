"""Statistics of pictures from histograms, which merge exactly: those of a dataset are those of all its samples at once.

LeRobot gives pictures statistics of one number for each colour, in [0, 1], of a sub-sample of frames and pixels. So do
these: at most `FRAMES` frames of each episode, evenly spaced from its first to its last, and of each every k-th row and
column, so that the longer side keeps about `PIXELS`. Samples are counted in 256 bins for each colour, as they are
uint8; mean, deviation and quantiles of the counted samples are exact. LeRobot merges quantiles of episodes instead,
which bounds them only (`aggregate_stats`).
"""

import numpy as np

from robot.episodes.statistics import QUANTILES, Statistics

FRAMES, PIXELS = 100, 150
BINS = 256


class Histogram:
    """Counts of sampled values of each colour.

    Attributes:
        frames: Number of frames that were counted.
        counts: int64, shape (3, 256).
    """

    def __init__(self, frames: int = 0, counts: np.ndarray | None = None) -> None:
        self.frames = frames
        self.counts = np.zeros((3, BINS), np.int64) if counts is None else np.asarray(counts, np.int64)

    def add(self, picture: np.ndarray) -> None:
        """Count one picture: RGB, uint8, shape (H, W, 3)."""
        stride = max(1, max(picture.shape[:2]) // PIXELS)
        sampled = picture[::stride, ::stride]
        for colour in range(3):
            self.counts[colour] += np.bincount(sampled[..., colour].ravel(), minlength=BINS)
        self.frames += 1

    def merge(self, other: "Histogram") -> None:
        """Count what `other` counted too."""
        self.counts += other.counts
        self.frames += other.frames

    def statistics(self) -> Statistics:
        """As LeRobot stores them: float64 of shape (3, 1, 1) in [0, 1]; `count` is the number of frames."""
        values = np.arange(BINS, dtype=np.float64)
        totals = self.counts.sum(axis=1)
        mean = self.counts @ values / totals
        std = np.sqrt((self.counts * (values - mean[:, None]) ** 2).sum(axis=1) / totals)
        found = {
            "min": np.array([np.flatnonzero(counts)[0] for counts in self.counts], np.float64),
            "max": np.array([np.flatnonzero(counts)[-1] for counts in self.counts], np.float64),
            "mean": mean,
            "std": std,
            **{name: np.array([_quantile(counts, q) for counts in self.counts]) for name, q in QUANTILES.items()},
        }
        stats = {name: (value / 255.0).reshape(3, 1, 1) for name, value in found.items()}
        return {**stats, "count": np.array([self.frames], np.int64)}


def sampled_frames(length: int) -> frozenset[int]:
    """Which frames of an episode of `length` are counted."""
    return frozenset(np.round(np.linspace(0, length - 1, min(length, FRAMES))).astype(int).tolist())


def _quantile(counts: np.ndarray, q: float) -> float:
    """Of the counted samples, interpolated linearly between order statistics, as `numpy.quantile` does."""
    cumulative = np.cumsum(counts)
    position = (int(cumulative[-1]) - 1) * q
    lower = int(np.floor(position))
    below, above = np.searchsorted(cumulative, [lower, min(lower + 1, int(cumulative[-1]) - 1)], side="right")
    return float(below + (position - lower) * (above - below))
