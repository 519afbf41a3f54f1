"""`armature dataset frames`: decode a dataset's pictures ahead of a training; see what they take; remove them."""

import time
from dataclasses import dataclass
from pathlib import Path

from robot.config import load
from robot.episodes.dataset import Dataset
from robot.episodes.loading.cache import Entry, FrameCache, readable
from robot.episodes.loading.decoding import Size, decoded, entries_of
from robot.errors import ConfigError, DatasetError


@dataclass(kw_only=True)
class FramesConfig:
    """See `configs/dataset_frames.yaml`."""

    dataset: str | None
    size: list[int] | None
    clear: bool
    workers: int | None

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise ConfigError(f"size is {self.size}, expected height and width in pixels, e.g. size=[96,96].")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}, expected at least 0.")

    @property
    def resized(self) -> Size | None:
        """Height and width."""
        return None if self.size is None else (self.size[0], self.size[1])


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("dataset_frames", FramesConfig, overrides)
    cache = FrameCache()
    if config.clear:
        print(_clear(config, cache))
    elif config.dataset is None:
        print(_listed(cache))
    else:
        print(_decode(config, config.dataset, cache))
    return 0


def _clear(config: FramesConfig, cache: FrameCache) -> str:
    paths = None if config.dataset is None else _paths(config, config.dataset, cache)
    count, size = cache.clear(paths)
    kept = [entry for entry in cache.entries() if paths is None or entry.path in set(paths)]
    rest = f"; {_told(kept)} stay, which a running process reads" if kept else ""
    return f"Removed {count} files, {readable(size)}, from {cache.root}{rest}."


def _listed(cache: FrameCache) -> str:
    entries = cache.entries()
    if not entries:
        return f"{cache.root} holds no decoded pictures; it may hold {readable(cache.limit_bytes)}."
    days = (time.time() - entries[0].used) / 86400
    return (
        f"{cache.root} holds {_told(entries)}; it may hold {readable(cache.limit_bytes)}. "
        f"What was not used for longest was used {days:.0f} days ago."
    )


def _decode(config: FramesConfig, folder: str, cache: FrameCache) -> str:
    dataset, begin = Dataset.open(folder), time.perf_counter()
    if dataset.source is None or not dataset.source.schema.pictures:
        raise DatasetError(f"{folder} has no pictures.")
    before = {entry.path for entry in cache.entries()}
    paths = set(_paths(config, folder, cache))
    found = decoded(dataset.source, dataset.episode_lengths, size=config.resized, workers=config.workers, cache=cache)
    entries = [entry for entry in cache.entries() if entry.path in paths]
    pictures = sum(len(frames) for frames in found.values())
    return (
        f"{folder}: {pictures} pictures of {len(found)} cameras in {_told(entries)}, {len(paths - before)} of them "
        f"new, {time.perf_counter() - begin:.1f} s."
    )


def _paths(config: FramesConfig, folder: str, cache: FrameCache) -> list[Path]:
    source = Dataset.open(folder).source
    return [] if source is None else entries_of(source, config.resized, cache)


def _told(entries: list[Entry]) -> str:
    return f"{len(entries)} files, {readable(sum(entry.size for entry in entries))}"
