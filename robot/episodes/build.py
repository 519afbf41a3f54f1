"""`armature build`: folders of episodes become a dataset that training and LeRobot read."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot.config import load
from robot.episodes.episode_source import ALL, SUCCESS, EpisodeSource
from robot.episodes.formats.lerobot_layout import ARMATURE
from robot.episodes.formats.lerobot_writer import Settings, Written, write
from robot.episodes.formats.video import Encoding
from robot.episodes.resample import AUTO, MaxSkew, Resampling
from robot.errors import ConfigError, unknown_name


@dataclass(kw_only=True)
class BuildConfig:
    """See `configs/build.yaml`."""

    episodes: Any
    out: str
    label: str = AUTO
    fps: int = 0
    align: str = "previous"
    compensate_latency: bool = False
    gaps: str = "refuse"
    max_skew_s: dict[str, float] | None = None
    skews: bool = False
    channels: list[str] | None = None
    keep: str = ALL
    min_rows: int = 2
    codec: str = "h264"
    crf: int = -1
    gop: int = -1
    preset: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        if self.keep not in (ALL, SUCCESS):
            raise unknown_name("keep", self.keep, (ALL, SUCCESS))
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected a number of processes, or 0 for one per core.")
        self.resampling()  # both raise where a value is wrong
        self.encoding()

    def folders(self) -> list[str]:
        """Folders of episodes, one or several."""
        return [str(one) for one in self.episodes] if isinstance(self.episodes, list) else [str(self.episodes)]

    def resampling(self) -> Resampling:
        """How episodes become rows."""
        known = ("vectors", "pictures", "actions")
        for name in self.max_skew_s or {}:
            if name not in known:
                raise unknown_name("kind of channel in max_skew_s", name, known)
        return Resampling(
            label=self.label,
            fps=self.fps,
            align=self.align,
            compensate_latency=self.compensate_latency,
            skews=self.skews,
            channels=tuple(self.channels or ()),
            gaps=self.gaps,
            max_skew_s=MaxSkew(**(self.max_skew_s or {})),
        )

    def encoding(self) -> Encoding:
        """How pictures are kept."""
        return Encoding(codec=self.codec, crf=self.crf, gop=self.gop, preset=self.preset)


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("build", BuildConfig, overrides)
    done = build(config)
    kept = f", {done.kept} of the episodes as they were" if done.kept else ""
    print(
        f"{config.out}: {done.episodes} episodes, {done.frames} frames at {done.fps} Hz, {done.megabytes:.1f} MB{kept}."
    )
    return 0


def build(config: BuildConfig) -> Written:
    """Write the dataset of the finished episodes of some folders; see `robot.episodes.resample` for what a row is.

    A dataset that is already there lends the episodes whose files and settings are unchanged.

    Raises:
        EpisodeError: There is no episode, one is damaged, or episodes do not belong together.
        DatasetError: What is there already is no dataset of ours, somebody else is writing it, or the disk is full.
    """
    out = Path(config.out)
    source = EpisodeSource(config.folders(), config.resampling(), config.keep, config.min_rows, _known_plans(out))
    if source.failures:
        print(
            f"{source.failures} of the episodes ended without success and are part of it; keep=success leaves them "
            "out.",
            file=sys.stderr,
        )
    workers = config.workers or (len(os.sched_getaffinity(0)) if source.schema.pictures else 1)
    settings = Settings(encoding=config.encoding(), workers=workers, progress=True)
    return write(source, out, settings, {"label": source.label, "plans": source.plans})


def _known_plans(out: Path) -> dict[str, Any]:
    """Where an older build cut its episodes; empty where nothing is to be learnt."""
    try:
        return dict(json.loads((out / ARMATURE).read_text())["build"]["plans"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
