"""Whether the values of a dataset are numbers, in their ranges, and those of a robot that moves."""

from collections.abc import Sequence

import numpy as np

from robot.episodes.care.findings import Report, at, counted
from robot.episodes.care.table_checks import EpisodeRows
from robot.episodes.rows import ACTION, Schema
from robot.specs import ArraySpec

_JUMP, _JUMP_RANGE, _FEW = 10.0, 0.5, 20
_LOOK = "Look at it with `armature dataset stats`; leave the episode out with `armature dataset split` if it is wrong."
_LEAVE_OUT = "Leave the episode out with `armature dataset split`, or build it again from what was recorded."


def check(episodes: Sequence[EpisodeRows], schema: Schema, fps: float, report: Report) -> None:
    """All checks of values; only NaN and infinity in what a policy sees or does are errors."""
    required = {*schema.specs.observation, ACTION}
    for rows in episodes:
        for key, spec in schema.columns.items():
            if key in rows.columns and rows.columns[key].dtype.kind == "f":
                _check_finite(rows, spec, key in required, report)
            if key in rows.columns and rows.columns[key].dtype.kind in "fiu":
                _check_range(rows, spec, report)
    _check_jumps(episodes, schema.specs.action, report)
    for key in required - {ACTION}:
        _check_frozen(episodes, key, fps, report)


def _flat(rows: EpisodeRows, key: str) -> np.ndarray:
    """Shape (T, elements)."""
    column = rows.columns[key]
    return column.reshape(len(column), -1)


def _element(spec: ArraySpec, number: int) -> str:
    if spec.names:
        return f"{spec.key} {spec.names[number]!r}"
    return spec.key if np.prod(spec.shape) == 1 else f"{spec.key}[{number}]"


def _check_finite(rows: EpisodeRows, spec: ArraySpec, is_required: bool, report: Report) -> None:
    flat = _flat(rows, spec.key)
    wrong = ~np.isfinite(flat)
    frames = np.flatnonzero(wrong.any(axis=1))
    if not len(frames):
        return
    element = int(np.flatnonzero(wrong[frames[0]])[0])
    text = f"{_element(spec, element)} is {flat[frames[0], element]}; not finite in {counted(frames)}"
    note = report.error if is_required else report.warning
    note("not finite", at(report.name(rows.place.data), rows.place.number, int(frames[0])), text, _LEAVE_OUT)


def _check_range(rows: EpisodeRows, spec: ArraySpec, report: Report) -> None:
    flat = _flat(rows, spec.key).astype(np.float64)
    low, high = (bound.reshape(-1) for bound in spec.bounds())
    with np.errstate(invalid="ignore"):
        slack = 1e-6 * np.maximum(np.abs(np.where(np.isfinite(high), high, 0)), 1)
        outside = np.isfinite(flat) & ~((flat >= low - slack) & (flat <= high + slack))
    frames = np.flatnonzero(outside.any(axis=1))
    if not len(frames):
        return
    element = int(np.flatnonzero(outside[frames[0]])[0])
    text = (
        f"{_element(spec, element)} is {flat[frames[0], element]:.6g}, its spec says [{low[element]:.6g}, "
        f"{high[element]:.6g}]; outside in {counted(frames)}"
    )
    report.warning("range", at(report.name(rows.place.data), rows.place.number, int(frames[0])), text, _LOOK)


def _check_jumps(episodes: Sequence[EpisodeRows], spec: ArraySpec, report: Report) -> None:
    """Steps of an action far beyond what is usual for its element: more than half of the range that the element uses,
    and ten times what nine of ten of its steps stay below. Elements of few distinct values (grippers) may jump, and so
    may those that do in more than one episode of ten: that is how it was demonstrated.
    """
    acting = [rows for rows in episodes if ACTION in rows.columns and len(rows.columns[ACTION])]
    if not acting:
        return
    values = [_flat(rows, ACTION).astype(np.float64) for rows in acting]
    for element in range(values[0].shape[1]):
        columns = [value[:, element] for value in values]
        limit, usual = _jump_limit(columns)
        jumps = [np.flatnonzero(np.abs(np.diff(column)) > limit) + 1 for column in columns]
        if sum(len(frames) > 0 for frames in jumps) > max(1, len(acting) // 10):
            continue
        for rows, column, frames in zip(acting, columns, jumps, strict=True):
            if len(frames):
                step = abs(column[frames[0]] - column[frames[0] - 1])
                text = (
                    f"{_element(spec, element)} jumps by {step:.4g} in {counted(frames)}; nine of ten steps are below "
                )
                where = at(report.name(rows.place.data), rows.place.number, int(frames[0]))
                report.warning("jump", where, f"{text}{usual:.4g}", _LOOK)


def _jump_limit(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    """What a step must exceed to be a jump, and what nine of ten stay below; infinite where nothing can be said."""
    moved = np.concatenate([np.abs(np.diff(column)) for column in columns])
    moved = moved[np.isfinite(moved) & (moved > 0)]
    joined = np.concatenate(columns)
    joined = joined[np.isfinite(joined)]
    if len(moved) < _FEW or len(np.unique(joined)) < _FEW:
        return np.inf, np.inf
    usual = float(np.quantile(moved, 0.9))
    return max(_JUMP * usual, _JUMP_RANGE * float(np.ptp(joined))), usual


def _check_frozen(episodes: Sequence[EpisodeRows], key: str, fps: float, report: Report) -> None:
    """A vector that stays the same to the last bit for a second while actions change, as a dead sensor's does.

    One that is constant in every episode (a goal) is meant to be.
    """
    found = [rows for rows in episodes if key in rows.columns and rows.columns[key].dtype.kind in "fiu"]
    if all(_longest_run(_flat(rows, key))[1] == len(_flat(rows, key)) for rows in found):
        return
    for rows in found:
        start, length = _longest_run(_flat(rows, key))
        if length < max(10, round(fps)) or ACTION not in rows.columns:
            continue
        actions = _flat(rows, ACTION)[start : start + length - 1]
        if len(np.unique(actions, axis=0)) > length // 2:
            text = f"{key} does not change for {length} frames ({length / fps:.1f} s) while actions do"
            where = at(report.name(rows.place.data), rows.place.number, start)
            report.warning("frozen channel", where, text, _LOOK)


def _longest_run(flat: np.ndarray) -> tuple[int, int]:
    """First row and length of the longest run of equal rows."""
    if len(flat) == 0:
        return 0, 0
    changes = np.flatnonzero((flat[1:] != flat[:-1]).any(axis=1)) + 1
    borders = np.concatenate([[0], changes, [len(flat)]])
    lengths = np.diff(borders)
    longest = int(np.argmax(lengths))
    return int(borders[longest]), int(lengths[longest])
