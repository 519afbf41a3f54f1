"""Reads LeRobotDataset v3 folders without LeRobot: ours and foreign ones, of LeRobot 0.4 to 0.6.

Opening reads `meta/` and the footer of one data file. An episode is read when it is asked for, its pictures when they
are gone through. What is not where it should be is an error: rows and frames never shift against each other.
"""

import hashlib
import json
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robot.episodes.episode import Pictures
from robot.episodes.formats import lerobot_pictures
from robot.episodes.formats.lerobot_columns import array
from robot.episodes.formats.lerobot_files import EpisodePlace, Files, again, first_line, opened, read_origins, root_of
from robot.episodes.formats.lerobot_notes import Notes
from robot.episodes.formats.lerobot_pictures import EncodedPictures, OurSpan, VideoSpan
from robot.episodes.formats.lerobot_schema import meaning
from robot.episodes.rows import Rows
from robot.errors import DatasetError
from robot.specs import ArraySpec


class LeRobotSource:
    """Episodes of a LeRobotDataset v3, lossless: dtypes and ranks are those that are stored.

    Attributes:
        files: Where everything lies.
        schema: Of a foreign dataset: from `info.json`, action space `unknown`; an action of no elements where there is
            none. Cameras that are not called `observation.images.<camera>` get such a name.
        left_out: Why a feature is not read, by name: depth, nested tables.
        stored: Name in the files by key of the schema.
    """

    def __init__(self, root: str | Path) -> None:
        files = Files.read(root)
        if not files.episodes:
            raise DatasetError(f"{root} holds no episodes.")
        files.check_counters()
        self._begin(files)

    @classmethod
    def of(cls, files: Files) -> "LeRobotSource":
        """A source of files whose counters nobody checks: `armature dataset validate` reads what it can."""
        source = cls.__new__(cls)
        source._begin(files)
        return source

    def _begin(self, files: Files) -> None:
        self.files = files
        paths = [path for path in files.data_files if path.exists()] or list(files.data_files)
        found = meaning(files, opened(paths[0]).schema_arrow)
        self.schema, self.stored, self.left_out = found.schema, found.stored, found.left_out
        self._file: _Opened | None = None
        self._group: tuple[Path, tuple[int, ...], tuple[str, ...], pa.Table] | None = None
        self._videos: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
        self._notes = Notes(files)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process it opens the folder there."""
        return LeRobotSource, (self.files.root,)

    def __len__(self) -> int:
        return len(self.files.episodes)

    def identity(self, number: int) -> str:
        """SHA-256 over the stored bytes of the rows, and the size of every encoded frame of the videos."""
        place = self._place(number)
        digest = hashlib.sha256(json.dumps([place.length, place.tasks, self.origin(number)], sort_keys=True).encode())
        self._hash_rows(digest, place)
        for key, video in place.videos.items():
            times, sizes = self._encoded_frames(video.path)
            first, last = np.searchsorted(
                times, [video.start_s - 0.25 / self.files.fps, video.stop_s - 0.25 / self.files.fps]
            )
            digest.update(key.encode() + sizes[first:last].astype("<i8").tobytes())
        return digest.hexdigest()

    def read(self, number: int) -> Rows:
        """Episode `number`, from 0.

        Raises:
            DatasetError: It is damaged; the message names the file.
        """
        place = self._place(number)
        table = self._table(place, tuple(self.schema.pictures))
        columns = {key: self._column(place, table, spec) for key, spec in self.schema.columns.items()}
        pictures = {key: self._pictures(place, table, spec) for key, spec in self.schema.pictures.items()}
        return Rows(columns, pictures, self._task(place, table), self.origin(number), self.subsets_of(number))

    def columns(self, number: int) -> dict[str, np.ndarray]:
        """The columns of episode `number`, without looking at its pictures."""
        place = self._place(number)
        table = self._table(place, ())
        return {key: self._column(place, table, spec) for key, spec in self.schema.columns.items()}

    def origin(self, number: int) -> dict[str, Any]:
        """What is known of where an episode comes from."""
        return dict(self._origins[number][0]) if number < len(self._origins) else {}

    def subsets_of(self, number: int) -> tuple[str, ...]:
        """Names of the subsets that an episode is in."""
        return tuple(name for name, numbers in self._members.items() if number in numbers)

    @cached_property
    def subsets(self) -> dict[str, tuple[int, ...]]:
        """Episodes of each subset, by its name; those of LeRobot's `splits` where it wrote the dataset."""
        found: dict[str, list[int]] = {}
        for number, (_, names) in enumerate(self._origins):
            for name in names:
                found.setdefault(name, []).append(number)
        return {name: tuple(numbers) for name, numbers in found.items()} or self.files.subsets

    @cached_property
    def _members(self) -> dict[str, frozenset[int]]:
        return {name: frozenset(numbers) for name, numbers in self.subsets.items()}

    @cached_property
    def _origins(self) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
        return read_origins(self.files.root, self.files.armature)

    def _place(self, number: int) -> EpisodePlace:
        if not 0 <= number < len(self):
            raise DatasetError(f"{self.files.root} has episodes 0 to {len(self) - 1}, there is no episode {number}.")
        return self.files.episodes[number]

    def _encoded_frames(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Those of the file, and of the last few that were asked for."""
        if path not in self._videos:
            while len(self._videos) > 7:
                self._videos.pop(next(iter(self._videos)))
            self._videos[path] = lerobot_pictures.encoded_frames(path)
        return self._videos[path]

    def _open(self, path: Path) -> "_Opened":
        if self._file is None or self._file.path != path:
            if self._file is not None:
                self._file.file.close()
            self._file = _Opened(path)
        return self._file

    def _table(self, place: EpisodePlace, pictures: tuple[str, ...]) -> pa.Table:
        """The episode's rows, in order; of pictures that lie among them only those that are named."""
        opened_file = self._open(place.data)
        groups = opened_file.groups(place.number)
        if self._group is None or self._group[:3] != (place.data, groups, pictures):
            unwanted = {self.stored[key] for key in self.schema.pictures if key not in pictures} | self.left_out.keys()
            names = [name for name in opened_file.file.schema_arrow.names if name not in unwanted]
            try:
                table = opened_file.file.read_row_groups(list(groups), columns=names)
            except (pa.ArrowException, OSError) as error:
                raise DatasetError(f"{place.data} is damaged: {first_line(error)} {again(self.files.root)}") from error
            self._group = (place.data, groups, pictures, table)
        table = self._group[3]
        numbers = array(table["episode_index"], (), f"{place.data}: column 'episode_index'")
        at = np.flatnonzero(numbers == place.number)
        is_run = len(at) == place.length and (len(at) == 0 or at[-1] - at[0] + 1 == len(at))
        if not is_run:
            raise DatasetError(
                f"{place.data} has {len(at)} rows of episode {place.number}, expected {place.length} in one run. "
                f"{again(self.files.root)}"
            )
        table = table.slice(int(at[0]) if len(at) else 0, place.length)
        self._check_order(place, table)
        return table

    def _check_order(self, place: EpisodePlace, table: pa.Table) -> None:
        if "frame_index" not in table.column_names:
            raise DatasetError(f"{place.data} has no column 'frame_index'. {again(self.files.root)}")
        got = array(table["frame_index"], (), f"{place.data}: column 'frame_index'")
        wrong = np.flatnonzero(got != np.arange(place.length))
        if len(wrong):
            raise DatasetError(
                f"{place.data}: row {wrong[0]} of episode {place.number} has frame_index {got[wrong[0]]}, "
                f"expected {wrong[0]}. {again(self.files.root)}"
            )

    def _column(self, place: EpisodePlace, table: pa.Table, spec: ArraySpec) -> np.ndarray:
        if spec.key not in self.stored:  # a dataset without actions
            return np.zeros((place.length, *spec.shape), spec.dtype)
        name = self.stored[spec.key]
        where = f"{place.data}: episode {place.number}: column {name!r}"
        if name not in table.column_names:
            raise DatasetError(f"{where} is missing. {again(self.files.root)}")
        return array(table[name], spec.shape, where)

    def _pictures(self, place: EpisodePlace, table: pa.Table, spec: ArraySpec) -> Pictures:
        name = self.stored[spec.key]
        if name not in place.videos:
            where = f"{place.data}: episode {place.number}: {name!r}"
            return EncodedPictures(_encoded(table, name, self.files.root, where), spec.shape, where)
        video, fps = place.videos[name], self.files.fps
        frames = round((video.stop_s - video.start_s) * fps)
        if frames != place.length:
            raise DatasetError(
                f"{video.path}: episode {place.number} has {frames} frames, from {video.start_s:.4f} s to "
                f"{video.stop_s:.4f} s, but {place.length} rows. {again(self.files.root)}"
            )
        span = VideoSpan(video.path, video.start_s, place.length, fps, spec.shape)
        encoding = self._notes.encoding
        return OurSpan(span, encoding, partial(self._notes.of, place, spec.key)) if encoding else span

    def _task(self, place: EpisodePlace, table: pa.Table) -> str | tuple[str, ...]:
        numbers = array(table["task_index"], (), f"{place.data}: column 'task_index'").tolist()
        unknown = set(numbers) - self.files.tasks.keys()
        if unknown:
            raise DatasetError(
                f"{place.data}: episode {place.number} has task_index {min(unknown)}, tasks are "
                f"{sorted(self.files.tasks)}. {again(self.files.root)}"
            )
        texts = tuple(self.files.tasks[number] for number in numbers)
        return texts[0] if len(set(texts)) == 1 else texts

    def _hash_rows(self, digest: "hashlib._Hash", place: EpisodePlace) -> None:
        """Stored bytes of the row groups that hold the episode."""
        opened_file = self._open(place.data)
        with place.data.open("rb") as raw:
            for group in opened_file.groups(place.number):
                found = opened_file.file.metadata.row_group(group)
                for i in range(found.num_columns):
                    column = found.column(i)
                    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
                    raw.seek(start)
                    digest.update(raw.read(column.total_compressed_size))


class _Opened:
    """A data file, and which of its row groups hold which episodes."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, opened(path)
        metadata = self.file.metadata
        names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        if "episode_index" not in names:
            raise DatasetError(f"{path} has no column 'episode_index'. {again(root_of(path))}")
        column = names.index("episode_index")
        ranges = []
        for group in range(metadata.num_row_groups):
            known = metadata.row_group(group).column(column).statistics
            has_range = known is not None and known.has_min_max
            ranges.append((known.min, known.max) if has_range else (-np.inf, np.inf))
        self._low, self._high = np.array(ranges, np.float64).reshape(-1, 2).T

    def groups(self, episode: int) -> tuple[int, ...]:
        """Row groups that may hold rows of the episode; LeRobot and we write one for each."""
        return tuple(np.flatnonzero((self._low <= episode) & (episode <= self._high)).tolist())


def _encoded(table: pa.Table, name: str, root: Path, where: str) -> list[bytes]:
    """Encoded pictures: `struct<bytes, path>`, as Hugging Face's `datasets` writes them, or plain bytes.

    LeRobot always embeds the bytes; a path without bytes is looked up below the dataset's folder.
    """
    column = table[name]
    if not pa.types.is_struct(column.type):
        return column.to_pylist()
    encoded = []
    for row in column.to_pylist():
        data = (row or {}).get("bytes")
        path = (row or {}).get("path")
        if not data and path and (root / path).is_file() and (root / path).resolve().is_relative_to(root.resolve()):
            data = (root / path).read_bytes()
        if not data:
            raise DatasetError(f"{where} has a row without a picture. {again(root)}")
        encoded.append(data)
    return encoded
