"""Message types that Foxglove knows by name: pictures, calibrations of cameras, and log lines.

Written down from the published schemas (https://docs.foxglove.dev/docs/sdk/schemas): names, numbers and types of the
fields are theirs, so that its panels show our episodes without any converter.
"""

import json
from typing import Any

import numpy as np
from google.protobuf import descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from robot.episodes.episode import Event

IMAGE, VIDEO = "foxglove.CompressedImage", "foxglove.CompressedVideo"
LOG, CALIBRATION = "foxglove.Log", "foxglove.CameraCalibration"
WARNINGS = ("dropped", "failure", "recovered", "fault", "clamped")
"""Names of events that a viewer had better show in colour."""

_TIMESTAMP = "google.protobuf.Timestamp"
_BYTES, _STRING = FieldDescriptorProto.TYPE_BYTES, FieldDescriptorProto.TYPE_STRING
_DOUBLE, _FIXED32 = FieldDescriptorProto.TYPE_DOUBLE, FieldDescriptorProto.TYPE_FIXED32
_MESSAGE, _ENUM = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM
_FIELDS: dict[str, tuple[tuple[str, int, int], ...]] = {
    IMAGE: (("timestamp", 1, _MESSAGE), ("frame_id", 4, _STRING), ("data", 2, _BYTES), ("format", 3, _STRING)),
    VIDEO: (("timestamp", 1, _MESSAGE), ("frame_id", 2, _STRING), ("data", 3, _BYTES), ("format", 4, _STRING)),
    LOG: (
        ("timestamp", 1, _MESSAGE),
        ("level", 2, _ENUM),
        ("message", 3, _STRING),
        ("name", 4, _STRING),
        ("file", 5, _STRING),
        ("line", 6, _FIXED32),
    ),
    CALIBRATION: (
        ("timestamp", 1, _MESSAGE),
        ("frame_id", 9, _STRING),
        ("width", 2, _FIXED32),
        ("height", 3, _FIXED32),
        ("distortion_model", 4, _STRING),
        ("D", 5, _DOUBLE),
        ("K", 6, _DOUBLE),
        ("R", 7, _DOUBLE),
        ("P", 8, _DOUBLE),
    ),
}
_LEVELS = ("UNKNOWN", "DEBUG", "INFO", "WARNING", "ERROR", "FATAL")
_INFO, _WARNING = 2, 3


def _described(name: str) -> FileDescriptorProto:
    """The `.proto` file of one message type."""
    package, _, short = name.rpartition(".")
    file = FileDescriptorProto(name=f"foxglove/{short}.proto", package=package, syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    message = file.message_type.add(name=short)
    for field, number, kind in _FIELDS[name]:
        is_list = kind == _DOUBLE
        label = FieldDescriptorProto.LABEL_REPEATED if is_list else FieldDescriptorProto.LABEL_OPTIONAL
        added = message.field.add(name=field, number=number, type=kind, label=label)
        if kind == _MESSAGE:
            added.type_name = f".{_TIMESTAMP}"
        elif kind == _ENUM:
            added.type_name = f".{name}.Level"
            levels = message.enum_type.add(name="Level")
            for value, level in enumerate(_LEVELS):
                levels.value.add(name=level, number=value)
    return file


def _timestamp_file() -> FileDescriptorProto:
    file = FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_timestamp_file())
    for name in _FIELDS:
        pool.Add(_described(name))
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in _FIELDS}


_CLASSES = _classes()


def schema(name: str) -> bytes:
    """One of the message types, with what it needs, as a serialised `FileDescriptorSet`."""
    return FileDescriptorSet(file=[_timestamp_file(), _described(name)]).SerializeToString()


def _stamped(kind: str, t_ns: int, /, **fields: Any) -> bytes:
    message = _CLASSES[kind](**fields)
    message.timestamp.seconds, message.timestamp.nanos = divmod(t_ns, 1_000_000_000)
    return message.SerializeToString()


def picture(name: str, t_ns: int, frame_id: str, data: bytes, kind: str) -> bytes:
    """A picture (`IMAGE`) or one frame of a video (`VIDEO`); `kind` is `jpeg`, `png` or `h264`."""
    return _stamped(name, t_ns, frame_id=frame_id, data=data, format=kind)


def picture_data(name: str, message: bytes) -> tuple[bytes, str]:
    """What `picture` was given: data and kind. Raises ValueError on bytes that are no such message."""
    parsed = _parsed(name, message)
    return parsed.data, parsed.format


def calibration(t_ns: int, frame_id: str, shape: tuple[int, ...], intrinsics: np.ndarray) -> bytes:
    """A pinhole camera without distortion; shape is (height, width, 3), intrinsics 3 x 3 in pixels."""
    projection = np.concatenate([intrinsics, np.zeros((3, 1))], axis=1)
    return _stamped(
        CALIBRATION,
        t_ns,
        frame_id=frame_id,
        height=shape[0],
        width=shape[1],
        K=intrinsics.ravel().tolist(),
        R=np.eye(3).ravel().tolist(),
        P=projection.ravel().tolist(),
    )


def event(happened: Event) -> bytes:
    """An event as a log line: its text, and its data as JSON on the last line where there is any."""
    text = happened.text
    if happened.data or "\n" in text:
        text = f"{text}\n{json.dumps(dict(happened.data))}"
    level = _WARNING if happened.name in WARNINGS else _INFO
    return _stamped(LOG, happened.t_ns, level=level, message=text, name=happened.name)


def event_of(t_ns: int, message: bytes) -> Event:
    """The event that `event` wrote. Raises ValueError on anything else."""
    parsed = _parsed(LOG, message)
    text, _, data = parsed.message.rpartition("\n") if "\n" in parsed.message else (parsed.message, "", "{}")
    return Event(t_ns, parsed.name, text, json.loads(data))


def _parsed(name: str, message: bytes) -> Any:
    try:
        return _CLASSES[name].FromString(message)
    except Exception as error:  # DecodeError of whichever of protobuf's implementations is at work
        raise ValueError(f"not a message of {name}: {error}") from error
