"""`armature dataset merge`: make one dataset of several of the same robot."""

import sys
from dataclasses import dataclass
from pathlib import Path

from robot.config import load
from robot.episodes.care import writing
from robot.episodes.care.selection import Joined
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import Written
from robot.errors import ConfigError, DatasetError


@dataclass(kw_only=True)
class MergeConfig:
    """See `configs/dataset_merge.yaml`."""

    datasets: list[str]
    out: str
    codec: str
    workers: int

    def __post_init__(self) -> None:
        if len(self.datasets) < 2:
            raise ConfigError("Merging wants at least two datasets: datasets=[data/a,data/b].")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected a number of processes, or 0 for one per core.")


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("dataset_merge", MergeConfig, overrides)
    written = merge(config)
    print(
        f"{config.out}: {written.episodes} episodes, {written.frames} frames of {len(config.datasets)} datasets, "
        f"{written.megabytes:.1f} MB."
    )
    return 0


def merge(config: MergeConfig) -> Written:
    """Write the episodes of all datasets, one dataset after the other; each keeps its task, origin and subsets.

    Raises:
        DatasetError: A dataset is damaged, they do not belong together, or `out` exists.
    """
    paths = [Path(path) for path in config.datasets]
    twice = [path for path in paths if sum(path.resolve() == other.resolve() for other in paths) > 1]
    if twice:
        raise DatasetError(f"{twice[0]} is named twice; its episodes would be in the merged dataset twice.")
    writing.check_free(Path(config.out), paths)
    sources = [LeRobotSource(path) for path in paths]
    joined = Joined(sources, config.datasets)
    if joined.dropped:
        print(f"Columns that not all of them have are left out: {', '.join(joined.dropped)}.", file=sys.stderr)
    settings = writing.settings(sources, config.codec, config.workers)
    note = writing.note_on_pictures(sources, settings.encoding)
    if note:
        print(note, file=sys.stderr)
    about = {"merged": [str(path) for path in config.datasets]}
    return lerobot_writer.write(joined, config.out, settings, about)
