"""Whether experts agree, and whether the world repeats itself: spreads among similar frames of other episodes.

After Belkhale, Cui, Sadigh, "Data Quality in Imitation Learning", NeurIPS 2023. They name two properties of a dataset:
action divergence, how far actions at the same state differ (a policy cannot fit what contradicts itself), and
transition diversity, how far next states differ (by the policy's or the system's noise). Their `ActionVariance` and
`StateVariance` are mean squared distances to the mean of a cluster of near-equal states,

    1/|D| sum_(s,a) (a - E_(s',a') in C(s) [a'])^2,

and so are these, with two changes. The cluster is the frame itself and the nearest frame of each of k *other* episodes
(`robot.episodes.curation.neighbours`), so that an episode never testifies for itself. And each sum is divided by the
variance over the whole dataset: 0 says that near-equal states have equal actions, 1 that the state tells nothing of the
action. Units cancel, and so does the number of dimensions.

Limits. Near-equal is not equal: the distance of the neighbours adds what a perfectly consistent expert does differently
there. So compare datasets at similar `distance`, or read `divergence_at_zero` and `noise_at_zero`, which extrapolate to
equal states (see `at_zero_distance`) but want actions that are smooth functions of them. A cluster of k + 1 gives a
noisy estimate for one frame (relative standard error about sqrt(2 / k) for one Gaussian dimension): means over an
episode are what to read. Episodes of different tasks are never compared. What the state does not show (a phase, a
hidden goal, velocities that are not observed) counts as disagreement, or as noise: it is one for a policy that sees no
more. Experts that agree on a wrong action are consistent.
"""

from dataclasses import dataclass

import numpy as np

from robot.episodes.curation.neighbours import Neighbours, Scale, nearest_elsewhere


@dataclass(frozen=True)
class Spreads:
    """Of each frame, shape (N,); NaN where a frame was not asked for or has no neighbour that is near enough.

    Attributes:
        divergence: Spread of the actions of the frame and its neighbours, as a share of the dataset's.
        deviation: How far the frame's own action is from the mean of its neighbours'; the same expectation as
            `divergence` where all experts are alike, larger for the one who is not.
        diversity: Spread of the next states at near-equal states, as a share of that of all transitions.
        noise: The same at near-equal states *and* actions: what is left to the system.
        distance: To the farthest of the neighbours, root mean square over state dimensions, in standard deviations.
        novelty: To the nearest of the neighbours.
        divergence_at_zero: `divergence` of the whole, extrapolated to equal states.
        noise_at_zero: `noise` of the whole, extrapolated to equal states and actions.
        k: Neighbours of each frame.
    """

    divergence: np.ndarray
    deviation: np.ndarray
    diversity: np.ndarray
    noise: np.ndarray
    distance: np.ndarray
    novelty: np.ndarray
    divergence_at_zero: float
    noise_at_zero: float
    k: int


