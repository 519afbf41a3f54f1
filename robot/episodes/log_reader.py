"""Reads episodes back, and refuses files that are interrupted, damaged, or somebody else's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from mcap.reader import make_reader

from robot.episodes import foxglove, mcap_records, metadata, old_log
from robot.episodes.episode import STEPS, Channel, Episode, Event, Header, PictureChannel
from robot.episodes.mcap_records import DAMAGE, MAGIC
from robot.episodes.messages import VectorMessages
from robot.episodes.pictures import LoggedPictures, Place
from robot.episodes.topics import EVENTS_TOPIC, picture_topics, required_topics, vector_topics
from robot.errors import EpisodeError
from robot.specs import ArraySpec


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
        with self._damage():
            gathered = _Gathered(self.header)
            with self._path.open("rb") as file:
                for logged in self._messages(file):
                    gathered.add(logged)
            if self._version < metadata.FORMAT_VERSION:
                channels = old_log.channels(self.header, gathered.unknown)
                times = {topic: channel.t_ns for topic, channel in channels.items()}
                return self._checked(Episode(self.header, self.result, channels, {}, ()), times)
            channels, pictures = gathered.channels(), gathered.pictures(self._path)
            times = {topic: channel.t_ns for topic, channel in channels.items()}
            times |= {topic: camera.t_ns for topic, camera in pictures.items()}
            events = (*gathered.events, *self._label_events())
            return self._checked(Episode(self.header, self.result, channels, pictures, events), times)

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
        """Every message; their number is that of the summary, which has a checksum."""
        chunks, count = mcap_records.Chunks(), 0
        for record in mcap_records.records(file):
            if record.opcode == mcap_records.CHUNK:
                for logged in chunks.messages(record):
                    count += 1
                    yield logged
        if count != self._statistics.message_count:
            raise ValueError(f"{count} messages of {self._statistics.message_count}")

    def _checked(self, episode: Episode, times: dict[str, np.ndarray]) -> Episode:
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
            raise EpisodeError(f"{self._path} is damaged ({error!r}). Delete it and record again.") from error
        except OSError as error:
            raise EpisodeError(f"{self._path} cannot be read: {error.strerror}.") from error


class _Gathered:
    """Messages by topic, as they come out of a file."""

    def __init__(self, header: Header) -> None:
        self._vectors = {topic: VectorMessages(topic, spec) for topic, spec in vector_topics(header).items()}
        self._cameras = picture_topics(header)
        self._times: dict[str, list[int]] = {}
        self._data: dict[str, list[bytes]] = {}
        self._places: dict[str, list[Place]] = {}
        self._kinds: dict[str, str] = {}
        self.events: list[Event] = []
        self.unknown: dict[str, list[tuple[int, bytes]]] = {}

    def add(self, logged: mcap_records.Logged) -> None:
        """One message; those of topics that the header does not know are kept as they are."""
        topic = logged.topic
        if topic in self._vectors and logged.schema == self._vectors[topic].name:
            self._data.setdefault(topic, []).append(logged.data)
            self._times.setdefault(topic, []).append(logged.t_ns)
        elif topic in self._cameras:
            place = Place(logged.chunk, logged.begin, logged.begin + len(logged.data))
            self._places.setdefault(topic, []).append(place)
            self._times.setdefault(topic, []).append(logged.t_ns)
            self._kinds[topic] = logged.schema
        elif topic == EVENTS_TOPIC and logged.schema == foxglove.LOG:
            self.events.append(foxglove.event_of(logged.t_ns, logged.data))
        else:
            self.unknown.setdefault(topic, []).append((logged.t_ns, logged.data))

    def channels(self) -> dict[str, Channel]:
        """Vectors by topic."""
        return {
            topic: Channel(vectors.spec, self._t_ns(topic), vectors.decode(self._data[topic]))
            for topic, vectors in self._vectors.items()
            if topic in self._data
        }

    def pictures(self, path: Path) -> dict[str, PictureChannel]:
        """Pictures by topic."""
        return {
            topic: self._camera(path, topic, spec) for topic, spec in self._cameras.items() if topic in self._places
        }

    def _camera(self, path: Path, topic: str, spec: ArraySpec) -> PictureChannel:
        pictures = LoggedPictures(path, spec, self._kinds[topic], self._places[topic])
        return PictureChannel(spec, self._t_ns(topic), pictures)

    def _t_ns(self, topic: str) -> np.ndarray:
        return np.array(self._times[topic], np.int64)


def _check_profile(path: Path, profile: str) -> None:
    if profile != metadata.PROFILE:
        raise EpisodeError(
            f"{path} is an MCAP file with profile {profile!r}, not an episode ({metadata.PROFILE!r}). "
            "Move it out of the folder."
        )


def _check_ends(path: Path) -> None:
    """A complete MCAP file begins and ends with its magic bytes."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(MAGIC)))
            end = file.read()
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read: {error.strerror}.") from error
    if begin != MAGIC:
        raise EpisodeError(f"{path} is not an MCAP file. Move it out of the folder.")
    if size < 2 * len(MAGIC) or end != MAGIC:
        raise EpisodeError(
            f"{path} was cut short: it has no end, so its recorder was interrupted or the copy is incomplete. "
            f"Make an episode of what is there with `armature episodes recover episodes={path.parent}`."
        )
