"""Windows over a dataset: what a policy saw, and the actions that followed; and the order in which to visit them.

Legend: B batch, T observation steps, H horizon, A action, D any observation.
"""

import numpy as np

from robot.episodes.dataset import ACTION, Dataset
from robot.errors import DatasetError

ACTION_IS_PAD = "action_is_pad"


class Windows:
    """One window for each frame of a dataset; windows never cross the border of an episode.

    The window of frame i holds the observations i - T + 1 ... i and the actions i ... i + H - 1: row 0 of the actions
    answers the newest observation. Before the first frame of an episode the first observation is repeated, as the run
    loop does; after the last one the last action is repeated and marked as padding.
    """

    def __init__(self, dataset: Dataset, n_obs_steps: int, horizon: int) -> None:
        if n_obs_steps < 1 or horizon < 1:
            raise DatasetError(f"Windows want n_obs_steps >= 1 and horizon >= 1, got {n_obs_steps} and {horizon}.")
        self._observations = {key: dataset.columns[key] for key in dataset.specs.observation}
        self._actions = dataset.columns[ACTION]
        lengths = dataset.episode_lengths
        self._first = np.repeat(dataset.episode_starts, lengths)
        self._last = np.repeat(dataset.episode_starts + lengths - 1, lengths)
        self._back = np.arange(1 - n_obs_steps, 1)
        self._ahead = np.arange(horizon)

    def __len__(self) -> int:
        return len(self._actions)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The windows of some frames.

        Args:
            indices: Frames, integers in [0, len), shape (B,).

        Returns:
            Every observation key (B, T, *D), `action` (B, H, A), both float32 copies, and `action_is_pad` (B, H) bool.

        Raises:
            IndexError: An index is outside.
        """
        indices = np.asarray(indices)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"Windows are [0, {len(self)}), got indices from {indices.min()} to {indices.max()}.")
        past = np.maximum(indices[:, None] + self._back, self._first[indices][:, None])
        future = indices[:, None] + self._ahead
        last = self._last[indices][:, None]
        batch = {key: column.take(past, axis=0) for key, column in self._observations.items()}
        batch[ACTION] = self._actions.take(np.minimum(future, last), axis=0)
        batch[ACTION_IS_PAD] = future > last
        return batch


class BatchOrder:
    """Which windows make up which batch: a permutation per epoch, and batches cut from their endless sequence.

    `indices` depends on nothing but its argument, so a resumed run sees what the interrupted one would have seen.
    Every epoch visits every window once; all batches are full, and one may hold the end of an epoch and the beginning
    of the next.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        if n < 1 or batch_size < 1 or seed < 0:
            raise DatasetError(
                f"A batch order wants n >= 1, batch_size >= 1 and seed >= 0, got {n}, {batch_size}, {seed}."
            )
        self._n, self._batch_size, self._seed = n, batch_size, seed
        self._cached: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def indices(self, step: int) -> np.ndarray:
        """Windows of batch `step` >= 0, int64, shape (batch_size,)."""
        if step < 0:
            raise IndexError(f"Batches are numbered from 0, got {step}.")
        begin, parts, wanted = step * self._batch_size, [], self._batch_size
        while wanted:
            epoch, offset = divmod(begin, self._n)
            part = self._permutation(epoch)[offset : offset + wanted]
            parts.append(part)
            begin, wanted = begin + len(part), wanted - len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._cached[0] != epoch:
            self._cached = (epoch, np.random.default_rng([self._seed, epoch]).permutation(self._n))
        return self._cached[1]
