"""What the columns of a LeRobotDataset mean: from our own specs where Armature wrote it, else from `info.json`."""

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import IMAGES
from robot.episodes.formats.lerobot_columns import dtype_of, is_list
from robot.episodes.formats.lerobot_files import ARMATURE, INDEX_COLUMNS, Files, again
from robot.episodes.rows import ACTION, Schema
from robot.errors import DatasetError, SpecError
from robot.specs import ArraySpec, Specs, specs_from_json

FORMAT = "armature-dataset"
VERSIONS = (1, 2)
_OUTCOMES = ("next.reward", "next.success", "next.terminated", "next.truncated")
_OTHER_NAMES = {"actions": ACTION, "state": "observation.state"}
_KNOWN_INFO = (
    "codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks", "chunks_size", "splits",
    "data_files_size_in_mb", "video_files_size_in_mb", "fps", "data_path", "video_path", "features",
)  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """A schema, and how its keys are called in the files.

    Attributes:
        schema: Of the rows.
        stored: Name in the files by key of the schema; they differ where a foreign name says less.
        left_out: Why a feature of the files is not in the schema, by name.
    """

    schema: Schema
    stored: dict[str, str]
    left_out: dict[str, str]


def meaning(files: Files, stored: pa.Schema) -> Meaning:
    """What the columns mean.

    Args:
        files: Of the dataset.
        stored: Arrow schema of its rows.

    Raises:
        DatasetError: The specs of ours are of another version or damaged, or a column is missing.
    """
    return _ours(files, stored) if files.is_ours else _foreign(files, stored)


def _ours(files: Files, stored: pa.Schema) -> Meaning:
    armature, path = files.armature, files.root / ARMATURE
    kind, version = armature.get("format"), armature.get("version")
    if kind != FORMAT:
        raise DatasetError(f"{path} has format {kind!r}, expected {FORMAT!r}.")
    if version not in VERSIONS:
        raise DatasetError(
            f"{files.root} has version {version!r} of the format, this Armature reads versions "
            f"{' and '.join(map(str, VERSIONS))}. Use the Armature that wrote it, or build it again with this one."
        )
    try:
        specs = EnvironmentSpecs.from_json(armature["environment"])
        extras = specs_from_json(armature["extras"]) if "extras" in armature else _outcomes(stored)
    except (KeyError, TypeError, SpecError) as error:
        raise DatasetError(f"{path} holds no environment specs: {error}. {again(files.root)}") from error
    if abs(files.fps * specs.dt_s - 1) > 1e-9:
        raise DatasetError(
            f"{files.root} has {files.info['fps']} frames per second, but its specs say one every {specs.dt_s} s. "
            f"{again(files.root)}"
        )
    schema = Schema(specs, extras, dict(armature.get("notes", {})))
    left_out = {
        name: f"{ARMATURE} has no spec of it"
        for name in files.features
        if name not in {*schema.columns, *schema.pictures, *INDEX_COLUMNS}
    }
    return Meaning(schema, {key: key for key in (*schema.columns, *schema.pictures)}, left_out)


def _outcomes(stored: pa.Schema) -> Specs:
    """Version 1 said nothing of the columns that follow an action."""
    return {key: ArraySpec(key, (), dtype_of(stored.field(key).type) or "") for key in _OUTCOMES if key in stored.names}


def _foreign(files: Files, stored: pa.Schema) -> Meaning:
    observation: Specs = {}
    extras: Specs = {}
    action, left_out, names = ArraySpec(ACTION, (0,)), {}, {}
    for name, feature in files.features.items():
        if name in INDEX_COLUMNS:
            continue
        found = _spec(files, name, feature, stored)
        if isinstance(found, str):
            left_out[name] = found
            continue
        names[found.key] = name
        if found.key == ACTION:
            action = found
        elif found.key.startswith("observation.") and found.dtype != "str":
            observation[found.key] = found
        else:
            extras[found.key] = found
    left_out |= {name: "info.json does not say what it is" for name in stored.names if name not in files.features}
    specs = EnvironmentSpecs(
        observation, action, "unknown", 1.0 / files.fps, str(files.info.get("robot_type") or "unknown"), _task(files)
    )
    unknown = {key: value for key, value in files.info.items() if key not in _KNOWN_INFO}
    return Meaning(Schema(specs, extras, {"lerobot": unknown} if unknown else {}), names, left_out)


def _task(files: Files) -> str:
    return next(iter(files.tasks.values())) if len(files.tasks) == 1 else ""


def _spec(files: Files, name: str, feature: dict[str, Any], stored: pa.Schema) -> ArraySpec | str:
    """The spec of a foreign feature, or why there can be none."""
    if feature["dtype"] in ("video", "image"):
        return _picture(files, name, feature)
    if name not in stored.names:
        raise DatasetError(
            f"{files.root} has no column {name!r}, which info.json names; it has {', '.join(sorted(stored.names))}. "
            f"{again(files.root)}"
        )
    kind = stored.field(name).type
    dtype = dtype_of(kind)
    if dtype is None:
        return f"its rows are {kind}, which is no array of numbers or texts"
    key = _OTHER_NAMES.get(name, name)
    key = name if key in files.features else key
    shape = tuple(feature["shape"])
    is_vector = key == ACTION or key.startswith("observation.")
    if shape == (1,) and not is_list(kind) and not is_vector:
        shape = ()
    return ArraySpec(key, shape, dtype, names=_names(feature, shape))


def _names(feature: dict[str, Any], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the elements: a list, or a list below a word such as `motors` or `axes`."""
    names = feature.get("names")
    if isinstance(names, dict):
        names = next(iter(names.values()), None) if len(names) == 1 else list(names)
    if not isinstance(names, list) or len(shape) != 1 or len(names) != math.prod(shape):
        return ()
    return tuple(map(str, names))


def _picture(files: Files, name: str, feature: dict[str, Any]) -> ArraySpec | str:
    shape, info = tuple(feature["shape"]), feature.get("info") or feature.get("video_info") or {}
    if info.get("is_depth_map") or info.get("video.is_depth_map"):
        return "it holds depth, not colours"
    if len(shape) != 3:
        return f"it holds pictures of shape {shape}, expected (H, W, 3)"
    if _channels_first(feature, shape):
        shape = (*shape[1:], shape[0])
    if shape[2] != 3:
        return f"it holds pictures of {shape[2]} channels, expected 3"
    return ArraySpec(_camera_key(files, name), shape, "uint8", 0, 255)


def _channels_first(feature: dict[str, Any], shape: tuple[int, ...]) -> bool:
    names = feature.get("names")
    if isinstance(names, list) and names and str(names[0]).startswith("channel"):
        return True
    return shape[0] in (1, 3) and shape[2] not in (1, 3)


def _camera_key(files: Files, name: str) -> str:
    """Foreign datasets call a camera `observation.image` or `image` too; ours are `observation.images.<camera>`."""
    if name.startswith(IMAGES):
        return name
    camera = name.removeprefix("observation.").replace(".", "_").replace("/", "_")
    key = IMAGES + camera
    while key in files.features:
        key += "_"
    return key
