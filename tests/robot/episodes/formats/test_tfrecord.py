"""TFRecord framing and tf.train.Example: what is damaged is told of with its place."""

import gzip
import struct

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.formats import tf_example
from robot.episodes.formats.tfrecord import RecordFile, frame, masked_crc
from robot.errors import DatasetError


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, from its polynomial (RFC 3720, reversed 0x1EDC6F41)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_checksum_against_its_definition():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    for data in (b"", b"a", bytes(range(256))):
        crc = crc32c(data)
        rotated = int(f"{crc:032b}"[-15:] + f"{crc:032b}"[:-15], 2)
        assert masked_crc(data) == (rotated + 0xA282EAD8) % 2**32
    assert google_crc32c.value(b"123456789") == 0xE3069283


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=6), st.booleans())
def test_records_come_back_in_any_order(tmp_path_factory, records, is_compressed):
    path = tmp_path_factory.mktemp("records") / "a.tfrecord"
    data = b"".join(map(frame, records))
    path.write_bytes(gzip.compress(data) if is_compressed else data)
    file = RecordFile(path)
    assert len(file) == len(records)
    for number in reversed(range(len(records))):
        assert file.read(number) == records[number]
    assert list(file) == records


RECORDS = (b"first", b"second record", b"x" * 5000)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("cut", [3, 11, 16, 40, 100])
def test_truncated_files_name_the_record_and_its_offset(tmp_path, cut, compressed):
    whole = b"".join(map(frame, RECORDS))
    offsets = [0, *np.cumsum([16 + len(record) for record in RECORDS]).tolist()]
    number = max(i for i in range(3) if offsets[i] < cut)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(gzip.compress(whole[:cut]) if compressed else whole[:cut])
    with pytest.raises(DatasetError, match=rf"a\.tfrecord: record {number} at byte {offsets[number]} .*is truncated"):
        RecordFile(path)


def test_damaged_data_are_told_of_when_they_are_read(tmp_path):
    whole = bytearray(b"".join(map(frame, RECORDS)))
    whole[21 + 12 + 4] ^= 1
    path = tmp_path / "a.tfrecord"
    path.write_bytes(whole)
    file = RecordFile(path)
    assert file.read(0) == b"first"
    assert file.read(2) == b"x" * 5000
    with pytest.raises(DatasetError, match=r"record 1 at byte 21 does not have its checksum"):
        file.read(1)


def test_garbage_is_no_record(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"this is a text and not a TFRecord")
    with pytest.raises(DatasetError, match=r"record 0 at byte 0 is no record.*no TFRecord"):
        RecordFile(path)
    path.write_bytes(frame(b"good") + struct.pack("<QI", 10, 1) + b"garbage that follows")
    with pytest.raises(DatasetError, match=r"record 1 at byte 20 is no record"):
        RecordFile(path)
    path.write_bytes(gzip.compress(frame(b"good"))[:-6])
    with pytest.raises(DatasetError, match="cannot be decompressed"):
        RecordFile(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        RecordFile(tmp_path / "absent")
    path.write_bytes(b"")
    assert len(RecordFile(path)) == 0


def test_a_length_that_looks_like_gzip(tmp_path):
    """The first bytes of a record of 559 KB (0x08_8B_1F) are gzip's."""
    record = bytes(0x088B1F)
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame(record))
    assert RecordFile(path).read(0) == record


def test_examples_in_golden_bytes():
    """Example{features{feature{"a": int64 [1, 300]}}}, put together by hand from the encoding of protocol buffers."""
    values = b"\x0a\x03\x01\xac\x02"
    feature = b"\x1a" + bytes([len(values)]) + values
    entry = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    data = b"\x0a" + bytes([len(features)]) + features
    np.testing.assert_array_equal(tf_example.parse(data, "x")["a"], [1, 300])
    assert tf_example.serialised({"a": np.array([1, 300])}) == data


def test_examples_there_and_back():
    features = {
        "bytes": [b"", b"\xff\x00"],
        "floats": np.array([1.5, -0.0, np.inf], np.float32),
        "integers": np.array([-1, 2**62]),
    }
    back = tf_example.parse(tf_example.serialised(features), "x")
    assert back["bytes"] == features["bytes"]
    np.testing.assert_array_equal(back["floats"], features["floats"])
    np.testing.assert_array_equal(back["integers"], features["integers"])
    with pytest.raises(DatasetError, match=r"shard 3 is no tf\.train\.Example"):
        tf_example.parse(b"\xff\xff\xff", "shard 3")
