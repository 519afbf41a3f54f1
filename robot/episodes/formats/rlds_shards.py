"""The folder of an RLDS dataset: its shards, and which record is where."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot.episodes.formats.tfrecord import RecordFile
from robot.errors import DatasetError

FEATURES, INFO = "features.json", "dataset_info.json"

_SHARD = re.compile(r"(?P<name>.+)-(?P<split>[^-]+)\.(?P<format>[a-z_]+)(\.gz)?-(?P<at>\d{5})-of-(?P<of>\d{5})(\.gz)?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Place:
    """Where an episode is."""

    split: str
    file: RecordFile
    record: int


def looks_like(folder: Path) -> bool:
    """Whether a folder, or a version inside it, is a dataset of TensorFlow Datasets."""
    return (folder / FEATURES).is_file() or any((path / FEATURES).is_file() for path in _versions(folder))


class RldsFolder:
    """The records of all splits, in the order of `dataset_info.json`.

    Attributes:
        root: The folder with `features.json`.
        name: Of the dataset.
        remarks: What is not there, a sentence each.
    """

    def __init__(self, folder: Path) -> None:
        """Find the shards.

        Raises:
            DatasetError: A file is missing or damaged, or a split has other numbers of records than it says.
        """
        self.root = _root(folder)
        self._info = _info(self.root / INFO)
        self.name = str(self._info.get("name") or self.root.parent.name)
        self.remarks: list[str] = []
        self._places: list[Place] = []
        shards = self._shards()
        told = [str(split["name"]) for split in self._info.get("splits", [])]
        for split in dict.fromkeys([*told, *sorted(shards)]):
            self._add(split, shards.get(split, {}))
        if not self._places:
            raise DatasetError(
                f"{self.root} holds no episodes: there is no file like {self.name}-train.tfrecord-00000-of-00001."
            )

    def __len__(self) -> int:
        return len(self._places)

    def place(self, number: int) -> Place:
        """Where episode `number` is."""
        return self._places[number]

    def read(self, number: int) -> bytes:
        """The record of an episode."""
        place = self._places[number]
        return place.file.read(place.record)

    def about(self) -> dict[str, Any]:
        """What the dataset says of itself."""
        wanted = ("name", "version", "description", "citation", "configName")
        return {key: self._info[key] for key in wanted if self._info.get(key)}

    def _shards(self) -> dict[str, dict[tuple[int, int], Path]]:
        """Shards of each split by their number and the number of shards."""
        found: dict[str, dict[tuple[int, int], Path]] = {}
        for path in sorted(self.root.iterdir()):
            match = _SHARD.fullmatch(path.name)
            if match is None:
                continue
            if match["format"] != "tfrecord":
                raise DatasetError(f"{path} is a file of {match['format']}; TFRecord can be read.")
            found.setdefault(match["split"], {})[int(match["at"]), int(match["of"])] = path
        return found

    def _add(self, split: str, shards: dict[tuple[int, int], Path]) -> None:
        expected = next(
            (found.get("shardLengths") for found in self._info.get("splits", []) if found.get("name") == split), None
        )
        wanted = max((of for _, of in shards), default=len(expected or []))
        if len(shards) < wanted:
            self.remarks.append(f"Of the split {split!r} {len(shards)} of {wanted} files are there.")
        for (at, _), path in sorted(shards.items()):
            file = RecordFile(path)
            if expected and len(expected) == wanted and int(expected[at]) != len(file):
                raise DatasetError(f"{path} holds {len(file)} records, {INFO} says {expected[at]}. Get the file again.")
            self._places += [Place(split, file, record) for record in range(len(file))]


def _versions(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and _VERSION.fullmatch(path.name))


def _root(folder: Path) -> Path:
    if (folder / FEATURES).is_file():
        return folder
    versions = [path for path in _versions(folder) if (path / FEATURES).is_file()]
    if not versions:
        raise DatasetError(f"{folder} holds no {FEATURES}, so it is no dataset of TensorFlow Datasets (RLDS).")
    if len(versions) > 1:
        raise DatasetError(f"{folder} holds several versions: {', '.join(path.name for path in versions)}. Name one.")
    return versions[0]


def _info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}.") from error
    return data if isinstance(data, dict) else {}
