"""Pictures as they are logged: JPEG, PNG or H.264, written one at a time and read back only as they are asked for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np

from robot.episodes import foxglove, mcap_records
from robot.episodes.episode import IMAGES
from robot.errors import ConfigError, EpisodeError, SpecError, unknown_name
from robot.specs import ArraySpec

JPEG, PNG, H264 = "jpeg", "png", "h264"
CODECS = (JPEG, PNG, H264)
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Encoding:
    """How arrays of pixels are logged.

    Attributes:
        codec: `jpeg`; `png`, which loses nothing and suits small pictures; `h264`, which takes a tenth of the space
            and must be read from the beginning.
        quality: 1 to 100; `png` does without.
        fps: Pictures per second, by which `h264` shares out its bits and sets one key frame a second.
    """

    codec: str = JPEG
    quality: int = 95
    fps: int = 30

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise unknown_name("codec of pictures", self.codec, CODECS)
        if not 1 <= self.quality <= 100 or self.fps < 1:
            raise ConfigError(
                f"Pictures want a quality of 1 to 100 and fps of at least 1, got {self.quality} and {self.fps}."
            )


class PictureMessages:
    """The messages of one camera, in order.

    Attributes:
        spec: Of one picture.
        kind: Type of the messages: that of stills or of a video, as the first picture decided.
        frame: Name of the camera's frame of reference.
    """

    def __init__(self, spec: ArraySpec, encoding: Encoding) -> None:
        self.spec, self.kind, self.frame = spec, "", spec.key.removeprefix(IMAGES)
        self._encoding = encoding
        self._stream: Any = None

    def message(self, t_ns: int, picture: np.ndarray | bytes) -> bytes:
        """One message of a picture that is either RGB, uint8, (H, W, 3), or a JPEG.

        Raises:
            SpecError: It is neither, or has not the size that the spec says.
            EpisodeError: It cannot be encoded.
        """
        codec = self._encoding.codec if isinstance(picture, np.ndarray) else JPEG
        kind = foxglove.VIDEO if codec == H264 else foxglove.IMAGE
        if self.kind not in ("", kind):
            raise SpecError(f"{self.spec.key} has begun as {self.kind}, then {kind} came.")
        data = self._encoded(picture) if isinstance(picture, np.ndarray) else self._checked_jpeg(picture)
        self.kind = kind
        return foxglove.picture(kind, t_ns, self.frame, data, codec)

    def _checked_jpeg(self, data: bytes) -> bytes:
        size = jpeg_size(data)
        is_whole = data.endswith(_JPEG_END) or data.rstrip(b"\0").endswith(_JPEG_END)
        if size != self.spec.shape[:2] or not is_whole:
            got = "no JPEG" if size is None else f"one of {size}" if is_whole else "one that is cut short"
            raise SpecError(f"{self.spec.key}: expected a JPEG of {self.spec.shape[:2]}, got {got}.")
        return data

    def _encoded(self, picture: np.ndarray) -> bytes:
        if picture.shape != self.spec.shape or picture.dtype != np.uint8:
            raise SpecError(f"{self.spec.key}: expected uint8 {self.spec.shape}, got {picture.dtype} {picture.shape}.")
        if self._encoding.codec == H264:
            return self._frame(picture)
        jpeg, png = [cv2.IMWRITE_JPEG_QUALITY, self._encoding.quality], [cv2.IMWRITE_PNG_COMPRESSION, 1]
        options = jpeg if self._encoding.codec == JPEG else png
        done, data = cv2.imencode(f".{self._encoding.codec}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
        if not done:
            raise EpisodeError(f"{self.spec.key}: OpenCV cannot write it as {self._encoding.codec}.")
        return data.tobytes()

    def _frame(self, picture: np.ndarray) -> bytes:
        if self._stream is None:
            self._stream = _h264_stream(self._encoding, self.spec)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24").reformat(format="yuv420p")
        return b"".join(bytes(packet) for packet in self._stream.encode(frame))


def _h264_stream(encoding: Encoding, spec: ArraySpec) -> Any:
    """An encoder that answers every picture with its packet, and repeats what a decoder needs at every key frame."""
    height, width = spec.shape[:2]
    if height % 2 or width % 2:
        raise EpisodeError(f"{spec.key}: H.264 wants an even height and width, got {height} x {width}; use jpeg.")
    stream = av.CodecContext.create("libx264", "w")
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.framerate, stream.gop_size, stream.max_b_frames = Fraction(encoding.fps), encoding.fps, 0
    crf = round(51 * (100 - encoding.quality) / 100)
    stream.options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf), "x264-params": "repeat-headers=1"}
    stream.thread_count = 1
    return stream


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG, without decoding it; None where it is none."""
    if not data.startswith(_JPEG_BEGIN):
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _START_OF_FRAME:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


