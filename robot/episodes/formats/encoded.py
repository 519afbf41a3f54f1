"""One episode made ready for a dataset: checked, its pictures encoded into files of its own, counted and printed.

This is what takes time, and what worker processes do.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot.episodes.formats import video
from robot.episodes.formats.fingerprint import SIZE, fingerprint
from robot.episodes.formats.image_statistics import Histogram, sampled_frames
from robot.episodes.formats.lerobot_layout import is_text
from robot.episodes.formats.lerobot_pictures import OurSpan
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import Rows, RowSource, Schema
from robot.errors import DatasetError
from robot.specs import ArraySpec

_LENGTH = struct.Struct("<Q")
PNG_LEVEL = 3


@dataclass(frozen=True)
class Pictures:
    """Pictures of one camera in one episode.

    Attributes:
        path: Its file: a video, or PNG files one after the other (see `png_pictures`).
        size: Bytes of what is in it.
        prints: Fingerprints, uint8, shape (T, 64).
        histogram: Of the sampled frames.
    """

    path: Path
    size: int
    prints: np.ndarray
    histogram: Histogram


@dataclass(frozen=True)
class Encoded:
    """One episode.

    Attributes:
        columns: As in `Rows`.
        tasks: One text for each row, or one for all.
        origin: As in `Rows`.
        subsets: As in `Rows`.
        pictures: By key.
    """

    columns: dict[str, np.ndarray]
    tasks: tuple[str, ...]
    origin: dict[str, Any]
    subsets: tuple[str, ...]
    pictures: dict[str, Pictures] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["action"])


def encode(source: RowSource, number: int, encoding: Encoding, fps: int, folder: Path) -> Encoded:
    """Read episode `number` and encode its pictures into files in `folder`.

    Raises:
        DatasetError: The rows do not fit the schema, or pictures are not as many as rows.
        ArmatureError: The episode cannot be read.
        OSError: The disk is full.
    """
    rows = source.read(number)
    try:
        columns = _checked(source.schema, rows)
        tasks = (rows.task,) if isinstance(rows.task, str) else tuple(rows.task)
        if len(tasks) not in (1, len(rows)):
            raise DatasetError(f"{len(tasks)} tasks for {len(rows)} rows.")
        pictures = {}
        for camera, (key, spec) in enumerate(source.schema.pictures.items()):
            path = folder / f"{number:06d}-{camera}.{'mp4' if encoding.is_video else 'png'}"
            given = rows.pictures.get(key)
            if isinstance(given, OurSpan) and _can_be_copied(given, spec, len(rows), encoding, fps):
                pictures[key] = _copied(given, path, fps)
            else:
                pictures[key] = _pictures(_each(spec, rows), len(rows), path, encoding, fps)
    except DatasetError as error:
        raise DatasetError(f"Episode {number} ({_name(rows)}): {error}") from error
    return Encoded(columns, tasks, rows.origin, rows.subsets, pictures)


def png_pictures(path: Path) -> Iterator[bytes]:
    """The PNG files that `encode` wrote one after the other."""
    with path.open("rb") as file:
        while head := file.read(_LENGTH.size):
            yield file.read(_LENGTH.unpack(head)[0])


def _name(rows: Rows) -> str:
    return str(rows.origin.get("file", "in memory"))


def _checked(schema: Schema, rows: Rows) -> dict[str, np.ndarray]:
    count = len(rows)
    if count == 0:
        raise DatasetError("no rows; an episode needs at least one.")
    if missing := schema.columns.keys() - rows.columns.keys():
        raise DatasetError(f"no column {', '.join(sorted(missing))}; it has {', '.join(sorted(rows.columns))}.")
    required = {*schema.specs.observation, "action"}
    return {key: _column(spec, rows.columns[key], count, key in required) for key, spec in schema.columns.items()}


def _column(spec: ArraySpec, values: np.ndarray, count: int, must_be_finite: bool) -> np.ndarray:
    shape = (count, *spec.shape)
    if values.shape != shape or not (is_text(spec) or values.dtype == np.dtype(spec.dtype)):
        raise DatasetError(
            f"column {spec.key!r} is {values.dtype} of shape {values.shape}, expected {spec.dtype} of shape {shape}."
        )
    if must_be_finite and values.dtype.kind == "f":
        finite = np.isfinite(values).reshape(count, -1).all(axis=1)
        if not finite.all():
            row = int(np.flatnonzero(~finite)[0])
            raise DatasetError(f"column {spec.key!r} is not finite in row {row}: {values[row].tolist()}. Leave it out.")
    return values


def _each(spec: ArraySpec, rows: Rows) -> Iterator[np.ndarray]:
    """Pictures of one key, checked, and as many as rows."""
    if spec.key not in rows.pictures:
        raise DatasetError(f"no pictures {spec.key!r}; it has {', '.join(sorted(rows.pictures)) or 'none'}.")
    count = 0
    for picture in rows.pictures[spec.key]:
        if picture.shape != spec.shape or picture.dtype != np.uint8:
            raise DatasetError(
                f"picture {count} of {spec.key!r} is {picture.dtype} of shape {picture.shape}, expected uint8 of "
                f"shape {spec.shape}."
            )
        count += 1
        if count > len(rows):
            break
        yield picture
    if count != len(rows):
        more = "more" if count > len(rows) else str(count)
        raise DatasetError(f"{spec.key!r} has {more} pictures for {len(rows)} rows.")


def _can_be_copied(given: OurSpan, spec: ArraySpec, count: int, encoding: Encoding, fps: int) -> bool:
    """Whether frames are kept elsewhere already as they are to be kept here."""
    is_alike = dict(given.encoding) == encoding.resolved() and (given.fps, given.shape) == (fps, spec.shape)
    return is_alike and len(given) == count


def _copied(given: OurSpan, path: Path, fps: int) -> Pictures:
    with video.Joined(path, fps) as sink:
        sink.append(given.path, given.first, len(given))
    prints, histogram = given.noted()
    return Pictures(path, path.stat().st_size, prints, histogram)


def _pictures(frames: Iterable[np.ndarray], count: int, path: Path, encoding: Encoding, fps: int) -> Pictures:
    prints = np.zeros((count, SIZE), np.uint8)
    histogram, sampled = Histogram(), sampled_frames(count)

    def noted() -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            prints[number] = fingerprint(frame)
            if number in sampled:
                histogram.add(frame)
            yield frame

    if encoding.is_video:
        video.encode(noted(), path, fps, encoding)
    else:
        _write_png(noted(), path)
    return Pictures(path, path.stat().st_size, prints, histogram)


def _write_png(frames: Iterable[np.ndarray], path: Path) -> None:
    with path.open("wb") as file:
        for frame in frames:
            bgr = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2BGR)
            done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
            if not done:
                raise DatasetError(f"a picture of shape {frame.shape} cannot be kept as PNG.")
            file.write(_LENGTH.pack(len(data)) + data.tobytes())
