"""Reads RLDS, episodes as TensorFlow Datasets stores them, without TensorFlow.

An episode is one record: `steps/observation/...`, `steps/action`, `steps/reward`, ... and `episode_metadata/...`. The
action of a step answers the observation of the same step. The last step may be there only for its observation, with an
action that means nothing; data from the Open X-Embodiment collection mostly act in it. It is kept.

- `observation.state`: `steps/observation/state` (or `proprio`), else all vectors of numbers there side by side, without
  embeddings. `observation.images.<name>`: pictures in colours.
- `action`: `steps/action`, or its parts side by side in the order of the alphabet.
- `next.reward`: `steps/reward`; `next.done`: `steps/is_last`; `next.terminated`: `steps/is_terminal`.
- Every other number of a step becomes a column `rlds.<path with dots>`; texts of a step that is not the task, and what
  is said of the episode, go into the origin. Splits become subsets.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import IMAGES
from robot.episodes.formats import tf_example
from robot.episodes.formats.given import UNKNOWN, Given
from robot.episodes.formats.rlds_shards import RldsFolder
from robot.episodes.formats.robosuite_description import action_spec
from robot.episodes.formats.tf_example import Values
from robot.episodes.formats.tfds_features import IMAGE, TENSOR, TEXT, Leaf, read_features
from robot.episodes.rows import ACTION, Rows, Schema
from robot.errors import DatasetError, unknown_name
from robot.specs import ArraySpec, Specs

PREFIX = "rlds."
STEPS, OBSERVATION = "steps/", "steps/observation/"
STATE = "observation.state"

KNOWN_HZ = {"bridge": 5.0}
"""Rates of datasets by a word of their names; RLDS does not say them."""

_STATES = ("state", "proprio")
_LANGUAGE = (
    *("steps/language_instruction", "steps/observation/natural_language_instruction"),
    *("steps/observation/language_instruction", "steps/natural_language_instruction"),
)
_OUTCOMES = {
    "steps/reward": ("next.reward", "float32"),
    "steps/is_last": ("next.done", "bool"),
    "steps/is_terminal": ("next.terminated", "bool"),
}


class RldsSource:
    """Episodes of one version of one dataset: all splits that are there, one after the other.

    Attributes:
        schema: What the features are as columns.
        remarks: What was assumed or left aside, a sentence each.
    """

    def __init__(self, folder: Path | str, given: Given | None = None) -> None:
        """Read the description and find the records.

        Args:
            folder: Holds `features.json`, or a version (`1.0.0`) that does.
            given: `fps` is needed where `KNOWN_HZ` does not know the dataset.

        Raises:
            DatasetError: Files are missing or damaged, or nobody says the rate.
        """
        given = given or Given()
        self._folder = RldsFolder(Path(folder))
        self.remarks = list(self._folder.remarks)
        self._leaves = read_features(self._folder.root / "features.json")
        self._parts: dict[str, tuple[Leaf, ...]] = {}
        self._pictures: dict[str, Leaf] = {}
        self._language = given.task or next((path for path in _LANGUAGE if path in self._leaves), "")
        self._is_given = bool(given.task)
        self._sort(given)
        self.schema = self._make_schema(given)

    def __len__(self) -> int:
        return len(self._folder)

    def identity(self, number: int) -> str:
        """SHA-256 over the record, and over what it is read as."""
        digest = hashlib.sha256(self._folder.read(number))
        digest.update(json.dumps([self.schema.specs.to_json(), self._language]).encode())
        return digest.hexdigest()

    def read(self, number: int) -> Rows:
        """One episode.

        Raises:
            DatasetError: The record is damaged, has no steps, or does not hold what `features.json` says.
        """
        place = self._folder.place(number)
        where = f"{place.file.path}: record {place.record}"
        example = tf_example.parse(self._folder.read(number), where)
        count = self._count(example, where)
        columns = {}
        for key, spec in self.schema.columns.items():
            parts = [self._decoded(example, leaf, count, where) for leaf in self._parts[key]]
            joined = (
                parts[0] if len(parts) == 1 else np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
            )
            columns[key] = np.ascontiguousarray(joined.reshape(count, *spec.shape), dtype=spec.dtype)
        pictures = {
            key: EncodedPictures(_bytes(example, leaf.path, count, where), leaf, where)
            for key, leaf in self._pictures.items()
        }
        origin = {
            "file": place.file.path.name,
            "record": place.record,
            "split": place.split,
            "metadata": self._metadata(example),
            "texts": self._texts(example),
        }
        return Rows(columns, pictures, self._task(example), origin, (place.split,))

    def subsets_of(self, number: int) -> tuple[str, ...]:
        """The split of an episode."""
        return (self._folder.place(number).split,)

    def _sort(self, given: Given) -> None:
        """Which features make which column."""
        known = [leaf for leaf in self._leaves.values() if leaf.path.startswith(STEPS) and leaf.rank == 1]
        left = [leaf.path for leaf in self._leaves.values() if leaf.path.startswith(STEPS) and leaf.rank != 1]
        numbers = {leaf.path: leaf for leaf in known if leaf.kind == TENSOR and leaf.is_fixed}
        images = [leaf for leaf in known if leaf.kind == IMAGE]
        left += [leaf.path for leaf in known if leaf.kind not in (TENSOR, IMAGE, TEXT)]
        left += [leaf.path for leaf in known if leaf.kind == TENSOR and not leaf.is_fixed]
        self._parts[ACTION] = _actions(numbers, self._folder.root)
        if state := _state(numbers, given):
            self._parts[STATE] = state
        for path, (key, _) in _OUTCOMES.items():
            if path in numbers and numbers[path].shape == ():
                self._parts[key] = (numbers[path],)
        self._pictures = {_picture_key(leaf.path): leaf for leaf in sorted(images, key=_path) if leaf.is_picture}
        taken = {leaf.path for parts in self._parts.values() for leaf in parts}
        rest = [leaf for leaf in (*numbers.values(), *images) if leaf.path not in taken and not leaf.is_picture]
        for leaf in sorted(rest, key=_path):
            self._parts[PREFIX + leaf.path.removeprefix(STEPS).replace("/", ".")] = (leaf,)
        if left:
            self.remarks.append(f"Left out, because rows cannot hold it: {', '.join(sorted(left))}.")

    def _make_schema(self, given: Given) -> Schema:
        shapes = self._image_shapes()
        observation: Specs = {}
        if STATE in self._parts:
            observation[STATE] = _vector(STATE, self._parts[STATE])
        observation |= {key: ArraySpec(key, shapes[key], "uint8", 0.0, 255.0) for key in self._pictures}
        width = _vector(ACTION, self._parts[ACTION]).shape[0]
        names = _vector(ACTION, self._parts[ACTION]).names
        space = given.action_space or UNKNOWN
        action = ArraySpec(ACTION, (width,), names=names) if space == UNKNOWN else action_spec(space, width)
        hz = self._rate(given)
        if space == UNKNOWN:
            self.remarks.append("RLDS does not say what an action means (action_space=... does).")
        self.remarks.append("The last step of an RLDS episode may hold no action that means anything; it is kept.")
        # Every episode says its own task.
        specs = EnvironmentSpecs(observation, action, space, 1.0 / hz, given.robot or UNKNOWN, given.task)
        extras = {
            key: ArraySpec(key, shapes.get(key, _fixed(parts[0])), _outcome_dtype(key) or parts[0].dtype)
            for key, parts in self._parts.items()
            if key not in (ACTION, STATE)
        }
        return Schema(specs, extras, {"rlds": self._folder.about()})

    def _rate(self, given: Given) -> float:
        name = self._folder.name
        known = next((hz for word, hz in KNOWN_HZ.items() if word in name.lower()), 0.0)
        if not given.fps and not known:
            raise DatasetError(
                f"{self._folder.root}: RLDS does not say how many steps a second has, and {name!r} is not known here. "
                "Say it with fps=..."
            )
        if not given.fps:
            self.remarks.append(
                f"RLDS does not say its rate: {known:g} Hz is assumed for {name!r} (fps=... changes it)."
            )
        return given.fps or known

    def _image_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all images; those that the description leaves open are those of the first episode."""
        leaves = {key: leaf for key, leaf in self._pictures.items()}
        leaves |= {key: parts[0] for key, parts in self._parts.items() if parts[0].kind == IMAGE}
        shapes, example = {}, None
        for key, leaf in leaves.items():
            if leaf.is_fixed:
                shapes[key] = _fixed(leaf)
                continue
            example = example or tf_example.parse(self._folder.read(0), str(self._folder.root))
            values = example.get(leaf.path)
            if not isinstance(values, list):
                raise DatasetError(f"{self._folder.root}: the first episode has no {leaf.path!r}.")
            shapes[key] = _decoded_picture(leaf, values[0], str(self._folder.root)).shape
        return shapes

    def _count(self, example: dict[str, Values], where: str) -> int:
        """Steps of an episode, on which all its features agree."""
        counts = {}
        for leaf in {leaf for parts in self._parts.values() for leaf in parts} | set(self._pictures.values()):
            counts[leaf.path] = leaf.count(example[leaf.path]) if leaf.path in example else 0
        if not any(counts.values()):
            raise DatasetError(f"{where} has no steps.")
        if len(set(counts.values())) > 1 or -1 in counts.values():
            listed = ", ".join(f"{path} {count}" for path, count in sorted(counts.items()))
            raise DatasetError(f"{where} holds features of different numbers of steps: {listed}.")
        return next(iter(counts.values()))

    def _decoded(self, example: dict[str, Values], leaf: Leaf, count: int, where: str) -> np.ndarray:
        try:
            values = leaf.decode(example[leaf.path], count)
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{where}: {leaf.path!r} does not fit features.json: {error}.") from error
        finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(1, bool)
        if not finite.all() and leaf.path.startswith(("steps/action", OBSERVATION)):
            row = np.argwhere(~finite)[0]
            raise DatasetError(
                f"{where}: {leaf.path!r} is {values[tuple(row)]} in step {row[0]}, expected finite numbers."
            )
        return values

    def _task(self, example: dict[str, Values]) -> str | tuple[str, ...]:
        if self._is_given or not self._language:
            return self._language
        values = example.get(self._language, [])
        texts = tuple(_text(value) for value in values if isinstance(value, bytes))
        return texts[0] if len(set(texts)) == 1 else texts or ""

    def _texts(self, example: dict[str, Values]) -> dict[str, list[str]]:
        """Texts of the steps that are not the task."""
        paths = [leaf.path for leaf in self._leaves.values() if leaf.kind == TEXT and leaf.path.startswith(STEPS)]
        found = {
            path: [_text(value) for value in example[path] if isinstance(value, bytes)]
            for path in paths
            if path in example and path != self._language
        }
        return {path: texts[:1] if len(set(texts)) == 1 else texts for path, texts in found.items() if any(texts)}

    def _metadata(self, example: dict[str, Values]) -> dict[str, Any]:
        """What is said of the whole episode, by path."""
        found: dict[str, Any] = {}
        for path, leaf in self._leaves.items():
            if path.startswith(STEPS) or path not in example or leaf.kind not in (TENSOR, TEXT):
                continue
            values = example[path]
            plain = [_text(value) if isinstance(value, bytes) else value for value in values]
            plain = [bool(value) if leaf.dtype == "bool" else _plain(value) for value in plain]
            found[path.removeprefix("episode_metadata/")] = plain[0] if len(plain) == 1 and leaf.shape == () else plain
        return found


