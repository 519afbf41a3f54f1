"""What a killed recorder left becomes an episode again: everything up to the last whole chunk.

So does an episode that was damaged since, once it is named like an unfinished one. Only whole chunks count, for only
they have a checksum; they are closed every quarter of a second.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mcap.writer import CompressionType, Writer

from robot.episodes import atomic, foxglove, mcap_records, metadata
from robot.episodes.episode import STEP_TOPIC, STEPS, Event, Header, Result
from robot.episodes.log import CHUNK_BYTES
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.mcap_records import CHUNK, DAMAGE, MAGIC, METADATA, Chunks, Logged, Record
from robot.episodes.messages import ENCODING, VectorMessages
from robot.episodes.topics import CALIBRATION, EVENTS_TOPIC, required_topics, vector_topics
from robot.errors import EpisodeError

RECOVERED, SUCCESS, FAILURE = "recovered", "success", "failure"


@dataclass
class Survey:
    """What can be read of an unfinished file.

    Attributes:
        header: What was known when it began.
        outcome: How it ended, where even that was written.
        counts: Readable messages by topic, without events and calibrations of cameras.
        endings: Messages of `/step`.
        events: As far as they are readable.
        labels: What was said about it since, if it was finished once.
        last_ns: The latest time of a message [ns].
        damaged: Chunks that are there and cannot be read.
        damaged_notes: Outcomes and labels that are there and cannot be read.
        lost_bytes: Bytes that cannot be read, at the end of the file or in damaged chunks.
    """

    header: Header
    outcome: Result | None = None
    counts: dict[str, int] = field(default_factory=dict)
    endings: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    labels: list[metadata.Label] = field(default_factory=list)
    last_ns: int = 0
    damaged: int = 0
    damaged_notes: int = 0
    lost_bytes: int = 0

    @property
    def steps(self) -> int:
        """Steps of which every channel has its message."""
        needed = dict.fromkeys(required_topics(self.header), 0)
        return min((needed | self.counts).values(), default=0)

    @property
    def result(self) -> Result:
        """How it ended, as far as can be told: from its last whole step, or from its events."""
        if self.header.clock == STEPS:
            layout = VectorMessages(STEP_TOPIC, vector_topics(self.header)[STEP_TOPIC])
            _, success, terminated, truncated = layout.decode(self.endings[: self.steps]).astype(bool).T
            return Result(self.steps, bool(success[-1]), bool(success.any()), bool(terminated[-1]), bool(truncated[-1]))
        said = [event.name == SUCCESS for event in self.events if event.name in (SUCCESS, FAILURE)]
        return self.outcome or Result(0, bool(said and said[-1]), any(said), False, False)


def recover(part: Path, target: Path) -> Result:
    """Make an episode of an unfinished file, which is removed when the episode is on the disk.

    Args:
        part: What the recorder left. Nobody may be writing it.
        target: Name of the episode.

    Returns:
        How it ended, as far as can be told.

    Raises:
        EpisodeError: There is an episode of that name, nothing can be recovered, or the disk is full. The unfinished
            file is as it was.
    """
    if target.exists():
        raise EpisodeError(f"{target} is there already, and {part} would take its name. Rename one of them.")
    if _is_finished(part):
        atomic.publish(part, target)
        return EpisodeReader(target).result
    found = survey(part)
    beside = target.with_name(f".{target.name}.recovering")
    try:
        with part.open("rb") as file, beside.open("wb") as copy:
            _rewrite(file, copy, found)
        atomic.publish(beside, target)
        part.unlink()
    except OSError as error:
        raise EpisodeError(f"{target} cannot be written: {error.strerror}. {part} is as it was.") from error
    finally:
        beside.unlink(missing_ok=True)
    return found.result


def survey(part: Path) -> Survey:
    """What can be read of an unfinished file.

    Raises:
        EpisodeError: Nothing that would make an episode.
    """
    try:
        with part.open("rb") as file:
            found = _surveyed(part, file)
    except OSError as error:
        raise EpisodeError(f"{part} cannot be read: {error.strerror}.") from error
    if not found.counts or (found.header.clock == STEPS and not found.steps):
        what = "whole step" if found.header.clock == STEPS else "message"
        raise EpisodeError(f"{part} holds no {what}: its recorder was killed at once. Delete it.")
    return found


def _surveyed(part: Path, file: BinaryIO) -> Survey:
    if file.read(len(MAGIC)) != MAGIC:
        raise EpisodeError(f"{part} is not an MCAP file. Delete it, or move it out of the folder.")
    found: Survey | None = None
    sound = len(MAGIC)
    for record, messages in _readable(file, Chunks()):
        size = mcap_records.HEAD_BYTES + len(record.content)
        sound += 0 if messages is None else size
        if record.opcode == METADATA:
            found = _with_metadata(part, found, record)
        if found is None:
            continue
        if messages is None:
            found.damaged += 1
            if found.header.clock == STEPS:
                break  # a step would be missing in some channels and not in others
        for logged in messages or ():
            _count(found, logged)
    if found is None:
        raise EpisodeError(f"{part} holds no header: its recorder was killed at once. Delete it.")
    found.lost_bytes = part.stat().st_size - sound
    return found


def _readable(file: BinaryIO, chunks: Chunks) -> Iterator[tuple[Record, list[Logged] | None]]:
    """Records as far as the file goes on; with the messages of a chunk, None of one that is damaged."""
    walk = mcap_records.records(file)
    while True:
        try:
            record = next(walk)
        except (StopIteration, EOFError, ValueError):
            return
        try:
            messages = list(chunks.messages(record)) if record.opcode == CHUNK else []
        except DAMAGE:
            yield record, None
        else:
            yield record, messages


def _with_metadata(part: Path, found: Survey | None, record: Record) -> Survey | None:
    """What a metadata record adds; those that are damaged are counted."""
    try:
        name, strings = mcap_records.metadata_of(record.content)
        if name == metadata.HEADER and found is None:
            header, version = metadata.header_of(strings)
            if version < metadata.FORMAT_VERSION:
                raise EpisodeError(f"{part} is of format version {version}, of which nothing is recovered. Delete it.")
            return Survey(header)
        if name == metadata.OUTCOME and found is not None:
            found.outcome = metadata.result_of(strings, metadata.FORMAT_VERSION)
        if name == metadata.LABEL and found is not None:
            found.labels.append(metadata.label_of(strings))
    except metadata.NewerVersionError as error:
        raise EpisodeError(
            f"{part} is of format version {error}. Recover it with the Armature that recorded."
        ) from error
    except DAMAGE:
        if found is not None:
            found.damaged_notes += 1
    return found


def _count(found: Survey, logged: Logged) -> None:
    found.last_ns = max(found.last_ns, logged.t_ns)
    if logged.topic == EVENTS_TOPIC:
        found.events.append(foxglove.event_of(logged.t_ns, logged.data))
    elif not logged.topic.endswith(CALIBRATION):
        found.counts[logged.topic] = found.counts.get(logged.topic, 0) + 1
    if logged.topic == STEP_TOPIC:
        found.endings.append(logged.data)


def _is_finished(part: Path) -> bool:
    """Whether the recorder was killed when all was written, but for the file's name."""
    try:
        EpisodeReader(part).read()
    except EpisodeError:
        return False
    return True


