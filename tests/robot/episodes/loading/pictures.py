"""Datasets with pictures of random numbers, held in memory, and ways for decoding to go wrong."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes import statistics
from robot.episodes.dataset import Dataset
from robot.episodes.rows import Held, Rows, Schema
from robot.specs import ArraySpec

STATE, FRONT, WRIST = "observation.state", "observation.images.front", "observation.images.wrist"


def picture_specs(size: tuple[int, int] = (8, 12), robot: str = "point") -> EnvironmentSpecs:
    observation = {
        FRONT: ArraySpec(FRONT, (*size, 3), "uint8", 0, 255),
        STATE: ArraySpec(STATE, (2,), names=("x", "y")),
        WRIST: ArraySpec(WRIST, (*size, 3), "uint8", 0, 255),
    }
    return EnvironmentSpecs(observation, ArraySpec("action", (3,)), "ee_delta", 0.05, robot, "reach")


def picture_episode(length: int, seed: int, size: tuple[int, int] = (8, 12)) -> Rows:
    rng = np.random.default_rng(seed)
    columns = {
        STATE: rng.normal(size=(length, 2)).astype(np.float32),
        "action": rng.normal(size=(length, 3)).astype(np.float32),
    }
    pictures = {key: rng.integers(0, 256, (length, *size, 3), dtype=np.uint8) for key in (FRONT, WRIST)}
    return Rows(columns, pictures, "reach", {"seed": seed})


class Source(Held):
    """Counts what is read, in this process."""

    def __init__(self, specs: EnvironmentSpecs, episodes: Sequence[Rows]) -> None:
        super().__init__(Schema(specs), episodes)
        self.episodes = list(episodes)
        self.was_read: list[int] = []

    def read(self, number: int) -> Rows:
        self.was_read.append(number)
        return super().read(number)


def picture_source(lengths: Sequence[int] = (5, 1, 9), seed: int = 0, size: tuple[int, int] = (8, 12)) -> Source:
    episodes = [picture_episode(length, seed + i, size) for i, length in enumerate(lengths)]
    return Source(picture_specs(size), episodes)


def picture_dataset(lengths: Sequence[int] = (5, 1, 9), seed: int = 0, size: tuple[int, int] = (8, 12)) -> Dataset:
    return dataset_of(picture_source(lengths, seed, size))


def dataset_of(source: Source) -> Dataset:
    keys = (STATE, "action")
    columns = {key: np.concatenate([rows.columns[key] for rows in source.episodes]) for key in keys}
    lengths = np.array([len(rows) for rows in source.episodes])
    return Dataset(source.schema.specs, columns, lengths, statistics.of_columns(columns), source=source)


def joined(source: Source, key: str) -> np.ndarray:
    return np.concatenate([np.asarray(rows.pictures[key]) for rows in source.episodes])


def held_by(process: int) -> list[Path]:
    """What a process has open."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            found.append(link.readlink())
        except OSError:
            continue
    return found


class Broken:
    """Some pictures, and then something happens."""

    def __init__(self, pictures: np.ndarray, length: int) -> None:
        self._pictures, self._length = pictures, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from self._pictures
        self.happen()

    def happen(self) -> None:
        return None


class Killed(Broken):
    def happen(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Defective(Broken):
    def happen(self) -> None:
        raise ZeroDivisionError("a defect in a decoder")


class Endless(Broken):
    def happen(self) -> None:
        time.sleep(600)


def source_with(broken: type[Broken], shown: int = 3, lengths: Sequence[int] = (5, 6)) -> Source:
    """The last episode is broken after some pictures."""
    source = picture_source(lengths)
    last = source.episodes[-1]
    pictures = {**last.pictures, WRIST: broken(np.asarray(last.pictures[WRIST])[:shown], lengths[-1])}
    source.episodes[-1] = Rows(last.columns, pictures, last.task, last.origin)
    return SourceOfKnown(source)


class SourceOfKnown(Source):
    """Its identities are known without going through the pictures."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.schema.specs, source.episodes)

    def identity(self, number: int) -> str:
        return str(self.episodes[number].origin)

    def read(self, number: int) -> Rows:
        return self.episodes[number]
