"""Files and folders that appear complete or not at all: write beside, fsync, rename."""

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robot.errors import ArmatureError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def fsync(path: Path) -> None:
    """Push a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(part: Path, target: Path) -> None:
    """Give a finished file its final name; after return it survives a power cut."""
    fsync(part)
    part.replace(target)
    fsync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write a small file; readers see the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    publish(part, path)


@contextmanager
def locked(target: Path, busy: ArmatureError) -> Iterator[None]:
    """Nobody else who asks for this lock has it meanwhile; it ends with the process, however that ends.

    The lock is a file `.<name>.lock` beside `target`, which goes when the block ends. One that a killed process left is
    nobody's, and is taken.

    Args:
        target: File or folder that is to be written.
        busy: Raised where another process holds the lock.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            if not _is_still(path, descriptor):
                continue  # its last holder removed it between our opening and our locking: begin again
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `target` when the block ends without an error.

    Until then, and after an error, `target` is as it was. Nothing is left beside it either way. What a process that was
    killed here left behind is put in order first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    _tidy_exchange(target)
    try:
        part.mkdir()
        yield part
        for path in sorted(part.rglob("*")):
            fsync(path)
        fsync(part)
        if target.exists():
            _exchange(part, target)
        else:
            part.rename(target)
        fsync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders. In one step where the file system can (Linux `renameat2`), else in two."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
        if not failed:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(old))
    aside = _aside(old)
    shutil.rmtree(aside, ignore_errors=True)
    old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _tidy_exchange(target: Path) -> None:
    """Finish, or take back, an exchange in two steps that was killed between them."""
    aside = _aside(target)
    if aside.exists():
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)
