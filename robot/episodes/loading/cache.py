"""A folder of decoded pictures that is shared by all processes of a user, named by content and bounded in size.

    <root>/3f/3fa9...e1.npy     pictures of one camera in one episode, uint8 (T, H, W, 3), as NumPy writes them
    <root>/digests/...          of the encoded frames of video files (see `robot.episodes.loading.content`)
    <root>/leases/<pid>-...     names of entries that a living process reads: locked while it lives, never removed
    <root>/.lock                held while entries are counted and removed

The name of an entry is a digest of what it was decoded from, so that it can be missing but never stale.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from robot.errors import ConfigError, DatasetError

FORMAT = "armature frames 1"
ROOT, LIMIT_GB = "ARMATURE_CACHE", "ARMATURE_CACHE_GB"
DEFAULT_LIMIT_GB = 200.0
_LEASES, _LOCK, _PART = "leases", ".lock", ".part"
_UNLOCKED_S = 60.0
"""How old a file must be before nobody can be about to lock it [s]."""
_SPARE_BYTES = 64 * 2**20
"""What a disk must have left after decoding, for everybody else."""


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Attributes:
        path: Where it is.
        size: Its bytes.
        used: When a process last opened it, seconds since 1970.
    """

    path: Path
    size: int
    used: float


class FrameCache:
    """The folder. Several processes may use it at once."""

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        """Use a folder, which need not exist.

        Args:
            root: By default `$ARMATURE_CACHE`, or `~/.cache/armature/frames`.
            limit_bytes: Bound of its size; by default `$ARMATURE_CACHE_GB` gigabytes (10^9), or 200.

        Raises:
            ConfigError: The variable is not a number above zero.
        """
        self.root = root or Path(os.environ.get(ROOT) or Path.home() / ".cache/armature/frames")
        self.limit_bytes = limit_bytes or _limit_from_environment()

    def path(self, identity: str, shape: tuple[int, ...], size: tuple[int, int] | None) -> Path:
        """Where the pictures of an episode belong: of shape (H, W, 3), resized to `size` (height, width) or not."""
        digest = hashlib.sha256(json.dumps([FORMAT, identity, shape, size]).encode()).hexdigest()
        return self.root / digest[:2] / f"{digest}.npy"

    def entries(self) -> list[Entry]:
        """What is there, the least recently used first."""
        found = []
        for path in self.root.glob("[0-9a-f][0-9a-f]/*.npy"):
            with suppress(FileNotFoundError):  # another process has just removed it
                stat = path.stat()
                found.append(Entry(path, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def clear(self, only: Iterable[Path] | None = None) -> tuple[int, int]:
        """Remove entries that no living process reads; returns how many, and their bytes.

        Args:
            only: Those to remove; by default all.
        """
        wanted = None if only is None else set(only)
        with self._locked():
            leased = self._leased()
            removed = [
                entry
                for entry in self.entries()
                if entry.path.stem not in leased and (wanted is None or entry.path in wanted)
            ]
            for entry in removed:
                entry.path.unlink(missing_ok=True)
            self._sweep()
        return len(removed), sum(entry.size for entry in removed)

    def lease(self, sizes: Mapping[Path, int]) -> tuple["Lease", list[Path]]:
        """Promise to read entries: they stay while the lease lives. Makes room for those that are missing.

        Args:
            sizes: Bytes that each entry has or will have.

        Returns:
            The lease, and the entries that are missing or not whole.

        Raises:
            DatasetError: The disk or the bound of the cache is too small; says how much is needed.
        """
        with self._locked():
            lease = Lease(self.root / _LEASES, sizes)
            missing = []
            for path, size in sizes.items():
                if is_whole(path, size):
                    with suppress(OSError):  # somebody else's, who shares it with us
                        os.utime(path)
                else:
                    missing.append(path)
            try:
                self._make_room(sum(sizes[path] for path in missing), sum(sizes.values()))
            except DatasetError:
                lease.close()
                raise
        return lease, missing

    def _make_room(self, needed: int, total: int) -> None:
        """Remove the least recently used entries until `needed` more bytes fit."""
        if not needed:
            return
        self._sweep()
        leased, entries = self._leased(), self.entries()
        held, free = sum(entry.size for entry in entries), shutil.disk_usage(self.root).free
        removable = [entry for entry in entries if entry.path.stem not in leased]
        least = held - sum(entry.size for entry in removable)
        if least + needed > self.limit_bytes:
            raise DatasetError(
                f"The decoded pictures of this dataset take {readable(total)}, {readable(needed)} of it new, and "
                f"{self.root} may hold {readable(self.limit_bytes)}, of which {readable(least)} are in use. Decode "
                f"smaller pictures, or raise the bound: {LIMIT_GB}={(least + needed) / 1e9 + 1:.0f}."
            )
        if free + held - least < needed + _SPARE_BYTES:
            raise DatasetError(
                f"Decoding needs {readable(needed + _SPARE_BYTES)} in {self.root}, and {readable(free + held - least)} "
                "are free there. Make room, decode smaller pictures, or name a folder on a larger disk: "
                f"{ROOT}=/path."
            )
        for entry in removable:
            if held + needed <= self.limit_bytes and free >= needed + _SPARE_BYTES:
                break
            entry.path.unlink(missing_ok=True)
            held, free = held - entry.size, free + entry.size

    def _leased(self) -> set[str]:
        """Digests that living processes read; removes the leases of dead ones."""
        digests: set[str] = set()
        for path in (self.root / _LEASES).glob("*"):
            with suppress(FileNotFoundError), path.open("r") as file:
                if _is_free(file.fileno()):
                    path.unlink()
                else:
                    digests.update(file.read().split())
        return digests

    def _sweep(self) -> None:
        """Remove what killed processes were writing."""
        for path in self.root.glob(f"*/.*{_PART}"):
            with suppress(FileNotFoundError), path.open("rb") as file:
                is_new = time.time() - os.fstat(file.fileno()).st_mtime < _UNLOCKED_S
                if not is_new and _is_free(file.fileno()):
                    path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            (self.root / _LEASES).mkdir(parents=True, exist_ok=True)
            file = (self.root / _LOCK).open("w")
        except OSError as error:
            raise DatasetError(
                f"The cache of decoded pictures cannot be used: {error.filename}: {error.strerror}. "
                f"Name a folder that you may write to: {ROOT}=/path."
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Lease:
    """A promise to read entries, kept as long as this object and its process live."""

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=folder)
        self._path, self._file = Path(name), os.fdopen(descriptor, "w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._file.write("\n".join(path.stem for path in paths))
        self._file.flush()

    def close(self) -> None:
        """Let others remove the entries; may be called twice."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def __del__(self) -> None:
        self.close()


@contextmanager
def written(path: Path, shape: tuple[int, ...]) -> Iterator[BinaryIO]:
    """A file to write the pictures of one entry to; it gets its name when the block ends without an error.

    Raises:
        DatasetError: The disk is full.
        ValueError: Other than the bytes of `shape` were written: a defect of the caller.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem[:16]}-{os.getpid()}-", suffix=_PART, dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=2**20) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # alive, says this to `_sweep`
            np.lib.format.write_array_header_1_0(file, _header(shape))
            yield file
            if file.tell() != entry_bytes(shape):
                raise ValueError(f"Wrote {file.tell()} bytes to {path}, expected {entry_bytes(shape)}.")
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DatasetError(
            f"The disk of {path.parents[1]} became full while pictures were decoded ({error.strerror}); what is "
            f"complete is kept. Make room, or name a folder on a larger disk: {ROOT}=/path."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def is_whole(path: Path, size: int) -> bool:
    """Whether an entry is there with all its bytes; one that a power cut shortened is not."""
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def entry_bytes(shape: tuple[int, ...]) -> int:
    """Size of the file of an entry of pictures (T, H, W, 3)."""
    return data_offset(shape) + int(np.prod(shape))


def data_offset(shape: tuple[int, ...]) -> int:
    """Where the first picture begins in the file of an entry."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, _header(shape))
    return buffer.tell()


def _header(shape: tuple[int, ...]) -> dict[str, object]:
    return {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}


def _is_free(descriptor: int) -> bool:
    """Whether no process holds the lock of a file; takes it until the file is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _limit_from_environment() -> int:
    text = os.environ.get(LIMIT_GB, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ConfigError(f"{LIMIT_GB} is {text!r}, expected gigabytes, a number above zero.")
    return int(limit * 1e9)


def readable(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
