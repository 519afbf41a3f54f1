"""Reads LeRobotDataset v3 folders of vectors into memory, without LeRobot, and refuses what is not whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robot.contract import EnvironmentSpecs
from robot.episodes import statistics
from robot.episodes.dataset import OUTCOME_TYPES, Dataset, required_columns
from robot.episodes.formats.lerobot_writer import ARMATURE, ARMATURE_FORMAT
from robot.episodes.statistics import Statistics
from robot.errors import DatasetError, SpecError
from robot.specs import ArraySpec

_AGAIN = "Build it again with `armature build`."


def read(root: Path) -> Dataset:
    """Read the folder `root`; see `Dataset.open`."""
    if not root.is_dir():
        raise DatasetError(f"There is no dataset folder {root}. Make it with `armature build out={root}`.")
    specs = _specs(root)
    info = _info(root, specs)
    table = _table(root, "data")
    lengths = _episode_lengths(root, info)
    _check_index(root, table, lengths, info)
    columns = {key: _vectors(root, table, spec) for key, spec in required_columns(specs).items()}
    columns |= {key: _scalars(root, table, key) for key in OUTCOME_TYPES if key in table.column_names}
    return Dataset(specs, columns, lengths, _stats(root, columns))


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). {_AGAIN}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is damaged: {error}. {_AGAIN}") from error
    if not isinstance(data, dict):
        raise DatasetError(f"{path} is damaged: expected an object, got {type(data).__name__}. {_AGAIN}")
    return data


def _specs(root: Path) -> EnvironmentSpecs:
    if not (root / ARMATURE).exists():
        raise DatasetError(
            f"{root} has no {ARMATURE}, so nothing says what its columns mean (units, frames, action space). "
            "Build it from episodes with `armature build`."
        )
    armature = _json(root / ARMATURE)
    kind, version = armature.get("format"), armature.get("version")
    if kind != ARMATURE_FORMAT["format"]:
        raise DatasetError(f"{root / ARMATURE} has format {kind!r}, expected {ARMATURE_FORMAT['format']!r}.")
    if version != ARMATURE_FORMAT["version"]:
        raise DatasetError(
            f"{root} has version {version!r} of the format, this Armature reads version {ARMATURE_FORMAT['version']}. "
            "Use the Armature that wrote it, or build it again with this one."
        )
    try:
        return EnvironmentSpecs.from_json(armature["environment"])
    except (KeyError, SpecError) as error:
        raise DatasetError(f"{root / ARMATURE} holds no environment specs: {error}. {_AGAIN}") from error


def _info(root: Path, specs: EnvironmentSpecs) -> dict[str, Any]:
    info = _json(root / "meta/info.json")
    version = info.get("codebase_version")
    if not str(version).startswith("v3."):
        raise DatasetError(f"{root} is a LeRobot dataset of version {version!r}, this Armature reads v3.")
    if info.get("fps") != round(1 / specs.dt_s):
        raise DatasetError(
            f"{root} has {info.get('fps')} frames per second, but its specs say one every {specs.dt_s} s. {_AGAIN}"
        )
    return info


def _table(root: Path, folder: str) -> pa.Table:
    """All Parquet files below a folder, in the order of their numbers."""
    paths = sorted((root / folder).glob("chunk-*/file-*.parquet"))
    if not paths:
        raise DatasetError(f"{root / folder} holds no Parquet files. {_AGAIN}")
    tables = []
    for path in paths:
        try:
            tables.append(pq.ParquetFile(path).read())
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{path} is truncated or damaged: {str(error).splitlines()[0]} {_AGAIN}") from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DatasetError(f"The files in {root / folder} have different columns: {error}") from error


def _episode_lengths(root: Path, info: dict[str, Any]) -> np.ndarray:
    table = _table(root, "meta/episodes")
    numbers, lengths = _scalars(root, table, "episode_index"), _scalars(root, table, "length")
    if not np.array_equal(numbers, np.arange(len(numbers))):
        raise DatasetError(f"Episodes of {root} are not numbered 0, 1, 2 ...: {numbers[:8].tolist()} ... {_AGAIN}")
    for name, got in (("total_episodes", len(numbers)), ("total_frames", int(lengths.sum()))):
        if info.get(name) != got:
            raise DatasetError(f"{root}: info.json says {name} {info.get(name)}, the episodes say {got}. {_AGAIN}")
    return lengths.astype(np.int64)


def _check_index(root: Path, table: pa.Table, lengths: np.ndarray, info: dict[str, Any]) -> None:
    """Every row is where it says that it is."""
    if table.num_rows != info["total_frames"]:
        raise DatasetError(f"{root} has {table.num_rows} rows of data for {info['total_frames']} frames. {_AGAIN}")
    rows = np.arange(table.num_rows)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    wanted = {
        "index": rows,
        "frame_index": rows - starts,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
    }
    for key, expected in wanted.items():
        got = _scalars(root, table, key)
        if not np.array_equal(got, expected):
            at = int(np.flatnonzero(got != expected)[0])
            raise DatasetError(f"{root}: {key} of row {at} is {got[at]}, expected {expected[at]}. {_AGAIN}")


def _column(root: Path, table: pa.Table, key: str) -> pa.ChunkedArray:
    if key not in table.column_names:
        raise DatasetError(f"{root} has no column {key!r}; it has {', '.join(sorted(table.column_names))}. {_AGAIN}")
    column = table.column(key)
    if column.null_count:
        raise DatasetError(f"{root}: column {key!r} has {column.null_count} empty rows. {_AGAIN}")
    return column


def _scalars(root: Path, table: pa.Table, key: str) -> np.ndarray:
    column = _column(root, table, key)
    if pa.types.is_nested(column.type):
        raise DatasetError(f"{root}: column {key!r} is {column.type}, expected one number for each row. {_AGAIN}")
    values = column.to_numpy()
    return values.astype(OUTCOME_TYPES.get(key, values.dtype))


def _vectors(root: Path, table: pa.Table, spec: ArraySpec) -> np.ndarray:
    """Rows of a spec's shape, float32; vectors of one element are stored as scalars."""
    column, shape = _column(root, table, spec.key), (table.num_rows, *spec.shape)
    if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        widths = set(pc.list_value_length(column).to_pylist())
        values = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    else:
        widths, values = {1}, column.to_numpy()
    if len(spec.shape) != 1 or widths != set(spec.shape) or values.dtype != np.float32:
        raise DatasetError(
            f"{root}: column {spec.key!r} has rows of {column.type}, expected float32 of shape {spec.shape}. {_AGAIN}"
        )
    return np.ascontiguousarray(values).reshape(shape)


def _stats(root: Path, columns: dict[str, np.ndarray]) -> dict[str, Statistics]:
    path = root / "meta/stats.json"
    data, stats = _json(path), {}
    for key, column in columns.items():
        found = data.get(key, {})
        missing = [name for name in statistics.NAMES if name not in found]
        if missing:
            raise DatasetError(f"{path} has no {', '.join(missing)} for {key!r}. {_AGAIN}")
        stats[key] = {name: np.asarray(found[name], np.float64) for name in statistics.NAMES}
        stats[key]["count"] = stats[key]["count"].astype(np.int64)
        if stats[key]["count"].tolist() != [len(column)]:
            count = stats[key]["count"].tolist()
            raise DatasetError(f"{path} was made of {count} frames of {key!r}, there are {len(column)}. {_AGAIN}")
        _check_shapes(path, key, stats[key], column)
    return stats


def _check_shapes(path: Path, key: str, stat: Statistics, column: np.ndarray) -> None:
    shape = column.shape[1:] or (1,)
    for name, value in stat.items():
        if name != "count" and (value.shape != shape or not np.isfinite(value).all()):
            raise DatasetError(f"{path}: {name} of {key!r} is {value.tolist()}, expected finite of shape {shape}.")
