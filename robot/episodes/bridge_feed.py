"""What a bridge sends to whoever records: its journal and the pictures of its cameras, all of them, in order.

One thread receives from sockets with queues of their own, so that a moment of inattention loses nothing. Everything is
numbered by its source: a gap in the numbers is told, a frame that is not newer than the last is left out.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import zmq

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.images import ImageStream, checked, content
from robot.bridge.journal import Taken, subscribed, taken
from robot.bridge.schema import BridgeSchema
from robot.bridge.wire import Frame, FrameType, Reason, decode
from robot.errors import BridgeError, WireError, unknown_name

STATES, CHUNKS, DEVICE = "states", "chunks", "device"
"""Names of what the journal holds, beside the names of the cameras."""
_SOURCES = {FrameType.STATE: STATES, FrameType.TAKEN: CHUNKS, FrameType.DEVICE: DEVICE}
PICTURES_WAIT = 64
"""Pictures of a camera that wait at most: two seconds."""
POLL_MS = 20
BURST = 64
"""Frames that are taken from one socket before the others have their turn."""


class Listener(Protocol):
    """Whoever is told; called from the feed's thread."""

    def on_state(self, state: BridgeState) -> None:
        """The next state."""

    def on_chunk(self, chunk: Taken) -> None:
        """A chunk, before the state that shows it."""

    def on_device(self, t_ns: int, action: np.ndarray) -> None:
        """What a device asked for, (A,)."""

    def on_picture(self, camera: str, t_ns: int, picture: bytes | np.ndarray) -> None:
        """A picture: a JPEG, or RGB where the stream is raw; time of capture [ns]."""

    def on_gap(self, source: str, count: int, from_ns: int, to_ns: int) -> None:
        """`count` items of a camera, or of `STATES`, `CHUNKS` or `DEVICE`, between two times are lost."""

    def on_tick(self) -> None:
        """Now and then, whatever comes."""


class BridgeFeed:
    """Receives while its block lasts. What goes wrong in the thread is raised by `check`.

    Attributes:
        rejected: Frames that were not taken, by reason.
    """

    def __init__(self, client: BridgeClient, cameras: Sequence[str], listener: Listener) -> None:
        """Nothing is received before entry.

        Args:
            client: Connected; tells where everything is.
            cameras: Names of those wanted.
            listener: Told of everything.

        Raises:
            UnknownNameError: The bridge has no camera of that name.
        """
        self._client, self._schema, self._listener = client, client.schema, listener
        self.streams = streams_of(client.schema, cameras)
        self.rejected: Counter[str] = Counter()
        self._last: dict[str, tuple[int, int]] = {}
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Receive no more; may be called twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Whether the first state has come, at most after `seconds`."""
        until_s = seconds / 100
        for _ in range(100):
            if self._began.wait(until_s) or self._failure is not None:
                break
        self.check()
        return self._began.is_set()

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        takers: dict[zmq.Socket[Any], Callable[[bytes], None]] = {}
        try:
            takers[subscribed(context, self._client)] = self._take_journal
            for name, stream in self.streams.items():
                takers[self._pictures(context, stream)] = self._picture_taker(name, stream)
            self._receive(takers)
        except Exception as error:
            self._failure = error
        finally:
            for socket in takers:
                socket.close()
            context.term()

    def _receive(self, takers: dict[zmq.Socket[Any], Callable[[bytes], None]]) -> None:
        poller = zmq.Poller()
        for socket in takers:
            poller.register(socket, zmq.POLLIN)
        while not self._ended.is_set():
            for socket, _ in poller.poll(POLL_MS):
                self._drain(socket, takers[socket])
            self._listener.on_tick()

    def _drain(self, socket: zmq.Socket[Any], take: Callable[[bytes], None]) -> None:
        for _ in range(BURST):
            try:
                data = socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                take(data)
            except WireError as error:
                self.rejected[error.reason] += 1

    def _pictures(self, context: zmq.Context[Any], stream: ImageStream) -> zmq.Socket[Any]:
        socket = context.socket(zmq.SUB)
        options = {zmq.LINGER: 0, zmq.RCVHWM: PICTURES_WAIT, zmq.MAXMSGSIZE: stream.max_frame}
        for option, value in {**options, zmq.RECONNECT_IVL_MAX: 1000}.items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._client.join(socket, stream.endpoint)
        return socket

    def _take_journal(self, data: bytes) -> None:
        frame = decode(data)
        if frame.boot_id != self._schema.boot_id:
            raise BridgeError(f"The bridge at {self._client.endpoint} was restarted; what it sends now is another log.")
        source = _SOURCES.get(frame.type)
        if source is None:
            raise WireError(f"The journal sent {frame.type.name}.", Reason.CHANNEL)
        if frame.type == FrameType.STATE:
            self._take_state(frame)
        elif frame.type == FrameType.TAKEN:
            chunk = taken(frame)
            self._count(source, frame.sequence, chunk.t_ns)
            self._listener.on_chunk(chunk)
        else:
            self._count(source, frame.sequence, frame.t_exec_ns)
            self._listener.on_device(frame.t_exec_ns, frame.floats()[3:])

    def _take_state(self, frame: Frame) -> None:
        flat = frame.floats()
        if len(flat) != self._schema.layout.size:
            raise WireError(f"The journal sent a state of {len(flat)} numbers.", Reason.LENGTH)
        state = BridgeState(self._schema, flat)
        self._count(STATES, frame.sequence, state.t_ns)
        self._listener.on_state(state)
        self._began.set()

    def _picture_taker(self, name: str, stream: ImageStream) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            frame = decode(data)
            stamp = checked(frame, stream)
            if stamp.boot_id != self._schema.boot_id:
                raise WireError("A picture of another start of the bridge.", Reason.BOOT)
            self._count(name, stamp.number, stamp.t_ns)
            self._listener.on_picture(name, stamp.t_ns, content(frame, stream))

        return take

    def _count(self, source: str, number: int, t_ns: int) -> None:
        """Tell of what is missing before an item.

        Raises:
            WireError: It is not newer than the last.
        """
        last = self._last.get(source)
        if last is not None and number <= last[0]:
            raise WireError(f"{source}: {number} is not newer than {last[0]}.", Reason.SEQUENCE)
        if last is not None and number > last[0] + 1:
            self._listener.on_gap(source, number - last[0] - 1, last[1], t_ns)
        self._last[source] = number, t_ns


def streams_of(schema: BridgeSchema, cameras: Sequence[str]) -> dict[str, ImageStream]:
    """The streams of some cameras, by name.

    Raises:
        UnknownNameError: The bridge has no camera of that name.
    """
    for name in cameras:
        if name not in schema.images:
            raise unknown_name("camera", name, schema.images, "Start the bridge with cameras=[...].")
    return {name: schema.images[name] for name in cameras}
