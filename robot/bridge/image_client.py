"""The newest pictures of a bridge's cameras, as they come in.

A thread receives all the time, so that no old picture waits in a queue however rarely the caller asks. It keeps the
last few of each camera undecoded; only what is asked for is decoded.
"""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from robot.bridge.client import BridgeClient
from robot.bridge.images import QUEUE, ImageStream, Stamp, checked, pixels
from robot.bridge.wire import Frame, Reason, decode
from robot.errors import BridgeError, WireError, unknown_name

KEPT = 8
"""Pictures of each camera that are kept for `aligned`."""
JITTER = 1.1
"""Two pictures of a camera are at most this many periods apart where none was lost."""


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        image: RGB, uint8, (H, W, 3).
        t_ns: Time of capture, the bridge's CLOCK_MONOTONIC [ns].
        number: Of the picture, counted by the camera; a gap is a picture that was lost.
        age_s: Time since its capture when it was asked for [s].
    """

    image: np.ndarray
    t_ns: int
    number: int
    age_s: float


@dataclass(frozen=True)
class Aligned:
    """One picture of each camera, of nearly one moment.

    Attributes:
        t_ns: The moment, the bridge's CLOCK_MONOTONIC [ns].
        pictures: By camera.
        skew_s: How much later than the moment each picture was taken [s].
    """

    t_ns: int
    pictures: dict[str, Picture]
    skew_s: dict[str, float]


class ImageClient:
    """The cameras of a bridge that a `BridgeClient` is connected to, as a context manager. It never waits for ever.

    Attributes:
        rejected: Frames that were not taken, by reason.
    """

    def __init__(self, client: BridgeClient, names: Sequence[str] | None = None) -> None:
        """Nothing is received before entry.

        Args:
            client: Connected; tells where the cameras are and what time it is there.
            names: Cameras wanted; None for all.

        Raises:
            UnknownNameError: The bridge has no camera of that name.
        """
        offered = client.schema.images
        for name in names or ():
            if name not in offered:
                raise unknown_name("camera", name, offered, "Start the bridge with cameras=[...].")
        self.streams: dict[str, ImageStream] = {name: offered[name] for name in (offered if names is None else names)}
        self._client, self._boot_id = client, client.schema.boot_id
        self._kept: dict[str, deque[tuple[Stamp, Frame]]] = {name: deque(maxlen=KEPT) for name in self.streams}
        self._decoded: dict[str, tuple[Stamp, np.ndarray]] = {}
        self.rejected: Counter[str] = Counter()
        self._ended = threading.Event()
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._receive, name="images", daemon=True)

    def __enter__(self) -> "ImageClient":
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

    def newest(self, name: str, max_age_s: float, wait_s: float = 0.0) -> Picture:
        """The newest picture of a camera.

        Args:
            name: Of the camera.
            max_age_s: Oldest that is of use [s].
            wait_s: How long to wait for one at most [s].

        Raises:
            BridgeError: There is none that is new enough: the camera is slow, frozen or dead.
            UnknownNameError: There is no such camera.
        """
        if name not in self.streams:
            raise unknown_name("camera", name, self.streams)
        with self._arrived:
            self._arrived.wait_for(lambda: self._age_s(name) <= max_age_s, wait_s)
        while self._age_s(name) <= max_age_s:
            stamp, frame = self._kept[name][-1]
            if (image := self._image(name, stamp, frame)) is not None:
                return Picture(image, stamp.t_ns, stamp.number, (self._client.now_ns() - stamp.t_ns) / 1e9)
        raise BridgeError(self._too_old(name, max_age_s))

    def after(self, name: str, number: int, most: int = KEPT) -> list[Picture]:
        """The pictures of a camera that are newer than one, oldest first: for whoever wants all of them.

        Only the last `KEPT` are there; numbers that are not consecutive tell what was missed. Each takes a millisecond
        or more to decode, so that who must not be long asks for one at a time.
        """
        if name not in self.streams:
            raise unknown_name("camera", name, self.streams)
        found: list[Picture] = []
        now_ns = self._client.now_ns()
        for stamp, frame in list(self._kept[name]):
            if len(found) == most:
                break
            if stamp.number > number and (image := self._image(name, stamp, frame)) is not None:
                found.append(Picture(image, stamp.t_ns, stamp.number, (now_ns - stamp.t_ns) / 1e9))
        return found

    def age_s(self, name: str) -> float:
        """Age of the newest picture of a camera [s]; infinite where there is none."""
        return self._age_s(name)

    def aligned(self, max_age_s: float, t_ns: int | None = None) -> Aligned:
        """The picture of each camera that is nearest to one moment.

        Args:
            max_age_s: Oldest that any may be [s].
            t_ns: The moment [ns]; None for the newest that every camera has reached.

        Raises:
            BridgeError: A picture is too old, or half a period or more away from the moment: one was lost.
        """
        kept = {name: list(frames) for name, frames in self._kept.items()}
        for name, frames in kept.items():
            if not frames or self._age_s(name) > max_age_s:
                raise BridgeError(self._too_old(name, max_age_s))
        moment = min(frames[-1][0].t_ns for frames in kept.values()) if t_ns is None else t_ns
        pictures, skew_s = {}, {}
        for name, frames in kept.items():
            stamp, frame = min(frames, key=lambda pair: abs(pair[0].t_ns - moment))
            skew_s[name] = (stamp.t_ns - moment) / 1e9
            if not abs(skew_s[name]) <= JITTER / 2 / self.streams[name].fps:
                raise BridgeError(
                    f"The nearest picture of camera {name!r} is {1000 * skew_s[name]:.1f} ms away from the moment that "
                    f"was asked for, more than half its period of {1000 / self.streams[name].fps:.1f} ms."
                )
            if (image := self._image(name, stamp, frame)) is None:
                raise BridgeError(f"A picture of camera {name!r} cannot be decoded; ask for the next.")
            pictures[name] = Picture(image, stamp.t_ns, stamp.number, (self._client.now_ns() - stamp.t_ns) / 1e9)
        return Aligned(moment, pictures, skew_s)

    def _age_s(self, name: str) -> float:
        frames = self._kept[name]
        return (self._client.now_ns() - frames[-1][0].t_ns) / 1e9 if frames else float("inf")

    def _too_old(self, name: str, max_age_s: float) -> str:
        age_s = self._age_s(name)
        what = f"is {age_s:.3f} s old" if np.isfinite(age_s) else "has not come yet"
        return (
            f"The newest picture of camera {name!r} {what}, at most {max_age_s} s is of use. The bridge says on its "
            "standard error what happened to the camera."
        )

    def _image(self, name: str, stamp: Stamp, frame: Frame) -> np.ndarray | None:
        """Pixels, or None for a picture that cannot be decoded; it is counted and not offered again."""
        if self._decoded.get(name, (None, None))[0] != stamp:
            try:
                self._decoded[name] = stamp, pixels(frame, self.streams[name])
            except WireError as error:
                self.rejected[error.reason] += 1
                with self._arrived:
                    self._kept[name] = deque((pair for pair in self._kept[name] if pair[0] != stamp), maxlen=KEPT)
                return None
        return self._decoded[name][1]

    def _receive(self) -> None:
        """In the thread: take every frame at once, keep what is a picture of ours and newer than the last."""
        context: zmq.Context[Any] = zmq.Context()
        poller, names = zmq.Poller(), {}
        for name, stream in self.streams.items():
            socket = self._connected(context, stream)
            names[socket] = name
            poller.register(socket, zmq.POLLIN)
        while not self._ended.is_set():
            for socket, _ in poller.poll(50):
                self._take(names[socket], socket.recv())
        for socket in names:
            socket.close()
        context.term()

    def _connected(self, context: zmq.Context[Any], stream: ImageStream) -> zmq.Socket[Any]:
        socket = context.socket(zmq.SUB)
        options = {zmq.LINGER: 0, zmq.RCVHWM: QUEUE, zmq.MAXMSGSIZE: stream.max_frame, zmq.RECONNECT_IVL_MAX: 1000}
        for option, value in options.items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._client.join(socket, stream.endpoint)
        return socket

    def _take(self, name: str, data: bytes) -> None:
        try:
            frame = decode(data)
            stamp = checked(frame, self.streams[name])
            if stamp.boot_id != self._boot_id:
                raise WireError("A picture of another start of the bridge.", Reason.BOOT)
            if self._kept[name] and stamp.number <= self._kept[name][-1][0].number:
                raise WireError("A picture that is not newer than the last.", Reason.SEQUENCE)
        except WireError as error:
            self.rejected[error.reason] += 1
            return
        with self._arrived:
            self._kept[name].append((stamp, frame))
            self._arrived.notify_all()
