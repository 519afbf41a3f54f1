"""Where LeRobotDataset v3.0 keeps what, and how arrays become columns of its tables.

The layout was read from LeRobot 0.4.4 and 0.6 (`lerobot/datasets/utils.py`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robot.episodes.episode import is_picture
from robot.episodes.formats import video
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import Schema
from robot.errors import DatasetError
from robot.specs import ArraySpec

VERSION = "v3.0"
INFO = "meta/info.json"
STATS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{_FILE}.parquet"
EPISODES_PATH = f"meta/episodes/{_FILE}.parquet"
VIDEO_PATH = "videos/{video_key}/" + _FILE + ".mp4"
CHUNK_FILES = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200

ARMATURE = "meta/armature.json"
ARMATURE_FORMAT = {"format": "armature-dataset", "version": 2}
ORIGINS = "meta/armature/episodes.parquet"
FINGERPRINTS_PATH = f"meta/armature/fingerprints/{_FILE}.parquet"
FILES = "meta/armature/files.json"

INDEX_TYPES = {
    "timestamp": np.float32,
    "frame_index": np.int64,
    "episode_index": np.int64,
    "index": np.int64,
    "task_index": np.int64,
}
"""Columns that LeRobot wants in every dataset."""


def is_text(spec: ArraySpec) -> bool:
    """Whether a column holds strings: dtype `str`, `string` or `object`."""
    return spec.dtype in ("str", "string", "object") or spec.dtype.lstrip("<>=|").startswith("U")


def element_type(spec: ArraySpec) -> pa.DataType:
    """Arrow's type of one element."""
    return pa.string() if is_text(spec) else pa.from_numpy_dtype(np.dtype(spec.dtype))


def column_type(spec: ArraySpec) -> pa.DataType:
    """Arrow's type of one row: one element is a scalar, a vector a list of fixed size, more dimensions nested lists."""
    kind = element_type(spec)
    if math.prod(spec.shape) == 1 and len(spec.shape) <= 1:
        return kind
    if len(spec.shape) == 1:
        return pa.list_(kind, spec.shape[0])
    for _ in spec.shape:
        kind = pa.list_(kind)
    return kind


def column_array(spec: ArraySpec, rows: np.ndarray) -> pa.Array:
    """Rows of shape (T, *spec.shape) as Arrow keeps them, bit for bit."""
    if is_text(spec):
        flat = pa.array([str(text) for text in rows.reshape(-1)], pa.string())
    else:
        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    if math.prod(spec.shape) == 1 and len(spec.shape) <= 1:
        return flat
    if len(spec.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, spec.shape[0])
    array = flat
    for width in reversed(spec.shape):
        count = len(array) // width if width else len(rows)
        array = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * width), array)
    return array


def column_rows(spec: ArraySpec, column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """What `column_array` was given: shape (T, *spec.shape), of the spec's dtype; strings as objects.

    Raises:
        DatasetError: The rows are not of the spec's shape.
    """
    count = len(column)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    flat = [_flattened(chunk) for chunk in chunks] or [np.zeros(0, np.dtype(object) if is_text(spec) else spec.dtype)]
    values = np.concatenate(flat)
    if values.size != count * math.prod(spec.shape):
        raise DatasetError(f"Column {spec.key!r} has {values.size} numbers in {count} rows of shape {spec.shape}.")
    return values.reshape(count, *spec.shape)


def _flattened(chunk: pa.Array) -> np.ndarray:
    while pa.types.is_nested(chunk.type):
        chunk = chunk.flatten()
    return chunk.to_numpy(zero_copy_only=False)


def data_schema(schema: Schema, encoding: Encoding) -> pa.Schema:
    """Columns of the data files: vectors and extras, the index columns, and pictures where they are no video."""
    fields = [(key, column_type(spec)) for key, spec in schema.columns.items()]
    fields += [(key, pa.from_numpy_dtype(dtype)) for key, dtype in INDEX_TYPES.items()]
    if not encoding.is_video:
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        fields += [(key, image) for key in schema.pictures]
    return pa.schema(fields)


def features(schema: Schema, encoding: Encoding, fps: int) -> dict[str, Any]:
    """What `info.json` says about every column and video."""
    found: dict[str, Any] = {}
    for key, spec in {**schema.specs.observation, "action": schema.specs.action, **schema.extras}.items():
        if is_picture(spec):
            found[key] = _picture_feature(spec, encoding, fps)
        else:
            dtype = "string" if is_text(spec) else np.dtype(spec.dtype).name
            shape = list(spec.shape) or [1]
            found[key] = {"dtype": dtype, "shape": shape, "names": list(spec.names) or None}
    for key, kind in INDEX_TYPES.items():
        found[key] = {"dtype": np.dtype(kind).name, "shape": [1], "names": None}
    return found


def _picture_feature(spec: ArraySpec, encoding: Encoding, fps: int) -> dict[str, Any]:
    feature = {"shape": list(spec.shape), "names": ["height", "width", "channels"]}
    if not encoding.is_video:
        return {"dtype": "image", **feature}
    return {"dtype": "video", **feature, "info": dict(video.info(encoding, spec.shape, fps))}


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """The table that pandas reads as a frame with the task as its index; LeRobot looks tasks up by that index."""
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
        ],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_kind, "metadata": None}
            for name, kind, numpy_kind in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
        ],
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def made(path: Path) -> Path:
    """`path`, whose folder exists now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Readable JSON."""
    made(path).write_text(json.dumps(data, indent=2) + "\n")


def check_schema(schema: Schema, encoding: Encoding) -> None:
    """Refuse what the format has no place for.

    Raises:
        DatasetError: A key holds a slash or is one of LeRobot's own, a rank is above five, or a picture is no RGB.
    """
    for key, spec in {**schema.columns, **schema.pictures}.items():
        if "/" in key or key in INDEX_TYPES or key in ("task", ""):
            raise DatasetError(f"A LeRobotDataset cannot have a column named {key!r}. Rename it.")
        if len(spec.shape) > 5 or 0 in spec.shape:
            raise DatasetError(f"Column {key!r} has shape {spec.shape}; LeRobot knows at most five, none of them 0.")
    for key, spec in schema.pictures.items():
        if len(spec.shape) != 3 or spec.shape[2] != 3 or spec.dtype != "uint8":
            raise DatasetError(f"Pictures are uint8 of shape (H, W, 3), {key!r} is {spec.dtype} of shape {spec.shape}.")
        if encoding.is_video:
            encoding.pixel_format(*spec.shape[:2])
