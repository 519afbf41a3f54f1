"""Whether the rows of a dataset are all there, in order, on the clock, and of tasks that exist."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from robot.episodes.care.findings import Report, at, counted, shortened
from robot.episodes.formats.lerobot_columns import array
from robot.episodes.formats.lerobot_files import INDEX_COLUMNS, EpisodePlace, Files, read_table
from robot.episodes.formats.lerobot_schema import Meaning
from robot.errors import DatasetError

CLOCK_TOLERANCE_S = 1e-4
"""LeRobot's own (`tolerance_s`)."""
_AGAIN = "Build or fetch the dataset again, or leave the episode out with `armature dataset split`"


@dataclass(frozen=True)
class EpisodeRows:
    """Rows of one episode as far as they could be read.

    Attributes:
        place: Where it lies.
        columns: By the schema's key, and those of `INDEX_COLUMNS`; shape (T, ...).
    """

    place: EpisodePlace
    columns: dict[str, np.ndarray]


def episodes(files: Files, meaning: Meaning, report: Report) -> Iterator[EpisodeRows]:
    """Every episode whose rows can be read, file by file; what is wrong with the tables goes to the report."""
    by_file: dict[Path, list[EpisodePlace]] = {}
    for place in files.episodes:
        by_file.setdefault(place.data, []).append(place)
    for path, places in by_file.items():
        columns = _columns(path, meaning, report)
        if columns is None:
            continue
        count, wanted = len(columns.pop("", np.zeros(0))), sum(place.length for place in places)
        name = report.name(path)
        if count != wanted:
            text = f"{count} rows, but its {len(places)} episodes have {wanted} frames"
            report.error("rows", name, text, f"{_AGAIN}.")
        _check_index(name, columns, places, report)
        begin = 0
        for place in places:
            end = begin + place.length
            if end <= count:
                rows = {key: column[begin:end] for key, column in columns.items()}
                _check_episode(files, name, EpisodeRows(place, rows), report)
                yield EpisodeRows(place, rows)
            begin = end


def _columns(path: Path, meaning: Meaning, report: Report) -> dict[str, np.ndarray] | None:
    """Columns of a file that can be read; under the empty name as many numbers as there are rows."""
    specs = {key: spec.shape for key, spec in meaning.schema.columns.items() if key in meaning.stored}
    wanted = {**{meaning.stored[key]: (key, shape) for key, shape in specs.items()}}
    wanted |= {key: (key, ()) for key in INDEX_COLUMNS}
    try:
        table = read_table(path, list(wanted))
    except DatasetError as error:
        report.error("unreadable file", report.name(path), shortened(error, path), f"{_AGAIN}.")
        return None
    columns = {"": np.zeros(table.num_rows)}
    for name, (key, shape) in wanted.items():
        if name not in table.column_names:
            report.error("missing column", report.name(path), f"no column {name!r}", f"{_AGAIN}.")
            continue
        try:
            columns[key] = array(table[name], shape, f"column {name!r}")
        except (DatasetError, pa.ArrowException) as error:
            report.error("damaged column", report.name(path), str(error), f"{_AGAIN}.")
    return columns


def _check_index(name: str, columns: dict[str, np.ndarray], places: list[EpisodePlace], report: Report) -> None:
    """`index`, `frame_index` and `episode_index` count 0, 1, 2, ..."""
    lengths = [place.length for place in places]
    wanted = {
        "index": np.concatenate([place.first + np.arange(place.length) for place in places]),
        "frame_index": np.concatenate([np.arange(length) for length in lengths]),
        "episode_index": np.repeat([place.number for place in places], lengths),
    }
    for key, expected in wanted.items():
        if key not in columns:
            continue
        got = columns[key]
        count = min(len(got), len(expected))
        wrong = np.flatnonzero(got[:count] != expected[:count])
        if len(wrong):
            row = int(wrong[0])
            episode, frame = int(wanted["episode_index"][row]), int(wanted["frame_index"][row])
            text = f"{key} is {got[row]}, expected {expected[row]}; wrong in {counted(wrong, 'row')} of the file"
            report.error("index", at(name, episode, frame), text, f"{_AGAIN}.")


def check_order(files: Files, report: Report) -> None:
    """Episodes follow each other without gaps in `dataset_from_index`."""
    first = 0
    for place in files.episodes:
        if place.first != first:
            text = f"dataset_from_index is {place.first}, expected {first}"
            report.error("index", at("meta/episodes", place.number), text, f"{_AGAIN}.")
        if place.length < 1:
            report.error("empty episode", at("meta/episodes", place.number), "it has no frames", f"{_AGAIN}.")
        first = place.first + place.length


def _check_episode(files: Files, name: str, rows: EpisodeRows, report: Report) -> None:
    number = rows.place.number
    if "timestamp" in rows.columns:
        times = rows.columns["timestamp"].astype(np.float64)
        expected = np.arange(len(times)) / files.fps
        tolerance = CLOCK_TOLERANCE_S + 2 * np.finfo(np.float32).eps * expected
        wrong = np.flatnonzero(~(np.abs(times - expected) <= tolerance))
        if len(wrong):
            frame = int(wrong[0])
            text = f"timestamp is {times[frame]:.6f} s, expected {expected[frame]:.6f} s; off in {counted(wrong)}"
            report.error("clock", at(name, number, frame), text, f"{_AGAIN}.")
    if "task_index" in rows.columns:
        _check_tasks(files, name, rows, report)


def _check_tasks(files: Files, name: str, rows: EpisodeRows, report: Report) -> None:
    numbers, number = rows.columns["task_index"], rows.place.number
    wrong = np.flatnonzero(~np.isin(numbers, list(files.tasks)))
    if len(wrong):
        frame = int(wrong[0])
        text = f"task_index is {numbers[frame]}, tasks are {sorted(files.tasks)}; in {counted(wrong)}"
        report.error("task", at(name, number, frame), text, f"{_AGAIN}.")
        return
    texts = {files.tasks[found] for found in np.unique(numbers).tolist()}
    if texts != set(rows.place.tasks):
        text = f"its tasks are {sorted(rows.place.tasks)}, its rows say {sorted(texts)}"
        report.error("task", at("meta/episodes", number), text, f"{_AGAIN}.")
