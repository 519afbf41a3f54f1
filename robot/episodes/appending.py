"""A file that is only appended to, without a buffer of its own: what was written survives the death of the process."""

import os
from pathlib import Path


class AppendedFile:
    """What the MCAP writer needs of a stream. A short write is completed or raises; nothing is kept back to try again.

    Raises:
        FileExistsError: The file is there already.
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._size = 0
        self.is_closed = False

    def write(self, data: bytes) -> int:
        """Append all of `data`."""
        left = memoryview(data)
        while left:
            count = os.write(self._descriptor, left)
            self._size += count
            left = left[count:]
        return len(data)

    def tell(self) -> int:
        """Bytes written so far."""
        return self._size

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Push what was written to the disk; may be called while another thread writes."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """May be called twice."""
        if not self.is_closed:
            self.is_closed = True
            os.close(self._descriptor)
