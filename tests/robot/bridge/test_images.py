"""Pictures on the wire and the client that keeps the newest: nothing foreign, torn or old gets through."""

import dataclasses
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from robot.bridge.image_client import KEPT, ImageClient
from robot.bridge.images import ImageStream, Stamp, checked, encode_image, pixels
from robot.bridge.wire import Frame, FrameType, decode, encode
from robot.errors import BridgeError, UnknownNameError, WireError

BOOT = 11
SHAPE = (48, 64, 3)
STREAM = ImageStream("tcp://127.0.0.1:1", 48, 64, "jpeg", 50.0)
RAW = dataclasses.replace(STREAM, encoding="raw")


def picture(level: int = 128) -> np.ndarray:
    return np.full(SHAPE, level, np.uint8)


def message(number: int = 1, t_ns: int | None = None, encoding: str = "jpeg", boot_id: int = BOOT) -> bytes:
    t_ns = time.monotonic_ns() if t_ns is None else t_ns
    return encode_image(picture(number % 250), Stamp(boot_id, 5, number, t_ns, t_ns + 7), encoding, 90)


def with_content(content: bytes, encoding: int = 0) -> Frame:
    head = np.array([48, 64, encoding, 0], "<u2").tobytes()
    return Frame(FrameType.IMAGE, head + content, BOOT, 5, 1, 0, time.monotonic_ns())


def jpeg(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("stream", [STREAM, RAW])
def test_a_picture_comes_out_as_it_went_in(stream: ImageStream) -> None:
    image = np.dstack([np.full(SHAPE[:2], level, np.uint8) for level in (10, 100, 200)])
    stamp = Stamp(BOOT, 5, 9, 1234, 5678)
    frame = decode(encode_image(image, stamp, stream.encoding, 95))
    assert checked(frame, stream) == stamp
    np.testing.assert_allclose(pixels(frame, stream), image, atol=0 if stream is RAW else 4)
    assert len(encode(frame)) <= stream.max_frame


def test_hello_carries_streams_as_they_are() -> None:
    assert ImageStream.from_json(STREAM.to_json()) == STREAM
    for wrong in ({"height": 0}, {"width": 9000}, {"encoding": "png"}, {"fps": float("nan")}):
        with pytest.raises(BridgeError, match="Not a stream"):
            ImageStream.from_json({**STREAM.to_json(), **wrong})


@pytest.mark.parametrize(
    "frame",
    [
        Frame(FrameType.STATE, bytes(64)),
        Frame(FrameType.IMAGE, b"abc"),
        decode(encode_image(np.zeros((50, 64, 3), np.uint8), Stamp(BOOT, 5, 1, 0, 0), "jpeg", 90)),
        decode(message(encoding="raw")),
    ],
)
def test_what_hello_did_not_say_is_no_picture(frame: Frame) -> None:
    with pytest.raises(WireError):
        checked(frame, STREAM)


def test_a_raw_picture_has_all_its_pixels() -> None:
    with pytest.raises(WireError, match="raw picture"):
        checked(with_content(bytes(10), encoding=1), RAW)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8",
        b"GIF89a" * 20,
        jpeg(48, 64)[:200],
        jpeg(49, 64),
        jpeg(4000, 4000),
        jpeg(48, 64)[:2] + b"\xff\xd9",
    ],
)
def test_what_is_no_jpeg_of_that_size_is_never_decoded(content: bytes) -> None:
    with pytest.raises(WireError):
        pixels(with_content(content), STREAM)


@given(st.binary(max_size=400), st.integers(0, 600))
def test_no_bytes_crash_the_decoder(noise: bytes, at: int) -> None:
    whole = jpeg(48, 64)
    content = whole[:at] + noise + whole[at + len(noise) :]
    try:
        image = pixels(with_content(content), STREAM)
    except WireError:
        return
    assert image.shape == SHAPE


