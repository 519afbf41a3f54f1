"""`tf.train.Example`, the message in records of TensorFlow Datasets, without TensorFlow.

An example maps names to lists of bytes, float32 or int64. The message type is put together here from its field numbers
(tensorflow/core/example/feature.proto).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
)

from robot.errors import DatasetError

_PACKAGE = "armature.example"
_Field = descriptor_pb2.FieldDescriptorProto

Values = list[bytes] | np.ndarray
"""Bytes, or a vector of float32 or int64."""


def parse(data: bytes, where: str) -> dict[str, Values]:
    """The features of an example by name; those without any values are left out.

    Args:
        data: The message.
        where: What it was read from, for errors.

    Raises:
        DatasetError: It is no such message.
    """
    example = _Example()
    try:
        example.ParseFromString(data)
    except message.DecodeError as error:
        raise DatasetError(f"{where} is no tf.train.Example: {error}.") from error
    found: dict[str, Values] = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind == "bytes_list":
            found[name] = list(feature.bytes_list.value)
        elif kind == "float_list":
            found[name] = np.array(feature.float_list.value, np.float32)
        elif kind == "int64_list":
            found[name] = np.array(feature.int64_list.value, np.int64)
    return found


def serialised(features: Mapping[str, Values]) -> bytes:
    """The message that `parse` reads; equal features give equal bytes."""
    example = _Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
        elif values.dtype == np.float32:
            feature.float_list.value.extend(values.tolist())
        else:
            feature.int64_list.value.extend(values.tolist())
    return example.SerializeToString(deterministic=True)


def _message_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="armature/example.proto", package=_PACKAGE, syntax="proto3")
    for name, kind in (
        ("BytesList", _Field.TYPE_BYTES),
        ("FloatList", _Field.TYPE_FLOAT),
        ("Int64List", _Field.TYPE_INT64),
    ):
        made = file.message_type.add(name=name)
        made.field.add(name="value", number=1, type=kind, label=_Field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind = "".join(part.capitalize() for part in name.split("_"))
        field = _reference(feature, name, number, kind)
        field.oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    _reference(entry, "value", 2, "Feature")
    _reference(features, "feature", 1, "Features.FeatureEntry").label = _Field.LABEL_REPEATED
    _reference(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _reference(owner: Any, name: str, number: int, kind: str) -> Any:
    return owner.field.add(
        name=name,
        number=number,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{kind}",
        label=_Field.LABEL_OPTIONAL,
    )


_Example = _message_type()
