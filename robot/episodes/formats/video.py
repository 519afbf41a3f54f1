"""Pictures of an episode as video, and videos of many episodes joined packet by packet.

Every episode is encoded by itself: it begins with a keyframe, no group of pictures reaches over its end, there are no
B-frames, and frame k is shown at k / fps exactly. Joining copies packets and counts frames, so a file holds as many
frames as rows were given, in their order. Encoders run in one thread, headers say neither time nor versions: equal
pictures give equal bytes with the same libraries, however many processes encode.

Defaults were chosen by measuring pictures of 128 x 128 with texture and noise: H.264, CRF 22, a keyframe every 3
frames, preset `veryfast`. That is about as large as LeRobot's AV1 (CRF 30, a keyframe every 2 frames) at a higher PSNR,
and takes a third of the time to encode; one frame from anywhere needs 2 frames decoded on average. What error is left
is mostly that of halving the resolution of colour, which every usual pixel format does.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from robot.errors import ArmatureError, DatasetError, unknown_name

PNG = "png"
"""Lossless pictures inside Parquet, not video."""
LIBRARIES = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
CODECS = (*LIBRARIES, PNG)
_DEFAULTS = {"h264": (22, 3, "veryfast"), "hevc": (22, 3, "ultrafast"), "av1": (30, 3, "10")}
_MUXER = {"fflags": "+bitexact", "write_btrt": "0"}
"""Else a file names the library that wrote it, and guesses bit rates from where its packets came from."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How pictures are kept.

    Attributes:
        codec: `h264`, `hevc`, `av1`, or `png`: without loss, inside Parquet.
        crf: Constant rate factor, lower is better and larger; -1: that of the codec's defaults. Not for `png`.
        gop: Frames from one keyframe to the next: 1 makes all of them keyframes; -1: that of the codec's defaults.
        preset: The library's name for speed against size; empty: that of the codec's defaults.
    """

    codec: str = "h264"
    crf: int = -1
    gop: int = -1
    preset: str = ""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise unknown_name("codec", self.codec, CODECS)
        if self.gop == 0 or self.gop < -1 or not -1 <= self.crf <= 63:
            raise DatasetError(f"Expected a gop of at least 1 and a crf from 0 to 63, got {self.gop} and {self.crf}.")

    @property
    def is_video(self) -> bool:
        """Whether pictures become video files."""
        return self.codec != PNG

    def resolved(self) -> dict[str, Any]:
        """Everything that decides what the bytes are, defaults filled in, as JSON."""
        if not self.is_video:
            return {"codec": self.codec}
        crf, gop, preset = _DEFAULTS[self.codec]
        return {
            "codec": self.codec,
            "crf": crf if self.crf < 0 else self.crf,
            "gop": gop if self.gop < 0 else self.gop,
            "preset": self.preset or preset,
        }

    def pixel_format(self, height: int, width: int) -> str:
        """`yuv420p`; where a side is odd, which it cannot hold, `yuv444p`.

        Raises:
            DatasetError: The codec has neither.
        """
        if height % 2 == 0 and width % 2 == 0:
            return "yuv420p"
        if self.codec == "av1":
            raise DatasetError(
                f"Pictures of {width} x {height} cannot be kept as av1, which wants even sides. Use codec=h264 or png."
            )
        return "yuv444p"

    def options(self) -> dict[str, str]:
        """What the library is told; nothing for `png`."""
        if not self.is_video:
            return {}
        known = self.resolved()
        gop, common = known["gop"], {"crf": str(known["crf"]), "g": str(known["gop"]), "preset": known["preset"]}
        # Looking ahead would serve B-frames and the macroblock tree (cutree). The latter reads memory that nobody wrote
        # where pictures are small, so that equal pictures give other bytes now and then; and both are slow.
        fixed = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:open-gop=0:rc-lookahead=0"
        if self.codec == "h264":
            return {**common, "threads": "1", "x264-params": f"threads=1:{fixed}:mbtree=0"}
        if self.codec == "hevc":
            quiet = "info=0:log-level=none"
            return {**common, "x265-params": f"pools=none:frame-threads=1:{fixed}:cutree=0:{quiet}"}
        return {**common, "svtav1-params": "lp=1:pred-struct=1:irefresh-type=2:scd=0"}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors of the libraries as ours; those of the disk stay `OSError`."""
    try:
        yield
    except (OSError, ArmatureError):
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise DatasetError(f"{path} cannot be encoded: {error}.") from error


