"""What the feed makes of frames that are lost, late, foreign or broken."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zmq

from robot.bridge.client import BridgeState
from robot.bridge.images import Stamp, encode_image
from robot.bridge.journal import Taken
from robot.bridge.wire import Frame, FrameType, chunk_payload, encode
from robot.control.plan import Reject
from robot.episodes.bridge_feed import CHUNKS, DEVICE, STATES, BridgeFeed
from robot.errors import BridgeError, UnknownNameError
from tests.hardware.gateways import standing_in
from tests.robot.bridge import sights
from tests.robot.episodes.test_bridge_session import SIZE, schema

BOOT = schema().boot_id
ROWS = np.arange(14.0).reshape(2, 7)


class Heard:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.states: list[BridgeState] = []
        self.chunks: list[Taken] = []
        self.device: list[tuple[int, list[float]]] = []
        self.pictures: list[tuple[str, int, Any]] = []
        self.gaps: list[tuple[str, int, int, int]] = []
        self.ticks = 0

    def on_state(self, state: BridgeState) -> None:
        self.states.append(state)

    def on_chunk(self, chunk: Taken) -> None:
        self.chunks.append(chunk)

    def on_device(self, t_ns: int, action: np.ndarray) -> None:
        self.device.append((t_ns, action.tolist()))

    def on_picture(self, camera: str, t_ns: int, picture: Any) -> None:
        self.pictures.append((camera, t_ns, picture))

    def on_gap(self, source: str, count: int, from_ns: int, to_ns: int) -> None:
        self.gaps.append((source, count, from_ns, to_ns))

    def on_tick(self) -> None:
        self.ticks += 1


class Bridge:
    """Sockets that send what a test wants, to a feed."""

    def __init__(self) -> None:
        self.schema = schema()
        self.endpoint = "tcp://127.0.0.1:1"
        self._context: zmq.Context[Any] = zmq.Context()
        self.journal, self.schema.endpoints["journal"] = self._bound()
        self.front, address = self._bound()
        stream = self.schema.images["front"]
        self.schema.images["front"] = type(stream)(address, *SIZE, "jpeg", 30.0)

    def _bound(self) -> tuple[zmq.Socket[Any], str]:
        socket = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind("tcp://127.0.0.1:*")
        return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def join(self, socket: zmq.Socket[Any], address: str) -> None:
        socket.connect(address)

    def ready(self) -> None:
        """Return when the feed listens to both."""
        assert self.journal.poll(3000)
        assert self.front.poll(3000)

    def close(self) -> None:
        self.journal.close()
        self.front.close()
        self._context.term()


def state_frame(number: int, t_ns: int, boot_id: int = BOOT) -> bytes:
    flat = sights.state(schema(), t_ns=t_ns)._flat
    return encode(Frame(FrameType.STATE, flat.tobytes(), boot_id, 0, number))


def taken_frame(number: int, t_ns: int) -> bytes:
    told = Taken(7, 5, 1, t_ns, Reject.NONE, t_ns + 1, 0.02, ROWS)
    return encode(Frame(FrameType.TAKEN, told.payload(), BOOT, 0, number, t_ns, t_ns + 1))


def device_frame(number: int, t_ns: int) -> bytes:
    return encode(Frame(FrameType.DEVICE, chunk_payload(ROWS[:1], 0.02), BOOT, 0, number, t_ns, t_ns))


def picture_frame(number: int, t_ns: int, boot_id: int = BOOT, size: tuple[int, int] = SIZE) -> bytes:
    return encode_image(np.zeros((*size, 3), np.uint8), Stamp(boot_id, 5, number, t_ns, t_ns), "jpeg", 90)


def heard(
    send: Callable[[Bridge], None], is_done: Callable[[Heard], bool], fails: bool = False
) -> tuple[Heard, dict[str, int]]:
    """What a listener hears of what `send` sends."""
    bridge, listener = Bridge(), Heard()
    try:
        with BridgeFeed(bridge, ["front"], listener) as feed:  # type: ignore[arg-type]
            bridge.ready()
            send(bridge)
            until = time.monotonic() + 5
            while not is_done(listener) and time.monotonic() < until:
                feed.check()
                time.sleep(0.01)
            assert is_done(listener) or fails
            return listener, dict(feed.rejected)
    finally:
        bridge.close()


def test_gaps_are_counted_for_each_source() -> None:
    def send(bridge: Bridge) -> None:
        for number in (3, 4, 7, 8):
            bridge.journal.send(state_frame(number, 10 * number))
            bridge.front.send(picture_frame(10 * number, 1000 * number))
        for number in (1, 3):
            bridge.journal.send(taken_frame(number, 100 * number))
            bridge.journal.send(device_frame(number, 50 * number))

    got, rejected = heard(send, lambda one: len(one.pictures) == 4 and len(one.device) == 2)
    assert [state.t_ns for state in got.states] == [30, 40, 70, 80]
    assert sorted(got.gaps) == sorted(
        [
            *((STATES, 2, 40, 70), (CHUNKS, 1, 100, 300), (DEVICE, 1, 50, 150)),
            *(("front", 9, 3000, 4000), ("front", 29, 4000, 7000), ("front", 9, 7000, 8000)),
        ]
    )
    assert rejected == {}
    assert [chunk.t_ns for chunk in got.chunks] == [100, 300]
    np.testing.assert_array_equal(got.chunks[0].rows, ROWS)
    assert got.device[0] == (50, ROWS[0].tolist())
    camera, t_ns, picture = got.pictures[0]
    assert (camera, t_ns, picture[:2]) == ("front", 3000, b"\xff\xd8")


def test_what_is_old_foreign_or_broken_is_counted_and_left_out() -> None:
    def send(bridge: Bridge) -> None:
        broken = bytearray(state_frame(2, 20))
        broken[-1] ^= 1
        short = encode(Frame(FrameType.STATE, bytes(16), BOOT, 0, 2))
        request = encode(Frame(FrameType.REQUEST, b"\x80", BOOT))
        for data in (state_frame(2, 10), state_frame(2, 20), state_frame(1, 5), bytes(broken), short, request, b"x"):
            bridge.journal.send(data)
        for data in (
            *(picture_frame(5, 10), picture_frame(4, 5), picture_frame(6, 20, size=(8, 8))),
            *(picture_frame(6, 20, boot_id=BOOT + 1), state_frame(9, 9)),
        ):
            bridge.front.send(data)
        bridge.front.send(picture_frame(6, 20))
        bridge.journal.send(state_frame(3, 30))

    got, rejected = heard(send, lambda one: len(one.pictures) == 2 and len(one.states) == 2)
    assert [state.t_ns for state in got.states] == [10, 30]
    assert [t_ns for _, t_ns, _ in got.pictures] == [10, 20]
    assert got.gaps == []
    assert sum(rejected.values()) == 10
    assert rejected["sequence number"] == 3


def test_a_bridge_that_was_restarted_is_another() -> None:
    with pytest.raises(BridgeError, match="was restarted"):
        heard(lambda bridge: bridge.journal.send(state_frame(1, 1, BOOT + 1)), lambda one: False)


def test_what_fails_in_the_listener_ends_the_feed_and_is_told() -> None:
    class Failing(Heard):
        def on_state(self, state: BridgeState) -> None:
            raise ZeroDivisionError("a defect")

    bridge = Bridge()
    with BridgeFeed(bridge, [], Failing()) as feed:  # type: ignore[arg-type]
        assert bridge.journal.poll(3000)
        bridge.journal.send(state_frame(1, 1))
        with pytest.raises(ZeroDivisionError):
            feed.wait(3.0)
    bridge.close()


def test_silence_and_unknown_cameras() -> None:
    bridge = Bridge()
    with pytest.raises(UnknownNameError, match="Available: front"):
        BridgeFeed(bridge, ["nothing"], Heard())  # type: ignore[arg-type]
    with BridgeFeed(bridge, [], Heard()) as feed:  # type: ignore[arg-type]
        assert not feed.wait(0.1)
    bridge.close()


def test_behind_a_gateway_every_state_and_command_arrives() -> None:
    from robot.contract import ActionChunk

    listener = Heard()
    with standing_in() as bridge, bridge.client(timeout_s=5.0) as client, BridgeFeed(client, [], listener) as feed:
        assert feed.wait(3.0)
        client.acquire()
        client.arm()
        for _ in range(5):
            client.tell_device(ROWS[0])
            client.send_chunk(ActionChunk(ROWS, 0.02), client.now_ns())
            until = time.monotonic() + 0.02
            while time.monotonic() < until:
                client.state()
        until = time.monotonic() + 3
        while len(listener.chunks) < 5 and time.monotonic() < until:
            client.state()
        assert [chunk.sequence for chunk in listener.chunks] == [1, 2, 3, 4, 5]
        assert len(listener.device) == 5
        assert listener.gaps == []
        cycles = [state.status("cycle") for state in list(listener.states)]
        assert np.diff(cycles).tolist() == [1] * (len(cycles) - 1)
