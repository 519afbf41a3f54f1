"""What an older build left at the same place: the episodes that a new build with equal settings need not encode."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robot.episodes.formats import lerobot_layout as layout
from robot.episodes.formats.file_series import Place
from robot.episodes.formats.image_statistics import Histogram
from robot.episodes.formats.lerobot_tables import TableRows
from robot.errors import DatasetError


@dataclass(frozen=True)
class OldEpisode:
    """One episode of the old dataset.

    Attributes:
        number: Its number there.
        length: Number of its rows.
        first: Number of its first row in the old dataset.
        tasks: Texts of its tasks, in the order of their first rows.
        data: Where its rows are.
        videos: Where its frames are, by key.
    """

    number: int
    length: int
    first: int
    tasks: tuple[str, ...]
    data: Place
    videos: dict[str, Place]


class Previous:
    """An old dataset of ours, made with equal settings."""

    def __init__(self, root: Path, cameras: list[str]) -> None:
        """Open it.

        Raises:
            OSError, ValueError, KeyError, pyarrow.ArrowException: It is damaged.
        """
        self.root = root
        self._episodes = TableRows(root / layout.EPISODES_PATH.format(chunk_index=0, file_index=0))
        self._origins = TableRows(root / layout.ORIGINS)
        self._cameras = cameras
        self._tables: dict[str, tuple[Path, TableRows]] = {}
        tasks = TableRows(root / layout.TASKS).columns(["task"])
        self.tasks: list[str] = tasks.column("task").to_pylist()
        self.counts: Counter[str] = Counter()
        found = self._found()
        intact = self._intact()
        identities = self._origins.columns(["identity"]).column("identity").to_pylist()
        if len(identities) != len(found):
            raise ValueError(f"{len(identities)} origins for {len(found)} episodes")
        self._by_identity = {
            identity: old
            for identity, old in zip(identities, found, strict=True)
            if all(name in intact for name in self._names(old))
        }

    def episode(self, identity: str) -> OldEpisode | None:
        """The episode with this identity, if its files are as long as they were when they were written."""
        return self._by_identity.get(identity)

    def stats(self, old: OldEpisode) -> dict[str, Any]:
        """Columns `stats/...` of the table of episodes."""
        row = self._episodes.row(old.number)
        return {name: value for name, value in row.items() if name.startswith("stats/")}

    def origin(self, old: OldEpisode) -> dict[str, Any]:
        """Its row of our own table."""
        return self._origins.row(old.number)

    def histogram(self, old: OldEpisode, key: str) -> Histogram:
        """Of its sampled pictures."""
        row = self.origin(old)
        return Histogram(row[f"sampled/{key}"], np.array(row[f"histogram/{key}"], np.int64).reshape(3, -1))

    def tables(self, old: OldEpisode, pattern: str) -> Iterator[pa.Table]:
        """Its rows in data files or fingerprints, in their row groups."""
        path = self.root / pattern.format(chunk_index=old.data.chunk_index, file_index=old.data.file_index)
        held = self._tables.get(pattern)
        if held is None or held[0] != path:
            held = self._tables[pattern] = (path, TableRows(path))
        return held[1].groups(old.data.first, old.length)

    def video(self, old: OldEpisode, key: str) -> Path:
        """The file that holds its frames."""
        place = old.videos[key]
        pattern = layout.VIDEO_PATH.format(video_key=key, chunk_index=place.chunk_index, file_index=place.file_index)
        return self.root / pattern

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Size and digest of every file, as they were written."""
        return dict(json.loads((self.root / layout.FILES).read_text()))

    def _intact(self) -> set[str]:
        return {
            name
            for name, known in self.files.items()
            if (self.root / name).is_file() and (self.root / name).stat().st_size == known["bytes"]
        }

    def _names(self, old: OldEpisode) -> list[str]:
        names = [_named(layout.DATA_PATH, old.data)]
        if self._cameras:
            names.append(_named(layout.FINGERPRINTS_PATH, old.data))
        return names + [_named(layout.VIDEO_PATH.replace("{video_key}", key), at) for key, at in old.videos.items()]

    def _found(self) -> list[OldEpisode]:
        cameras = [key for key in self._cameras if f"videos/{key}/chunk_index" in self._episodes.names]
        patterns = {"data": layout.DATA_PATH}
        patterns |= {f"videos/{key}": layout.VIDEO_PATH.replace("{video_key}", key) for key in cameras}
        found: list[OldEpisode] = []
        frames: Counter[str] = Counter()
        for number, row in enumerate(self._episodes.without("stats/")):
            length = row["length"]
            places = {}
            for prefix, pattern in patterns.items():
                at = Place(row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"], 0, 0)
                name = _named(pattern, at)
                places[prefix] = Place(at.chunk_index, at.file_index, self.counts[name], frames[name])
                self.counts[name] += 1
                frames[name] += length
            self.counts[_named(layout.FINGERPRINTS_PATH, places["data"])] += 1
            videos = {key: places[f"videos/{key}"] for key in cameras}
            tasks = tuple(row["tasks"])
            found.append(OldEpisode(number, length, row["dataset_from_index"], tasks, places["data"], videos))
        return found


def opened(root: Path, settings: str, cameras: list[str]) -> Previous | None:
    """The old dataset at `root`, if it is of ours, was made with equal settings, and can be read."""
    try:
        if json.loads((root / layout.ARMATURE).read_text()).get("settings") != settings:
            return None
        return Previous(root, cameras)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException, DatasetError):
        return None


def _named(pattern: str, place: Place) -> str:
    return pattern.format(chunk_index=place.chunk_index, file_index=place.file_index)