@dataclass(frozen=True)
class Frames:
    """Frames of all episodes, one after the other.

    Attributes:
        states: Shape (N, S), any units.
        actions: Shape (N, A), any units.
        lengths: Frames of each episode, shape (E,).
        groups: Group of each episode, shape (E,): equal for copies of each other, which never are neighbours and
            together count as one episode.
        tasks: Number of the task of each episode, shape (E,): only episodes of one task are neighbours. All are of one
            if None.
    """

    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray
    tasks: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        """How much each frame counts, shape (N,): one over the size of its group."""
        sizes = np.bincount(self.groups)
        return np.repeat(1.0 / sizes[self.groups], self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """First frame of each episode, shape (E,)."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @property
    def kinds(self) -> np.ndarray | None:
        """Task of each frame, shape (N,)."""
        return None if self.tasks is None else np.repeat(self.tasks, self.lengths)

    def every(self, most: int) -> np.ndarray:
        """At most about `most` frames: every n-th of each episode, its first one included."""
        within = np.arange(len(self.states)) - np.repeat(self.starts, self.lengths)
        stride = max(1, -(-len(self.states) // most))
        return np.flatnonzero(within % stride == 0)


def spreads(frames: Frames, k: int, radius: float = np.inf, most: int = 20_000) -> Spreads:
    """Spreads of actions and of next states among similar frames of other episodes.

    Args:
        frames: At least two groups, else all is NaN.
        k: Neighbours.
        radius: Frames whose k-th neighbour is farther than this are left out [standard deviations].
        most: About how many frames are used, evenly over each episode; the neighbours are sought among the same.
    """
    of_frame = np.repeat(frames.groups, frames.lengths)
    used, weights = frames.every(most), frames.weights
    states = Scale.of(frames.states, weights)(frames.states)
    actions = Scale.of(frames.actions, weights)(frames.actions)
    near = nearest_elsewhere(states, of_frame, k, used, frames.kinds)
    empty = np.full(len(frames.states), np.nan)
    if near.k == 0:
        return Spreads(empty, empty, empty, empty, empty, empty, np.nan, np.nan, 0)
    divergence, deviation = _spread(actions, near, weights, radius)
    diversity, noise, noise_at_zero = _of_transitions(frames, states, actions, (k, radius), used)
    return Spreads(
        divergence=divergence,
        deviation=deviation,
        diversity=diversity,
        noise=noise,
        distance=_placed(empty, near.queries, near.distances[:, -1]),
        novelty=_placed(empty, near.queries, near.distances[:, 0]),
        divergence_at_zero=at_zero_distance(actions, near, weights),
        noise_at_zero=noise_at_zero,
        k=near.k,
    )


def _of_transitions(
    frames: Frames, states: np.ndarray, actions: np.ndarray, limits: tuple[int, float], used: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Spread of state changes at near-equal states, at near-equal states and actions, and at equal ones.

    Changes, not next states: that two states differ a little is then no part of the spread. States and actions weigh
    the same in the second distance. The last frame of an episode has no change.
    """
    k, radius = limits
    of_frame = np.repeat(frames.groups, frames.lengths)
    has_next = np.ones(len(states), bool)
    has_next[np.cumsum(frames.lengths) - 1] = False
    used = used[has_next[used]]
    by_state = nearest_elsewhere(states, of_frame, k, used, frames.kinds)
    if by_state.k == 0:
        return np.full(len(states), np.nan), np.full(len(states), np.nan), np.nan
    weights = np.where(has_next, frames.weights, 0.0)
    changes = np.zeros_like(states)
    changes[:-1] = np.diff(frames.states, axis=0)
    changes[~has_next] = 0.0
    changes = Scale.of(changes, weights)(changes)
    by_both = nearest_elsewhere(np.hstack([states, actions]) / np.sqrt(2), of_frame, k, used, frames.kinds)
    return (
        _spread(changes, by_state, weights, radius)[0],
        _spread(changes, by_both, weights, radius)[0],
        at_zero_distance(changes, by_both, weights),
    )


def at_zero_distance(values: np.ndarray, near: Neighbours, weights: np.ndarray) -> float:
    """Spread of values between frames that would be equal, as a share of the variance, in [0, 1].

    The Gamma test: the mean of half the squared difference of values, regressed on the mean squared distance over the
    first, second ... k-th neighbour; where the line meets distance zero, it is the variance of what the point does not
    determine, if the rest is a smooth function of the point. Stefansson, Koncar, Jones, "A note on the Gamma test",
    Neural Computing and Applications 5, 1997. NaN with fewer than 3 neighbours.
    """
    total = _variance(values, weights)
    if near.k < 3:
        return float("nan")
    if not total > 0:
        return 0.0
    own = weights[near.queries]
    distance = np.average(np.square(near.distances), axis=0, weights=own)
    half = np.square(values[near.queries][:, None] - values[near.indices]).sum(axis=2) / 2
    spread = np.average(half, axis=0, weights=own) / total
    if not np.ptp(distance) > 0:
        return float(np.clip(spread.mean(), 0.0, 1.0))
    slope, intercept = np.polyfit(distance, spread, 1)
    return float(np.clip(intercept if slope > 0 else spread.mean(), 0.0, 1.0))


def _variance(values: np.ndarray, weights: np.ndarray) -> float:
    """Of all frames, summed over dimensions."""
    centre = np.average(values, axis=0, weights=weights)
    return float(np.average(np.square(values - centre).sum(axis=1), weights=weights))


def _spread(values: np.ndarray, near: Neighbours, weights: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Spread of each query and its neighbours, and deviation of the query from them, as shares of the variance.

    Both estimate, without bias, the variance of independent draws: sum of squares about the mean of k + 1 over k; and
    the squared distance to the mean of the k others times k / (k + 1).
    """
    total = _variance(values, weights)
    own, others = values[near.queries], values[near.indices]  # (Q, D), (Q, k, D)
    cluster = np.concatenate([own[:, None], others], axis=1)
    spread = np.square(cluster - cluster.mean(axis=1, keepdims=True)).sum(axis=(1, 2)) / near.k
    deviation = np.square(own - others.mean(axis=1)).sum(axis=1) * near.k / (near.k + 1)
    empty = np.full(len(values), np.nan)
    if not total > 0:  # an action that never varies does not disagree
        return _placed(empty, near.queries, np.zeros(len(own))), _placed(empty, near.queries, np.zeros(len(own)))
    share = np.where(near.distances[:, -1] <= radius, 1.0 / total, np.nan)
    return _placed(empty, near.queries, spread * share), _placed(empty, near.queries, deviation * share)


def _placed(empty: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    placed = empty.copy()
    placed[at] = values
    return placed


def mean(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Weighted mean of what is not NaN; NaN if nothing is left."""
    weights = np.ones(len(values)) if weights is None else weights
    kept = ~np.isnan(values) & (weights > 0)
    return float(np.average(values[kept], weights=weights[kept])) if kept.any() else float("nan")


def of_episodes(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Mean of each episode over its frames, shape (E,); NaN where it has none."""
    return np.array([mean(part) for part in np.split(values, np.cumsum(lengths)[:-1])])
