"""Writes LeRobotDataset v3.0 folders of vectors, without LeRobot.

The layout was read from LeRobot 0.4.4 and 0.6 (`lerobot/datasets/utils.py`). What is ours is `meta/armature.json`,
which holds the specs that LeRobot has no place for; LeRobot ignores it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robot.contract import EnvironmentSpecs
from robot.episodes import atomic, statistics
from robot.episodes.dataset import OUTCOME_TYPES, Dataset, required_columns
from robot.episodes.statistics import Statistics
from robot.errors import DatasetError

VERSION = "v3.0"
ARMATURE = "meta/armature.json"
ARMATURE_FORMAT = {"format": "armature-dataset", "version": 1}
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
CHUNK_FILES = 1000
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
INDEX_TYPES = {
    "timestamp": np.float32,
    "frame_index": np.int64,
    "episode_index": np.int64,
    "index": np.int64,
    "task_index": np.int64,
}
"""Columns that LeRobot wants in every dataset."""


@dataclass(frozen=True)
class _Placed:
    """One episode and the data file that it goes to."""

    number: int
    chunk_index: int
    file_index: int
    start: int
    stop: int


def write(dataset: Dataset, path: str | Path, extra: dict[str, Any] | None = None) -> None:
    """Write a dataset; equal datasets give equal bytes (with the same pyarrow).

    Args:
        dataset: What to write.
        path: Folder to make. A dataset that is already there is replaced when the new one is complete.
        extra: What else `meta/armature.json` should say, e.g. which recorded channel the actions are.

    Raises:
        DatasetError: The folder holds something else than a dataset of ours, a column is not a vector, or the disk is
            full or not writable. What was there stays.
    """
    path = Path(path)
    _refuse_foreign(path)
    for spec in required_columns(dataset.specs).values():
        if len(spec.shape) != 1:
            raise DatasetError(f"Only vectors can be written, {spec.key!r} has shape {spec.shape}.")
    try:
        with atomic.replaced_folder(path) as part:
            _write_into(part, dataset, extra or {})
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be written: {error.strerror or error}. What was there before is unchanged; make room or "
            "choose another folder."
        ) from error


def _write_into(part: Path, dataset: Dataset, extra: dict[str, Any]) -> None:
    indices = _index_columns(dataset)
    columns = {**dataset.columns, **indices}
    placed = list(_placed(dataset, columns))
    _write_data(part, columns, placed)
    _write_episodes(part, dataset.specs.task, columns, placed)
    _write_tasks(part, dataset.specs.task)
    stats = {**dataset.stats, **statistics.of_columns(indices)}
    _write_json(part / "meta/stats.json", {key: _listed(stat) for key, stat in stats.items()})
    _write_json(part / ARMATURE, {**ARMATURE_FORMAT, "environment": dataset.specs.to_json(), **extra})
    _write_json(part / "meta/info.json", _info(dataset, columns))


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not (path / ARMATURE).exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DatasetError(
            f"{path} exists and is not a dataset that Armature wrote (it has no {ARMATURE}); it is left as it is. "
            "Choose another folder or remove it."
        )


def _index_columns(dataset: Dataset) -> dict[str, np.ndarray]:
    lengths, frames = dataset.episode_lengths, np.arange(len(dataset))
    frame_index = frames - np.repeat(dataset.episode_starts, lengths)
    columns = {
        "timestamp": frame_index / dataset.fps,
        "frame_index": frame_index,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": frames,
        "task_index": np.zeros(len(dataset)),
    }
    return {key: columns[key].astype(dtype) for key, dtype in INDEX_TYPES.items()}


def _placed(dataset: Dataset, columns: dict[str, np.ndarray]) -> Iterator[_Placed]:
    """Episodes in files of at most `DATA_FILE_MB` uncompressed; an episode is never split."""
    row_bytes = sum(column[:1].nbytes for column in columns.values())
    file_number, held = 0, 0
    for number, (start, length) in enumerate(zip(dataset.episode_starts, dataset.episode_lengths, strict=True)):
        if held and held + length * row_bytes > DATA_FILE_MB * 1e6:
            file_number, held = file_number + 1, 0
        held += int(length) * row_bytes
        chunk_index, file_index = divmod(file_number, CHUNK_FILES)
        yield _Placed(number, chunk_index, file_index, int(start), int(start + length))


def _write_data(part: Path, columns: dict[str, np.ndarray], placed: list[_Placed]) -> None:
    """One row group for each episode, as LeRobot does: reading one episode touches no other."""
    schema = pa.schema([(key, _arrow_type(column)) for key, column in columns.items()])
    for at in sorted({(place.chunk_index, place.file_index) for place in placed}):
        path = _made(part / DATA_PATH.format(chunk_index=at[0], file_index=at[1]))
        with pq.ParquetWriter(path, schema) as writer:
            for place in placed:
                if (place.chunk_index, place.file_index) == at:
                    rows = [_arrow_array(column[place.start : place.stop]) for column in columns.values()]
                    writer.write_table(pa.Table.from_arrays(rows, schema=schema))


def _arrow_type(column: np.ndarray) -> pa.DataType:
    """LeRobot stores vectors of one element as scalars."""
    scalar = pa.from_numpy_dtype(column.dtype)
    return scalar if column.ndim == 1 or column.shape[1] == 1 else pa.list_(scalar, column.shape[1])


def _arrow_array(rows: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    width = 1 if rows.ndim == 1 else rows.shape[1]
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def _write_episodes(part: Path, task: str, columns: dict[str, np.ndarray], placed: list[_Placed]) -> None:
    rows = [_episode_row(task, columns, place) for place in placed]
    table = pa.table({key: [row[key] for row in rows] for key in rows[0]})
    pq.write_table(table, _made(part / EPISODES_PATH.format(chunk_index=0, file_index=0)))


def _episode_row(task: str, columns: dict[str, np.ndarray], place: _Placed) -> dict[str, Any]:
    stats = statistics.of_columns({key: column[place.start : place.stop] for key, column in columns.items()})
    return {
        "episode_index": place.number,
        "tasks": [task],
        "length": place.stop - place.start,
        "data/chunk_index": place.chunk_index,
        "data/file_index": place.file_index,
        "dataset_from_index": place.start,
        "dataset_to_index": place.stop,
        **{f"stats/{key}/{name}": value for key, stat in stats.items() for name, value in _listed(stat).items()},
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _write_tasks(part: Path, task: str) -> None:
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
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [task]})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), _made(part / "meta/tasks.parquet"))


def _info(dataset: Dataset, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "codebase_version": VERSION,
        "robot_type": dataset.specs.robot,
        "total_episodes": len(dataset.episode_lengths),
        "total_frames": len(dataset),
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": dataset.fps,
        "splits": {"train": f"0:{len(dataset.episode_lengths)}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": {key: _feature(dataset.specs, key, column) for key, column in columns.items()},
    }


def _feature(specs: EnvironmentSpecs, key: str, column: np.ndarray) -> dict[str, Any]:
    if key in INDEX_TYPES or key in OUTCOME_TYPES:
        return {"dtype": column.dtype.name, "shape": [1], "names": None}
    spec = required_columns(specs)[key]
    return {"dtype": column.dtype.name, "shape": list(spec.shape), "names": list(spec.names) or None}


def _listed(stat: Statistics) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in stat.items()}


def _write_json(path: Path, data: dict[str, Any]) -> None:
    _made(path).write_text(json.dumps(data, indent=2) + "\n")


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
