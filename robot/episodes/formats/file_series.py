"""Files that are numbered one after the other and hold whole episodes up to a size, made anew or linked to old ones.

Nothing is written for a file as long as the episodes that go to it are those that the old dataset's file of this name
begins with. If they turn out to be all of them, the new file is a hard link to the old one; else they are copied as
soon as another episode follows.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from robot.episodes.formats.lerobot_layout import made


class Sink(Protocol):
    """A file that is being written."""

    def close(self) -> None:
        """Finish it."""
        ...


S = TypeVar("S", bound=Sink)


@dataclass(frozen=True)
class Place:
    """Where an episode went: chunk and file, its number in the file, and the number of its first frame there."""

    chunk_index: int
    file_index: int
    position: int
    first: int


@dataclass(frozen=True)
class Kept:
    """Where an episode is in the old dataset, and whether its bytes may stay as they are there."""

    place: Place
    is_unchanged: bool


@dataclass(frozen=True)
class Limits:
    """Size of a file [bytes] and number of files in a folder."""

    file_bytes: float
    chunk_files: int


class FileSeries(Generic[S]):
    """Files of one kind, filled in order.

    Args:
        folder: Of the new dataset.
        pattern: Of the files' names below it, with `chunk_index` and `file_index`.
        limits: When the next file begins.
        opened: Begins a file.
        old: Folder of the old dataset and the number of episodes in each of its files by name.
    """

    def __init__(
        self,
        folder: Path,
        pattern: str,
        limits: Limits,
        opened: Callable[[Path], S],
        old: tuple[Path, dict[str, int]] | None = None,
    ) -> None:
        self._folder, self._pattern, self._limits, self._opened = folder, pattern, limits, opened
        self._old_folder, self._old_counts = old or (folder, {})
        self._number = self._size = self._frames = self._episodes = 0
        self._sink: S | None = None
        self._waiting: list[Callable[[S], None]] = []
        self.linked: list[str] = []
        """Names of files that are links to old ones."""

    def add(self, length: int, size: int, write: Callable[[S], None], kept: Kept | None = None) -> Place:
        """Append an episode of `length` frames and `size` bytes, which `write` writes."""
        if self._size and self._size + size > self._limits.file_bytes:
            self._finish_file()
            self._number += 1
        chunk_index, file_index = divmod(self._number, self._limits.chunk_files)
        place = Place(chunk_index, file_index, self._episodes, self._frames)
        self._size, self._frames, self._episodes = self._size + size, self._frames + length, self._episodes + 1
        if self._sink is None and kept is not None and kept.is_unchanged and kept.place == place:
            self._waiting.append(write)
        else:
            write(self._begun())
        return place

    def finish(self) -> None:
        """Finish the last file."""
        self._finish_file()

    def abandon(self) -> None:
        """Close what is open; the files are about to be removed."""
        if self._sink is not None:
            self._sink.close()

    def _name(self) -> str:
        chunk_index, file_index = divmod(self._number, self._limits.chunk_files)
        return self._pattern.format(chunk_index=chunk_index, file_index=file_index)

    def _begun(self) -> S:
        if self._sink is None:
            self._sink = self._opened(made(self._folder / self._name()))
            for write in self._waiting:
                write(self._sink)
            self._waiting = []
        return self._sink

    def _finish_file(self) -> None:
        name = self._name()
        if self._sink is None and self._waiting and self._old_counts.get(name) == len(self._waiting):
            _link(self._old_folder / name, made(self._folder / name))
            self.linked.append(name)
        elif self._sink is not None or self._waiting:
            self._begun().close()
        self._sink, self._waiting = None, []
        self._size = self._frames = self._episodes = 0


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # a file system without links; a full disk shows again in the copy
        shutil.copyfile(old, new)
