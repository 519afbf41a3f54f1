"""Whether the pictures of an episode are those that belong to its rows: decodes every frame.

Our own datasets keep a small print of every picture as it was before encoding (`formats.fingerprint`); a frame that
looks like the print of another row is shifted, and by how much is told. Foreign ones keep the mean colour of each
episode only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from robot.episodes.care.findings import Report, at, counted, shortened
from robot.episodes.care.table_checks import EpisodeRows
from robot.episodes.formats.fingerprint import SIZE, TOLERANCE, distance, fingerprint
from robot.episodes.formats.image_statistics import Histogram, sampled_frames
from robot.episodes.formats.lerobot_columns import array
from robot.episodes.formats.lerobot_files import EpisodePlace, episode_files, opened, read_table
from robot.episodes.formats.lerobot_notes import FINGERPRINTS
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.errors import DatasetError

_FAR = 4 * TOLERANCE
_MEAN_TOLERANCE, _MOVED, _REACH = 0.03, 0.05, 32
_SAME = 16
_CLOSER = 0.85
_TODO = "Build the dataset again from what was recorded, or leave the episode out with `armature dataset split`."
_LOOK = "Look at it with `armature dataset stats`; leave the episode out with `armature dataset split` if it is wrong."


@dataclass(frozen=True)
class Decoded:
    """What is kept of the decoded pictures of one camera in one episode.

    Attributes:
        prints: Fingerprints, uint8, shape (T, 64).
        repeats: Whether a frame looks like the one before it and like the first of its run, shape (T,).
        histogram: Of sampled frames.
    """

    prints: np.ndarray
    repeats: np.ndarray
    histogram: Histogram


def check(
    source: LeRobotSource, rows: Mapping[int, EpisodeRows], report: Report, advance: Callable[[], None]
) -> dict[str, Histogram]:
    """Every picture of every episode; returns what was sampled of each camera."""
    keys = list(source.schema.pictures)
    total = {key: Histogram() for key in keys}
    spread = _spread(rows)
    known = _episode_means(source)
    for place in source.files.episodes:
        for key in keys:
            decoded = _decoded(source, place, key, report)
            advance()
            if decoded is None:
                continue
            total[key].merge(decoded.histogram)
            where = report.name(place.videos[key].path if key in place.videos else place.data) + f" {key}"
            prints = _known_prints(source, place, key, report)
            if prints is not None:
                _compare(prints, decoded.prints, where, place.number, report)
            elif (place.number, key) in known:
                _compare_mean(known[place.number, key], decoded, where, place.number, report)
            if place.number in rows:
                _check_frozen(decoded, rows[place.number], spread, source.files.fps, where, report)
    return total


class _Runs:
    """Tells pictures that are one and the same but for what encoding does to them: areas of 4 by 4 pixels differ by a
    few steps, from one to the next and from the first of the run, from which a slow motion would lead away.
    """

    def __init__(self) -> None:
        self._first: np.ndarray | None = None
        self._last: np.ndarray | None = None

    def is_repeated(self, picture: np.ndarray) -> bool:
        size = (max(1, picture.shape[1] // 4), max(1, picture.shape[0] // 4))
        small = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)
        is_same = (
            self._first is not None
            and self._last is not None
            and int(cv2.absdiff(small, self._last).max()) <= _SAME
            and int(cv2.absdiff(small, self._first).max()) <= _SAME
        )
        self._first, self._last = (self._first if is_same else small), small
        return is_same


def _decoded(source: LeRobotSource, place: EpisodePlace, key: str, report: Report) -> Decoded | None:
    sampled, histogram = sampled_frames(place.length), Histogram()
    prints, repeats, runs = [], [], _Runs()
    try:
        for number, picture in enumerate(source.read(place.number).pictures[key]):
            prints.append(fingerprint(picture))
            repeats.append(runs.is_repeated(picture))
            if number in sampled:
                histogram.add(picture)
    except DatasetError as error:
        path = place.videos[key].path if key in place.videos else place.data
        where = at(report.name(path), place.number, len(prints))
        report.error("unreadable picture", where, shortened(error, path), _TODO)
        return None
    return Decoded(np.array(prints), np.array(repeats), histogram)


def _known_prints(source: LeRobotSource, place: EpisodePlace, key: str, report: Report) -> np.ndarray | None:
    """Prints of the episode as it was built, shape (T, 64)."""
    path = source.files.root / FINGERPRINTS / place.data.parent.name / place.data.name
    if not path.exists():
        return None
    try:
        episodes, prints = _prints_of_file(path, path.stat().st_mtime_ns, key)
    except (DatasetError, KeyError) as error:
        report.error("unreadable file", at(report.name(path), place.number), str(error), _TODO)
        return None
    found = prints[episodes == place.number]
    if len(found) != place.length:
        text = f"{len(found)} fingerprints of {key} for {place.length} rows"
        report.error("fingerprints", at(report.name(path), place.number), text, _TODO)
        return None
    return found


@lru_cache(maxsize=4)
def _prints_of_file(path: Path, _changed_ns: int, key: str) -> tuple[np.ndarray, np.ndarray]:
    table = read_table(path, ["episode_index", key])
    return array(table["episode_index"], (), str(path)), array(table[key], (SIZE,), str(path))


def _compare(known: np.ndarray, got: np.ndarray, where: str, episode: int, report: Report) -> None:
    """A frame is shifted if it looks like the print of another row and not like that of its own."""
    shift = shifts(known, got)
    for step in sorted(set(shift[shift != 0].tolist()), key=abs):
        frames = np.flatnonzero(shift == step)
        direction = "later" if step > 0 else "earlier"
        rows = "row" if abs(step) == 1 else "rows"
        text = f"the picture belongs {abs(step)} {rows} {direction}; so for {counted(frames)}"
        report.error("shifted frame", at(where, episode, int(frames[0])), text, _TODO)
    foreign = np.flatnonzero((distance(known, got) > _FAR) & (shift == 0))
    if len(foreign):
        worst = int(distance(known, got)[foreign].max())
        text = (
            f"the picture is not what was recorded: areas differ by up to {worst} of 255, encoding explains "
            f"{TOLERANCE}; so for {counted(foreign)}"
        )
        report.error("other picture", at(where, episode, int(foreign[0])), text, _TODO)


def shifts(known: np.ndarray, got: np.ndarray) -> np.ndarray:
    """By how many rows each frame is shifted: got[k] looks like known[k + shift].

    Frames by themselves tell where scenes change quickly. Where they change slowly all frames from one on are asked
    together: an encoder that dropped a frame shifts all that follow.

    Args:
        known: Fingerprints of the rows, uint8, shape (T, 64).
        got: Of the decoded frames, shape (T, 64).

    Returns:
        int64, shape (T,), zero where a frame is where it should be or looks like none.
    """
    count = len(known)
    found = np.zeros(count, np.int64)
    own = distance(known, got)
    for frame in np.flatnonzero(own > TOLERANCE):
        others = distance(known, got[frame])
        # One area that encoding spoils, as in small pictures, is no shift: that shows in the mean of all areas as well.
        means = np.abs(known.astype(np.int16) - got[frame].astype(np.int16)).mean(axis=-1)
        is_alike = (others <= TOLERANCE) & (others < own[frame] - 2) & (means < _CLOSER * means[frame])
        alike = np.flatnonzero(is_alike)
        if len(alike):
            found[frame] = alike[np.argmin(np.abs(alike - frame))] - frame
    return found if found.any() else _slow_shift(known, got)


def _slow_shift(known: np.ndarray, got: np.ndarray) -> np.ndarray:
    """One shift for all frames from some frame on, where it explains them much better than none does."""
    count = len(known)
    found = np.zeros(count, np.int64)
    if count < 8:
        return found
    first, second = known.astype(np.float32), got.astype(np.float32)
    here = np.abs(first - second).mean(axis=1)
    best_gain, best = 0.0, (0, 0)
    for shift in range(-min(_REACH, count // 4), min(_REACH, count // 4) + 1):
        if shift == 0:
            continue
        rows = np.arange(max(0, -shift), min(count, count - shift))
        there = np.abs(first[rows + shift] - second[rows]).mean(axis=1)
        gains = np.cumsum((here[rows] - there)[::-1])[::-1]  # of shifting all rows from one on
        start = int(np.argmax(gains))
        length = len(rows) - start
        is_better = there[start:].mean() < 0.5 * here[rows][start:].mean() and length >= 4
        if is_better and gains[start] > best_gain:
            best_gain, best = float(gains[start]), (shift, int(rows[start]))
    if best_gain > 0:
        found[best[1] : count - max(best[0], 0)] = best[0]
    return found


def _episode_means(source: LeRobotSource) -> dict[tuple[int, str], np.ndarray]:
    """Mean colour of each episode in [0, 1], shape (3,), as `meta/episodes` has it."""
    found = {}
    for path in episode_files(source.files.root):
        names = {key: f"stats/{source.stored[key]}/mean" for key in source.schema.pictures}
        names = {key: name for key, name in names.items() if name in opened(path).schema_arrow.names}
        try:
            table = read_table(path, ["episode_index", *names.values()])
        except DatasetError:
            continue  # told with the statistics of the rows
        for row in table.to_pylist():
            for key, name in names.items():
                mean = np.asarray(row[name], np.float64).reshape(-1)
                if mean.shape == (3,):
                    found[row["episode_index"], key] = mean
    return found


def _compare_mean(known: np.ndarray, decoded: Decoded, where: str, episode: int, report: Report) -> None:
    got = decoded.histogram.statistics()["mean"].reshape(-1)
    if not np.all(np.abs(got - known) <= _MEAN_TOLERANCE):
        text = f"mean colour is {np.round(got, 3).tolist()}, its statistics say {np.round(known, 3).tolist()}"
        report.error("other picture", at(where, episode), text, _TODO)


def _spread(rows: Mapping[int, EpisodeRows]) -> dict[str, np.ndarray]:
    """Range of each element of the observation over all episodes."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for episode in rows.values():
        for key, column in episode.columns.items():
            if key.startswith("observation.") and column.dtype.kind == "f" and len(column):
                flat = column.reshape(len(column), -1)
                low, high = flat.min(axis=0), flat.max(axis=0)
                if key in found:
                    low, high = np.minimum(low, found[key][0]), np.maximum(high, found[key][1])
                found[key] = (low, high)
    return {key: high - low for key, (low, high) in found.items()}


def _check_frozen(
    decoded: Decoded, rows: EpisodeRows, spread: dict[str, np.ndarray], fps: float, where: str, report: Report
) -> None:
    """Equal pictures for a second while the robot moves, as a camera gives that hangs."""
    borders = np.flatnonzero(np.concatenate([~decoded.repeats, [True]]))
    lengths = np.diff(borders)
    if not len(lengths):
        return
    longest = int(np.argmax(lengths))
    begin, length = int(borders[longest]), int(lengths[longest])
    if length < max(10, round(fps)):
        return
    for key, whole in spread.items():
        if key in rows.columns:
            flat = rows.columns[key].reshape(len(rows.columns[key]), -1)[begin : begin + length]
            if np.any(np.ptp(flat, axis=0) > _MOVED * np.where(whole > 0, whole, np.inf)):
                text = f"{length} equal pictures ({length / fps:.1f} s) while {key} moves"
                report.warning("frozen pictures", at(where, rows.place.number, begin), text, _LOOK)
                return
