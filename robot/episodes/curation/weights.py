"""How often training visits each episode: uniformly (off), or more often where an episode is better.

A trainer asks once, before its first batch:

    weights = window_weights(dataset, Sampler("return", temperature=0.1))   # None: uniform
    order = ...  # draws window i with probability weights[i]

There is one window for each frame, in the order of the dataset, so that an order of windows takes the array as it is.
A return is the sum of an episode's rewards, undiscounted. Where a shaped reward is paid until the task is done, a long
failure may earn more than a quick success: use `quality` there.

A frame of episode i is drawn with probability w_i / sum_j T_j w_j: long episodes are visited more often than short ones
of the same weight, as they are where nothing is weighted (Hong, Agrawal, Tachet des Combes, Laroche, "Harnessing Mixed
Offline Reinforcement Learning Datasets via Trajectory Weighting", ICLR 2023).
"""

from dataclasses import dataclass

import numpy as np

from robot.episodes.dataset import REWARD, SUCCESS, Dataset
from robot.errors import ConfigError, DatasetError, unknown_name

UNIFORM, RETURN, ADVANTAGE, TOP_K, QUALITY = "uniform", "return", "advantage", "topk", "quality"
SAMPLERS = (UNIFORM, RETURN, ADVANTAGE, TOP_K, QUALITY)
RIDGE = 1.0
"""Penalty of the regression of the return on the initial state, in units of one episode of standardised data."""


@dataclass(frozen=True)
class Sampler:
    """How episodes are weighted.

    Attributes:
        name: One of `SAMPLERS`. `uniform`: not at all. `return`: by return, and `advantage`: by return beyond what the
            initial state promises, both a softmax over values that are scaled to [0, 1]. `topk`: only the k best
            returns. `quality`: a softmax over the scores of `armature episodes quality`.
        temperature: Of the softmax: 0.1 makes the best episode e^10 times as frequent as the worst one, a large value
            nearly uniform. Hong et al. use 0.1.
        k: For `topk`: a share of the episodes if below 1, else their number.
    """

    name: str = UNIFORM
    temperature: float = 0.1
    k: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise unknown_name("sampler", self.name, SAMPLERS)
        if not self.temperature > 0:
            raise ConfigError(f"The temperature of a sampler is {self.temperature}, expected more than 0.")
        if not (0 < self.k < 1 or (self.k >= 1 and self.k == int(self.k))):
            raise ConfigError(f"k is {self.k}, expected a share of the episodes in (0, 1) or a whole number of them.")


def window_weights(dataset: Dataset, sampler: Sampler) -> np.ndarray | None:
    """Probability of each window (one for each frame) under a sampler.

    Args:
        dataset: With the column `next.reward`, or `next.success` where there is none, for all but `uniform` and
            `quality`.
        sampler: How to weight.

    Returns:
        float64, shape (N,), not negative, sums to 1; None for `uniform`.

    Raises:
        DatasetError: The dataset has neither rewards nor successes.
    """
    if sampler.name == UNIFORM:
        return None
    return per_window(episode_weights(dataset, sampler), dataset.episode_lengths)


