"""A LeRobotDataset v3 as a `Dataset` in memory: vectors only, file by file; its pictures stay where they are."""

from pathlib import Path

import numpy as np

from robot.episodes import statistics
from robot.episodes.dataset import OUTCOME_TYPES, Dataset, required_columns
from robot.episodes.formats.lerobot_columns import array
from robot.episodes.formats.lerobot_files import STATS, again, read_json, read_table
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.statistics import Statistics
from robot.errors import DatasetError

_INDEX = ("index", "frame_index", "episode_index", "task_index")


def read(root: Path) -> Dataset:
    """Read the folder `root`; see `Dataset.open`."""
    source = LeRobotSource(root)
    lengths = np.array([place.length for place in source.files.episodes], np.int64)
    columns = _columns(source, int(lengths.sum()))
    index = {key: columns.pop(key) for key in _INDEX}
    _check_index(root, index, lengths)
    tasks, task_index = _tasks(source, index["task_index"])
    specs = source.schema.specs
    return Dataset(specs, columns, lengths, _stats(source, columns), tasks, task_index, source)


def _columns(source: LeRobotSource, frames: int) -> dict[str, np.ndarray]:
    """Columns that training needs, and those of `_INDEX`."""
    root = source.files.root
    wanted: dict[str, tuple[tuple[int, ...], np.dtype]]
    wanted = {key: (spec.shape, np.dtype(np.float32)) for key, spec in required_columns(source.schema.specs).items()}
    wanted |= {key: ((), np.dtype(OUTCOME_TYPES[key])) for key in OUTCOME_TYPES if key in source.schema.extras}
    wanted |= {key: ((), np.dtype(np.int64)) for key in _INDEX}
    columns = {key: np.zeros((frames, *shape), dtype) for key, (shape, dtype) in wanted.items()}
    stored = {key: source.stored.get(key, key) for key in wanted if key in source.stored or key in _INDEX}
    begin = 0
    for path in source.files.data_files:
        table = read_table(path, list(stored.values()))
        end = begin + table.num_rows
        if end > frames:
            raise DatasetError(f"{root} has more rows of data than {frames} frames, from {path} on. {again(root)}")
        for key, name in stored.items():
            if name not in table.column_names:
                raise DatasetError(
                    f"{path} has no column {name!r}; it has {', '.join(sorted(table.column_names))}. {again(root)}"
                )
            columns[key][begin:end] = array(table[name], wanted[key][0], f"{path}: column {name!r}")
        begin = end
    if begin != frames:
        raise DatasetError(f"{root} has {begin} rows of data for {frames} frames. {again(root)}")
    return columns


def _check_index(root: Path, index: dict[str, np.ndarray], lengths: np.ndarray) -> None:
    """Every row is where it says that it is."""
    rows = np.arange(len(index["index"]))
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    wanted = {
        "index": rows,
        "frame_index": rows - starts,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
    }
    for key, expected in wanted.items():
        wrong = np.flatnonzero(index[key] != expected)
        if len(wrong):
            at = int(wrong[0])
            raise DatasetError(f"{root}: {key} of row {at} is {index[key][at]}, expected {expected[at]}. {again(root)}")


def _tasks(source: LeRobotSource, numbers: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Texts in the order of their numbers, and the place of each row's in them."""
    known = np.array(sorted(source.files.tasks), np.int64)
    unknown = np.flatnonzero(~np.isin(numbers, known))
    if len(unknown):
        at = int(unknown[0])
        raise DatasetError(
            f"{source.files.root}: task_index of row {at} is {numbers[at]}, tasks are {known.tolist()}. "
            f"{again(source.files.root)}"
        )
    return tuple(source.files.tasks[number] for number in known.tolist()), np.searchsorted(known, numbers)


def _stats(source: LeRobotSource, columns: dict[str, np.ndarray]) -> dict[str, Statistics]:
    """Ours are exact and are read; LeRobot estimates quantiles, so those of its vectors are computed again.

    Statistics of pictures are those of the file, where it has plausible ones: LeRobot 0.4 squares them as uint8, which
    overflows, and its deviation is then less than its own quantiles allow.
    """
    root = source.files.root
    if not source.files.is_ours and not (root / STATS).exists():
        return statistics.of_columns(columns)
    data = read_json(root / STATS)
    pictures = {
        key: seen
        for key in source.schema.pictures
        if (seen := as_statistics(data.get(source.stored[key]), (3, 1, 1))) and is_plausible(seen)
    }
    if not source.files.is_ours:
        return statistics.of_columns(columns) | pictures
    stats: dict[str, Statistics] = {}
    for key, column in columns.items():
        found = data.get(key) or {}
        missing = [name for name in statistics.NAMES if name not in found]
        if missing:
            raise DatasetError(f"{root / STATS} has no {', '.join(missing)} for {key!r}. {again(root)}")
        if np.asarray(found["count"]).tolist() != [len(column)]:
            raise DatasetError(
                f"{root / STATS} was made of {found['count']} frames of {key!r}, there are {len(column)}. {again(root)}"
            )
        shape = column.shape[1:] or (1,)
        stats[key] = as_statistics(found, shape)
        if not stats[key]:
            raise DatasetError(f"{root / STATS} has numbers of another shape than {shape} for {key!r}. {again(root)}")
    return stats | pictures


def as_statistics(data: object, shape: tuple[int, ...]) -> Statistics:
    """Statistics from JSON or Arrow, each of `shape`; empty where one is missing or of another size."""
    if not isinstance(data, dict) or any(name not in data or data[name] is None for name in statistics.NAMES):
        return {}
    try:
        stats = {
            name: np.asarray(data[name], np.float64).reshape(shape) for name in statistics.NAMES if name != "count"
        }
        return {**stats, "count": np.asarray(data["count"], np.int64).reshape(1)}
    except (TypeError, ValueError):
        return {}


def is_plausible(stats: Statistics) -> bool:
    """Whether a deviation is at least what quantiles imply: a tenth of the values is below q10, another above q90."""
    above, below = np.maximum(stats["q90"] - stats["mean"], 0), np.maximum(stats["mean"] - stats["q10"], 0)
    return bool(np.all(stats["std"] ** 2 * 1.05 + 1e-6 >= 0.1 * (above**2 + below**2)))