class Place(NamedTuple):
    """Where a message lies: offset of its chunk in the file, and its bytes within the unpacked chunk."""

    chunk: int
    begin: int
    end: int


class LoggedPictures:
    """The pictures of one topic of an episode's file, which is opened anew for every walk through them."""

    def __init__(self, path: Path, spec: ArraySpec, message: str, places: Sequence[Place]) -> None:
        self._path, self._spec, self._message, self._places = path, spec, message, places

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each picture, RGB uint8 (H, W, 3), from the first.

        Raises:
            EpisodeError: The file has gone, or a picture is damaged.
        """
        return self._checked(self._decoded(self.encoded()))

    def picked(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Some of the pictures, by growing numbers, without decoding the others where the codec allows it."""
        wanted = list(numbers)
        if self._message == foxglove.VIDEO:
            chosen, last = set(wanted), max(wanted, default=-1)
            everything = zip(range(last + 1), self, strict=False)
            return (picture for number, picture in everything if number in chosen)
        return self._checked(self._decoded(self.encoded(wanted)))

    def encoded(self, numbers: Iterable[int] | None = None) -> Iterator[tuple[bytes, str]]:
        """Bytes and codec of each picture as they are in the file."""
        places = self._places if numbers is None else [self._places[number] for number in numbers]
        unpacked, at = b"", -1
        try:
            with self._path.open("rb") as file:
                for place in places:
                    if place.chunk != at:
                        unpacked, at = mcap_records.chunk_at(file, place.chunk), place.chunk
                    yield foxglove.picture_data(self._message, unpacked[place.begin : place.end])
        except OSError as error:
            raise EpisodeError(f"{self._path} cannot be read: {error.strerror}.") from error
        except mcap_records.DAMAGE as error:
            raise EpisodeError(f"{self._path} is damaged ({error!r}).") from error

    def _decoded(self, encoded: Iterator[tuple[bytes, str]]) -> Iterator[np.ndarray]:
        return _decoded_video(encoded) if self._message == foxglove.VIDEO else _decoded_stills(encoded)

    def _checked(self, pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        number = 0
        try:
            for number, picture in enumerate(pictures):
                if picture.shape != self._spec.shape:
                    raise EpisodeError(
                        f"{self._path}: picture {number} of {self._spec.key} has shape {picture.shape}, expected "
                        f"{self._spec.shape}."
                    )
                yield picture
        except (ValueError, cv2.error, av.error.FFmpegError) as error:
            raise EpisodeError(
                f"{self._path}: {self._spec.key} is damaged behind picture {number} ({error})."
            ) from error


def _decoded_stills(encoded: Iterator[tuple[bytes, str]]) -> Iterator[np.ndarray]:
    for data, _ in encoded:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError("OpenCV cannot decode it")
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _decoded_video(encoded: Iterator[tuple[bytes, str]]) -> Iterator[np.ndarray]:
    stream: Any = av.CodecContext.create("h264", "r")
    for data, _ in encoded:
        for frame in stream.decode(av.Packet(data)):
            yield frame.to_ndarray(format="rgb24")
    for frame in stream.decode(None):
        yield frame.to_ndarray(format="rgb24")
