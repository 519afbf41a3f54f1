"""Reads episodes back, and refuses files that are interrupted, damaged, or somebody else's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mcap.reader import make_reader

from robot.episodes import foxglove, mcap_records, metadata, old_log
from robot.episodes.episode import STEPS, Episode, Event, Header
from robot.episodes.gathering import Gathered, indexed_chunks
from robot.episodes.mcap_records import DAMAGE, MAGIC
from robot.episodes.topics import EVENTS_TOPIC, required_topics
from robot.errors import EpisodeError


class EpisodeReader:
    """Opens a finished episode; what it holds is read without reading the messages.

    Attributes:
        header: What was known when it began.
        outcome: How it ended, as it was recorded.
        result: How it ended, as the last label has it.
        labels: What was said about it since, in order.
        counts: Number of messages by topic.
        duration_s: Of its control steps, or from its first message to its last [s].

    Raises:
        EpisodeError: The file is missing, interrupted, damaged, empty, or not an episode of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check_ends(path)
        with self._damage(), path.open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            _check_profile(path, reader.get_header().profile)
            mcap_records.check_summary(file)
            found = [(record.name, record.metadata) for record in reader.iter_metadata()]
            summary = reader.get_summary()
            if summary is None or summary.statistics is None:
                raise ValueError("no summary")
            self._summary, self._statistics = summary, summary.statistics
            topics = {number: channel.topic for number, channel in summary.channels.items()}
        named = dict(found)
        with self._damage():
            self.header, self._version = self._known(named[metadata.HEADER])
            self.outcome = metadata.result_of(named[metadata.OUTCOME], self._version)
            self.labels = tuple(metadata.label_of(strings) for name, strings in found if name == metadata.LABEL)
            self.counts = {topics[n]: count for n, count in self._statistics.channel_message_counts.items()}
        self.result = metadata.labelled(self.outcome, self.labels)
        logged_ns = self._statistics.message_end_time - self._statistics.message_start_time
        steps_s = self.outcome.steps * self.header.specs.dt_s
        self.duration_s = steps_s if self.header.clock == STEPS else logged_ns / 1e9
        if not self._statistics.message_count or (self.header.clock == STEPS and self.outcome.steps < 1):
            raise EpisodeError(f"{path} holds no steps and no messages. Discard or delete it.")

    def read(self) -> Episode:
        """All of it; pictures stay in the file until they are asked for.

        Raises:
            EpisodeError: The file is damaged, channels of steps differ in length, or times do not grow.
        """
        with self._damage(), self._path.open("rb") as file:
            if self._version < metadata.FORMAT_VERSION:
                channels = old_log.channels(self.header, old_log.gathered(self._messages(file)))
                return self._checked(Episode(self.header, self.result, channels, {}, tuple(self._label_events())))
            found = Gathered(self.header, [*self._summary.channels.values()], self._summary.schemas)
            for chunk in indexed_chunks(file):
                found.add(chunk)
            self._check_count(found.count)
            channels, pictures = found.channels(), found.pictures(self._path)
            events = (*found.events, *self._label_events())
            return self._checked(Episode(self.header, self.result, channels, pictures, events))

    def events(self) -> tuple[Event, ...]:
        """Events and labels alone, from the chunks that hold any; takes a small part of the time of `read`.

        Raises:
            EpisodeError: The file is damaged.
        """
        if self._version < metadata.FORMAT_VERSION:
            return tuple(self._label_events())
        found: list[Event] = []
        held = {number for number, channel in self._summary.channels.items() if channel.topic == EVENTS_TOPIC}
        with self._damage(), self._path.open("rb") as file:
            for chunk in self._summary.chunk_indexes:
                if held & chunk.message_index_offsets.keys():
                    chunks = mcap_records.Chunks(self._summary.schemas.values(), self._summary.channels.values())
                    logged = chunks.messages(mcap_records.record_at(file, chunk.chunk_start_offset))
                    found += [foxglove.event_of(m.t_ns, m.data) for m in logged if m.topic == EVENTS_TOPIC]
        return (*found, *self._label_events())

    def _messages(self, file: BinaryIO) -> Iterator[mcap_records.Logged]:
        """Every message, one at a time."""
        chunks, count = mcap_records.Chunks(), 0
        for record in mcap_records.records(file):
            if record.opcode == mcap_records.CHUNK:
                for logged in chunks.messages(record):
                    count += 1
                    yield logged
        self._check_count(count)

    def _check_count(self, count: int) -> None:
        """The summary, which has a checksum, tells how many messages there are."""
        if count != self._statistics.message_count:
            raise ValueError(f"{count} messages of {self._statistics.message_count}")

    def _checked(self, episode: Episode) -> Episode:
        times = {topic: channel.t_ns for topic, channel in episode.channels.items()}
        times |= {topic: camera.t_ns for topic, camera in episode.pictures.items()}
        for topic, t_ns in times.items():
            if not (np.diff(t_ns) > 0).all():
                raise EpisodeError(f"{self._path}: times of {topic} do not grow.")
        if self.header.clock == STEPS:
            for topic in {*required_topics(self.header), *times}:
                count = len(times.get(topic, ()))
                if count != self.outcome.steps:
                    raise EpisodeError(f"{self._path}: {topic} has {count} messages for {self.outcome.steps} steps.")
        return episode

    def _label_events(self) -> list[Event]:
        """Labels as events at the end of the episode."""
        events = []
        for label in self.labels:
            name = "note" if label.success is None else "success" if label.success else "failure"
            data = {"label": True, "wall_time": label.wall_time}
            events.append(Event(self._statistics.message_end_time, name, label.note, data))
        return events

    def _known(self, strings: dict[str, str]) -> tuple[Header, int]:
        try:
            return metadata.header_of(strings)
        except metadata.NewerVersionError as error:
            raise EpisodeError(
                f"{self._path} is an episode of format version {error}, this Armature reads up to "
                f"{metadata.FORMAT_VERSION}. Use the Armature that recorded it, or a later one."
            ) from error

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Every way in which damage shows becomes one error that names the file."""
        try:
            yield
        except EpisodeError:
            raise
        except DAMAGE as error:
            raise EpisodeError(
                f"{self._path} is damaged ({error!r}). Delete it, or rename it to {self._path.name}.part and save what "
                "can be read with `armature episodes recover`."
            ) from error
        except OSError as error:
            raise EpisodeError(f"{self._path} cannot be read: {error.strerror}.") from error


def _check_profile(path: Path, profile: str) -> None:
    if profile != metadata.PROFILE:
        raise EpisodeError(
            f"{path} is an MCAP file with profile {profile!r}, not an episode ({metadata.PROFILE!r}). "
            "Move it out of the folder."
        )


def is_cut_short(path: Path) -> bool:
    """Whether a file begins like an MCAP file and has no end.

    Raises:
        OSError: It cannot be read.
    """
    begin, end, size = _ends(path)
    return begin == MAGIC and (size < 2 * len(MAGIC) or end != MAGIC)


def _ends(path: Path) -> tuple[bytes, bytes, int]:
    """The first bytes, the last ones, and the size."""
    with path.open("rb") as file:
        begin = file.read(len(MAGIC))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(MAGIC)))
        return begin, file.read(), size


def _check_ends(path: Path) -> None:
    """A complete MCAP file begins and ends with its magic bytes."""
    try:
        begin, _, _ = _ends(path)
        cut_short = is_cut_short(path)
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read: {error.strerror}.") from error
    if begin != MAGIC:
        raise EpisodeError(f"{path} is not an MCAP file. Move it out of the folder.")
    if cut_short:
        raise EpisodeError(
            f"{path} was cut short: it has no end, so its recorder was interrupted or the copy is incomplete. "
            f"Make an episode of what is there with `armature episodes recover episodes={path.parent}`."
        )
