"""Several datasets of one kind, mixed by weight, and the statistics of what a training draws from them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.episodes.statistics import QUANTILES, Statistics
from robot.errors import DatasetError


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture.

    Attributes:
        name: What messages call it: its folder.
        dataset: It.
        share: How many samples come from it, relative to the shares of the others.
        weights: Of its windows, shape (N,), or of its episodes, shape (E,), for each of their windows: drawn with
            replacement as often as they say. None: every window once an epoch of this dataset.
    """

    name: str
    dataset: Dataset
    share: float
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = self.dataset.episode_lengths
        if self.weights is not None and self.weights.shape == lengths.shape:
            object.__setattr__(self, "weights", np.repeat(self.weights, lengths))


class Mixture:
    """Datasets of equal specs.

    Attributes:
        parts: The datasets.
        specs: Of the first one; the others differ at most in ranges and in the wording of the task.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Mix datasets.

        Raises:
            DatasetError: There is none, a share is not above zero, specs differ, or weights do not fit their dataset.
        """
        if not parts:
            raise DatasetError("A mixture needs at least one dataset, got none.")
        self.parts = tuple(parts)
        self.specs: EnvironmentSpecs = parts[0].dataset.specs
        for part in self.parts:
            if not (np.isfinite(part.share) and part.share > 0):
                raise DatasetError(f"The share of {part.name} is {part.share}, expected a number above zero.")
            if part.weights is not None and part.weights.shape != (len(part.dataset),):
                raise DatasetError(
                    f"There are weights of shape {part.weights.shape} for the {len(part.dataset)} windows or "
                    f"{len(part.dataset.episode_lengths)} episodes of {part.name}."
                )
            lines = self.specs.difference(part.dataset.specs)
            if lines:
                raise DatasetError(
                    f"{part.name} cannot be mixed with {parts[0].name}: {'; '.join(lines)}. Only datasets of the same "
                    "robot, control period, action space and observations mix."
                )

    @classmethod
    def of(cls, dataset: Dataset, weights: np.ndarray | None = None) -> "Mixture":
        """One dataset."""
        return cls([Part("the dataset", dataset, 1.0, weights)])

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Texts of the tasks of all datasets, each once."""
        return tuple(dict.fromkeys(task for part in self.parts for task in part.dataset.tasks))

    @property
    def shares(self) -> np.ndarray:
        """Share of each dataset, float64, sums to one."""
        shares = np.array([part.share for part in self.parts], np.float64)
        return shares / shares.sum()

    @cached_property
    def identity(self) -> str:
        """Equal where training would see the same data equally often; that of a lone dataset without weights is its."""
        first = self.parts[0]
        if len(self.parts) == 1 and first.weights is None:
            return first.dataset.identity
        digest = hashlib.sha256()
        for part, share in zip(self.parts, self.shares, strict=True):
            weights = b"" if part.weights is None else np.asarray(part.weights, "<f8").tobytes()
            digest.update(f"{part.dataset.identity} {share.hex()} {len(weights)} ".encode() + weights)
        return digest.hexdigest()

    @cached_property
    def stats(self) -> dict[str, Statistics]:
        """Statistics of the mixture: of what is drawn in the long run without weights of windows; see `combined`."""
        if len(self.parts) == 1:
            return self.parts[0].dataset.stats
        datasets = [part.dataset for part in self.parts]
        return {
            key: combined(
                [data.stats[key] for data in datasets], [data.columns.get(key) for data in datasets], self.shares
            )
            for key in datasets[0].stats
            if all(key in data.stats for data in datasets)
        }


def combined(stats: Sequence[Statistics], columns: Sequence[np.ndarray | None], shares: np.ndarray) -> Statistics:
    """Statistics of a distribution that draws from dataset d with probability w_d, then any of its rows.

    min and max are those of all; mean = sum_d w_d mean_d; std^2 = sum_d w_d (std_d^2 + (mean_d - mean)^2), the law of
    total variance, exact; count is the sum. Quantiles are exact where the values are there: each row weighs w_d / n_d,
    and between neighbours they interpolate linearly, so that equal weights give what `statistics.of_column` gives.
    Where they are not (pictures), the quantile of the mixture is taken as the mean of the quantiles, weighted by w_d.

    Args:
        stats: Of each dataset.
        columns: Values of each dataset, shape (n_d, ...), or None.
        shares: w_d, shape (number of datasets,), sums to one.
    """
    held = [column for column in columns if column is not None]
    mean = _mixed([stat["mean"] for stat in stats], shares)
    second = [stat["std"] ** 2 + (stat["mean"] - mean) ** 2 for stat in stats]
    result = {
        "min": np.min([stat["min"] for stat in stats], axis=0),
        "max": np.max([stat["max"] for stat in stats], axis=0),
        "mean": mean,
        "std": np.sqrt(_mixed(second, shares)),
        "count": np.sum([stat["count"] for stat in stats], axis=0),
    }
    if len(held) == len(stats):
        rows = np.concatenate([column.reshape(len(column), -1) for column in held]).astype(np.float64)
        weights = np.concatenate([np.full(len(own), share / len(own)) for own, share in zip(held, shares, strict=True)])
        found = np.stack([weighted_quantiles(rows[:, i], weights) for i in range(rows.shape[1])], axis=1)
        quantiles: Mapping[str, np.ndarray] = {
            name: value.reshape(mean.shape) for name, value in zip(QUANTILES, found, strict=True)
        }
    else:
        quantiles = {name: _mixed([stat[name] for stat in stats], shares) for name in QUANTILES if name in stats[0]}
    return {**result, **quantiles}


def weighted_quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The quantiles of `QUANTILES` of weighted values, both shape (N,).

    Value k of the sorted ones is the quantile S_k / S_n with S_k = (k - 1) w_k + (n - 1) sum_{i < k} w_i, counted from
    1; between them it is linear. Equal weights give (k - 1) / (n - 1).
    """
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    n = len(values)
    if n == 1:
        return np.full(len(QUANTILES), values[0])
    before = np.cumsum(weights) - weights
    positions = np.arange(n) * weights + (n - 1) * before
    return np.interp(list(QUANTILES.values()), positions / positions[-1], values)


def _mixed(values: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    return np.tensordot(shares, np.stack(values), axes=1)
