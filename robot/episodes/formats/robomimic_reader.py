"""Reads robomimic HDF5, processed or as robosuite's collector leaves it, one demonstration at a time."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.formats import robomimic_mapping
from robot.episodes.formats.given import Given
from robot.episodes.formats.hdf5_record import BLOCK, members, taken
from robot.episodes.formats.robomimic_mapping import ACTIONS, ENVIRONMENT_STATE, STATE, Mapping
from robot.episodes.formats.robosuite_description import describe
from robot.episodes.rows import ACTION, Rows, Schema
from robot.errors import ArmatureError, DatasetError
from robot.specs import specs_from_json

ROBOMIMIC = "robomimic"
"""Key of what the way back needs, in a schema's notes and an episode's origin."""
ARMATURE = "armature"
"""Attribute that our writer leaves: the schema on `data`, task and origin on a demonstration."""

_DEMO = re.compile(r"demo_(\d+)")
_ROWWISE = (ACTIONS, "states", "rewards", "dones", "obs/", "next_obs/", "action_dict/")


class RobomimicSource:
    """Demonstrations of one file, in the order of their numbers; see `robot.episodes.formats.robomimic_mapping`.

    Attributes:
        schema: `notes["robomimic"]` holds what belongs to the whole file and has no other place: attributes, masks.
        names: Name of each demonstration, `demo_0`.
        damaged: What is wrong with the demonstrations that cannot be read, by number.
        remarks: What was assumed or left aside, a sentence each.
    """

    def __init__(self, path: Path | str, given: Given | None = None) -> None:
        """Look the file through; no values are read.

        Raises:
            DatasetError: The file is missing, truncated, no HDF5, or not robomimic's.
            UnknownNameError: `given.state` names what does not exist.
        """
        self._path, self._given = Path(path), given or Given()
        self._opened: tuple[int, h5py.File] | None = None
        self.remarks: list[str] = []
        self.damaged: dict[int, str] = {}
        data = self._data()
        self.names = _demo_names(self._path, data)
        self._signatures = [_signature(data[name]) for name in self.names]
        self._find_damage()
        self._subsets = self._read_masks()
        self._derived: set[str] = set()
        self._is_own = False
        self._mapping, own_notes = self._make_mapping(data)
        self.schema = Schema(self._mapping.specs, self._mapping.extras, {**own_notes, ROBOMIMIC: self._notes()})

    def __len__(self) -> int:
        return len(self.names)

    def identity(self, number: int) -> str:
        """SHA-256 over the demonstration as it is stored, and over what it is read as."""
        demo = self._demo(number)
        digest = hashlib.sha256(json.dumps([self.schema.specs.to_json(), self._subsets[number]]).encode())
        digest.update(json.dumps(self._mapping.parts, sort_keys=True).encode())
        for path, member in members(demo):
            if isinstance(member, h5py.Dataset):
                digest.update(f"{path} {member.dtype} {member.shape}".encode())
                for block in _stored(member):
                    digest.update(block)
        for name in demo.attrs:
            digest.update(f"{name} {demo.attrs[name]}".encode())
        return digest.hexdigest()

    def read(self, number: int) -> Rows:
        """One demonstration.

        Raises:
            DatasetError: It is empty, its datasets differ in length, a value is not finite, or the file is damaged.
        """
        if number in self.damaged:
            raise DatasetError(self.damaged[number])
        demo = self._demo(number)
        paths = {path for parts in self._mapping.parts.values() for path in parts}
        arrays = {path: self._array(demo, path) for path in paths}
        columns = {
            key: robomimic_mapping.column(arrays, self._mapping.parts[key], spec)
            for key, spec in self._mapping.columns.items()
        }
        self._check_finite(number, columns)
        record = self._record(demo, paths)
        pictures = {key: Hdf5Pictures(self, number, path) for key, path in self._mapping.pictures.items()}
        task, origin = _task_and_origin(demo, self.schema.specs.task, {"file": self._path.name})
        origin = {**origin, ROBOMIMIC: {"demo": self.names[number], "task": task, **record}}
        return Rows(columns, pictures, task, origin, self._subsets[number])

    def subsets_of(self, number: int) -> tuple[str, ...]:
        """The masks that name a demonstration."""
        return self._subsets[number]

    def frames(self, number: int, path: str) -> Iterator[np.ndarray]:
        """The rows of one dataset, some at a time from the file."""
        dataset = self._demo(number)[path]
        for start in range(0, len(dataset), BLOCK):
            yield from self._array(self._demo(number), path, slice(start, start + BLOCK))

    def length(self, number: int) -> int:
        """Rows of a demonstration."""
        return int(self._signatures[number][ACTIONS][1][0])

    def close(self) -> None:
        """Close the file; it is opened again when something is read."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _file(self) -> h5py.File:
        """The open file; each process opens its own."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _open(self._path)
        return self._opened[1]

    def _data(self) -> h5py.Group:
        file = self._file()
        if not isinstance(file.get("data"), h5py.Group):
            raise DatasetError(
                f"{self._path} has no group 'data', so it is not robomimic's; it holds "
                f"{', '.join(sorted(file)) or 'nothing'}."
            )
        return file["data"]

    def _demo(self, number: int) -> h5py.Group:
        return self._data()[self.names[number]]

    def _array(self, demo: h5py.Group, path: str, rows: slice | tuple[()] = ()) -> np.ndarray:
        try:
            return demo[path][rows]
        except OSError as error:
            raise DatasetError(f"{self._path}: {demo.name}/{path} cannot be read: {_first_line(error)}.") from error

    def _record(self, demo: h5py.Group, paths: set[str]) -> dict[str, Any]:
        try:
            return taken(demo, paths | self._derived | set(self._mapping.pictures.values()), skip=(ARMATURE,))
        except OSError as error:
            raise DatasetError(f"{self._path}: {demo.name} cannot be read: {_first_line(error)}.") from error

    def _find_damage(self) -> None:
        for number, (name, signature) in enumerate(zip(self.names, self._signatures, strict=True)):
            count = self._data()[name].attrs.get("num_samples")
            if problem := _problem(signature, count):
                self.damaged[number] = f"{self._path}: {name} {problem}. Leave it out with episodes=..., or repair it."

    def _make_mapping(self, data: h5py.Group) -> tuple[Mapping, dict[str, Any]]:
        whole = [number for number in range(len(self.names)) if number not in self.damaged]
        if not whole:
            raise DatasetError(next(iter(self.damaged.values())))
        uniform = self._uniform(whole)
        demo = data[self.names[whole[0]]]
        description = describe(dict(data.attrs), self._given, str(self._path))
        if ARMATURE in data.attrs and (own := self._own_mapping(data, demo, uniform)) is not None:
            return own
        self.remarks += description.remarks
        mapping = robomimic_mapping.derive(demo, uniform, description, self._given)
        if not mapping.specs.observation:
            self.remarks.append(
                f"{self._path} holds no observations, only actions and MuJoCo's states, as robosuite's collector "
                "leaves them. observations=low_dim plays the states and observes them."
            )
        return mapping, {}

    def _own_mapping(self, data: h5py.Group, demo: h5py.Group, uniform: set[str]) -> tuple[Mapping, dict] | None:
        """The mapping that our writer noted; None where the file has lost what it names."""
        try:
            told = json.loads(data.attrs[ARMATURE])
            specs, extras = EnvironmentSpecs.from_json(told["specs"]), specs_from_json(told["extras"])
            parts = {key: tuple(paths) for key, paths in told["parts"].items()}
            pictures, notes, derived = dict(told["pictures"]), dict(told["notes"]), set(told["derived"])
        except (ValueError, KeyError, TypeError, ArmatureError) as error:
            raise DatasetError(f"{self._path}: the attribute 'armature' of 'data' is damaged: {error!r}.") from error
        named = {path for paths in parts.values() for path in paths} | set(pictures.values())
        if not named <= uniform:
            self.remarks.append(
                f"{self._path} was written by Armature and has since lost {', '.join(sorted(named - uniform))}; it is "
                "read like any other robomimic file."
            )
            return None
        self._derived, self._is_own = derived, True
        extras |= robomimic_mapping.undeclared(demo, uniform - derived, parts, pictures)
        return Mapping(specs, extras, parts, pictures), notes

    def _uniform(self, numbers: list[int]) -> set[str]:
        """Datasets with a row for each action that every demonstration has alike."""
        rows = [
            {
                path: (dtype.newbyteorder("=").str, shape[1:])
                for path, (dtype, shape) in self._signatures[number].items()
                if shape[:1] == (self.length(number),) and (dtype.kind in "biuf" or h5py.check_string_dtype(dtype))
            }
            for number in numbers
        ]
        alike = {path for path, kind in rows[0].items() if all(other.get(path) == kind for other in rows)}
        unlike = {path for other in rows for path in other if path.startswith(("obs/", ACTIONS))} - alike
        if ACTIONS in unlike:
            raise DatasetError(f"{self._path}: the actions of its demonstrations differ in width or type.")
        if unlike:
            self.remarks.append(
                f"{self._path}: {', '.join(sorted(unlike))} is not in all demonstrations alike, so that no column "
                "holds it; it is kept for the way back to HDF5."
            )
        return alike

    def _read_masks(self) -> list[tuple[str, ...]]:
        """For each demonstration the masks that name it."""
        group = self._file().get("mask")
        subsets: list[list[str]] = [[] for _ in self.names]
        numbers = {name: number for number, name in enumerate(self.names)}
        for mask in sorted(group) if isinstance(group, h5py.Group) else []:
            names = mask_names(group[mask])
            unknown = [name for name in names if name not in numbers]
            if unknown:
                self.remarks.append(
                    f"{self._path}: the mask {mask!r} names {', '.join(unknown[:5])}, which is not there."
                )
            for name in dict.fromkeys(names):
                if name in numbers:
                    subsets[numbers[name]].append(mask)
        return [tuple(names) for names in subsets]

    def _notes(self) -> dict[str, Any]:
        file = self._file()
        masks = file.get("mask")
        return {
            "parts": {key: list(paths) for key, paths in self._mapping.parts.items()},
            "pictures": self._mapping.pictures,
            "data": taken(file["data"], skip=(ARMATURE, *self.names))["attributes"],
            "root": taken(file, skip=("data", "mask")),
            "own": self._is_own,
            "demos": self.names,
            "masks": taken(masks) if isinstance(masks, h5py.Group) else None,
        }

    def _check_finite(self, number: int, columns: dict[str, np.ndarray]) -> None:
        for key, values in columns.items():
            if key not in (ACTION, STATE, ENVIRONMENT_STATE, "next.reward") or values.dtype.kind != "f":
                continue
            finite = np.isfinite(values)
            if not finite.all():
                row = np.argwhere(~finite)[0]
                paths = " or ".join(self._mapping.parts[key])
                raise DatasetError(
                    f"{self._path}: {self.names[number]}/{paths} is {values[tuple(row)]} in row {row[0]}, expected "
                    "finite numbers. Leave the demonstration out with episodes=..., or repair it."
                )


class Hdf5Pictures:
    """Pictures of a dataset in a file, read some at a time."""

    def __init__(self, source: RobomimicSource, number: int, path: str) -> None:
        self._source, self._number, self._path = source, number, path

    def __len__(self) -> int:
        return self._source.length(self._number)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._source.frames(self._number, self._path)


def mask_names(dataset: h5py.Dataset) -> list[str]:
    """The demonstrations that a mask names."""
    values = np.asarray(dataset[()]).ravel()
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise DatasetError(f"There is no file {path}.")
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be opened as HDF5: {_first_line(error)}. It is truncated, being written, or something else."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _demo_names(path: Path, data: h5py.Group) -> list[str]:
    wrong = [name for name in data if not (_DEMO.fullmatch(name) and isinstance(data[name], h5py.Group))]
    if wrong:
        raise DatasetError(
            f"{path}: {', '.join(wrong[:5])} in 'data' is not a demonstration; those are groups called demo_0, demo_1, "
            "..., because robomimic reads their numbers. Rename or remove it."
        )
    if not len(data):
        raise DatasetError(f"{path} holds no demonstrations: its group 'data' is empty.")
    return sorted(data, key=lambda name: int(name[5:]))


def _signature(demo: h5py.Group) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    return {path: (item.dtype, item.shape) for path, item in members(demo) if isinstance(item, h5py.Dataset)}


def _problem(signature: dict[str, tuple[np.dtype, tuple[int, ...]]], num_samples: Any) -> str:
    """What is wrong with a demonstration; empty where nothing is."""
    if ACTIONS not in signature:
        return f"has no dataset 'actions'; it has {', '.join(sorted(signature)) or 'none'}"
    dtype, shape = signature[ACTIONS]
    if len(shape) != 2 or dtype.kind not in "fiu":
        return f"has actions of type {dtype} and shape {shape}, expected numbers of shape (N, A)"
    if shape[0] == 0:
        return "has no steps"
    for path, (_, other) in signature.items():
        if path.startswith(_ROWWISE) and other[:1] != shape[:1]:
            return f"has {shape[0]} actions, but {path} of shape {other}"
    if num_samples is not None and int(num_samples) != shape[0]:
        return f"has {shape[0]} actions, but its attribute num_samples is {int(num_samples)}"
    return ""


def _stored(dataset: h5py.Dataset) -> Iterator[bytes]:
    """The bytes of a dataset as they are in the file, without decompressing them."""
    if dataset.chunks is None:
        yield np.asarray(dataset[()]).tobytes() if dataset.dtype.kind != "O" else repr(dataset[()]).encode()
        return
    for index in range(dataset.id.get_num_chunks()):
        yield dataset.id.read_direct_chunk(dataset.id.get_chunk_info(index).chunk_offset)[1]


def _task_and_origin(
    demo: h5py.Group, task: str, origin: dict[str, Any]
) -> tuple[str | tuple[str, ...], dict[str, Any]]:
    """What was to be done, and where the rows come from; our own files say both, others perhaps in `ep_meta`."""
    try:
        if ARMATURE in demo.attrs:
            told = json.loads(demo.attrs[ARMATURE])
            return tuple(told["task"]) if isinstance(told["task"], list) else told["task"], told["origin"]
        meta = json.loads(demo.attrs.get("ep_meta", "{}"))
        words = meta.get("lang") if isinstance(meta, dict) else None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{demo.file.filename}: an attribute of {demo.name} is no JSON: {error!r}.") from error
    return words or task, origin
