"""A dataset in memory: all frames of all episodes as arrays, with the specs of the world that they come from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes import statistics
from robot.episodes.statistics import Statistics
from robot.errors import DatasetError
from robot.specs import ArraySpec, Specs

ACTION = "action"
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
        columns: Arrays of shape (N, *spec.shape) by key: every observation key and `action`, float32; and, where they
            were recorded, the columns of `OUTCOME_TYPES`, shape (N,).
        episode_lengths: Frames of each episode, int64, shape (E,).
        stats: Statistics of every column (see `robot.episodes.statistics`).
    """

    specs: EnvironmentSpecs
    columns: dict[str, np.ndarray]
    episode_lengths: np.ndarray
    stats: dict[str, Statistics]

    def __post_init__(self) -> None:
        frames = int(self.episode_lengths.sum())
        if len(self.episode_lengths) == 0 or not (self.episode_lengths > 0).all():
            raise DatasetError(f"A dataset needs episodes of at least one frame, got {self.episode_lengths.tolist()}.")
        for key, spec in required_columns(self.specs).items():
            if key not in self.columns:
                raise DatasetError(f"The dataset has no column {key!r}; it has {', '.join(sorted(self.columns))}.")
            _check_column(spec, self.columns[key], frames)

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
        """SHA-256 over specs, episode borders and all values: equal where training would see the same data."""
        digest = hashlib.sha256(json.dumps(self.specs.to_json(), sort_keys=True).encode())
        digest.update(self.episode_lengths.astype("<i8").tobytes())
        for key in sorted(self.columns):
            column = self.columns[key]
            digest.update(f"{key} {column.shape} {column.dtype}".encode())
            digest.update(np.ascontiguousarray(column).tobytes())
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
        """Read a LeRobotDataset v3 folder that `armature build` wrote.

        Raises:
            DatasetError: The folder is missing, damaged, foreign, or of a newer version.
        """
        from robot.episodes.formats.lerobot_reader import read  # the only part that needs pyarrow

        return read(Path(path))


def required_columns(specs: EnvironmentSpecs) -> Specs:
    """Specs of the columns that every dataset of an environment has."""
    return {**specs.observation, ACTION: specs.action}


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
