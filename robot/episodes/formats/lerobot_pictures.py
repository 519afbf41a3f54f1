"""Pictures of an episode: frames of a shared video file, found by their times, or encoded files inside a table."""

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.container import InputContainer

from robot.episodes.formats.image_statistics import Histogram
from robot.episodes.formats.lerobot_files import again, first_line, root_of
from robot.errors import DatasetError

_PNG, _CHUNK = b"\x89PNG\r\n\x1a\n", struct.Struct(">I4s")
_THREADS = 4  # of one decoder; loaders decode in several processes

Noted = tuple[np.ndarray, Histogram]
"""Fingerprints of an episode's pictures, uint8, shape (T, 64), and the histogram of those that were sampled."""


class VideoSpan:
    """Some frames of a video file, in order: those at `start_s`, `start_s + 1 / fps`, ...

    A frame belongs to a row if it is within a quarter of a period of the row's time. Anything else is an error: a
    frame that is missing never shifts those that follow.
    """

    def __init__(self, path: Path, start_s: float, length: int, fps: float, shape: tuple[int, ...]) -> None:
        self.path, self.start_s, self.fps = path, start_s, fps
        self._length, self.shape = length, shape

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each frame, RGB, uint8, (H, W, 3).

        Raises:
            DatasetError: The file is missing or damaged, or a frame is missing or not where it should be.
        """
        with opened(self.path) as container:
            try:
                yield from self._frames(container)
            except av.FFmpegError as error:
                raise DatasetError(f"{self.path} is damaged: {first_line(error)} {self._again()}") from error

    def _frames(self, container: InputContainer) -> Iterator[np.ndarray]:
        expected, found = 0, self._from_start(container)
        while expected < self._length:
            frame = next(found, None)
            wanted_s = self.start_s + expected / self.fps
            time_s = math.inf if frame is None or frame.time is None else frame.time
            if (time_s - wanted_s) * self.fps <= -0.25:
                continue
            if frame is None or (time_s - wanted_s) * self.fps >= 0.25:
                got = "the file ends" if frame is None else f"the next one is at {time_s:.4f} s"
                raise DatasetError(
                    f"{self.path} has no frame at {wanted_s:.4f} s, where row {expected} of the episode belongs; "
                    f"{got}. {self._again()}"
                )
            picture = frame.to_ndarray(format="rgb24")
            if picture.shape != self.shape:
                raise DatasetError(f"{self.path} has frames of shape {picture.shape}, expected {self.shape}.")
            yield picture
            expected += 1

    def _from_start(self, container: InputContainer) -> Iterator[av.VideoFrame]:
        """Frames from a key frame before the first wanted one; from the file's first where seeking went too far."""
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = _THREADS
        base = stream.time_base
        margin_s = 0.5 / self.fps
        if base is not None and self.start_s > margin_s:
            container.seek(max(0, int((self.start_s - margin_s) / base)), stream=stream, backward=True)
            frames = container.decode(stream)
            first = next(frames, None)
            if first is not None and first.time is not None and (first.time - self.start_s) * self.fps < 0.25:
                yield first
                yield from frames
                return
            container.seek(0, stream=stream, backward=True)
        yield from container.decode(stream)

    def _again(self) -> str:
        return again(root_of(self.path))


class OurSpan(VideoSpan):
    """Frames of a video that we encoded.

    Attributes:
        encoding: As `Encoding.resolved` gave it.
        noted: Reads what was noted of them.
    """

    def __init__(self, span: VideoSpan, encoding: Mapping[str, Any], noted: Callable[[], Noted]) -> None:
        super().__init__(span.path, span.start_s, len(span), span.fps, span.shape)
        self.encoding, self.noted = encoding, noted

    @property
    def first(self) -> int:
        """Number of the first frame in its file."""
        return round(self.start_s * self.fps)


class EncodedPictures:
    """Pictures that a table holds as encoded files (PNG, as LeRobot writes them, or JPEG)."""

    def __init__(self, encoded: Sequence[bytes], shape: tuple[int, ...], where: str) -> None:
        self._encoded, self._shape, self._where = encoded, shape, where

    def __len__(self) -> int:
        return len(self._encoded)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each picture, RGB, uint8, (H, W, 3).

        Raises:
            DatasetError: One is damaged or of another size.
        """
        for number, data in enumerate(self._encoded):
            is_whole = bool(data) and _is_whole(data)
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if is_whole else None
            if picture is None or picture.shape != self._shape:
                got = "is damaged" if picture is None else f"has shape {picture.shape}, expected {self._shape}"
                raise DatasetError(f"{self._where}: picture {number} {got}.")
            yield picture


def _is_whole(data: bytes) -> bool:
    """Whether the checksums of a PNG file are right, which OpenCV does not ask; other files count as whole."""
    if not data.startswith(_PNG):
        return True
    at = len(_PNG)
    while at + 12 <= len(data):
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False


def opened(path: Path) -> InputContainer:
    """A video file with a stream of pictures.

    Raises:
        DatasetError: It is missing, truncated or damaged.
    """
    try:
        container = av.open(str(path))
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing. {again(root_of(path))}") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DatasetError(f"{path} is truncated or damaged: {first_line(error)} {again(root_of(path))}") from error
    if not container.streams.video or container.streams.video[0].codec_context is None:
        what = "is of a codec that PyAV cannot decode" if container.streams.video else "holds no pictures"
        container.close()
        raise DatasetError(f"{path} {what}. {again(root_of(path))}")
    return container


def encoded_frames(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Time [s], float64, and size in bytes, int64, of each encoded frame in the order of times; decodes nothing.

    Raises:
        DatasetError: The file is missing, truncated or damaged.
    """
    with opened(path) as container:
        stream = container.streams.video[0]
        base = float(stream.time_base or 1)
        try:
            entries = sorted(_packets(container))
        except av.FFmpegError as error:
            raise DatasetError(f"{path} is damaged: {first_line(error)} {again(root_of(path))}") from error
    times = np.array([timestamp for timestamp, _ in entries], np.float64) * base
    return times, np.array([size for _, size in entries], np.int64)


def _packets(container: InputContainer) -> list[tuple[int, int]]:
    """Time and size of each packet. The file's index has the times of decoding, which differ from those of showing
    where there are B-frames; then the packets themselves are gone through.
    """
    stream = container.streams.video[0]
    if not stream.codec_context.has_b_frames:
        return [(entry.timestamp, entry.size) for entry in stream.index_entries]
    return [(packet.pts, packet.size) for packet in container.demux(stream) if packet.pts is not None]