def encode(pictures: Iterable[np.ndarray], path: Path, fps: int, encoding: Encoding) -> int:
    """Write the video of one episode.

    Args:
        pictures: RGB, uint8, all of one shape (H, W, 3); at least one.
        path: MP4 file to make.
        fps: Frames per second.
        encoding: How; not `png`.

    Returns:
        Number of frames.

    Raises:
        DatasetError: There is no picture, or the codec refuses them.
        OSError: The disk is full or not writable.
    """
    if encoding.codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # else the library greets on stderr
    count = 0
    with _writing(path), av.open(str(path), "w", format="mp4", options=_MUXER) as container:
        stream: Any = None
        reformatter = VideoReformatter()  # one for all frames: beginning it anew takes longer than using it
        for picture in pictures:
            if stream is None:
                stream = _stream(container, picture.shape, fps, encoding)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = reformatter.reformat(frame, format=stream.pix_fmt, dst_colorspace=Colorspace.ITU601, threads=1)
            frame.pts, frame.time_base = count, stream.codec_context.time_base
            container.mux(stream.encode(frame))
            count += 1
        if stream is None:
            raise DatasetError(f"{path}: an episode needs at least one picture, got none.")
        container.mux(stream.encode(None))
    return count


def _stream(container: Any, shape: tuple[int, ...], fps: int, encoding: Encoding) -> Any:
    height, width = shape[:2]
    stream = container.add_stream(LIBRARIES[encoding.codec], rate=fps, options=encoding.options())
    stream.width, stream.height = width, height
    stream.pix_fmt = encoding.pixel_format(height, width)
    context = stream.codec_context
    context.time_base = Fraction(1, fps)
    context.colorspace, context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
    if encoding.codec == "hevc":
        context.codec_tag = "hvc1"  # the tag that players know
    return stream


class Joined:
    """One MP4 file that episodes are appended to by copying packets; use it as a context manager."""

    def __init__(self, path: Path, fps: int) -> None:
        self._path, self._fps = path, fps
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", format="mp4", options=_MUXER)
        self._stream: Any = None
        self._parameters: bytes | None = None
        self.frames = 0
        """Frames in the file so far."""

    def append(self, source: Path, first: int, count: int) -> None:
        """Copy frames `first` to `first + count` of another file of ours; `first` is the first of an episode.

        Raises:
            DatasetError: The file is damaged or has fewer frames.
            OSError: The disk is full or not writable.
        """
        with _writing(self._path):
            for packet in self._packets(source, first, count):
                packet.stream = self._stream
                packet.time_base, packet.duration = Fraction(1, self._fps), 1
                packet.pts = packet.dts = self.frames
                self._container.mux_one(packet)
                self.frames += 1

    def _packets(self, source: Path, first: int, count: int) -> Iterator[Any]:
        copied = 0
        with av.open(str(source)) as container:
            stream: Any = container.streams.video[0]
            if self._stream is None:
                self._parameters = stream.codec_context.extradata
                self._stream = self._container.add_stream_from_template(stream, opaque=True)
                self._stream.time_base = Fraction(1, self._fps)
            elif stream.codec_context.name != "hevc" and stream.codec_context.extradata != self._parameters:
                # libx265 gives an episode of a single frame another profile, which decodes all the same.
                raise DatasetError(
                    f"{source} was encoded by another version of the encoder than what comes before it, and cannot be "
                    "joined to it. Have everything encoded again: choose another codec."
                )
            if first:
                container.seek(_ticks(first, stream.time_base, self._fps), stream=stream)
            for packet in container.demux(stream):
                number = first - 1 if packet.pts is None else round(packet.pts * stream.time_base * self._fps)
                if number < first:
                    continue
                if copied == count:
                    break
                if number != first + copied or (copied == 0 and not packet.is_keyframe):
                    raise DatasetError(f"{source}: frame {number} is where frame {first + copied} belongs.")
                copied += 1
                yield packet
        if copied != count:
            raise DatasetError(f"{source} has {copied} frames from frame {first} on, expected {count}.")

    def close(self) -> None:
        """Write the index."""
        with _writing(self._path):
            self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def decode(path: Path, first: int, count: int, fps: int) -> Iterator[np.ndarray]:
    """Frames `first` to `first + count` of a file, RGB, uint8, (H, W, 3), one after the other.

    Raises:
        DatasetError: The file is damaged or does not hold a frame at each of these times.
    """
    given = 0
    try:
        with av.open(str(path)) as container:
            stream: Any = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek(_ticks(first, stream.time_base, fps), stream=stream)
            for frame in container.decode(stream):
                number = round((frame.pts or 0) * stream.time_base * fps)
                if number < first or given == count:
                    continue
                if number != first + given:
                    break
                given += 1
                yield frame.to_ndarray(format="rgb24")
                if given == count:
                    break
    except (av.error.FFmpegError, IndexError) as error:
        raise DatasetError(f"{path} is damaged: {error}.") from error
    if given != count:
        raise DatasetError(f"{path} has no frame {first + given} at {(first + given) / fps:.3f} s.")


def info(encoding: Encoding, shape: tuple[int, ...], fps: int) -> Mapping[str, Any]:
    """What LeRobot's `info.json` says about a feature of video."""
    height, width = shape[:2]
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": encoding.codec,
        "video.pix_fmt": encoding.pixel_format(height, width),
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _ticks(frame: int, time_base: Fraction, fps: int) -> int:
    return int(Fraction(frame, fps) / time_base)
