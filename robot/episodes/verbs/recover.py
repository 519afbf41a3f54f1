"""`armature episodes recover`: make episodes of what killed recorders left in a folder, and of what was cut short."""

from dataclasses import dataclass
from pathlib import Path

from robot.config import load
from robot.episodes import folder
from robot.episodes.episode import STEPS
from robot.episodes.log_reader import EpisodeReader, is_cut_short
from robot.episodes.recover import RECOVERED, recover
from robot.episodes.verbs.choosing import require_folder
from robot.errors import EpisodeError


@dataclass(kw_only=True)
class RecoverConfig:
    """See `configs/episodes_recover.yaml`."""

    episodes: str
    delete: bool


def main(overrides: list[str]) -> int:
    """Run the verb; 1 where something could not be recovered and stays."""
    config = load("episodes_recover", RecoverConfig, overrides)
    where = require_folder(config.episodes)
    stays = False
    with folder.locked(where):  # whoever records now is not interrupted
        cut_short = [path for path in folder.finished(where) if is_cut_short(path)]  # by a disk, or while copied
        parts = [*folder.interrupted(where), *(path.rename(f"{path}.part") for path in cut_short)]
        for part in parts:
            stays |= not _brought_back(part, config.delete)
    if not parts:
        print(f"{where} holds nothing that was interrupted.")
    return int(stays)


def _brought_back(part: Path, delete: bool) -> bool:
    """Recover one file and say what became of it; False where it stays as it is."""
    target = part.with_suffix("")
    try:
        result = recover(part, target)
    except EpisodeError as error:
        print(error)
        if delete and not target.exists():
            part.unlink()
            print(f"{part} is deleted.")
            return True
        return False
    reader = EpisodeReader(target)
    steps = f"{result.steps} steps, " if reader.header.clock == STEPS else ""
    said = next((event.text for event in reversed(reader.events()) if event.name == RECOVERED), "Nothing was lost.")
    print(f"{target}: {steps}{reader.duration_s:.1f} s, success {'yes' if result.success_final else 'no'}. {said}")
    return True
