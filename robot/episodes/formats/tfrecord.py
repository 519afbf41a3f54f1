"""TFRecord files: framing and checksums, without TensorFlow.

A record is its length (uint64), a checksum of those eight bytes (uint32), the data, and a checksum of the data; all
little-endian. A checksum is CRC-32C, rotated and shifted ("masked") so that a checksum of data that hold checksums is
none of theirs. Files compressed by gzip are read as well; going back in one means decompressing it again.
"""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from robot.errors import DatasetError

_HEAD = struct.Struct("<QI")
_FOOT = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_GZIP = b"\x1f\x8b\x08"
_SKIP_BYTES = 1 << 20


def masked_crc(data: bytes) -> int:
    """The checksum that a TFRecord holds of some bytes."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record, as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return length + _FOOT.pack(masked_crc(length)) + data + _FOOT.pack(masked_crc(data))


class RecordFile:
    """Random access to the records of one file. Opening it looks at the lengths only, not at the data."""

    def __init__(self, path: Path) -> None:
        """Find the records.

        Raises:
            DatasetError: The file is missing, truncated or no TFRecord; names the record and its offset.
        """
        self.path = path
        with self._open() as file:
            self._starts = np.array(list(self._scan(file)), np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, number: int) -> bytes:
        """The data of a record.

        Raises:
            DatasetError: They do not have the checksum that is stored beside them.
        """
        offset, length = map(int, self._starts[number])
        with self._open() as file:
            file.seek(offset + _HEAD.size)
            data = file.read(length + _FOOT.size)
        if len(data) != length + _FOOT.size:
            raise self._error(number, offset, "is truncated")
        if masked_crc(data[:length]) != _FOOT.unpack(data[length:])[0]:
            raise self._error(number, offset, "does not have its checksum: the data are damaged")
        return data[:length]

    def __iter__(self) -> Iterator[bytes]:
        return map(self.read, range(len(self)))

    def _open(self) -> BinaryIO | gzip.GzipFile:
        try:
            with self.path.open("rb") as file:
                head = file.read(_HEAD.size)
            is_plain = len(head) == _HEAD.size and masked_crc(head[:8]) == _HEAD.unpack(head)[1]
            if head.startswith(_GZIP) and not is_plain:
                return gzip.open(self.path, "rb")
            return self.path.open("rb")
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _scan(self, file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, int]]:
        offset, number = 0, 0
        size = None if isinstance(file, gzip.GzipFile) else self.path.stat().st_size
        try:
            while head := file.read(_HEAD.size):
                length = self._length(head, number, offset)
                end = offset + _HEAD.size + length + _FOOT.size
                if (size is not None and end > size) or not _skipped(file, length + _FOOT.size, size is not None):
                    raise self._error(number, offset, f"of {length} bytes is truncated")
                yield offset, length
                offset, number = end, number + 1
        except (EOFError, gzip.BadGzipFile, OSError, ValueError) as error:
            raise self._error(number, offset, f"cannot be decompressed ({error})") from error

    def _length(self, head: bytes, number: int, offset: int) -> int:
        if len(head) < _HEAD.size:
            raise self._error(number, offset, f"is truncated: its head has {len(head)} of {_HEAD.size} bytes")
        length, crc = _HEAD.unpack(head)
        if masked_crc(head[:8]) != crc:
            reason = "is no record: its length does not have its checksum"
            raise self._error(number, offset, f"{reason}. The file is no TFRecord" if not number else reason)
        return int(length)

    def _error(self, number: int, offset: int, what: str) -> DatasetError:
        return DatasetError(f"{self.path}: record {number} at byte {offset} {what}. Get the file again.")


def _skipped(file: BinaryIO | gzip.GzipFile, count: int, can_seek: bool) -> bool:
    """Go forward; False where the file ends before that."""
    if can_seek:
        file.seek(count, 1)
        return True
    while count:
        got = len(file.read(min(count, _SKIP_BYTES)))
        if not got:
            return False
        count -= got
    return True
