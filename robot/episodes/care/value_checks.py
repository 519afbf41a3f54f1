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
    and ten times what nine of ten of its steps stay below. Elements of few distinct values (grippers) may jump.
    """
    steps = [np.abs(np.diff(_flat(rows, ACTION).astype(np.float64), axis=0)) for rows in episodes if _has(rows)]
    if not steps:
        return
    values = np.concatenate([_flat(rows, ACTION) for rows in episodes if _has(rows)]).astype(np.float64)
    joined = np.concatenate(steps)
    for element in range(values.shape[1]):
        column, moved = values[:, element], joined[:, element]
        moved = moved[np.isfinite(moved) & (moved > 0)]
        column = column[np.isfinite(column)]
        if len(moved) < _FEW or len(np.unique(column)) < _FEW:
            continue
        limit = max(_JUMP * np.quantile(moved, 0.9), _JUMP_RANGE * (column.max() - column.min()))
        for rows, step in zip((rows for rows in episodes if _has(rows)), steps, strict=True):
            frames = np.flatnonzero(step[:, element] > limit) + 1
            if len(frames):
                text = (
                    f"{_element(spec, element)} jumps by {step[frames[0] - 1, element]:.4g} in {counted(frames)}; nine "
                    f"of ten steps are below {np.quantile(moved, 0.9):.4g}"
                )
                where = at(report.name(rows.place.data), rows.place.number, int(frames[0]))
                report.warning("jump", where, text, _LOOK)


def _has(rows: EpisodeRows) -> bool:
    return ACTION in rows.columns and len(rows.columns[ACTION]) > 0


def _check_frozen(episodes: Sequence[EpisodeRows], key: str, fps: float, report: Report) -> None:
    """A vector that stays the same to the last bit for a second while actions change, as a dead sensor's does.

    One that is constant in every episode (a goal) is meant to be.
    """
    found = [rows for rows in episodes if key in rows.columns and rows.columns[key].dtype.kind in "fiu"]
    if all(_longest_run(_flat(rows, key))[1] == len(_flat(rows, key)) for rows in found):
        return
    for rows in found:
        start, length = _longest_run(_flat(rows, key))
        if length < max(10, round(fps)) or not _has(rows):
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
