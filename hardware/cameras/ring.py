"""The newest pictures of one camera in shared memory: one writer, any readers, nobody ever waits, nothing grows.

As `hardware.shared_memory`, it is anonymous memory inherited by file descriptor (another process of the same user may
open `/proc/<pid>/fd/<fd>`). A slot's sequence is odd while it is written; a reader takes a picture only if it was even
and the same before and after its copy, and if the checksum fits, which holds on processors that reorder stores too.
"""

import mmap
import os
import zlib
from dataclasses import dataclass

import numpy as np

from robot.contract import Frame
from robot.errors import DeviceError
from robot.processes import anonymous_memory

SLOTS = 4
"""A reader that begins on the newest picture has three periods until it is overwritten."""
_MAGIC = 0x474E5249_4D52_0001
_READ_ATTEMPTS = 100
_HEAD = 8
"""int64 before the slots and in the head of each: cache lines of their own."""


@dataclass(frozen=True)
class RingFrame:
    """One picture and where it stands in the stream.

    Attributes:
        frame: The picture, a copy.
        number: Of the picture, from 1; a gap is a picture that this reader did not see.
    """

    frame: Frame
    number: int


class FrameRing:
    """Pictures of one shape (H, W, 3), uint8, mapped into this process."""

    def __init__(self, fd: int) -> None:
        """Map what `create` made.

        Raises:
            DeviceError: `fd` is something else.
        """
        self.fd = fd
        try:
            # fstat also refuses -1, for which mmap would give memory that nobody else sees.
            self._map = mmap.mmap(fd, os.fstat(fd).st_size)
            words = np.frombuffer(self._map, np.int64)
        except (OSError, ValueError) as error:
            raise DeviceError(f"File descriptor {fd} is not a ring of pictures: {error}.") from error
        if len(words) < _HEAD or words[0] != _MAGIC or len(words) * 8 != _size(int(words[1]), int(words[2])):
            raise DeviceError(f"File descriptor {fd} is not a ring of pictures: it holds something else.")
        self.shape = (int(words[1]), int(words[2]), 3)
        self._written = words[3:4]
        slots = words[_HEAD:].reshape(SLOTS, -1)
        self._sequence, self._t_ns, self._crc = slots[:, 0], slots[:, 1], slots[:, 2]
        size = self.shape[0] * self.shape[1] * 3
        self._images = slots[:, _HEAD:].view(np.uint8)[:, :size].reshape(SLOTS, *self.shape)

    @classmethod
    def create(cls, height: int, width: int) -> "FrameRing":
        """New memory, no picture yet."""
        fd = anonymous_memory("armature-camera")
        os.ftruncate(fd, _size(height, width))
        os.pwrite(fd, np.array([_MAGIC, height, width], np.int64).tobytes(), 0)
        return cls(fd)

    def close(self) -> None:
        """Give the descriptor back; the kernel frees the memory with its last user."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def write(self, frame: Frame) -> int:
        """Publish a picture; its number."""
        count = int(self._written[0])
        slot = count % SLOTS
        self._sequence[slot] = 2 * count + 1
        self._t_ns[slot] = frame.t_ns
        np.copyto(self._images[slot], frame.image)
        self._crc[slot] = _checksum(self._images[slot], frame.t_ns)
        self._sequence[slot] = 2 * count + 2
        self._written[0] = count + 1
        return count + 1

    def newest(self) -> tuple[int, int]:
        """Number and time of capture [ns] of the newest picture, without copying it; (0, 0) if there is none."""
        for _ in range(_READ_ATTEMPTS):
            count = int(self._written[0])
            if count == 0:
                return 0, 0
            slot = (count - 1) % SLOTS
            t_ns = int(self._t_ns[slot])
            if int(self._sequence[slot]) == 2 * count:
                return count, t_ns
        raise DeviceError(_BROKEN)

    def read(self) -> RingFrame | None:
        """A copy of the newest picture, whole; None if there is none yet.

        A writer that dies within a picture leaves the one before it.

        Raises:
            DeviceError: No whole picture is to be had: something else writes here.
        """
        image = np.empty(self.shape, np.uint8)
        for _ in range(_READ_ATTEMPTS):
            count = int(self._written[0])
            if count == 0:
                return None
            slot = (count - 1) % SLOTS
            before, t_ns, crc = int(self._sequence[slot]), int(self._t_ns[slot]), int(self._crc[slot])
            np.copyto(image, self._images[slot])
            is_whole = before == 2 * count == int(self._sequence[slot])
            if is_whole and _checksum(image, t_ns) == crc:
                return RingFrame(Frame(image, t_ns), count)
        raise DeviceError(_BROKEN)


def _size(height: int, width: int) -> int:
    picture = -(-height * width * 3 // 64) * 64
    return 8 * _HEAD + SLOTS * (8 * _HEAD + picture)


def _checksum(image: np.ndarray, t_ns: int) -> int:
    return zlib.crc32(image.data, t_ns & 0xFFFFFFFF)


_BROKEN = "No whole picture can be read from the camera's memory: something else writes to it."
