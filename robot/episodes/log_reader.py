"""Reads episodes back, and refuses files that are interrupted, damaged, or somebody else's."""

import itertools
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from mcap.exceptions import McapError
from mcap.reader import McapReader, make_reader

from robot.contract import EnvironmentSpecs
from robot.episodes.log import (
    APPLIED,
    COMMANDED,
    DEVICE,
    EVENTS,
    EVENTS_TOPIC,
    HEADER,
    OUTCOME,
    PROFILE,
    READABLE_VERSIONS,
    REWARD_TOPIC,
    Header,
    Result,
    action_topic,
    element_names,
    topic_of,
    topic_specs,
)
from robot.errors import EpisodeError
from robot.specs import ArraySpec

_MAGIC = b"\x89MCAP0\r\n"
_DAMAGE = (McapError, EOFError, StopIteration, struct.error, ValueError, KeyError, TypeError, zstandard.ZstdError)


@dataclass(frozen=True)
class Episode:
    """One episode in memory.

    Attributes:
        header: What was known when it began.
        result: How it ended.
        t_ns: When each action was sent, CLOCK_MONOTONIC of the recording machine [ns], int64, shape (T,).
        observation: By key, float32, shape (T, *spec.shape): what was seen before the action of the row.
        actions: By channel (`device`, `commanded`, and `applied` where the robot reports it), float32, (T, A).
        reward: float32, shape (T,).
        events: `success`, `terminated` and `truncated` after the action of the row, bool, shape (T,).
    """

    header: Header
    result: Result
    t_ns: np.ndarray
    observation: dict[str, np.ndarray]
    actions: dict[str, np.ndarray]
    reward: np.ndarray
    events: dict[str, np.ndarray]


class EpisodeReader:
    """Opens a finished episode; header and result are read without reading the messages.

    Raises:
        EpisodeError: The file is missing, interrupted, damaged, or not an episode of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check_ends(path)
        with self._opened() as reader:
            profile = reader.get_header().profile
            if profile != PROFILE:
                raise EpisodeError(
                    f"{path} is an MCAP file with profile {profile!r}, not an episode ({PROFILE!r}). "
                    "Move it out of the folder."
                )
            found = {record.name: record.metadata for record in reader.iter_metadata()}
            self.header = self._header(found)
            self.result = Result(**{key: json.loads(value) for key, value in found[OUTCOME].items()})

    def read(self) -> Episode:
        """All steps.

        Raises:
            EpisodeError: The file is damaged, channels differ in length, or times do not grow.
        """
        messages = self._messages()
        with self._damage():
            return self._episode(messages)

    def _episode(self, messages: dict[str, list[tuple[int, Any]]]) -> Episode:
        specs = self.header.specs
        vectors = {
            topic: _vectors(spec, messages[topic]) for topic, spec in topic_specs(specs).items() if topic in messages
        }
        rewards, events = ([row for _, row in messages[topic]] for topic in (REWARD_TOPIC, EVENTS_TOPIC))
        channels = [name for name in (DEVICE, COMMANDED, APPLIED) if action_topic(name) in vectors]
        return Episode(
            header=self.header,
            result=self.result,
            t_ns=np.array([t_ns for t_ns, _ in messages[action_topic(COMMANDED)]], np.int64),
            observation={key: vectors[topic_of(key)] for key in specs.observation},
            actions={name: vectors[action_topic(name)] for name in channels},
            reward=np.array([row["reward"] for row in rewards], np.float32),
            events={name: np.array([row[name] for row in events], np.bool_) for name in EVENTS},
        )

    def _messages(self) -> dict[str, list[tuple[int, Any]]]:
        """(time, fields) of every message by topic, checked for number and order."""
        found: dict[str, list[tuple[int, Any]]] = {}
        with self._opened() as reader:
            for _, channel, message in reader.iter_messages(log_time_order=False):
                found.setdefault(channel.topic, []).append((message.log_time, json.loads(message.data)))
        optional = action_topic(APPLIED)
        for topic in {*topic_specs(self.header.specs), REWARD_TOPIC, EVENTS_TOPIC} - ({optional} - found.keys()):
            count = len(found.get(topic, []))
            if count != self.result.steps:
                raise EpisodeError(f"{self._path}: {topic} has {count} messages for {self.result.steps} steps.")
            times = [t_ns for t_ns, _ in found[topic]]
            if any(later <= earlier for earlier, later in itertools.pairwise(times)):
                raise EpisodeError(f"{self._path}: times of {topic} do not grow.")
        return found

    def _header(self, found: dict[str, dict[str, str]]) -> Header:
        data = {key: json.loads(value) for key, value in found[HEADER].items()}
        version = data.pop("version")
        if version not in READABLE_VERSIONS:
            raise EpisodeError(
                f"{self._path} is an episode of format version {version}, this Armature reads {READABLE_VERSIONS[-1]}. "
                "Use the Armature that recorded it."
            )
        specs = EnvironmentSpecs.from_json(data.pop("specs"))
        return Header(specs=specs, **data)

    @contextmanager
    def _opened(self) -> Iterator[McapReader]:
        with self._path.open("rb") as file, self._damage():
            yield make_reader(file, validate_crcs=True)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Every way in which damage shows becomes one error that names the file."""
        try:
            yield
        except EpisodeError:
            raise
        except _DAMAGE as error:
            raise EpisodeError(f"{self._path} is damaged ({error!r}). Delete it and record again.") from error


def _vectors(spec: ArraySpec, messages: list[tuple[int, Any]]) -> np.ndarray:
    names = element_names(spec)
    flat = np.array([[fields[name] for name in names] for _, fields in messages], np.float32)
    return flat.reshape(-1, *spec.shape)


def _check_ends(path: Path) -> None:
    """A complete MCAP file begins and ends with its magic bytes."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_MAGIC)))
            end = file.read()
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read: {error.strerror}.") from error
    if begin != _MAGIC:
        raise EpisodeError(f"{path} is not an MCAP file. Move it out of the folder.")
    if size < 2 * len(_MAGIC) or end != _MAGIC:
        raise EpisodeError(
            f"{path} was cut short: it has no end, so its recorder was interrupted or the copy is incomplete. "
            "Delete it and record again, or salvage its steps with `mcap recover`."
        )