def per_window(weights: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Probability of each window from the weight (E,) and the number of windows (E,) of each episode."""
    windows = np.repeat(weights, lengths)
    return windows / windows.sum()


def episode_weights(dataset: Dataset, sampler: Sampler) -> np.ndarray:
    """Weight of each episode, float64, shape (E,), sums to 1.

    Raises:
        DatasetError: The dataset has neither rewards nor successes, which `return`, `advantage` and `topk` want.
    """
    if sampler.name == UNIFORM:
        return np.full(len(dataset.episode_lengths), 1.0 / len(dataset.episode_lengths))
    if sampler.name == QUALITY:
        from robot.episodes.curation.assessment import scores_of  # only this one wants scipy

        return softmax(scores_of(dataset), sampler.temperature)
    returns = returns_of(dataset)
    if sampler.name == TOP_K:
        return top_k(returns, sampler.k)
    if sampler.name == ADVANTAGE:
        returns = advantages(returns, initial_states(dataset))
    return softmax(returns, sampler.temperature)


def returns_of(dataset: Dataset) -> np.ndarray:
    """Return of each episode, shape (E,): its summed reward, or whether it ended in success where there is none.

    Raises:
        DatasetError: There is neither, or a reward is not finite.
    """
    starts = dataset.episode_starts
    if REWARD in dataset.columns:
        rewards = dataset.columns[REWARD].astype(np.float64).reshape(-1)
        if not np.isfinite(rewards).all():
            frame = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise DatasetError(
                f"{REWARD!r} of frame {frame} is {rewards[frame]}, so the return of its episode is not known. "
                "Leave the episode out, or use sampler=quality."
            )
        return np.add.reduceat(rewards, starts)
    if SUCCESS in dataset.columns:
        return dataset.columns[SUCCESS].reshape(-1)[starts + dataset.episode_lengths - 1].astype(np.float64)
    raise DatasetError(
        f"The dataset has neither {REWARD!r} nor {SUCCESS!r}, so nothing says which episodes are better. "
        "Use sampler=uniform or sampler=quality."
    )


def initial_states(dataset: Dataset) -> np.ndarray:
    """The vectors of the first observation of each episode, one after the other, shape (E, D)."""
    vectors = [key for key, spec in dataset.specs.observation.items() if len(spec.shape) == 1]
    if not vectors:
        raise DatasetError(
            "The dataset has no observation that is a vector, so nothing describes its initial states. "
            "Use sampler=return instead of sampler=advantage."
        )
    return np.concatenate([dataset.columns[key][dataset.episode_starts] for key in vectors], axis=1).astype(np.float64)


def softmax(values: np.ndarray, temperature: float) -> np.ndarray:
    """Weights proportional to exp(x / temperature) with x the values scaled to [0, 1]; uniform if all are equal.

    Hong et al. 2023, equation of RW: w_i ~ exp(G_i / alpha) on returns normalised by their least and greatest.
    """
    low, high = values.min(), values.max()
    if not high > low:
        return np.full(len(values), 1.0 / len(values))
    weights = np.exp(((values - low) / (high - low) - 1.0) / temperature)  # the best has exponent 0: no overflow
    return weights / weights.sum()


def top_k(values: np.ndarray, k: float) -> np.ndarray:
    """Equal weights on the k greatest values, zero elsewhere; of equal values the earlier episodes count first."""
    count = min(len(values), max(1, round(k * len(values)) if k < 1 else int(k)))
    weights = np.zeros(len(values))
    weights[np.argsort(-values, kind="stable")[:count]] = 1.0 / count
    return weights


def advantages(returns: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return beyond what a regression on the initial state expects of it, from the other episodes.

    A_i = G_i - V(s_i), with V linear in the standardised initial state and fitted without episode i. Hong et al. 2023
    fit least squares to all episodes at once; with fewer episodes than dimensions that reproduces every return and
    leaves no advantage, hence the small penalty here and the left-out episode: r_i / (1 - H_ii) with residuals r and
    the hat matrix H is what a fit without i would leave.

    Args:
        returns: Shape (E,).
        states: Initial states, shape (E, D); their scale does not matter.

    Returns:
        Shape (E,); all zero for a single episode, of which nothing else says what to expect.
    """
    if len(returns) < 2:
        return np.zeros(len(returns))
    spread = states.std(axis=0)
    kept = spread > 1e-9 * np.maximum(1.0, np.abs(states).max(axis=0))
    x = (states[:, kept] - states[:, kept].mean(axis=0)) / spread[kept]
    gram = x.T @ x + RIDGE * np.eye(x.shape[1])
    hat = x @ np.linalg.solve(gram, x.T) + 1.0 / len(returns)
    residuals = returns - hat @ returns
    return residuals / (1.0 - np.diag(hat))


def effective_sample_size(weights: np.ndarray) -> float:
    """How many episodes of equal weight would tell as much: (sum w)^2 / sum w^2 (Kish 1965), from 1 to len(weights)."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def described(dataset: Dataset, sampler: Sampler) -> str:
    """One line for a log: what the sampler does to this dataset."""
    if sampler.name == UNIFORM:
        return "sampler=uniform: every window equally often."
    weights = episode_weights(dataset, sampler)
    count = len(weights)
    share = np.sort(per_window(weights, dataset.episode_lengths))[::-1][: max(1, len(dataset) // 10)].sum()
    return (
        f"sampler={sampler.name}: worth {effective_sample_size(weights):.1f} of {count} episodes; "
        f"a tenth of the windows makes up {share:.0%} of a batch."
    )
