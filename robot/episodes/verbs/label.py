"""`armature episodes label`: say afterwards whether episodes succeeded, or add a note."""

from dataclasses import dataclass, field

from robot.config import load
from robot.episodes import folder
from robot.episodes.labelling import amended
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.verbs.choosing import chosen, require_folder
from robot.errors import ConfigError


@dataclass(kw_only=True)
class LabelConfig:
    """See `configs/episodes_label.yaml`."""

    episodes: str
    numbers: list[int] = field(default_factory=list)
    success: bool | None
    note: str

    def __post_init__(self) -> None:
        if self.success is None and not self.note:
            raise ConfigError("Nothing to say: give success=true, success=false or note='...'.")


def main(overrides: list[str]) -> int:
    """Run the verb. Every episode is read before the first is labelled."""
    config = load("episodes_label", LabelConfig, overrides)
    paths = chosen(require_folder(config.episodes), config.numbers)
    before = [EpisodeReader(path).result.success_final for path in paths]
    for path, was in zip(paths, before, strict=True):
        now = amended(path, config.success, config.note).success_final
        said = f"success {_word(was)} -> {_word(now)}" if was != now else f"success {_word(now)}, as before"
        print(f"{folder.episode_number(path):06d}: {said}{f', note: {config.note}' if config.note else ''}")
    return 0


def _word(success: bool) -> str:
    return "yes" if success else "no"
