"""Messages of a finished episode by topic, many at once.

Vectors of a topic are equally long, so those of a chunk are cut out of it together, at the places that the index behind
the chunk names. The index has no checksum: every message is compared with what the index says of it, their numbers grow
within a channel, and their count is that of the file's summary, which has one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from mcap.records import Channel as ChannelRecord
from mcap.records import Schema

from robot.episodes import foxglove, mcap_records
from robot.episodes.episode import Channel, Event, Header, PictureChannel
from robot.episodes.mcap_records import CHUNK, MESSAGE, MESSAGE_INDEX
from robot.episodes.messages import VectorMessages
from robot.episodes.pictures import LoggedPictures, Place
from robot.episodes.topics import EVENTS_TOPIC, picture_topics, vector_topics
from robot.specs import ArraySpec

_HEAD = np.dtype(
    [("opcode", "u1"), ("length", "<u8"), ("channel", "<u2"), ("number", "<u4"), ("t_ns", "<u8"), ("publish", "<u8")]
)


class Indexed(NamedTuple):
    """A chunk: its place in the file, the records in it, and where in them the messages of each channel begin."""

    offset: int
    data: bytes
    begins: dict[int, np.ndarray]


def indexed_chunks(file: BinaryIO) -> Iterator[Indexed]:
    """Chunks of a file, each with its index.

    Raises:
        ValueError, EOFError, ...: See `robot.episodes.mcap_records.DAMAGE`.
    """
    chunk: mcap_records.Record | None = None
    begins: dict[int, np.ndarray] = {}
    for record in mcap_records.records(file):
        if record.opcode == MESSAGE_INDEX:
            channel = int.from_bytes(record.content[:2], "little")
            begins[channel] = np.frombuffer(record.content[6:], "<u8").reshape(-1, 2)[:, 1].astype(np.int64)
            continue
        if chunk is not None:
            yield Indexed(chunk.offset, mcap_records.unpacked(chunk.content), begins)
        chunk, begins = (record if record.opcode == CHUNK else None), {}


class Gathered:
    """What is found of an episode.

    Attributes:
        events: In the order in which they were written.
        count: Messages so far, those of topics that the header does not know too.
    """

    def __init__(self, header: Header, channels: Sequence[ChannelRecord], schemas: dict[int, Schema]) -> None:
        """Nothing is found yet; channels and schemas are those of the file's summary."""
        self._vectors = {topic: VectorMessages(topic, spec) for topic, spec in vector_topics(header).items()}
        self._cameras = picture_topics(header)
        self._known = {channel.id: (channel.topic, schemas[channel.schema_id].name) for channel in channels}
        self._heads: dict[str, list[np.ndarray]] = {}
        self._data: dict[str, list[bytes]] = {}
        self._places: dict[str, list[Place]] = {}
        self._kinds: dict[str, str] = {}
        self.events: list[Event] = []
        self.count = 0

    def add(self, chunk: Indexed) -> None:
        """The messages of one chunk.

        Raises:
            ValueError, IndexError, KeyError: The index does not fit the chunk.
        """
        buffer = np.frombuffer(chunk.data, np.uint8)
        for channel, begins in chunk.begins.items():
            topic, schema = self._known[channel]
            head = buffer[begins[:, None] + np.arange(_HEAD.itemsize)].view(_HEAD)[:, 0]
            if not ((head["opcode"] == MESSAGE) & (head["channel"] == channel)).all():
                raise ValueError("an index names something that is no message of its channel")
            self.count += len(begins)
            self._heads.setdefault(topic, []).append(head)
            at = begins + _HEAD.itemsize
            ends = begins + mcap_records.HEAD_BYTES + head["length"].astype(np.int64)
            if topic in self._vectors:
                self._add_vectors(topic, schema, buffer, at, ends)
            elif topic in self._cameras:
                self._kinds[topic] = schema
                places = zip(at.tolist(), ends.tolist(), strict=True)
                self._places.setdefault(topic, []).extend(Place(chunk.offset, *place) for place in places)
            elif topic == EVENTS_TOPIC and schema == foxglove.LOG:
                found = zip(head["t_ns"].tolist(), at.tolist(), ends.tolist(), strict=True)
                self.events += [foxglove.event_of(t_ns, chunk.data[begin:end]) for t_ns, begin, end in found]

    def _add_vectors(self, topic: str, schema: str, buffer: np.ndarray, at: np.ndarray, ends: np.ndarray) -> None:
        messages = self._vectors[topic]
        if schema != messages.name or not (ends - at == messages.length).all():
            raise ValueError(f"messages of {topic} are not as the header says")
        self._data.setdefault(topic, []).append(buffer[at[:, None] + np.arange(messages.length)].tobytes())

    def channels(self) -> dict[str, Channel]:
        """Vectors by topic, in the order of the header.

        Raises:
            ValueError: A message is damaged, or one comes twice.
        """
        found = {}
        for topic, messages in self._vectors.items():
            if topic in self._data:
                t_ns = self._t_ns(topic)
                values = messages.decode_joined(b"".join(self._data[topic]), len(t_ns))
                found[topic] = Channel(messages.spec, t_ns, values)
        return found

    def pictures(self, path: Path) -> dict[str, PictureChannel]:
        """Pictures by topic, still in the file."""
        held = {topic: spec for topic, spec in self._cameras.items() if topic in self._places}
        return {topic: self._camera(path, topic, spec) for topic, spec in held.items()}

    def _camera(self, path: Path, topic: str, spec: ArraySpec) -> PictureChannel:
        pictures = LoggedPictures(path, spec, self._kinds[topic], self._places[topic])
        return PictureChannel(spec, self._t_ns(topic), pictures)

    def _t_ns(self, topic: str) -> np.ndarray:
        heads = np.concatenate(self._heads[topic])
        if not (np.diff(heads["number"].astype(np.int64)) > 0).all():
            raise ValueError(f"messages of {topic} are not in the order of their numbers")
        return heads["t_ns"].astype(np.int64)
