"""Labels after the fact: written behind the messages of a finished episode, which stay as they are.

An MCAP file is messages, then an index of them. A label is one more metadata record between the two, and a new index;
the file is written beside the old one and takes its place when it is on the disk.
"""

import struct
import time
import zlib
from pathlib import Path
from typing import BinaryIO

from mcap.data_stream import RecordBuilder
from mcap.records import DataEnd, Footer, Metadata, MetadataIndex, Statistics, SummaryOffset

from robot.episodes import atomic, mcap_records, metadata
from robot.episodes.episode import Result
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.mcap_records import DAMAGE, MAGIC
from robot.episodes.metadata import Label
from robot.errors import EpisodeError

_RECORD_HEAD = 9
_DATA_END_BYTES = _RECORD_HEAD + 4
_FOOTER_BYTES = _RECORD_HEAD + 20
_BLOCK = 1 << 20
_METADATA_INDEX, _SUMMARY_OFFSET, _STATISTICS = 13, 14, 11


def amended(path: Path, success: bool | None = None, note: str = "") -> Result:
    """Say of a finished episode whether it succeeded, or anything else; the outcome that was recorded stays readable.

    Returns:
        How the episode ended, as it is labelled now.

    Raises:
        EpisodeError: It is damaged or no episode, or the disk is full or not writable. The file is as it was.
    """
    reader = EpisodeReader(path)
    label = Label(time.strftime("%Y-%m-%dT%H:%M:%S%z"), success, note)
    beside = path.with_name(f".{path.name}.label")
    try:
        with path.open("rb") as file, beside.open("wb") as copy:
            _append(file, copy, label)
        atomic.publish(beside, path)
    except DAMAGE as error:
        raise EpisodeError(f"{path} is damaged ({error!r}); it is as it was.") from error
    except OSError as error:
        raise EpisodeError(f"{path} cannot be labelled: {error.strerror}. It is as it was.") from error
    finally:
        beside.unlink(missing_ok=True)
    return metadata.labelled(reader.outcome, (*reader.labels, label))


def _append(file: BinaryIO, copy: BinaryIO, label: Label) -> None:
    """Copy a file, with one more metadata record."""
    end = file.seek(-len(MAGIC), 2)
    file.seek(end - _FOOTER_BYTES + _RECORD_HEAD)
    summary_start, _, _ = struct.unpack("<QQI", file.read(_FOOTER_BYTES - _RECORD_HEAD))
    data_end = summary_start - _DATA_END_BYTES
    file.seek(summary_start)
    summary = file.read(end - _FOOTER_BYTES - summary_start)
    added = RecordBuilder()
    Metadata(metadata.LABEL, metadata.of_label(label)).write(added)
    record = added.end()
    DataEnd(0).write(added)
    _copy(file, copy, data_end)
    index = MetadataIndex(offset=data_end, length=len(record), name=metadata.LABEL)
    copy.write(record + added.end())
    copy.write(_summary(_groups(summary), index, copy.tell()))


def _copy(file: BinaryIO, copy: BinaryIO, size: int) -> None:
    file.seek(0)
    while size:
        block = file.read(min(size, _BLOCK))
        if not block:
            raise EOFError("shorter than its index says")
        copy.write(block)
        size -= len(block)


def _groups(summary: bytes) -> dict[int, list[bytes]]:
    """Contents of the records of a summary by opcode, in order, without the offsets of these groups."""
    groups: dict[int, list[bytes]] = {}
    at = 0
    while at < len(summary):
        opcode, length = struct.unpack_from("<BQ", summary, at)
        at += _RECORD_HEAD
        groups.setdefault(opcode, []).append(summary[at : at + length])
        at += length
    groups.pop(_SUMMARY_OFFSET, None)
    return groups


def _summary(groups: dict[int, list[bytes]], index: MetadataIndex, start: int) -> bytes:
    """The summary with one more metadata record, and all that follows it; it begins at byte `start` of the file."""
    builder, offsets = RecordBuilder(), []
    groups.setdefault(_METADATA_INDEX, [])
    for opcode, contents in groups.items():
        begin = builder.count
        for content in contents:
            if opcode == _STATISTICS:
                statistics = Statistics.read(mcap_records.stream(content))
                statistics.metadata_count += 1
                statistics.write(builder)
            else:
                builder.write(struct.pack("<BQ", opcode, len(content)) + content)
        if opcode == _METADATA_INDEX:
            index.write(builder)
        offsets.append(SummaryOffset(opcode, start + begin, builder.count - begin))
    offset_start = start + builder.count
    for offset in offsets:
        offset.write(builder)
    data = builder.end()
    checksum = zlib.crc32(struct.pack("<BQQQ", mcap_records.FOOTER, 20, start, offset_start), zlib.crc32(data))
    Footer(start, offset_start, checksum).write(builder)
    return data + builder.end() + MAGIC
