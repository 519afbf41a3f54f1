"""Writes robomimic HDF5 from any source of rows; what came from such a file goes back as it was.

A file of ours has `obs/state`, `obs/environment_state`, `obs/<camera>_image`, `actions` (float64, as robosuite's),
`rewards`, `dones`, and below `extras/` what robomimic knows nothing of. The attribute `armature` of `data` says which
column is where, and that of a demonstration says its task and origin, so that nothing is lost on the way back.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from robot.episodes import atomic
from robot.episodes.episode import IMAGES, Pictures
from robot.episodes.formats import robosuite_description
from robot.episodes.formats.hdf5_record import fill, restored
from robot.episodes.formats.hdf5_sink import Sink
from robot.episodes.formats.robomimic_mapping import ACTIONS, PREFIX
from robot.episodes.formats.robomimic_masks import write_masks
from robot.episodes.formats.robomimic_reader import ARMATURE, ROBOMIMIC
from robot.episodes.rows import ACTION, Rows, RowSource, Schema
from robot.errors import ConfigError, DatasetError
from robot.specs import specs_to_json

COMPRESSIONS = ("gzip", "lzf", "none")
DERIVED = ("rewards", "dones")
"""Datasets that robomimic wants in every file; made up where no column says them."""
VERSION = 1

_KNOWN = {ACTION: ACTIONS, "next.reward": "rewards", "next.done": "dones"}


@dataclass(frozen=True, kw_only=True)
class RobomimicSettings:
    """How a file is written.

    Attributes:
        compression: Of pictures: `gzip`, `lzf` (faster, larger) or `none`.
        level: Of gzip, 0 to 9.
    """

    compression: str = "gzip"
    level: int = 4

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise ConfigError(f"compression is {self.compression!r}, expected one of {', '.join(COMPRESSIONS)}.")
        if not 0 <= self.level <= 9:
            raise ConfigError(f"level is {self.level}, expected 0 to 9.")


@dataclass(frozen=True)
class Written:
    """What a file holds."""

    episodes: int
    frames: int


def write(source: RowSource, path: str | Path, settings: RobomimicSettings | None = None) -> Written:
    """Write a file; it appears when it is complete, and then takes the place of what was there.

    Args:
        source: Episodes; read one after the other.
        path: Of the file.
        settings: How pictures are stored; those that come from a robomimic file are stored as they were there.

    Raises:
        DatasetError: There are no episodes, one is damaged, or the disk is full or not writable.
    """
    path = Path(path)
    if not len(source):
        raise DatasetError(f"{path} is not written: there are no episodes.")
    _refuse_foreign(path)
    part = path.with_name(f".{path.name}.part")
    busy = DatasetError(f"Another process is writing {path}. Wait for it, or stop it.")
    try:
        with atomic.locked(path, busy), _removed(part):
            with Sink(part) as sink:
                with h5py.File(sink, "w") as file:
                    written = _File(file, sink, source, settings or RobomimicSettings()).write()
                sink.check()
            atomic.publish(part, path)
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise DatasetError(
            f"{path} cannot be written: {reason}. What was there before is unchanged; make room or choose another "
            "folder."
        ) from error
    return written


@contextlib.contextmanager
def _removed(part: Path) -> Iterator[None]:
    """Afterwards the unfinished file is gone, however it went."""
    try:
        yield
    finally:
        part.unlink(missing_ok=True)


def _refuse_foreign(path: Path) -> None:
    if path.is_dir() or (path.is_file() and path.stat().st_size and not h5py.is_hdf5(path)):
        raise DatasetError(f"{path} exists and is no HDF5 file; it is left as it is. Choose another name or remove it.")


class _File:
    """One file that is being written."""

    def __init__(self, file: h5py.File, sink: Sink, source: RowSource, settings: RobomimicSettings) -> None:
        self._file, self._sink, self._source, self._settings = file, sink, source, settings
        self._schema = source.schema
        self._notes: dict[str, Any] | None = source.schema.notes.get(ROBOMIMIC)
        own = _own_parts(self._schema)
        theirs = (self._notes or {}).get("parts", {})
        self._parts = {key: tuple(theirs[key]) if key in theirs else (own[key],) for key in own}
        pictures = (self._notes or {}).get("pictures", {})
        self._pictures = {
            key: pictures.get(key, f"obs/{key.removeprefix(IMAGES)}_image") for key in source.schema.pictures
        }

    def write(self) -> Written:
        """Everything; the attributes that count come last."""
        if self._notes is not None:
            restored(self._file, self._notes["root"], lambda path: None)
        data = self._file.create_group("data")
        names: list[str] = []
        subsets: list[tuple[str, ...]] = []
        frames = 0
        for number in tqdm(range(len(self._source)), unit="episode", desc="writing"):
            rows = self._source.read(number)
            names.append(_name(rows, names, number))
            subsets.append(rows.subsets)
            _Demo(self, rows).write(data.create_group(names[-1]))
            self._sink.check()
            frames += len(rows)
        write_masks(self._file, names, subsets, self._notes)
        self._write_attributes(data, frames)
        return Written(len(names), frames)

    @property
    def is_own(self) -> bool:
        """Whether the attribute of ours belongs into the file."""
        return self._notes is None or bool(self._notes.get("own"))

    @property
    def schema(self) -> Schema:
        """Of the source."""
        return self._schema

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Paths of the datasets of each column."""
        return self._parts

    @property
    def pictures(self) -> dict[str, str]:
        """Path of the dataset of each camera."""
        return self._pictures

    def checked(self, pictures: Pictures) -> Pictures:
        """Pictures that stop coming when the disk is full."""
        return _Checked(pictures, self._sink)

    def picture_storage(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """How pictures of a shape are stored: each on its own, so that reading one touches no other."""
        kind = self._settings.compression
        storage: dict[str, Any] = {"chunks": (1, *shape)}
        if kind != "none":
            storage["compression"] = kind
        if kind == "gzip":
            storage["compression_opts"] = self._settings.level
        return storage

    def _write_attributes(self, data: h5py.Group, frames: int) -> None:
        if self._notes is not None:
            restored(data, {"attributes": self._notes["data"], "groups": {}, "datasets": {}}, lambda path: None)
        else:
            for name, value in robosuite_description.attributes(self._schema).items():
                data.attrs[name] = value
        if self._notes is None or "total" in data.attrs:
            _put_count(data, "total", frames)
        if self.is_own:
            notes = {key: value for key, value in self._schema.notes.items() if key != ROBOMIMIC}
            told = {
                "version": VERSION,
                "specs": self._schema.specs.to_json(),
                "extras": specs_to_json(self._schema.extras),
                "parts": self._parts,
                "pictures": self._pictures,
                "derived": [path for path in DERIVED if (path,) not in self._parts.values()],
                "notes": notes,
            }
            data.attrs[ARMATURE] = json.dumps(told, sort_keys=True)


@dataclass(frozen=True)
class _Checked:
    pictures: Pictures
    sink: Sink

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[np.ndarray]:
        for picture in self.pictures:
            self.sink.check()
            yield picture


class _Demo:
    """One demonstration that is being written."""

    def __init__(self, file: _File, rows: Rows) -> None:
        self._file, self._rows = file, rows
        self._record: dict[str, Any] | None = rows.origin.get(ROBOMIMIC)
        self._columns_of: dict[str, list[str]] = {}
        for key, paths in file.parts.items():
            for path in paths:
                self._columns_of.setdefault(path, []).append(key)

    def write(self, group: h5py.Group) -> None:
        """Attributes and datasets."""
        if self._record is not None:
            restored(group, self._record, self.values)
        for path in self._paths():
            if path not in group:
                self._create(group, path)
        if self._record is None or "num_samples" in group.attrs:
            _put_count(group, "num_samples", len(self._rows))
        if self._file.is_own:
            self._write_own_attributes(group)
        elif self._record is not None and self._rows.task != self._record.get("task"):
            meta = json.loads(group.attrs.get("ep_meta", "{}"))
            group.attrs["ep_meta"] = json.dumps({**meta, "lang": self._words()})

    def _words(self) -> str:
        task = self._rows.task
        return task if isinstance(task, str) else "; ".join(dict.fromkeys(task))

    def values(self, path: str) -> np.ndarray | Pictures | None:
        """What belongs into a dataset: the exact column where it still says what the others do."""
        for key, picture_path in self._file.pictures.items():
            if path == picture_path:
                return self._file.checked(self._rows.pictures[key])
        keys = sorted(self._columns_of.get(path, []), key=lambda key: key.startswith(PREFIX))
        if not keys:
            return self._derived(path)
        main = self._part(keys[0], path)
        exact = self._part(keys[-1], path)
        with np.errstate(over="ignore", invalid="ignore"):
            is_same = np.array_equal(
                exact.astype(main.dtype), main.reshape(exact.shape), equal_nan=main.dtype.kind == "f"
            )
        return exact if is_same else main

    def _part(self, key: str, path: str) -> np.ndarray:
        """The share that one dataset has in a column."""
        column, paths = np.asarray(self._rows.columns[key]), self._file.parts[key]
        if len(paths) == 1:
            return column
        widths = [self._width(other) for other in paths]
        start = sum(widths[: paths.index(path)])
        return column[:, start : start + self._width(path)]

    def _width(self, path: str) -> int:
        layout = self._record["datasets"][path]["layout"] if self._record else {"shape": [0, 1]}
        return int(np.prod(layout["shape"][1:], dtype=int))

    def _derived(self, path: str) -> np.ndarray | None:
        columns, count = self._rows.columns, len(self._rows)
        if path == "rewards":
            return np.asarray(columns.get("next.success", np.zeros(count)), np.float64).reshape(count)
        if path == "dones":
            last = np.arange(count) == count - 1
            return np.asarray(columns.get("next.terminated", last), np.int64).reshape(count)
        return None

    def _paths(self) -> Iterator[str]:
        yield from self._columns_of
        yield from self._file.pictures.values()
        yield from DERIVED if self._record is None else ()

    def _create(self, group: h5py.Group, path: str) -> None:
        if path in self._file.pictures.values():
            key = next(key for key, other in self._file.pictures.items() if other == path)
            shape = self._file.schema.pictures[key].shape
            storage = self._file.picture_storage(shape)
            dataset = group.create_dataset(path, (len(self._rows), *shape), np.uint8, **storage)
            fill(dataset, self._file.checked(self._rows.pictures[key]))
            return
        values = self.values(path)
        if values is None:
            return
        array = np.asarray(values)
        if array.dtype.kind in "OU":
            group.create_dataset(path, data=array.astype(object), dtype=h5py.string_dtype())
        else:
            group.create_dataset(path, data=array.astype(np.float64) if path == ACTIONS else array)

    def _write_own_attributes(self, group: h5py.Group) -> None:
        rows, origin = self._rows, {key: value for key, value in self._rows.origin.items() if key != ROBOMIMIC}
        model = origin.pop("model_file", None)
        if self._record is None:
            group.attrs["ep_meta"] = json.dumps({"lang": self._words()})
            if model is not None:
                group.attrs["model_file"] = model
        task = rows.task if isinstance(rows.task, str) else list(rows.task)
        group.attrs[ARMATURE] = json.dumps({"task": task, "origin": origin}, sort_keys=True)


def _own_parts(schema: Schema) -> dict[str, str]:
    """Where a column goes that no robomimic file had."""
    parts = {}
    for key in schema.columns:
        if key in _KNOWN:
            parts[key] = _KNOWN[key]
        elif key.startswith(PREFIX):
            parts[key] = key.removeprefix(PREFIX).replace(".", "/")
        elif key.startswith("observation.") and key not in schema.extras:
            parts[key] = f"obs/{key.removeprefix('observation.').replace('/', '.')}"
        else:
            parts[key] = f"extras/{key.replace('/', '.')}"
    return parts


def _name(rows: Rows, taken: list[str], number: int) -> str:
    """That of the file it came from; the next free one where several files have been merged."""
    name = rows.origin.get(ROBOMIMIC, {}).get("demo") or f"demo_{number}"
    if name not in taken:
        return name
    return f"demo_{max(int(other[5:]) for other in taken) + 1}"


def _put_count(owner: h5py.HLObject, name: str, count: int) -> None:
    """Set a count, in the type that it has already."""
    if name not in owner.attrs:
        owner.attrs[name] = np.int64(count)
    elif int(owner.attrs[name]) != count:
        owner.attrs.modify(name, np.asarray(count, owner.attrs.get_id(name).dtype))