def _rewrite(file: BinaryIO, copy: BinaryIO, found: Survey) -> None:
    """Write what was found as an episode, message by message and byte by byte."""
    writer = Writer(copy, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
    writer.start(profile=metadata.PROFILE)
    writer.add_metadata(metadata.HEADER, metadata.of_header(found.header))
    is_stepped, chunks, copied = found.header.clock == STEPS, Chunks(), _Copied(writer)
    for _, messages in _readable(file, chunks):
        if messages is None and is_stepped:
            break
        for logged in messages or ():
            if not is_stepped or logged.sequence < found.steps or logged.topic not in found.counts:
                copied.add(chunks, logged)
    copied.event(_said(found))
    writer.add_metadata(metadata.OUTCOME, metadata.of_result(found.result))
    for label in found.labels:
        writer.add_metadata(metadata.LABEL, metadata.of_label(label))
    writer.finish()


class _Copied:
    """Channels of the new file, which are declared as their first messages come."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._events = 0

    def add(self, chunks: Chunks, logged: Logged) -> None:
        """One message as it is."""
        _, schema = chunks.declared[logged.topic]
        channel = self._channel(logged.topic, schema.name, schema.data)
        self._writer.add_message(channel, logged.t_ns, logged.data, logged.t_ns, logged.sequence)
        self._events += logged.topic == EVENTS_TOPIC

    def event(self, happened: Event) -> None:
        """One more event."""
        channel = self._channel(EVENTS_TOPIC, foxglove.LOG, foxglove.schema(foxglove.LOG))
        data = foxglove.event(happened)
        self._writer.add_message(channel, happened.t_ns, data, happened.t_ns, self._events)

    def _channel(self, topic: str, name: str, schema: bytes) -> int:
        if name not in self._schemas:
            self._schemas[name] = self._writer.register_schema(name, ENCODING, schema)
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, ENCODING, self._schemas[name])
        return self._channels[topic]


def _said(found: Survey) -> Event:
    """The event that tells what was lost."""
    trimmed = {}
    if found.header.clock == STEPS:
        trimmed = {topic: count - found.steps for topic, count in found.counts.items() if count > found.steps}
    text = f"The recorder was interrupted. {found.lost_bytes} bytes at the end of its file could not be read"
    text += f", {found.damaged} chunks are damaged." if found.damaged else "."
    text += f" {found.damaged_notes} of what says how it ended is damaged: look at it." if found.damaged_notes else ""
    damaged = {"damaged_chunks": found.damaged, "damaged_notes": found.damaged_notes}
    data = {"lost_bytes": found.lost_bytes, **damaged, "trimmed": trimmed}
    return Event(found.last_ns, RECOVERED, text, data)
