import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.bridge import wire
from robot.bridge.wire import Frame, FrameType
from robot.errors import WireError

U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(FrameType))
    payload = draw(st.binary(max_size=min(300, wire.MAX_PAYLOAD[kind])))
    return Frame(kind, payload, draw(U64), draw(U64), draw(U64), draw(I64), draw(I64))


@given(frames())
def test_round_trip(frame: Frame) -> None:
    assert wire.decode(wire.encode(frame)) == frame


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_decode(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(data)


@given(frames(), st.data())
def test_mutated_frames_never_decode(frame: Frame, data: st.DataObject) -> None:
    encoded = bytearray(wire.encode(frame))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WireError):
        wire.decode(bytes(encoded))


@given(frames(), st.integers(1, 80))
def test_shortened_and_lengthened_frames_never_decode(frame: Frame, count: int) -> None:
    encoded = wire.encode(frame)
    for data in (encoded[:-count], encoded + bytes(count)):
        with pytest.raises(WireError):
            wire.decode(data)


@given(st.binary(max_size=200))
def test_payloads_give_maps_chunks_or_wire_errors(payload: bytes) -> None:
    for kind, read in ((FrameType.REQUEST, Frame.message), (FrameType.CHUNK, wire.chunk_rows)):
        try:
            content = read(Frame(kind, payload))
        except WireError:
            continue
        assert isinstance(content, dict | tuple)


def test_golden_bytes() -> None:
    encoded = wire.encode(Frame(FrameType.HEARTBEAT, b"", 1, 2, 3, -4, 5))
    expected = b"RMAT" + struct.pack("<HHHH", 1, 1, 3, 0) + struct.pack("<QQQqqII", 1, 2, 3, -4, 5, 0, 0)
    assert encoded[:60] == expected
    assert len(encoded) == 64


def test_other_version_says_so() -> None:
    encoded = bytearray(wire.encode(Frame(FrameType.HEARTBEAT)))
    encoded[4] = 9
    with pytest.raises(WireError, match=r"version 9\.1.*speaks 1\.1"):
        wire.decode(bytes(encoded))


@pytest.mark.parametrize("kind", FrameType)
def test_oversized_payloads_are_refused_on_both_sides(kind: FrameType) -> None:
    with pytest.raises(WireError, match="at most"):
        wire.encode(Frame(kind, bytes(wire.MAX_PAYLOAD[kind] + 1)))


def test_deep_nesting_is_a_wire_error() -> None:
    with pytest.raises(WireError):
        Frame(FrameType.REQUEST, b"\x91" * 60000).message()


def test_chunk_round_trip_and_nan_survives_for_the_intake_to_reject() -> None:
    rows = np.array([[1.0, np.nan], [np.inf, -2.0]])
    got, dt_s = wire.chunk_rows(Frame(FrameType.CHUNK, wire.chunk_payload(rows, 0.05)))
    np.testing.assert_array_equal(got, rows)
    assert dt_s == 0.05


@pytest.mark.parametrize(
    "head", [[np.nan, 1, 1], [0.05, 2, 1], [0.05, -1, -1], [0.0, 1, 1], [-0.05, 1, 1], [0.05, 0.5, 2], [9, 1, 1]]
)
def test_chunks_with_an_impossible_head(head: list[float]) -> None:
    with pytest.raises(WireError):
        wire.chunk_rows(Frame(FrameType.CHUNK, np.array([*head, 0.0], "<f8").tobytes()))


def test_public_id_hides_the_session_and_is_exact_as_a_float() -> None:
    ids = {wire.public_id(session) for session in range(1000)}
    assert len(ids) == 1000
    assert all(int(float(value)) == value for value in ids)
    assert wire.public_id(7) != 7
