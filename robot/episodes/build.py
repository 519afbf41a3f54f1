"""`armature build`: a folder of episodes becomes a dataset that training and LeRobot read."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robot.config import load
from robot.episodes import folder
from robot.episodes.dataset import ACTION, REWARD, SUCCESS, TERMINATED, TRUNCATED, Dataset
from robot.episodes.episode import (
    COMMANDED,
    DEVICE,
    STEP_FIELDS,
    STEP_TOPIC,
    Episode,
    Header,
    action_topic,
    topic_of,
)
from robot.episodes.formats import lerobot_writer
from robot.episodes.log_reader import EpisodeReader
from robot.errors import EpisodeError, unknown_name


@dataclass(kw_only=True)
class BuildConfig:
    """See `configs/build.yaml`."""

    episodes: str
    out: str
    label: str

    def __post_init__(self) -> None:
        if self.label not in (DEVICE, COMMANDED):
            raise unknown_name("label", self.label, (DEVICE, COMMANDED))


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("build", BuildConfig, overrides)
    dataset = build(config)
    size_mb = sum(path.stat().st_size for path in Path(config.out).rglob("*") if path.is_file()) / 1e6
    count = len(dataset.episode_lengths)
    print(f"{config.out}: {count} episodes, {len(dataset)} frames at {dataset.fps} Hz, {size_mb:.1f} MB.")
    return 0


def build(config: BuildConfig) -> Dataset:
    """Write the dataset of all finished episodes of a folder, and return it.

    A simulated world advances one control period for each action, however long the action took to compute: row k of
    an episode is its step k, and the clock of the dataset is that of the specs.

    Raises:
        EpisodeError: There is no episode, one is damaged, or episodes do not belong together.
        DatasetError: What is there already is no dataset of ours.
    """
    source = Path(config.episodes)
    paths = folder.finished(source)
    _note_what_is_not_used(source)
    if not paths:
        raise EpisodeError(f"{source} holds no finished episodes. Record some with `armature record out={source}`.")
    specs = EpisodeReader(paths[0]).header.specs
    episodes = []
    for path in tqdm(paths, unit="episode", desc="reading"):
        reader = EpisodeReader(path)
        folder.check_same_specs(paths[0], specs, path, reader.header.specs)
        episodes.append(reader.read())
    failures = sum(not episode.result.success_final for episode in episodes)
    if failures:
        print(f"{failures} of the {len(episodes)} episodes ended without success and are part of it.", file=sys.stderr)
    dataset = Dataset.from_episodes(specs, [_columns(episode, config.label) for episode in episodes])
    lerobot_writer.write(dataset.rows(), config.out, about=_provenance(paths, episodes, config.label))
    return dataset


def _columns(episode: Episode, label: str) -> dict[str, np.ndarray]:
    steps = dict(zip(STEP_FIELDS, episode.channels[STEP_TOPIC].values.T, strict=True))
    return {
        **{key: episode.channels[topic_of(key)].values for key in episode.header.specs.observation},
        ACTION: episode.channels[action_topic(label)].values,
        REWARD: steps["reward"].astype(np.float32),
        SUCCESS: steps["success"].astype(bool),
        TERMINATED: steps["terminated"].astype(bool),
        TRUNCATED: steps["truncated"].astype(bool),
    }


def _provenance(paths: list[Path], episodes: list[Episode], label: str) -> dict[str, Any]:
    """What `meta/armature.json` says about where the rows come from; equal episodes give equal text."""
    origins = [_origin(path, episode.header) for path, episode in zip(paths, episodes, strict=True)]
    return {"label": label, "episodes": origins}


def _origin(path: Path, header: Header) -> dict[str, Any]:
    return {"file": path.name, "seed": header.seed, "source": header.source, "quality": header.quality}


def _note_what_is_not_used(source: Path) -> None:
    for path in folder.interrupted(source):
        print(f"{path} was interrupted and is not used; `armature episodes recover` mends it.", file=sys.stderr)
    for path in sorted({*source.glob("*.mcap")} - {*folder.finished(source)}):
        print(f"{path} is not named like an episode (episode-000000.mcap) and is not used.", file=sys.stderr)
