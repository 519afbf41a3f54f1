"""Which episodes of a folder a verb is about."""

from collections.abc import Sequence
from pathlib import Path

from robot.episodes import folder
from robot.errors import ConfigError, EpisodeError


def require_folder(path: str) -> Path:
    """The folder, which must be there.

    Raises:
        EpisodeError: It is not.
    """
    found = Path(path)
    if not found.is_dir():
        raise EpisodeError(f"{path} is no folder. Name the one that `armature record` filled: episodes=<folder>.")
    return found


def chosen(where: Path, numbers: Sequence[int], what: str = "episode") -> list[Path]:
    """Paths of episodes by their numbers.

    Args:
        where: Folder of finished or of discarded episodes.
        numbers: As in their names; each once.
        what: How a missing one is called.

    Raises:
        ConfigError: No number is given, or one twice.
        EpisodeError: There is no such episode; says which there are.
    """
    if not numbers or len({*numbers}) < len(numbers):
        raise ConfigError(f"numbers is {list(numbers)}, expected numbers of episodes, each once, e.g. numbers=[3,7].")
    there = {folder.episode_number(path): path for path in folder.finished(where)}
    for number in numbers:
        if number not in there:
            raise EpisodeError(f"{where} has no {what} {number}. It has {ranges(sorted(there))}.")
    return [there[number] for number in numbers]


def ranges(numbers: Sequence[int]) -> str:
    """Growing numbers in words: `0-4, 7`; `none`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"


def size(count: float) -> str:
    """Bytes in words: `3.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
