"""Vectors as protobuf messages of constant length, so that NumPy writes and reads many of them at once.

Every topic has a message type of its own, whose description travels in the file: one named field for each element, or,
for large arrays and those of higher rank, one packed field. All values have a fixed width and all are written, zeros
too, so that every message of a topic has the same bytes in the same places but for the values. Any protobuf library
reads them (https://protobuf.dev/programming-guides/encoding).
"""

import re
from collections.abc import Sequence

import numpy as np
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from robot.specs import ArraySpec

ENCODING = "protobuf"
MAX_FIELDS = 256
"""Larger arrays have one packed field: a viewer would not list so many names."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_RESERVED = range(19000, 20000)
_KINDS = {
    "float16": (FieldDescriptorProto.TYPE_FLOAT, "<f4", _FIXED32),
    "float32": (FieldDescriptorProto.TYPE_FLOAT, "<f4", _FIXED32),
    "float64": (FieldDescriptorProto.TYPE_DOUBLE, "<f8", _FIXED64),
    "bool": (FieldDescriptorProto.TYPE_BOOL, "?", _VARINT),
    "int8": (FieldDescriptorProto.TYPE_SFIXED32, "<i4", _FIXED32),
    "int16": (FieldDescriptorProto.TYPE_SFIXED32, "<i4", _FIXED32),
    "int32": (FieldDescriptorProto.TYPE_SFIXED32, "<i4", _FIXED32),
    "int64": (FieldDescriptorProto.TYPE_SFIXED64, "<i8", _FIXED64),
    "uint8": (FieldDescriptorProto.TYPE_FIXED32, "<u4", _FIXED32),
    "uint16": (FieldDescriptorProto.TYPE_FIXED32, "<u4", _FIXED32),
    "uint32": (FieldDescriptorProto.TYPE_FIXED32, "<u4", _FIXED32),
    "uint64": (FieldDescriptorProto.TYPE_FIXED64, "<u8", _FIXED64),
}


class VectorMessages:
    """The messages of one topic.

    Attributes:
        spec: Of one value.
        name: Full name of the message type, e.g. `armature.ObservationState`.
        length: Bytes of one message.
    """

    def __init__(self, topic: str, spec: ArraySpec) -> None:
        self.spec = spec
        self.name = "armature." + _type_name(topic)
        self._type, self._value, self._wire = _KINDS[np.dtype(spec.dtype).name]
        self._size = int(np.prod(spec.shape))
        self._is_packed = len(spec.shape) != 1 or self._size > MAX_FIELDS
        parts = self._packed_part() if self._is_packed else self._field_parts()
        self._message = np.zeros((), np.dtype([(str(at), part.dtype, part.shape) for at, part in enumerate(parts)]))
        for at, part in enumerate(parts):
            self._message[str(at)] = part
        self.length = self._message.dtype.itemsize
        self._values = [self._message[str(at)]["value"] for at in range(len(parts))]

    def schema(self) -> bytes:
        """The message type as a serialised `FileDescriptorSet`."""
        package, _, name = self.name.rpartition(".")
        file = FileDescriptorProto(name=f"{package}/{name}.proto", package=package, syntax="proto3")
        message = file.message_type.add(name=name)
        if self._is_packed:
            label = FieldDescriptorProto.LABEL_REPEATED
            message.field.add(name="values", number=1, type=self._type, label=label)
        else:
            label = FieldDescriptorProto.LABEL_OPTIONAL
            for at, field in enumerate(field_names(self.spec)):
                message.field.add(name=field, number=_number(at), type=self._type, label=label)
        return FileDescriptorSet(file=[file]).SerializeToString()

    def encode(self, value: np.ndarray) -> bytes:
        """One message; `value` has the spec's shape. Not to be called by two threads at once."""
        flat, start = value.reshape(-1), 0
        for part in self._values:
            part[...] = flat[start : start + part.size]
            start += part.size
        return self._message.tobytes()

    def decode(self, messages: Sequence[bytes]) -> np.ndarray:
        """Values of many messages, shape (N, *spec.shape), of the spec's dtype.

        Raises:
            ValueError: They are not messages that `encode` made.
        """
        if any(len(message) != self.length for message in messages):
            raise ValueError(f"a message of {self.name} has not {self.length} bytes")
        return self.decode_joined(b"".join(messages), len(messages))

    def decode_joined(self, data: bytes, count: int) -> np.ndarray:
        """Values of so many messages, one behind the other; see `decode`."""
        if len(data) != count * self.length:
            raise ValueError(f"{count} messages of {self.name} have not {len(data)} bytes")
        shape = (count, *self.spec.shape)
        if not data:
            return np.zeros(shape, self.spec.dtype)
        rows = np.frombuffer(data, self._message.dtype)
        for name in rows.dtype.names or ():
            if not (rows[name]["tag"] == self._message[name]["tag"]).all():
                raise ValueError(f"a message of {self.name} has other fields than its type")
        columns = [rows[name]["value"].reshape(len(rows), -1) for name in rows.dtype.names or ()]
        return np.concatenate(columns, axis=1).astype(self.spec.dtype).reshape(shape)

    def _field_parts(self) -> list[np.ndarray]:
        """Tags and zeros of each run of fields whose tags are equally long."""
        runs: dict[int, list[bytes]] = {}
        for at in range(self._size):
            tag = _varint(_number(at) << 3 | self._wire)
            runs.setdefault(len(tag), []).append(tag)
        parts = []
        for width, tags in runs.items():
            part = np.zeros(len(tags), [("tag", "u1", (width,)), ("value", self._value)])
            part["tag"] = np.frombuffer(b"".join(tags), np.uint8).reshape(-1, width)
            parts.append(part)
        return parts

    def _packed_part(self) -> list[np.ndarray]:
        """Tag, length and zeros of the one field."""
        if not self._size:
            return []
        head = _varint(1 << 3 | _LENGTH) + _varint(self._size * np.dtype(self._value).itemsize)
        part = np.zeros((), [("tag", "u1", (len(head),)), ("value", self._value, (self._size,))])
        part["tag"] = np.frombuffer(head, np.uint8)
        return [part]


def field_names(spec: ArraySpec) -> tuple[str, ...]:
    """A valid and unique identifier for each element; the true names are in the spec."""
    taken: set[str] = set()
    fields = []
    for at, name in enumerate(spec.names or [""] * int(np.prod(spec.shape))):
        stem = re.sub(r"[^A-Za-z0-9_]", "_", name)
        stem = stem if re.match(r"[A-Za-z]", stem) else f"e{at}{stem and '_' + stem}"
        field, again = stem, 1
        while _json_name(field) in taken:
            again += 1
            field = f"{stem}_{again}"
        taken.add(_json_name(field))
        fields.append(field)
    return tuple(fields)


def _json_name(field: str) -> str:
    """Protobuf refuses fields whose names become equal where underscores and case do not count."""
    return field.replace("_", "").lower()


def _type_name(topic: str) -> str:
    words = re.split(r"[^A-Za-z0-9]+", topic)
    return "".join(word[:1].upper() + word[1:] for word in words) or "Values"


def _number(at: int) -> int:
    return at + 1 if at + 1 < _RESERVED.start else at + 1 + len(_RESERVED)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
