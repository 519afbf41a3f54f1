"""Frames: a fixed little-endian header and a payload. Decoding checks everything and fails with `WireError` only.

State and commands carry flat float64 arrays whose layout both sides agreed on at hello; control messages carry one
msgpack map. Nothing on this wire can name code to be run.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from robot.errors import WireError

MAGIC = 0x54414D52  # "RMAT" in memory
SCHEMA_MAJOR = 1
SCHEMA_MINOR = 1
HEADER = struct.Struct("<IHHHHQQQqqIII")
"""magic, major, minor, type, flags, boot id, session, sequence, send time, execution time, length, reserved, CRC-32."""
_CRC_AT = HEADER.size - 4
_CRC = struct.Struct("<I")
_CHUNK_HEAD = struct.Struct("<ddd")
"""Distance of the rows in time [s], their count, their width."""
_NO_CRC = _CRC.pack(0)


class FrameType(IntEnum):
    """What a frame is; decides how its payload is read and how long it may be."""

    STATE = 1
    CHUNK = 2
    HEARTBEAT = 3
    REQUEST = 4
    REPLY = 5
    ESTOP = 6
    IMAGE = 7
    TAKEN = 8
    """A chunk and what became of it, for whoever records."""
    DEVICE = 9
    """What a device asked for before anything was made of it; moves nothing."""


class Reason(StrEnum):
    """Why a frame was refused: it cannot be read (the first nine), or a gateway does not want it."""

    SHORT = "too short"
    MAGIC = "magic"
    VERSION = "version"
    CRC = "crc"
    LENGTH = "length"
    FLAGS = "flags"
    TYPE = "type"
    PAYLOAD = "payload"
    ROWS = "rows"
    CHANNEL = "not for this channel"
    BOOT = "boot id"
    SESSION = "session"
    REPLAY = "replayed"
    CLOCK = "too old or from the future"
    SEQUENCE = "sequence number"
    NOT_FINITE = "not finite"
    NO_LEASE = "no lease"
    FULL = "too many at once"
    KEY = "key"
    REQUEST = "request"


MAX_PAYLOAD = {
    FrameType.STATE: 8 * 1024,
    FrameType.CHUNK: 8 * (128 * 16 + 3),
    FrameType.HEARTBEAT: 0,
    FrameType.REQUEST: 64 * 1024,
    FrameType.REPLY: 256 * 1024,
    FrameType.ESTOP: 4 * 1024,
    FrameType.TAKEN: 8 * (128 * 16 + 8),
    FrameType.DEVICE: 8 * (16 + 3),
    FrameType.IMAGE: 4096 * 4096 * 4 + 2048,
}
_TYPES = {int(kind): kind for kind in FrameType}
MAX_FRAME = HEADER.size + max(size for kind, size in MAX_PAYLOAD.items() if kind != FrameType.IMAGE)
"""Longest accepted frame [bytes], for `zmq.MAXMSGSIZE`; the sockets of pictures have their own."""


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
        type: What it is.
        payload: Its content, as bytes.
        boot_id: Of the bridge that sent it, or that it is meant for; 0 before hello.
        session: Of the client; a secret between it and the bridge.
        sequence: Of a chunk, or identity of a request.
        t_send_ns: When it was sent, CLOCK_MONOTONIC of the bridge as the sender knows it [ns].
        t_exec_ns: When row 0 of a chunk begins, CLOCK_MONOTONIC of the bridge [ns].
    """

    type: FrameType
    payload: bytes = b""
    boot_id: int = 0
    session: int = 0
    sequence: int = 0
    t_send_ns: int = 0
    t_exec_ns: int = 0

    def floats(self) -> np.ndarray:
        """The payload as a float64 vector that may be written to."""
        if len(self.payload) % 8:
            raise WireError(f"A payload of {len(self.payload)} bytes is no array of float64.", Reason.PAYLOAD)
        return np.frombuffer(self.payload, "<f8").astype(np.float64)

    def message(self) -> dict[str, Any]:
        """The payload as a map with text keys."""
        try:
            content = msgpack.unpackb(self.payload, strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise WireError(f"A {self.type.name} payload is not msgpack: {error}.", Reason.PAYLOAD) from error
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise WireError(
                f"A {self.type.name} payload is {type(content).__name__}, expected a map with text keys.",
                Reason.PAYLOAD,
            )
        return content


def pack(message: dict[str, Any]) -> bytes:
    """A map as the payload of a control message."""
    return msgpack.packb(message)


def encode(frame: Frame) -> bytes:
    """Bytes of a frame.

    Raises:
        WireError: The payload is longer than its type allows, or a number does not fit its field.
    """
    data = bytearray(HEADER.size) + frame.payload
    seal(data, frame)
    return bytes(data)


def seal(data: bytearray, frame: Frame) -> None:
    """Write the header of a frame whose payload is in `data` already, behind the header's place.

    Args:
        data: Header and payload; a sender that is in a hurry fills the same one again and again.
        frame: What the header says; its payload is not looked at.

    Raises:
        WireError: The payload is longer than its type allows, or a number does not fit its field.
    """
    length = len(data) - HEADER.size
    _check_length(frame.type, length)
    kind, fields = frame.type, (frame.boot_id, frame.session, frame.sequence, frame.t_send_ns, frame.t_exec_ns)
    try:
        HEADER.pack_into(data, 0, MAGIC, SCHEMA_MAJOR, SCHEMA_MINOR, kind, 0, *fields, length, 0, 0)
    except struct.error as error:
        raise WireError(f"A {frame.type.name} frame does not fit its header: {error}.", Reason.LENGTH) from error
    _CRC.pack_into(data, _CRC_AT, zlib.crc32(data))


def decode(data: bytes) -> Frame:
    """The frame that `encode` made.

    Raises:
        WireError: The bytes are anything else: too short, of another protocol or version, damaged, or of wrong length.
    """
    if len(data) < HEADER.size:
        raise WireError(f"A frame of {len(data)} bytes is shorter than its header of {HEADER.size}.", Reason.SHORT)
    fields = HEADER.unpack_from(data)
    magic, major, minor, kind, flags, boot_id, session, sequence, t_send_ns, t_exec_ns, length, reserved, crc = fields
    if magic != MAGIC:
        raise WireError(f"Not a frame of the bridge: magic {magic:#010x}, expected {MAGIC:#010x}.", Reason.MAGIC)
    if major != SCHEMA_MAJOR:
        raise WireError(
            f"The frame has wire version {major}.{minor}, this side speaks {SCHEMA_MAJOR}.{SCHEMA_MINOR}. "
            "Install the same version of Armature on both sides.",
            Reason.VERSION,
        )
    payload = data[HEADER.size :]
    expected = zlib.crc32(payload, zlib.crc32(data[:_CRC_AT] + _NO_CRC))
    if crc != expected:
        raise WireError(f"The frame is damaged: CRC {crc:#010x}, expected {expected:#010x}.", Reason.CRC)
    if length != len(payload):
        raise WireError(f"The frame announces {length} bytes of payload and carries {len(payload)}.", Reason.LENGTH)
    if flags or reserved:
        raise WireError(f"The frame has unknown flags {flags:#x}, {reserved:#x}.", Reason.FLAGS)
    try:
        frame_type = _TYPES[kind]
    except KeyError as error:
        raise WireError(f"Unknown frame type {kind}.", Reason.TYPE) from error
    _check_length(frame_type, length)
    return Frame(frame_type, payload, boot_id, session, sequence, t_send_ns, t_exec_ns)


def _check_length(frame_type: FrameType, length: int) -> None:
    if length > MAX_PAYLOAD[frame_type]:
        raise WireError(
            f"A {frame_type.name} payload has {length} bytes, at most {MAX_PAYLOAD[frame_type]}.", Reason.LENGTH
        )


def chunk_payload(rows: np.ndarray, dt_s: float) -> bytes:
    """Rows of actions (N, A) that are `dt_s` apart [s], for a CHUNK frame."""
    count, width = rows.shape
    return _CHUNK_HEAD.pack(dt_s, count, width) + rows.astype("<f8").tobytes()


def chunk_rows(frame: Frame) -> tuple[np.ndarray, float]:
    """Rows (N, A), finite or not, and their distance in time [s].

    Raises:
        WireError: The payload is not N × A numbers, or the distance is not a positive time.
    """
    flat = frame.floats()
    if len(flat) < 3:
        raise WireError(f"A chunk of {len(flat)} numbers lacks its head of 3.", Reason.ROWS)
    dt_s, count, width = _CHUNK_HEAD.unpack_from(frame.payload)
    whole = count >= 1 and width >= 1 and count * width == len(flat) - 3
    if not (whole and count.is_integer() and width.is_integer()):
        raise WireError(f"A chunk announces {count} × {width} numbers and carries {len(flat) - 3}.", Reason.ROWS)
    if not 0 < dt_s <= 1:
        raise WireError(f"The rows of a chunk are {dt_s} s apart, expected more than 0 and at most 1 s.", Reason.ROWS)
    return flat[3:].reshape(int(count), int(width)), dt_s


def public_id(session: int) -> int:
    """A number of 48 bits that tells sessions apart without giving them away; exact as a float64."""
    return int.from_bytes(hashlib.sha256(session.to_bytes(8, "little")).digest()[:6], "little")