class Publisher:
    """Cameras that send what a test wants, and the little of a bridge that the client needs."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets = {name: self.context.socket(zmq.PUB) for name in names}
        streams = {}
        for name, socket in self.sockets.items():
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 2)
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            streams[name] = dataclasses.replace(STREAM, endpoint=f"tcp://127.0.0.1:{port}")
        self.schema = SimpleNamespace(images=streams, boot_id=BOOT)

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def join(self, socket: zmq.Socket[Any], endpoint: str) -> None:
        socket.connect(endpoint)

    def send(self, name: str, data: bytes) -> None:
        self.sockets[name].send(data)

    def close(self) -> None:
        for socket in self.sockets.values():
            socket.close()
        self.context.term()


@pytest.fixture
def cameras() -> Iterator[tuple[Publisher, ImageClient]]:
    publisher = Publisher(("front", "side"))
    with ImageClient(publisher) as client:  # type: ignore[arg-type]
        for name in publisher.sockets:
            until = time.monotonic() + 5
            # Subscriptions take a moment; what is sent before is lost.
            while client.age_s(name) == float("inf") and time.monotonic() < until:
                publisher.send(name, message(1))
                time.sleep(0.01)
        client.rejected.clear()
        yield publisher, client
    publisher.close()


def settled(client: ImageClient, count: int) -> None:
    until = time.monotonic() + 2
    while sum(client.rejected.values()) < count and time.monotonic() < until:
        time.sleep(0.005)


def test_gives_the_newest_with_its_age(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    t_ns = time.monotonic_ns() - 20_000_000
    publisher.send("front", message(7, t_ns))
    time.sleep(0.05)
    got = client.newest("front", max_age_s=1.0)
    assert (got.number, got.t_ns) == (7, t_ns)
    assert 0.06 < got.age_s < 0.5
    np.testing.assert_allclose(got.image, 7, atol=2)
    again = client.newest("front", max_age_s=1.0)
    assert again.number == 7
    assert again.age_s > got.age_s


def test_an_old_picture_is_an_error_that_says_how_old(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    publisher.send("front", message(7, time.monotonic_ns() - 400_000_000))
    time.sleep(0.05)
    with pytest.raises(BridgeError, match=r"'front' is 0\.4\d+ s old, at most 0.1 s"):
        client.newest("front", max_age_s=0.1)
    with pytest.raises(BridgeError, match="'front' is"):
        client.aligned(max_age_s=0.1)


def test_waits_for_a_fresh_one_as_long_as_it_may(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    time.sleep(0.12)
    begin = time.monotonic()
    with pytest.raises(BridgeError):
        client.newest("front", max_age_s=0.1, wait_s=0.1)
    assert 0.09 < time.monotonic() - begin < 0.5
    publisher.send("front", message(9))
    assert client.newest("front", max_age_s=0.1, wait_s=1.0).number == 9


def test_everything_foreign_is_counted_by_its_reason(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    damaged = bytearray(message(50))
    damaged[-1] ^= 1
    wrong = {
        "too short": b"x",
        "magic": bytes(100),
        "crc": bytes(damaged),
        "boot id": message(51, boot_id=BOOT + 1),
        "sequence number": message(1),
        "not for this channel": encode(Frame(FrameType.STATE, bytes(16), BOOT)),
        "payload": encode_image(np.zeros((8, 8, 3), np.uint8), Stamp(BOOT, 5, 52, 0, 0), "jpeg", 90),
    }
    for data in wrong.values():
        publisher.send("front", data)
        time.sleep(0.02)
    settled(client, len(wrong))
    assert dict(client.rejected) == dict.fromkeys(wrong, 1)
    assert client.newest("front", max_age_s=5).number == 1


def test_a_broken_jpeg_is_counted_and_the_one_before_it_given(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    broken = dataclasses.replace(with_content(jpeg(48, 64)[:150]), sequence=60)
    publisher.send("front", encode(broken))
    time.sleep(0.05)
    assert client.newest("front", max_age_s=5).number == 1
    assert dict(client.rejected) == {"payload": 1}


def test_pictures_of_one_moment_and_their_skew(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    base, period = time.monotonic_ns(), 20_000_000
    for index in range(3):
        publisher.send("front", message(10 + index, base + index * period))
        publisher.send("side", message(30 + index, base + index * period + 4_000_000))
        time.sleep(0.02)
    got = client.aligned(max_age_s=1.0)
    assert got.t_ns == base + 2 * period
    assert {name: one.number for name, one in got.pictures.items()} == {"front": 12, "side": 32}
    assert got.skew_s == {"front": 0.0, "side": 0.004}
    earlier = client.aligned(max_age_s=1.0, t_ns=base + period + 2_000_000)
    assert {name: one.number for name, one in earlier.pictures.items()} == {"front": 11, "side": 31}
    with pytest.raises(BridgeError, match=r"'front' is -18.0 ms away.*half its period of 20.0 ms"):
        client.aligned(max_age_s=1.0, t_ns=base + 2 * period + 18_000_000)


def test_who_asks_rarely_gets_the_newest_and_nothing_grows(cameras: tuple[Publisher, ImageClient]) -> None:
    publisher, client = cameras
    for number in range(2, 60):
        publisher.send("front", message(number))
        time.sleep(0.002)
    time.sleep(0.05)
    assert client.newest("front", max_age_s=1.0).number == 59
    assert [picture.number for picture in client.after("front", 55)] == [56, 57, 58, 59]
    assert [picture.number for picture in client.after("front", 55, most=1)] == [56]
    assert len(client.after("front", 0)) == KEPT


def test_a_camera_that_is_not_there_is_named() -> None:
    publisher = Publisher(("front",))
    with pytest.raises(UnknownNameError, match=r"fornt.*front"):
        ImageClient(publisher, ["fornt"])  # type: ignore[arg-type]
    with ImageClient(publisher) as client:  # type: ignore[arg-type]
        with pytest.raises(UnknownNameError):
            client.newest("back", max_age_s=1)
        with pytest.raises(BridgeError, match="has not come yet"):
            client.newest("front", max_age_s=1)
    publisher.close()
