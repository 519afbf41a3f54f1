"""Pictures on the wire: a frame of the images channel is the common header, the picture's shape, and JPEG or raw RGB.

The header's fields mean: `t_exec_ns` the time of capture and `t_send_ns` the time of sending, both on the bridge's
CLOCK_MONOTONIC; `sequence` the number of the picture; `session` the start of the camera's process, for it may be
started again while the bridge lives on.
"""

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot.bridge.wire import HEADER, Frame, FrameType, Reason, encode
from robot.errors import BridgeError, WireError

ENCODINGS = ("jpeg", "raw")
MAX_SIDE = 4096
"""Most pixels of a side."""
QUEUE = 2
"""Pictures that wait for a client that wants the newest."""
SEND_QUEUE = 8
"""Pictures that wait at a camera for each client: on a busy machine a shorter queue loses some of a recorder's."""
_SHAPE = struct.Struct("<HHHH")
"""Height, width, encoding, reserved."""


@dataclass(frozen=True)
class ImageStream:
    """What hello says of one camera.

    Attributes:
        endpoint: Address of its PUB socket.
        height: Of a picture [pixels].
        width: Of a picture [pixels].
        encoding: `jpeg` or `raw`.
        fps: Pictures a second.
    """

    endpoint: str
    height: int
    width: int
    encoding: str
    fps: float

    def __post_init__(self) -> None:
        sizes = 1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE
        if not sizes or self.encoding not in ENCODINGS or not 0 < self.fps <= 1000:
            raise BridgeError(f"Not a stream of pictures: {self}.")

    @property
    def max_frame(self) -> int:
        """Longest frame of this stream [bytes]: a JPEG of noise is a little longer than its pixels."""
        return HEADER.size + _SHAPE.size + self.height * self.width * 4 + 1024

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ImageStream":
        """The stream that `to_json` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            endpoint=str(data["endpoint"]),
            height=int(data["height"]),
            width=int(data["width"]),
            encoding=str(data["encoding"]),
            fps=float(data["fps"]),
        )


@dataclass(frozen=True)
class Stamp:
    """Whose picture it is, and of when.

    Attributes:
        boot_id: Of the bridge.
        start: Of the camera's process.
        number: Of the picture; goes on where the camera was started again.
        t_ns: Time of capture, the bridge's CLOCK_MONOTONIC [ns].
        t_send_ns: Time of sending, same clock [ns].
    """

    boot_id: int
    start: int
    number: int
    t_ns: int
    t_send_ns: int


def encode_image(image: np.ndarray, stamp: Stamp, encoding: str, quality: int) -> bytes:
    """Bytes of a frame.

    Args:
        image: RGB, uint8, (H, W, 3).
        stamp: Whose, and of when.
        encoding: `jpeg` or `raw`.
        quality: Of the JPEG, 1 to 100.
    """
    height, width, _ = image.shape
    if encoding == "jpeg":
        import cv2

        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        content = data.tobytes()
    else:
        content = image.tobytes()
    payload = _SHAPE.pack(height, width, ENCODINGS.index(encoding), 0) + content
    frame = Frame(
        FrameType.IMAGE, payload, stamp.boot_id, stamp.start, stamp.number, stamp.t_send_ns, t_exec_ns=stamp.t_ns
    )
    return encode(frame)


def checked(frame: Frame, stream: ImageStream) -> Stamp:
    """The stamp of a frame that came intact, if it is a picture of that stream; its pixels are not looked at yet.

    Raises:
        WireError: It is anything else.
    """
    if frame.type != FrameType.IMAGE or len(frame.payload) < _SHAPE.size:
        raise WireError(f"The images channel sent {frame.type.name} of {len(frame.payload)} bytes.", Reason.CHANNEL)
    height, width, encoding, reserved = _SHAPE.unpack_from(frame.payload)
    wanted = (stream.height, stream.width, ENCODINGS.index(stream.encoding), 0)
    if (height, width, encoding, reserved) != wanted:
        raise WireError(
            f"A picture is {height} × {width} in encoding {encoding}, hello said {wanted[:3]}.", Reason.PAYLOAD
        )
    if stream.encoding == "raw" and len(frame.payload) - _SHAPE.size != height * width * 3:
        raise WireError(
            f"A raw picture of {height} × {width} has {len(frame.payload) - _SHAPE.size} bytes.", Reason.PAYLOAD
        )
    return Stamp(frame.boot_id, frame.session, frame.sequence, frame.t_exec_ns, frame.t_send_ns)


def content(frame: Frame, stream: ImageStream) -> bytes | np.ndarray:
    """A picture that `checked` let pass as it came: the bytes of a JPEG, or RGB, uint8, (H, W, 3), read-only."""
    if stream.encoding == "jpeg":
        return frame.payload[_SHAPE.size :]
    return np.frombuffer(frame.payload, np.uint8, offset=_SHAPE.size).reshape(stream.height, stream.width, 3)


def pixels(frame: Frame, stream: ImageStream) -> np.ndarray:
    """RGB, uint8, (H, W, 3), of a frame that `checked` let pass.

    Raises:
        WireError: It is no JPEG of that size.
    """
    content = memoryview(frame.payload)[_SHAPE.size :]
    shape = (stream.height, stream.width, 3)
    if stream.encoding == "raw":
        return np.frombuffer(content, np.uint8).reshape(shape).copy()
    import cv2

    # A decoder allocates what the file announces; so it is asked only where that is what was agreed on.
    if (announced := _jpeg_size(content)) != shape[:2]:
        raise WireError(f"A JPEG announces {announced} pixels, hello said {shape[:2]}.", Reason.PAYLOAD)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise WireError(f"A picture is no JPEG: {error}.", Reason.PAYLOAD) from error
    if image is None or image.shape != shape:
        raise WireError("A picture is no JPEG, or a damaged one.", Reason.PAYLOAD)
    return image


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """Height and width as the start-of-frame segment has them (ITU-T T.81, B.2.2), None where there is none."""
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        # C4, C8 and CC are tables and extensions among the start-of-frame markers.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + length
    return None
