"""What a dataset of ours noted of its pictures before they were encoded, so that its videos can be copied.

Merging, splitting and converting take an episode's frames from such a dataset packet by packet, where they are to be
kept as they are kept there: nothing is lost, and nothing is decoded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robot.episodes.formats.fingerprint import SIZE
from robot.episodes.formats.image_statistics import Histogram
from robot.episodes.formats.lerobot_columns import array
from robot.episodes.formats.lerobot_files import ORIGINS, EpisodePlace, Files, again
from robot.episodes.formats.lerobot_pictures import Noted
from robot.episodes.formats.lerobot_tables import TableRows
from robot.errors import DatasetError

FINGERPRINTS = "meta/armature/fingerprints"
"""Folder of the fingerprints; its files have the names of those in `data`."""


class Notes:
    """The notes of one dataset."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._origins: TableRows | None = None
        self._prints: tuple[Path, TableRows, np.ndarray] | None = None

    @property
    def encoding(self) -> Mapping[str, Any]:
        """How the dataset keeps pictures; empty where nothing was noted."""
        known = self._files.armature.get("encoding")
        return known if isinstance(known, dict) and (self._files.root / FINGERPRINTS).is_dir() else {}

    def of(self, place: EpisodePlace, key: str) -> Noted:
        """What was noted of the pictures of one camera in one episode.

        Raises:
            DatasetError: The notes are damaged, or of another number of pictures.
        """
        try:
            return self._read(place, key)
        except (OSError, KeyError, ValueError, TypeError, IndexError, pa.ArrowException) as error:
            raise DatasetError(
                f"{self._files.root}: what was noted of {key} in episode {place.number} is damaged ({error!r}). "
                f"{again(self._files.root)}"
            ) from error

    def _read(self, place: EpisodePlace, key: str) -> Noted:
        if self._origins is None:
            self._origins = TableRows(self._files.root / ORIGINS)
        row = self._origins.row(place.number)
        histogram = Histogram(row[f"sampled/{key}"], np.array(row[f"histogram/{key}"], np.int64).reshape(3, -1))
        path = self._files.root / FINGERPRINTS / place.data.parent.name / place.data.name
        if self._prints is None or self._prints[0] != path:
            rows = TableRows(path)
            self._prints = (path, rows, array(rows.columns(["episode_index"])["episode_index"], (), str(path)))
        _, rows, episodes = self._prints
        at = np.flatnonzero(episodes == place.number)
        tables = list(rows.groups(int(at[0]), len(at)))
        prints = np.concatenate([array(table[key], (SIZE,), str(path)) for table in tables])
        if row["episode_index"] != place.number or len(prints) != place.length:
            raise ValueError(f"{len(prints)} fingerprints for {place.length} rows")
        return prints, histogram
