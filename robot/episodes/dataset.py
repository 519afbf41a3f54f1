"""A dataset in memory: vectors of all frames of all episodes as arrays, with the specs that say what they mean.

Pictures stay in their files: `Dataset.source` gives them, an episode at a time.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes import statistics
from robot.episodes.episode import is_picture
from robot.episodes.rows import ACTION, Held, Rows, RowSource, Schema
from robot.episodes.statistics import Statistics
from robot.errors import DatasetError, unknown_name
from robot.specs import ArraySpec, Specs

REWARD = "next.reward"
SUCCESS = "next.success"
TERMINATED = "next.terminated"
TRUNCATED = "next.truncated"

OUTCOME_TYPES = {REWARD: np.float32, SUCCESS: np.bool_, TERMINATED: np.bool_, TRUNCATED: np.bool_}
"""Columns that a dataset may have besides observations and actions: what followed the action of the row."""


@dataclass(frozen=True)
class Dataset:
    """Frames of episodes, one after the other.

    Attributes:
        specs: Of the environment that the episodes were recorded in.
        columns: Arrays of shape (N, *spec.shape) by key: every vector of the observation and `action`, float32; and,
            where they were recorded, the columns of `OUTCOME_TYPES`, shape (N,).
        episode_lengths: Frames of each episode, int64, shape (E,).
        stats: Statistics of every column (see `robot.episodes.statistics`), and of pictures where they are known: one
            number for each colour in [0, 1], shape (3, 1, 1).
        tasks: Text of each task; left out: that of the specs.
        task_index: Place in `tasks` of each frame's, int64, shape (N,); left out: zeros.
        source: Where the frames came from, pictures included; None where they were made in memory.
    """

    specs: EnvironmentSpecs
    columns: dict[str, np.ndarray]
    episode_lengths: np.ndarray
    stats: dict[str, Statistics]
    tasks: tuple[str, ...] = ()
    task_index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    source: RowSource | None = None

    def __post_init__(self) -> None:
        if not self.tasks:  # of frozen fields, those that were left out are filled here
            object.__setattr__(self, "tasks", (self.specs.task,))
            object.__setattr__(self, "task_index", np.zeros(int(self.episode_lengths.sum()), np.int64))
        frames = int(self.episode_lengths.sum())
        if len(self.episode_lengths) == 0 or not (self.episode_lengths > 0).all():
            raise DatasetError(f"A dataset needs episodes of at least one frame, got {self.episode_lengths.tolist()}.")
        for key, spec in required_columns(self.specs).items():
            if key not in self.columns:
                raise DatasetError(f"The dataset has no column {key!r}; it has {', '.join(sorted(self.columns))}.")
            _check_column(spec, self.columns[key], frames)
        if self.task_index.shape != (frames,):
            raise DatasetError(f"task_index has shape {self.task_index.shape}, expected {(frames,)}.")

    @property
    def fps(self) -> int:
        """Frames per second."""
        return frames_per_second(self.specs)

    @cached_property
    def episode_starts(self) -> np.ndarray:
        """Index of the first frame of each episode, int64, shape (E,)."""
        return np.concatenate([[0], np.cumsum(self.episode_lengths)[:-1]]).astype(np.int64)

    @cached_property
    def identity(self) -> str:
        """SHA-256 over specs, episode borders, tasks and all values: equal where training would see the same data.

        Pictures count by the identities of the source's episodes, which are made without decoding.
        """
        digest = hashlib.sha256(json.dumps(self.specs.to_json(), sort_keys=True).encode())
        digest.update(self.episode_lengths.astype("<i8").tobytes())
        for key in sorted(self.columns):
            column = self.columns[key]
            digest.update(f"{key} {column.shape} {column.dtype}".encode())
            digest.update(np.ascontiguousarray(column).data)
        if len(self.tasks) > 1:
            digest.update(json.dumps(self.tasks).encode() + self.task_index.astype("<i8").tobytes())
        if self.source is not None and any(map(is_picture, self.specs.observation.values())):
            for number in range(len(self.source)):
                digest.update(self.source.identity(number).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self.episode_lengths.sum())

    @classmethod
    def from_episodes(cls, specs: EnvironmentSpecs, episodes: Sequence[Mapping[str, np.ndarray]]) -> "Dataset":
        """A dataset made of episodes in memory; computes the statistics.

        Args:
            specs: Of the environment.
            episodes: For each episode its columns by key, each of shape (T, *spec.shape) with the same T.

        Raises:
            DatasetError: There is no episode, columns differ in length or shape, or a value is not finite.
        """
        if not episodes:
            raise DatasetError("A dataset needs at least one episode, got none.")
        keys = list(episodes[0])
        for number, episode in enumerate(episodes):
            _check_episode(specs, number, episode, keys)
        columns = {key: _joined(key, episodes) for key in keys}
        lengths = np.array([len(episode[ACTION]) for episode in episodes], np.int64)
        return cls(specs, columns, lengths, statistics.of_columns(columns))

    @classmethod
    def open(cls, path: str | Path) -> "Dataset":
        """Read a LeRobotDataset v3 folder: one that `armature build` wrote, or one of LeRobot 0.4 to 0.6.

        Of a foreign one the specs are what `meta/info.json` says (see `LeRobotSource`), and the statistics of vectors
        are computed again.

        Raises:
            DatasetError: The folder is missing, damaged, or of another version.
        """
        from robot.episodes.formats.lerobot_dataset import read  # the only part that needs pyarrow

        return read(Path(path))

    def rows(self) -> RowSource:
        """The episodes as a source: the one that the dataset was opened from, else the arrays."""
        if self.source is not None:
            return self.source
        extras = {
            key: ArraySpec(key, (), np.dtype(OUTCOME_TYPES[key]).name) for key in self.columns if key in OUTCOME_TYPES
        }
        episodes = [
            Rows({key: column[begin:end] for key, column in self.columns.items()}, {}, self._task(begin, end))
            for begin, end in zip(self.episode_starts, self.episode_starts + self.episode_lengths, strict=True)
        ]
        return Held(Schema(self.specs, extras), episodes)

    def showing(self, observations: Sequence[str]) -> "Dataset":
        """The same frames with only some of the observations, for a policy that sees no others.

        Raises:
            UnknownNameError: The dataset has no observation of this key.
        """
        known = self.specs.observation
        for key in observations:
            if key not in known:
                raise unknown_name("observation", key, known)
        hidden = known.keys() - set(observations)
        specs = replace(self.specs, observation={key: spec for key, spec in known.items() if key not in hidden})
        columns = {key: column for key, column in self.columns.items() if key not in hidden}
        return replace(self, specs=specs, columns=columns)

    def _task(self, begin: int, end: int) -> str | tuple[str, ...]:
        texts = tuple(self.tasks[number] for number in self.task_index[begin:end])
        return texts[0] if len(set(texts)) == 1 else texts


def required_columns(specs: EnvironmentSpecs) -> Specs:
    """Specs of the columns that every dataset of an environment has: all but pictures."""
    return Schema(specs).columns


def frames_per_second(specs: EnvironmentSpecs) -> int:
    """The rate of the environment, which LeRobot wants to be a whole number."""
    fps = round(1.0 / specs.dt_s)
    if fps < 1 or abs(1.0 / fps - specs.dt_s) > 1e-9:
        raise DatasetError(
            f"LeRobotDataset v3 wants a whole number of frames per second, got a control period of {specs.dt_s} s "
            f"({1.0 / specs.dt_s:.6f} Hz). Record at a whole rate."
        )
    return fps


def _check_episode(
    specs: EnvironmentSpecs, number: int, episode: Mapping[str, np.ndarray], keys: Sequence[str]
) -> None:
    required = required_columns(specs)
    for key in {**required, **dict.fromkeys(keys)}:
        if key not in episode:
            raise DatasetError(f"Episode {number} has no column {key!r}; it has {', '.join(sorted(episode))}.")
    counts = {key: len(episode[key]) for key in keys}
    if len(set(counts.values())) != 1:
        raise DatasetError(f"Columns of episode {number} differ in length: {counts}.")
    if counts[ACTION] == 0:
        raise DatasetError(f"Episode {number} has no frames; every episode needs at least one frame.")
    for key, spec in required.items():
        try:
            _check_column(spec, np.asarray(episode[key], np.float32), counts[key])
        except DatasetError as error:
            raise DatasetError(f"Episode {number}: {error}") from error


def _joined(key: str, episodes: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([np.asarray(episode[key], OUTCOME_TYPES.get(key, np.float32)) for episode in episodes])


def _check_column(spec: ArraySpec, column: np.ndarray, frames: int) -> None:
    if column.shape != (frames, *spec.shape) or column.dtype != np.float32:
        raise DatasetError(
            f"Column {spec.key!r} is {column.dtype} of shape {column.shape}, "
            f"expected float32 of shape {(frames, *spec.shape)}."
        )
    finite = np.isfinite(column)
    if not finite.all():
        frame = int(np.argwhere(~finite)[0][0])
        raise DatasetError(
            f"Column {spec.key!r} is not finite at frame {frame}: {column[frame].tolist()}. "
            "Delete the episode that it comes from and build again."
        )
