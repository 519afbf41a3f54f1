"""The folder of episodes that `record` fills and `build` reads, and what lies aside in it."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robot.contract import EnvironmentSpecs
from robot.errors import EpisodeError

_NAME = re.compile(r"episode-(\d{6,})\.mcap")
ATTEMPTS = ".attempts"
"""Name of the folder, inside that of the episodes, of what is being recorded now."""
DISCARDED = ".discarded"
"""Name of the folder, inside that of the episodes, of those that were put aside."""


def episode_path(folder: Path, number: int) -> Path:
    """Where a finished episode lives."""
    return folder / f"episode-{number:06d}.mcap"


def episode_number(path: Path) -> int:
    """The number in a name that `episode_path` made."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise EpisodeError(f"{path} is not named like an episode (episode-000000.mcap).")
    return int(match[1])


def finished(folder: Path) -> list[Path]:
    """Finished episodes, in the order of their numbers."""
    found = [path for path in folder.glob("*.mcap") if _NAME.fullmatch(path.name)]
    return sorted(found, key=episode_number)


def interrupted(folder: Path) -> list[Path]:
    """Episodes that a killed recorder left without an end; `armature episodes recover` mends them."""
    return sorted(folder.glob("*.mcap.part"))


def attempts(folder: Path) -> list[Path]:
    """What a killed recorder was attempting in the simulated world, which can be attempted again."""
    return sorted((folder / ATTEMPTS).glob("*"))


def discarded(folder: Path) -> list[Path]:
    """Episodes that were put aside, in the order of their numbers."""
    return finished(folder / DISCARDED)


def next_number(folder: Path) -> int:
    """A number that no episode has or had: neither a finished, nor a discarded, nor an interrupted one."""
    parts = [path.with_suffix("") for path in [*interrupted(folder), *interrupted(folder / DISCARDED)]]
    named = [path for path in parts if _NAME.fullmatch(path.name)]
    return max(map(episode_number, [*finished(folder), *discarded(folder), *named]), default=-1) + 1


def check_same_specs(first: Path, expected: EnvironmentSpecs, path: Path, got: EnvironmentSpecs) -> None:
    """Refuse episodes that do not belong into one folder.

    Raises:
        EpisodeError: Names both and says what differs.
    """
    lines = expected.difference(got)
    if expected.task != got.task:
        lines.append(f"task is {got.task!r}, expected {expected.task!r}")
    if lines:
        raise EpisodeError(
            f"{path} does not fit {first}: {'; '.join(lines)}. Keep episodes of different robots, tasks or "
            "observations in different folders."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else records into the folder meanwhile; the lock ends with the process, however it ends.

    Raises:
        EpisodeError: Somebody does, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise EpisodeError(f"{folder} cannot be made a folder of episodes: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EpisodeError(f"Another `armature record` is writing to {folder}. Wait for it, or stop it.") from error
        yield
    finally:
        os.close(descriptor)
