"""Windows over a dataset: what a policy saw, and the actions that followed.

Legend: B batch, T observation steps, H horizon, A action, D any observation.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from robot.episodes.dataset import Dataset
from robot.episodes.episode import is_picture
from robot.episodes.loading.frames import Frames
from robot.episodes.loading.memory import Layout, allocated
from robot.episodes.rows import ACTION
from robot.errors import DatasetError

ACTION_IS_PAD = "action_is_pad"
OBSERVATION_IS_PAD = "observation_is_pad"
TASK_INDEX = "task_index"


class Windows:
    """One window for each frame of a dataset; windows never cross the border of an episode.

    The window of frame i holds the observations i - (T - 1) s, ..., i - s, i, where s is the stride, and the actions
    i ... i + H - 1: row 0 of the actions answers the newest observation. Before the first frame of an episode the first
    observation is repeated, as the run loop does; after the last one the last action is repeated. Both are marked as
    padding.

    Attributes:
        layout: What `fill` fills, without the batch: every observation key (T, *D), vectors float32 and pictures uint8,
            `action` (H, A) float32, `action_is_pad` (H,) and `observation_is_pad` (T,) bool, and `task_index` () int64.
    """

    def __init__(
        self,
        dataset: Dataset,
        n_obs_steps: int,
        horizon: int,
        *,
        keys: Sequence[str] | None = None,
        frames: Mapping[str, Frames] | None = None,
        stride: int = 1,
        tasks: Sequence[str] | None = None,
    ) -> None:
        """Windows over the frames of a dataset.

        Args:
            dataset: Its vectors are in memory.
            n_obs_steps: T.
            horizon: H.
            keys: Observations that are wanted; all by default.
            frames: Decoded pictures of the dataset by key (see `robot.episodes.loading.decoding`).
            stride: Frames from one observation of a window to the next.
            tasks: Texts that `task_index` counts; those of the dataset by default.

        Raises:
            DatasetError: A number is less than one, or a key is missing.
        """
        if n_obs_steps < 1 or horizon < 1 or stride < 1:
            raise DatasetError(
                f"Windows want n_obs_steps >= 1, horizon >= 1 and stride >= 1, got {n_obs_steps}, {horizon} and "
                f"{stride}."
            )
        keys = list(dataset.specs.observation) if keys is None else list(keys)
        frames = frames or {}
        _check_keys(dataset, keys, frames)
        self._frames = {key: frames[key] for key in keys if key in frames}
        self._vectors = [key for key in keys if key not in frames]
        self.columns = {key: dataset.columns[key] for key in (*self._vectors, ACTION)}
        self.columns[TASK_INDEX] = _task_index(dataset, dataset.tasks if tasks is None else tasks)
        self._borders = np.append(dataset.episode_starts, len(dataset))
        self._back = stride * np.arange(1 - n_obs_steps, 1)
        self._ahead = np.arange(horizon)
        self.layout: Layout = {key: ((n_obs_steps, *self.columns[key].shape[1:]), "float32") for key in self._vectors}
        self.layout |= {key: ((n_obs_steps, *own.shape[1:]), "uint8") for key, own in self._frames.items()}
        self.layout[ACTION] = ((horizon, *self.columns[ACTION].shape[1:]), "float32")
        self.layout |= {ACTION_IS_PAD: ((horizon,), "bool"), OBSERVATION_IS_PAD: ((n_obs_steps,), "bool")}
        self.layout[TASK_INDEX] = ((), "int64")

    def __len__(self) -> int:
        return int(self._borders[-1])

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The windows of some frames in new arrays; see `fill`."""
        out = allocated(batched(self.layout, len(indices)))
        self.fill(indices, out)
        return out

    def fill(self, indices: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """Copy the windows of some frames.

        Args:
            indices: Frames, integers in [0, len), shape (B,).
            out: Where they go: each array of `layout` with B before its shape, C-contiguous.

        Raises:
            IndexError: An index is outside.
            DatasetError: Decoded pictures were removed.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"Windows are [0, {len(self)}), got indices from {indices.min()} to {indices.max()}.")
        episodes = np.searchsorted(self._borders, indices, side="right")
        first, last = self._borders[episodes - 1][:, None], self._borders[episodes][:, None] - 1
        past, future = indices[:, None] + self._back, indices[:, None] + self._ahead
        np.less(past, first, out=out[OBSERVATION_IS_PAD])
        np.greater(future, last, out=out[ACTION_IS_PAD])
        past, future = np.maximum(past, first), np.minimum(future, last)
        for key in self._vectors:
            _take(self.columns[key], past, out[key])
        for key, frames in self._frames.items():
            frames.read(past, out[key])
        _take(self.columns[ACTION], future, out[ACTION])
        _take(self.columns[TASK_INDEX], indices, out[TASK_INDEX])

    def with_columns(self, columns: dict[str, np.ndarray]) -> "Windows":
        """The same windows over equal columns that lie elsewhere, or nowhere while they cross to another process."""
        other = copy.copy(self)
        other.columns = columns
        return other


def batched(layout: Layout, batch_size: int) -> Layout:
    """The layout of a batch of windows."""
    return {key: ((batch_size, *shape), dtype) for key, (shape, dtype) in layout.items()}


def _take(column: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    column.take(rows, axis=0, out=out, mode="clip")  # rows are inside; "raise" would go through a copy


def _task_index(dataset: Dataset, tasks: Sequence[str]) -> np.ndarray:
    """Place of each frame's task among `tasks`, int64, shape (N,)."""
    if list(tasks) == list(dataset.tasks):
        return dataset.task_index
    return np.array([tasks.index(task) for task in dataset.tasks], np.int64)[dataset.task_index]


def _check_keys(dataset: Dataset, keys: Sequence[str], frames: Mapping[str, Frames]) -> None:
    for key in keys:
        if key not in dataset.specs.observation:
            raise DatasetError(
                f"The dataset has no observation {key!r}; it has {', '.join(dataset.specs.observation)}."
            )
        if is_picture(dataset.specs.observation[key]) and key not in frames:
            raise DatasetError(f"The pictures {key!r} are not decoded; see robot.episodes.loading.decoding.")
    for key, own in frames.items():
        if len(own) != len(dataset):
            raise DatasetError(f"There are {len(own)} decoded pictures {key!r} for {len(dataset)} rows.")
