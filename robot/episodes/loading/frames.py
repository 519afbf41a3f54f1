"""Pictures that were decoded once, read at any frame: one array (N, H, W, 3) that lies in a file for each episode.

A window is read straight from the file into its place in the batch (`preadv`): no page of a file ever belongs to the
process, whose memory therefore does not grow with the dataset, and the kernel keeps in its cache what fits there. Maps
of the same files (300 MB, windows of two pictures of two cameras, 128 x 128) were as fast, 30 against 34 thousand
samples a second, but counted all 300 MB as memory of each process that had touched them.
"""

import bisect
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from robot.episodes.loading.cache import Lease, data_offset, entry_bytes
from robot.errors import DatasetError

_OPEN_FILES = 128
"""Files that are held open at once; a process may have 1024 unless its user says otherwise."""


class Frames:
    """Pictures of one camera, episode after episode. Crosses to worker processes as paths.

    Attributes:
        shape: (N, H, W, 3).
    """

    def __init__(self, paths: Sequence[Path], lengths: np.ndarray, picture: tuple[int, ...], lease: Lease) -> None:
        """Read decoded episodes; `robot.episodes.loading.decoding.decoded` makes them.

        Args:
            paths: File of each episode.
            lengths: Frames of each episode, shape (E,).
            picture: Shape of one picture, (H, W, 3).
            lease: Keeps the files in their place.
        """
        self._paths = list(paths)
        self._starts = [0, *np.cumsum(lengths).tolist()]
        self.shape = (self._starts[-1], *picture)
        self._picture_bytes = int(np.prod(picture))
        self._lease: Lease | None = lease
        self._open: OrderedDict[int, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy pictures.

        Args:
            rows: Frames, growing or equal along a row and all of one episode there, int64, shape (B, T).
            out: Where they go, uint8, C-contiguous, shape (B, T, H, W, 3).

        Raises:
            DatasetError: A file was removed or shortened.
        """
        runs = (np.diff(rows, axis=1) == 1).all(axis=1).tolist()
        flat = out.reshape(len(rows), -1)  # raises where a copy would be needed
        one = self._picture_bytes
        for window, row, is_run in zip(flat, rows.tolist(), runs, strict=True):
            episode = bisect.bisect_right(self._starts, row[0]) - 1
            begin = self._starts[episode]
            if is_run:  # in most windows: one read
                self._read(episode, row[0] - begin, window)
                continue
            for step, frame in enumerate(row):
                place = window[step * one : (step + 1) * one]
                if step and frame == row[step - 1]:  # padding
                    place[:] = window[(step - 1) * one : step * one]
                else:
                    self._read(episode, frame - begin, place)

    def episode(self, number: int) -> np.ndarray:
        """All pictures of an episode, a read-only memory map of shape (T, H, W, 3)."""
        pictures: np.ndarray = np.load(self._paths[number], mmap_mode="r")
        return pictures

    def close(self) -> None:
        """Close files; reading opens them again."""
        while self._open:
            os.close(self._open.popitem()[1][0])

    def _read(self, episode: int, frame: int, place: np.ndarray) -> None:
        file, offset = self._file(episode)
        got = os.preadv(file, [place.data], offset + frame * self._picture_bytes)
        if got != len(place):
            raise DatasetError(
                f"{self._paths[episode]} was shortened while it was in use. Remove it and start again: it is decoded "
                "anew."
            )

    def _file(self, episode: int) -> tuple[int, int]:
        """Descriptor of an episode's file, and where its pictures begin."""
        found = self._open.get(episode)
        if found is not None:
            self._open.move_to_end(episode)
            return found
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1][0])
        path = self._paths[episode]
        shape = (self._starts[episode + 1] - self._starts[episode], *self.shape[1:])
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DatasetError(
                f"Decoded pictures are gone from {path} ({error.strerror}): something removed them while they were in "
                "use. Start again: they are decoded anew."
            ) from error
        if os.fstat(descriptor).st_size != entry_bytes(shape):
            os.close(descriptor)
            raise DatasetError(f"{path} does not hold pictures of shape {shape}. Remove it and start again.")
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # windows are short; what lies beside is not wanted
        self._open[episode] = descriptor, data_offset(shape)
        return self._open[episode]

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the files itself; the lease stays with whoever started it.
        return {**self.__dict__, "_open": OrderedDict(), "_lease": None}

    def __del__(self) -> None:
        with suppress(AttributeError):
            self.close()