class EncodedPictures:
    """Pictures of one feature, decoded as they are asked for."""

    def __init__(self, encoded: list[bytes], leaf: Leaf, where: str) -> None:
        self._encoded, self._leaf, self._where = encoded, leaf, where

    def __len__(self) -> int:
        return len(self._encoded)

    def __iter__(self) -> Iterator[np.ndarray]:
        for data in self._encoded:
            yield _decoded_picture(self._leaf, data, self._where)


def _decoded_picture(leaf: Leaf, data: bytes, where: str) -> np.ndarray:
    try:
        return leaf.picture(data)
    except ValueError as error:
        raise DatasetError(f"{where}: {leaf.path!r} holds {error}.") from error


def _actions(numbers: dict[str, Leaf], root: Path) -> tuple[Leaf, ...]:
    if "steps/action" in numbers:
        return (numbers["steps/action"],)
    parts = [leaf for path, leaf in sorted(numbers.items()) if path.startswith("steps/action/")]
    parts = [leaf for leaf in parts if leaf.dtype.startswith("float") and len(leaf.shape) <= 1]
    if not parts:
        raise DatasetError(
            f"{root}/features.json names no steps/action; it has {', '.join(sorted(numbers)) or 'none'}."
        )
    return tuple(parts)


def _state(numbers: dict[str, Leaf], given: Given) -> tuple[Leaf, ...]:
    vectors = {
        path.removeprefix(OBSERVATION): leaf
        for path, leaf in sorted(numbers.items())
        if path.startswith(OBSERVATION) and len(leaf.shape) <= 1
    }
    for name in given.state:
        if name not in vectors:
            raise unknown_name("vector of observations", name, vectors)
    names = list(given.state) or [name for name in _STATES if name in vectors][:1]
    names = names or [
        name for name, leaf in vectors.items() if leaf.dtype.startswith("float") and "embedding" not in name
    ]
    return tuple(vectors[name] for name in names)


