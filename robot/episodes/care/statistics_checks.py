"""Whether the statistics that a dataset carries are those of its rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from robot.episodes import statistics
from robot.episodes.care.findings import Report, at, shortened
from robot.episodes.care.table_checks import EpisodeRows
from robot.episodes.formats.lerobot_files import (
    INDEX_COLUMNS,
    STATS,
    Files,
    episode_files,
    opened,
    read_json,
    read_table,
)
from robot.episodes.formats.lerobot_schema import Meaning
from robot.episodes.statistics import QUANTILES, Statistics
from robot.errors import DatasetError

_EXACT, _LEROBOT, _LEROBOT_QUANTILE = 1e-6, 1e-3, 0.05
Bounds = dict[str, tuple[np.ndarray, np.ndarray]]
"""Lowest and highest accepted value of each statistic."""
_TODO = "Build the dataset again, or let LeRobot make its statistics again; training would scale by wrong numbers."


def check(files: Files, meaning: Meaning, episodes: Sequence[EpisodeRows], report: Report) -> None:
    """`meta/stats.json` against all rows, and each episode's own against its rows."""
    keys = {key: meaning.stored.get(key, key) for key in (*meaning.schema.columns, *INDEX_COLUMNS)}
    keys = {key: name for key, name in keys.items() if all(_is_numbers(rows, key) for rows in episodes)}
    if len(episodes) == len(files.episodes):
        _check_whole(files, keys, episodes, report)
    _check_each(files, keys, episodes, report)


def _is_numbers(rows: EpisodeRows, key: str) -> bool:
    return key in rows.columns and rows.columns[key].dtype.kind in "fiub"


def _check_whole(files: Files, keys: dict[str, str], episodes: Sequence[EpisodeRows], report: Report) -> None:
    if not (files.root / STATS).exists():
        note = report.error if files.is_ours else report.warning
        note("statistics", STATS, "the file is missing", _TODO)
        return
    try:
        stored = read_json(files.root / STATS)
    except DatasetError as error:
        report.error("unreadable file", STATS, str(error).split(": ", 1)[-1], _TODO)
        return
    for key, name in keys.items():
        if not isinstance(stored.get(name), dict):
            note = report.error if files.is_ours else report.warning
            note("statistics", STATS, f"there are none of {name!r}", _TODO)
            continue
        columns = [rows.columns[key] for rows in episodes]
        computed = of_rows(columns, files.is_ours)
        bounds = exact(computed) if files.is_ours else estimated(computed, columns)
        for line in differences(stored[name], computed, bounds):
            report.error("statistics", STATS, f"{line.format(key=name)}", _TODO)


def of_rows(columns: Sequence[np.ndarray], is_ours: bool) -> Statistics:
    """Statistics of a column; LeRobot takes those of arrays over all but the last dimension."""
    joined = np.concatenate(columns)
    if not is_ours and joined.ndim > 2:
        computed = statistics.of_column(joined.reshape(-1, joined.shape[-1]))
        return {**computed, "count": np.array([len(joined)], np.int64)}
    return statistics.of_column(joined)


def exact(computed: Statistics) -> Bounds:
    """Room for rounding only."""
    scale = np.maximum(np.abs(computed["min"]), np.abs(computed["max"])) + 1e-9
    return {name: _around(value, 0.0 if name == "count" else _EXACT * scale) for name, value in computed.items()}


def estimated(computed: Statistics, columns: Sequence[np.ndarray]) -> Bounds:
    """Room for what LeRobot does: sums in float32, and quantiles that are estimated for each episode from a histogram
    and merged: somewhere between the order statistics beside those of its episodes, give or take a twentieth of the
    range.
    """
    scale = np.maximum(np.abs(computed["min"]), np.abs(computed["max"])) + 1e-9
    bounds = {name: _around(value, 0.0 if name == "count" else _LEROBOT * scale) for name, value in computed.items()}
    slack = _LEROBOT_QUANTILE * (computed["max"] - computed["min"]) + _LEROBOT * scale
    levels = list(QUANTILES.values())
    lower, upper = [], []
    for column in columns:
        flat = np.asarray(column, np.float64).reshape(-1, computed["min"].size)
        lower.append(np.quantile(flat, levels, axis=0, method="lower"))
        upper.append(np.quantile(flat, levels, axis=0, method="higher"))
    low, high = np.min(lower, axis=0), np.max(upper, axis=0)
    for number, name in enumerate(QUANTILES):
        shape = computed["min"].shape
        bounds[name] = (low[number].reshape(shape) - slack, high[number].reshape(shape) + slack)
    return bounds


def _around(value: np.ndarray, slack: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    return value - slack, value + slack


def differences(stored: dict[str, Any], computed: Statistics, bounds: Bounds) -> list[str]:
    """What is outside of its bounds or missing, a line each with `{key}` for the column's name."""
    lines = []
    for name, expected in computed.items():
        got = _numbers(stored.get(name))
        if got is None or got.size != expected.size:
            lines.append(f"{name} of {{key!r}} is {'missing' if got is None else f'of {got.size} numbers'}")
            continue
        low, high = bounds[name]
        values = got.reshape(expected.shape)
        wrong = np.flatnonzero(~((values >= low) & (values <= high)).reshape(-1))
        if len(wrong):
            first = int(wrong[0])
            element = f"[{first}]" if expected.size > 1 else ""
            lines.append(
                f"{name} of {{key!r}}{element} is {values.reshape(-1)[first]:.6g}, the rows have "
                f"{expected.reshape(-1)[first]:.6g}"
            )
    return lines


def _numbers(value: Any) -> np.ndarray | None:
    try:
        return None if value is None else np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


def _check_each(files: Files, keys: dict[str, str], episodes: Sequence[EpisodeRows], report: Report) -> None:
    """Minimum, maximum, mean and count of each episode, as `meta/episodes` has them."""
    by_number = {rows.place.number: rows for rows in episodes}
    for path in episode_files(files.root):
        names = set(opened(path).schema_arrow.names)
        wanted = {
            key: [name for name in ("min", "max", "mean", "count") if f"stats/{stored}/{name}" in names]
            for key, stored in keys.items()
        }
        columns = [f"stats/{keys[key]}/{name}" for key, found in wanted.items() for name in found]
        try:
            table = read_table(path, ["episode_index", *columns])
        except DatasetError as error:
            report.error("unreadable file", report.name(path), shortened(error, path), _TODO)
            continue
        for row in table.to_pylist():
            rows = by_number.get(row["episode_index"])
            if rows is not None:
                _check_one(files, keys, wanted, row, rows, report)


def _check_one(
    files: Files,
    keys: dict[str, str],
    wanted: dict[str, list[str]],
    row: dict[str, Any],
    rows: EpisodeRows,
    report: Report,
) -> None:
    for key, names in wanted.items():
        stored = {name: row[f"stats/{keys[key]}/{name}"] for name in names}
        computed = of_rows([rows.columns[key]], files.is_ours)
        bounds = exact(computed) if files.is_ours else estimated(computed, [rows.columns[key]])
        kept = {name: value for name, value in computed.items() if name in stored}
        for line in differences(stored, kept, bounds):
            report.error("statistics", at("meta/episodes", rows.place.number), line.format(key=keys[key]), _TODO)
