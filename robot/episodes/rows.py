"""Episodes as rows on a clock: what every format is read into and written from.

A `RowSource` reads one episode at a time, so that a dataset may be larger than memory: episodes of ours (resampled),
a LeRobotDataset, a robomimic file, RLDS shards. Whoever writes a format takes any of them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import Pictures, is_picture
from robot.specs import Specs

ACTION = "action"


@dataclass(frozen=True)
class Schema:
    """What every episode of a source holds.

    Attributes:
        specs: Observation (vectors and pictures), action, control period, robot, and the task where all share one
            (else empty).
        extras: Specs of further columns by key, e.g. `next.reward`; any dtype and rank.
        notes: JSON that belongs to the whole and that a format has no place for, e.g. robomimic's `env_args`.
    """

    specs: EnvironmentSpecs
    extras: Specs = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> Specs:
        """Specs of everything that is kept in tables: vectors of observation and action, and extras."""
        vectors = {key: spec for key, spec in self.specs.observation.items() if not is_picture(spec)}
        return {**vectors, ACTION: self.specs.action, **self.extras}

    @property
    def pictures(self) -> Specs:
        """Specs of the pictures by key."""
        return {key: spec for key, spec in self.specs.observation.items() if is_picture(spec)}


@dataclass(frozen=True)
class Rows:
    """One episode of T rows. Row k holds what was seen at time k / fps and the action that answered it.

    Attributes:
        columns: Each key of `Schema.columns`, shape (T, *spec.shape), of the spec's dtype.
        pictures: Each key of `Schema.pictures`, T of them.
        task: What was to be done: one text for the episode, or one for each row.
        origin: JSON that says where the rows come from: file, seed, source, quality, skews, labels.
        subsets: Names of the subsets that the episode is in (robomimic's masks, splits).
    """

    columns: Mapping[str, np.ndarray]
    pictures: Mapping[str, Pictures]
    task: str | tuple[str, ...]
    origin: dict[str, Any] = field(default_factory=dict)
    subsets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.columns[ACTION])


class RowSource(Protocol):
    """Episodes of one schema."""

    schema: Schema

    def __len__(self) -> int:
        """How many episodes there are."""
        ...

    def identity(self, number: int) -> str:
        """A digest that differs where the rows of episode `number` would; cheap beside reading them."""
        ...

    def read(self, number: int) -> Rows:
        """Episode `number`, from 0.

        Raises:
            ArmatureError: It cannot be read; the message names the file.
        """
        ...


class Held:
    """Episodes that are in memory already, as a source."""

    def __init__(self, schema: Schema, episodes: Sequence[Rows]) -> None:
        self.schema = schema
        self._episodes = episodes

    def __len__(self) -> int:
        return len(self._episodes)

    def identity(self, number: int) -> str:
        """SHA-256 over everything; pictures are gone through."""
        rows = self._episodes[number]
        digest = hashlib.sha256(json.dumps([rows.task, rows.origin, rows.subsets], sort_keys=True).encode())
        for key, column in sorted(rows.columns.items()):
            digest.update(f"{key} {column.dtype} {column.shape}".encode() + _bytes(column))
        for key, pictures in sorted(rows.pictures.items()):
            for picture in pictures:
                digest.update(f"{key} {picture.shape}".encode() + np.ascontiguousarray(picture).tobytes())
        return digest.hexdigest()

    def read(self, number: int) -> Rows:
        """Episode `number`."""
        return self._episodes[number]


def _bytes(column: np.ndarray) -> bytes:
    """The values of a column; strings that are held as objects by their text, not by their addresses."""
    if column.dtype.kind == "O":
        return json.dumps(column.tolist(), default=str).encode()
    return np.ascontiguousarray(column).tobytes()