def _vector(key: str, parts: tuple[Leaf, ...]) -> ArraySpec:
    widths = [int(np.prod(_fixed(leaf), dtype=int)) for leaf in parts]
    names: list[str] = []
    for leaf, width in zip(parts, widths, strict=True) if len(parts) > 1 else ():
        stem = leaf.path.rpartition("/")[2]
        names += [stem] if width == 1 else [f"{stem}.{i}" for i in range(width)]
    return ArraySpec(key, (sum(widths),), names=tuple(names))


def _fixed(leaf: Leaf) -> tuple[int, ...]:
    return tuple(size or 0 for size in leaf.shape)


def _path(leaf: Leaf) -> str:
    return leaf.path


def _picture_key(path: str) -> str:
    name = path.removeprefix(OBSERVATION) if path.startswith(OBSERVATION) else path.removeprefix(STEPS)
    return IMAGES + name.replace("/", "_").replace(".", "_")


def _outcome_dtype(key: str) -> str:
    return dict(_OUTCOMES.values()).get(key, "")


def _bytes(example: dict[str, Values], path: str, count: int, where: str) -> list[bytes]:
    values = example[path]
    if not isinstance(values, list):
        raise DatasetError(f"{where}: {path!r} holds numbers, expected {count} encoded pictures.")
    return values


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
