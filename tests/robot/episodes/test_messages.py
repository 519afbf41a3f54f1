import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robot.episodes.messages import MAX_FIELDS, VectorMessages, field_names
from robot.specs import ArraySpec

DTYPES = ("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint64")


def message_class(messages: VectorMessages):
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(messages.schema()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(messages.name))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), size=st.integers(1, 40), count=st.integers(1, 4))
def test_values_survive_to_the_bit_and_protobuf_reads_them(data, dtype, size, count):
    messages = VectorMessages("/measured/q", ArraySpec("q", (size,), dtype))
    kind = {"float": {"allow_nan": False}}.get(dtype.rstrip("0123456789"), {})
    elements = arrays.from_dtype(np.dtype(dtype), **kind)
    values = data.draw(arrays.arrays(dtype, (count, size), elements=elements))
    encoded = [messages.encode(row) for row in values]
    assert {len(message) for message in encoded} == {messages.length}
    decoded = messages.decode(encoded)
    assert decoded.dtype == values.dtype
    assert decoded.tobytes() == values.tobytes()
    parser = message_class(messages)
    for row, message in zip(values, encoded, strict=True):
        parsed = parser.FromString(message)
        read = [getattr(parsed, field) for field in field_names(messages.spec)]
        np.testing.assert_array_equal(np.array(read, dtype), row)


@pytest.mark.parametrize("shape", [(3, 4), (MAX_FIELDS + 1,), (), (2, 0)])
@pytest.mark.parametrize("dtype", ["float32", "bool", "int16"])
def test_large_arrays_and_those_of_higher_rank_are_one_field(shape, dtype):
    messages = VectorMessages("/observation/points", ArraySpec("points", shape, dtype))
    values = np.random.default_rng(0).integers(0, 2, (5, *shape)).astype(dtype)
    encoded = [messages.encode(value) for value in values]
    decoded = messages.decode(encoded)
    assert (decoded.shape, decoded.dtype) == (values.shape, values.dtype)
    np.testing.assert_array_equal(decoded, values)
    parsed = message_class(messages).FromString(encoded[3])
    np.testing.assert_array_equal(np.array(list(parsed.values), dtype).reshape(shape), values[3])


def test_many_fields_have_tags_of_several_lengths():
    names = tuple(f"joint {at}" for at in range(MAX_FIELDS))
    messages = VectorMessages("/q", ArraySpec("q", (MAX_FIELDS,), "float64", names=names))
    value = np.arange(MAX_FIELDS) / 7
    parsed = message_class(messages).FromString(messages.encode(value))
    assert (parsed.joint_0, parsed.joint_15, parsed.joint_255) == (0, 15 / 7, 255 / 7)
    assert messages.length == 15 * 9 + (MAX_FIELDS - 15) * 10


def test_names_become_unique_identifiers():
    names = ("x", "X", "x y", "x_y", "3d", "", "größe", "joint1.pos", "joint1.vel")
    spec = ArraySpec("odd", (len(names),), names=names)
    fields = field_names(spec)
    assert fields[:4] == ("x", "X_2", "x_y", "x_y_2")
    assert fields[4:] == ("e4_3d", "e5", "gr__e", "joint1_pos", "joint1_vel")
    value = np.arange(len(names), dtype=np.float32)
    messages = VectorMessages("/odd", spec)
    parsed = message_class(messages).FromString(messages.encode(value))
    assert [getattr(parsed, field) for field in fields] == value.tolist()


def test_what_is_no_message_of_the_type_is_refused():
    messages = VectorMessages("/q", ArraySpec("q", (3,)))
    good = messages.encode(np.ones(3))
    with pytest.raises(ValueError, match=r"a message of armature\.Q has not 15 bytes"):
        messages.decode([good, good[:-1]])
    with pytest.raises(ValueError, match="has other fields than its type"):
        messages.decode([good, b"\x7f" + good[1:]])
    assert messages.decode([]).shape == (0, 3)
