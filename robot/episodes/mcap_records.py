"""The records of an MCAP file, one after the other, with their places: for whole files and for ones without an end.

The `mcap` package writes our files and reads their summaries. Its reader makes an object of every message and says
neither where a message lies nor how far an unfinished file is sound, so the walk over the records is our own
(https://mcap.dev/spec).
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import BinaryIO, NamedTuple

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.records import Channel, Metadata, Schema

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, METADATA, DATA_END = 1, 2, 3, 4, 5, 6, 7, 12, 15
DAMAGE = (
    *(McapError, EOFError, StopIteration, struct.error, zstandard.ZstdError),
    *(ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError),
)
"""Every way in which damage shows while records are read."""

_HEAD = struct.Struct("<BQ")
HEAD_BYTES = _HEAD.size
_FOOTER = struct.Struct("<BQQQI")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
MAX_CHUNK_BYTES = 1 << 31


class Record(NamedTuple):
    """One record of a file: where it begins, of what kind it is, and its content."""

    offset: int
    opcode: int
    content: bytes


class Logged(NamedTuple):
    """One message: its topic, its number in its channel, its time, and its bytes with their place."""

    topic: str
    schema: str
    sequence: int
    t_ns: int
    data: bytes
    chunk: int
    begin: int


def records(file: BinaryIO) -> Iterator[Record]:
    """Records from behind the magic bytes to the footer.

    Raises:
        EOFError: The file ends within a record.
        ValueError: What follows is no record.
    """
    size = file.seek(0, os.SEEK_END)
    offset = file.seek(len(MAGIC))
    while True:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise EOFError(f"the file ends at byte {size}, within a record")
        opcode, length = _HEAD.unpack(head)
        if length > size - offset - _HEAD.size:
            raise EOFError(f"a record at byte {offset} would end behind the file")
        if opcode == 0:
            raise ValueError(f"no record begins at byte {offset}")
        yield Record(offset, opcode, file.read(length))
        if opcode == FOOTER:
            return
        offset += _HEAD.size + length


def check_summary(file: BinaryIO) -> None:
    """Compare the index at the end of a file with its checksum, which `mcap` does not.

    Raises:
        ValueError, struct.error: It is damaged.
    """
    end = file.seek(-len(MAGIC) - _FOOTER.size, os.SEEK_END)
    footer = file.read(_FOOTER.size)
    opcode, length, start, _, checksum = _FOOTER.unpack(footer)
    if opcode != FOOTER or length != _FOOTER.size - HEAD_BYTES or not 0 < start <= end:
        raise ValueError("no footer")
    file.seek(start)
    if zlib.crc32(footer[:-4], zlib.crc32(file.read(end - start))) != checksum:
        raise ValueError("wrong checksum of the index")


def metadata_of(content: bytes) -> tuple[str, dict[str, str]]:
    """Name and strings of a metadata record."""
    record = Metadata.read(stream(content))
    return record.name, record.metadata


def unpacked(content: bytes) -> bytes:
    """Records within a chunk, checked against its checksum.

    Raises:
        ValueError: The checksum is wrong, or the compression is none that is used here.
        zstandard.ZstdError: It cannot be decompressed.
    """
    _, _, size, checksum, name_length = _CHUNK_HEAD.unpack_from(content)
    at = _CHUNK_HEAD.size
    compression = content[at : at + name_length]
    at += name_length
    (packed_size,) = struct.unpack_from("<Q", content, at)
    data = content[at + 8 : at + 8 + packed_size]
    if size > MAX_CHUNK_BYTES:
        raise ValueError(f"a chunk of {size} bytes")
    if compression == b"zstd":
        if zstandard.frame_content_size(data) != size:
            raise ValueError("a chunk has the wrong size")
        data = zstandard.decompress(data, size)
    elif compression:
        raise ValueError(f"compression {compression!r}")
    if len(data) != size or zlib.crc32(data) != checksum:
        raise ValueError("a chunk has the wrong checksum")
    return data


def record_at(file: BinaryIO, offset: int) -> Record:
    """The chunk whose record begins at `offset`."""
    file.seek(offset)
    opcode, length = _HEAD.unpack(file.read(_HEAD.size))
    if opcode != CHUNK:
        raise ValueError(f"no chunk at byte {offset}")
    return Record(offset, opcode, file.read(length))


def chunk_at(file: BinaryIO, offset: int) -> bytes:
    """Records within the chunk whose record begins at `offset`."""
    return unpacked(record_at(file, offset).content)


class Chunks:
    """Reads messages out of chunks, and remembers the channels that earlier chunks declared.

    Attributes:
        declared: Channel and schema of every topic so far.
    """

    def __init__(self, schemas: Iterable[Schema] = (), channels: Iterable[Channel] = ()) -> None:
        """Args: what is declared already, for whoever does not begin with the first chunk."""
        self._schemas = {schema.id: schema for schema in schemas}
        self._channels: dict[int, tuple[str, str]] = {}
        self.declared: dict[str, tuple[Channel, Schema]] = {}
        for channel in channels:
            self._add(channel)

    def messages(self, chunk: Record) -> Iterator[Logged]:
        """Messages of one chunk, in the order in which they were written.

        Raises:
            ValueError, KeyError, struct.error, ...: See `DAMAGE`.
        """
        data, at = unpacked(chunk.content), 0
        while at < len(data):
            opcode, length = _HEAD.unpack_from(data, at)
            begin, end = at + _HEAD.size, at + _HEAD.size + length
            if end > len(data):
                raise ValueError("a record ends behind its chunk")
            if opcode == MESSAGE:
                channel, sequence, t_ns, _ = _MESSAGE_HEAD.unpack_from(data, begin)
                topic, schema = self._channels[channel]
                begin += _MESSAGE_HEAD.size
                yield Logged(topic, schema, sequence, t_ns, data[begin:end], chunk.offset, begin)
            else:
                self._declare(opcode, data[begin:end])
            at = end

    def _declare(self, opcode: int, content: bytes) -> None:
        if opcode == SCHEMA:
            schema = Schema.read(stream(content))
            self._schemas[schema.id] = schema
        elif opcode == CHANNEL:
            self._add(Channel.read(stream(content)))

    def _add(self, channel: Channel) -> None:
        schema = self._schemas[channel.schema_id]
        self._channels[channel.id] = (channel.topic, schema.name)
        self.declared[channel.topic] = (channel, schema)


def stream(content: bytes) -> ReadDataStream:
    """What `mcap` reads a record from."""
    return ReadDataStream(BytesIO(content))
