"""`armature episodes discard`: put episodes aside, where nothing uses them, and bring them back."""

from dataclasses import dataclass, field
from pathlib import Path

from robot.config import load
from robot.episodes import atomic, folder
from robot.episodes.verbs.choosing import chosen, ranges, require_folder
from robot.errors import EpisodeError


@dataclass(kw_only=True)
class DiscardConfig:
    """See `configs/episodes_discard.yaml`."""

    episodes: str
    numbers: list[int] = field(default_factory=list)
    undo: bool


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("episodes_discard", DiscardConfig, overrides)
    where = require_folder(config.episodes)
    aside = where / folder.DISCARDED
    if config.undo:
        _move(chosen(aside, config.numbers, "discarded episode"), where)
        print(f"Brought back: {ranges(sorted(config.numbers))}.")
        return 0
    paths = chosen(where, config.numbers)
    try:
        aside.mkdir(exist_ok=True)
    except OSError as error:
        raise EpisodeError(f"{aside} cannot be made: {error.strerror}.") from error
    _move(paths, aside)
    print(f"Put aside: {ranges(sorted(config.numbers))}. undo=true brings them back; delete {aside} to free the space.")
    return 0


def _move(paths: list[Path], to: Path) -> None:
    """All of them, or none if one cannot go there."""
    for path in paths:
        if (to / path.name).exists():
            raise EpisodeError(f"{to / path.name} is there already; {path} would take its name. Nothing was moved.")
    for path in paths:
        try:
            path.rename(to / path.name)
        except OSError as error:
            raise EpisodeError(f"{path} cannot be moved to {to}: {error.strerror}.") from error
    for place in {to, *(path.parent for path in paths)}:
        atomic.fsync(place)
