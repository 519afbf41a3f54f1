"""The file under an HDF5 file that is being written, which outlives a full disk.

HDF5 2.0 crashes the process when it closes a file that it could not write to. Here it never learns: what the disk does
not take stays in memory, `check` raises the error between two datasets, and the unfinished file is removed.
"""

from pathlib import Path
from types import TracebackType
from typing import Self


class Sink:
    """A file object for `h5py.File(sink, "w")`, new and empty."""

    def __init__(self, path: Path) -> None:
        """Make the file. Raises OSError where it cannot be made."""
        self._file = path.open("w+b", buffering=0)
        self._at = 0
        self._size = 0
        self._error: OSError | None = None
        self._refused: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the OSError that a write has met since the file was opened."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """The present offset."""
        return self._at

    def write(self, data: bytes | memoryview) -> int:
        """Put bytes at the present offset; never fails."""
        view = memoryview(data).cast("B")
        self._size = max(self._size, self._at + len(view))
        if self._error is None:
            self._error = self._put(view)
        if self._error is not None:
            self._refused.append((self._at, bytes(view)))
        self._at += len(view)
        return len(view)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Bytes from the present offset; what no write has reached is zero."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        count = self._file.readinto(view) or 0
        view[count:] = bytes(len(view) - count)
        for start, data in self._refused:
            low, high = max(start, self._at), min(start + len(data), self._at + len(view))
            if low < high:
                view[low - self._at : high - self._at] = data[low - start : high - start]
        self._at += len(view)
        return len(view)

    def read(self, count: int) -> bytes:
        """As `readinto`; h5py takes objects with this for files."""
        buffer = bytearray(count)
        self.readinto(buffer)
        return bytes(buffer)

    def truncate(self, size: int | None = None) -> int:
        """Set the length; never fails."""
        self._size = self._at if size is None else size
        if self._error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self._error = error
        return self._size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _put(self, view: memoryview) -> OSError | None:
        """Write all of it; a disk that becomes full takes a part first."""
        try:
            self._file.seek(self._at)
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            return error
        return None
