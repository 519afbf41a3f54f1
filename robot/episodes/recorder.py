"""The recorder: takes what happens from any thread without making it wait, and writes it in a thread of its own.

Between the two lies a queue that is bounded for every channel. Where a channel's part is full its newest item is
dropped, and the log says so with an event `dropped`: topic, count, and from when to when. So does whoever feeds the
recorder where items never came (`gap`). What is missing is therefore known, and nothing is shifted.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from robot.episodes.episode import Event, Header, Result
from robot.episodes.log import LogWriter
from robot.episodes.topics import EVENTS_TOPIC, picture_topics, vector_topics
from robot.errors import EpisodeError, SpecError

DROPPED = "dropped"
"""Name of the events that tell what is missing."""
PACE_S = 0.02
"""How often the writer looks for more. It is not woken for each item: that would cost more than writing it."""


class Log(Protocol):
    """What the recorder needs of a log: `robot.episodes.log.LogWriter`."""

    def vector(self, topic: str, t_ns: int, values: np.ndarray) -> None:
        """Append a vector."""

    def picture(self, topic: str, t_ns: int, picture: np.ndarray | bytes) -> None:
        """Append a picture."""

    def event(self, happened: Event) -> None:
        """Append an event."""

    def finish(self, result: Result) -> None:
        """Complete the file."""

    def abandon(self) -> None:
        """Remove the file."""

    def close(self) -> None:
        """Leave the file unfinished."""


@dataclass(frozen=True)
class Bound:
    """How much of one channel may wait: so many items, and so many bytes."""

    count: int
    size: int


@dataclass(frozen=True)
class Bounds:
    """Bounds of a channel, by its kind: several seconds of a fast one."""

    vector: Bound = Bound(8192, 16 * 2**20)
    picture: Bound = Bound(512, 128 * 2**20)
    event: Bound = Bound(4096, 4 * 2**20)


@dataclass(frozen=True)
class Count:
    """What became of the items of one channel.

    Attributes:
        received: Given to the recorder.
        written: In the log.
        dropped: Given, and not written: the queue was full, or the item was not fit to be written.
        missing: Never came to the recorder, as the source found out.
        depth: Waiting now.
        waiting: Their size [bytes].
        size: Bytes of what was received.
    """

    received: int = 0
    written: int = 0
    dropped: int = 0
    missing: int = 0
    depth: int = 0
    waiting: int = 0
    size: int = 0


@dataclass
class _Gap:
    """Items in a row that are not in the log."""

    count: int
    from_ns: int
    to_ns: int
    cause: str

    def event(self, topic: str) -> Event:
        data = {"topic": topic, "count": self.count, "from_ns": self.from_ns, "to_ns": self.to_ns, "cause": self.cause}
        text = f"{self.count} of {topic} are missing: {self.cause}"
        return Event(self.from_ns, DROPPED, text, data)


class _Channel:
    """One channel on the caller's side of the queue. Counted thousands of times a second, so plain numbers."""

    __slots__ = ("bound", "depth", "dropped", "gap", "last_ns", "missing", "received", "size", "waiting", "written")

    def __init__(self, bound: Bound) -> None:
        self.bound, self.last_ns = bound, -1
        self.gap: _Gap | None = None
        self.received = self.written = self.dropped = self.missing = self.depth = self.waiting = self.size = 0

    def count(self) -> Count:
        return Count(
            *(self.received, self.written, self.dropped, self.missing),
            *(self.depth, self.waiting, self.size),
        )


class _Kind(Enum):
    VECTOR = auto()
    PICTURE = auto()
    EVENT = auto()
    GAP = auto()
    """An event that tells of a gap; these have no bound."""


_Item = tuple[_Kind, str, int, Any, int]
"""Kind, topic, time [ns], content, size [bytes]."""


class Recorder:
    """Writes one episode. Any thread may call any method; none but `finish` and `abandon` waits for the disk.

    Use it as a context manager: a block that is left without `finish` leaves the unfinished file, which
    `armature episodes recover` makes an episode of.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        bounds: Bounds | None = None,
        open_log: Callable[[Path, Header], Log] = LogWriter,
    ) -> None:
        """Begin the file.

        Args:
            path: Name of the finished episode.
            header: What is known now.
            bounds: How much may wait.
            open_log: Opens what is written to.

        Raises:
            EpisodeError: The file is there already or cannot be written.
        """
        self.path = path
        self._bounds = bounds or Bounds()
        self._shapes = {topic: spec.shape for topic, spec in (vector_topics(header) | picture_topics(header)).items()}
        self._log = open_log(path, header)
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._queue: deque[_Item] = deque()
        self._unfit: dict[str, _Gap] = {}
        self._failure: EpisodeError | None = None
        self._is_closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._write, name=f"recorder of {path.name}", daemon=True)
        self._thread.start()

    def vector(self, topic: str, t_ns: int, values: np.ndarray) -> bool:
        """Append a vector, which is copied; False if it was dropped.

        Raises:
            SpecError: The episode has no such channel, or vectors of another shape.
            EpisodeError: Writing has failed before, or the episode has ended.
        """
        content = np.array(values)
        self._require_shape(topic, content.shape)
        return self._put(_Kind.VECTOR, topic, t_ns, content, content.nbytes)

    def picture(self, topic: str, t_ns: int, picture: np.ndarray | bytes) -> bool:
        """Append a picture, RGB or a JPEG, which must not be changed any more; False if it was dropped.

        Raises:
            SpecError: The episode has no such camera, or pictures of another size.
            EpisodeError: See `vector`.
        """
        shape, size = (None, len(picture)) if isinstance(picture, bytes) else (picture.shape, picture.nbytes)
        self._require_shape(topic, shape)
        return self._put(_Kind.PICTURE, topic, t_ns, picture, size)

    def event(self, happened: Event) -> bool:
        """Append an event; its time may be any. False if it was dropped.

        Raises:
            EpisodeError: See `vector`.
        """
        return self._put(_Kind.EVENT, EVENTS_TOPIC, happened.t_ns, happened, len(happened.text) + 256)

    def gap(self, topic: str, count: int, from_ns: int, to_ns: int, cause: str) -> None:
        """Tell of items that never came, so that the log does.

        Args:
            topic: Of the channel.
            count: How many.
            from_ns: Time of the last item before them [ns].
            to_ns: Time of the first after them [ns].
            cause: Why, in words.

        Raises:
            EpisodeError: See `vector`.
        """
        with self._lock:
            self._require_open()
            self._channel(_Kind.VECTOR, topic).missing += count
            self._queue.append((_Kind.GAP, EVENTS_TOPIC, from_ns, _Gap(count, from_ns, to_ns, cause).event(topic), 0))

    def counts(self) -> Mapping[str, Count]:
        """What became of the items so far, by topic."""
        with self._lock:
            return {topic: channel.count() for topic, channel in self._channels.items()}

    def finish(self, result: Result) -> None:
        """Write what waits, and complete the file. Waits for the disk.

        Raises:
            EpisodeError: Something could not be written. The unfinished file stays, with all that was.
        """
        self._end()
        try:
            if self._failure is not None:
                raise EpisodeError(str(self._failure)) from self._failure
            self._log.finish(result)
        finally:
            self._log.close()

    def abandon(self) -> None:
        """Remove the file."""
        with self._lock:
            self._queue.clear()
        self._end()
        self._log.abandon()

    def close(self) -> None:
        """Write what waits and leave the file unfinished, if it is not finished; may be called twice."""
        self._end()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _channel(self, kind: _Kind, topic: str) -> _Channel:
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = _Channel(self._bounds.vector)
        if kind is not _Kind.VECTOR:
            channel.bound = self._bounds.picture if kind is _Kind.PICTURE else self._bounds.event
        return channel

    def _require_shape(self, topic: str, shape: tuple[int, ...] | None) -> None:
        """A wrong channel or shape is a mistake of the caller, and nothing that happens to data."""
        expected = self._shapes.get(topic)
        if expected is None:
            raise SpecError(f"{topic} is no channel of this episode; it has {', '.join(self._shapes)}.")
        if shape not in (None, expected):
            raise SpecError(f"{topic} wants shape {expected}, got {shape}.")

    def _require_open(self) -> None:
        if self._failure is not None:
            raise EpisodeError(str(self._failure)) from self._failure
        if self._is_closed:
            raise EpisodeError(f"{self.path} has ended; nothing can be added to it.")

    def _put(self, kind: _Kind, topic: str, t_ns: int, content: Any, size: int) -> bool:
        with self._lock:
            self._require_open()
            channel = self._channel(kind, topic)
            channel.received += 1
            channel.size += size
            cause = self._refusal(channel, kind, t_ns, size)
            if cause:
                self._drop(channel, topic, t_ns, cause)
                return False
            if channel.gap is not None:
                self._tell(channel, topic)
            self._queue.append((kind, topic, t_ns, content, size))
            channel.last_ns = t_ns
            channel.depth += 1
            channel.waiting += size
            return True

    def _refusal(self, channel: _Channel, kind: _Kind, t_ns: int, size: int) -> str:
        if channel.depth >= channel.bound.count or channel.waiting + size > channel.bound.size:
            return "the disk or the processor is too slow"
        if t_ns <= channel.last_ns and kind is not _Kind.EVENT:
            return "its time is not later than that of the one before"
        return ""

    def _drop(self, channel: _Channel, topic: str, t_ns: int, cause: str) -> None:
        channel.dropped += 1
        gap = channel.gap
        if gap is not None and gap.cause == cause:
            gap.count, gap.from_ns, gap.to_ns = gap.count + 1, min(gap.from_ns, t_ns), max(gap.to_ns, t_ns)
        else:
            self._tell(channel, topic)
            channel.gap = _Gap(1, t_ns, t_ns, cause)

    def _tell(self, channel: _Channel, topic: str) -> None:
        """The gap is over, or of another kind from now on. At most one event for each item: they need no bound."""
        if channel.gap is not None:
            self._queue.append((_Kind.GAP, EVENTS_TOPIC, channel.gap.from_ns, channel.gap.event(topic), 0))
            channel.gap = None

    def _end(self) -> None:
        """No more comes; wait until all is written."""
        with self._lock:
            if not self._is_closed and self._failure is None:
                for topic, channel in self._channels.items():
                    self._tell(channel, topic)
            self._is_closed = True
        self._wake.set()
        self._thread.join()

    def _write(self) -> None:
        """The thread."""
        while True:
            is_last = self._wake.wait(PACE_S)
            while self._failure is None and (item := self._next()) is not None:
                self._write_one(*item)
            if is_last or self._failure is not None:
                break
        for topic, gap in self._unfit.items():
            self._attempt(_Kind.GAP, topic, gap.from_ns, gap.event(topic))

    def _next(self) -> _Item | None:
        """The item that waits longest; `abandon` may have thrown all away."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def _write_one(self, kind: _Kind, topic: str, t_ns: int, content: Any, size: int) -> None:
        is_written = self._attempt(kind, topic, t_ns, content)
        if kind is not _Kind.GAP:
            with self._lock:
                channel = self._channels[topic]
                channel.depth -= 1
                channel.waiting -= size
                channel.written += is_written
                channel.dropped += not is_written

    def _attempt(self, kind: _Kind, topic: str, t_ns: int, content: Any) -> bool:
        """Whether an item was written. What fails is kept for the callers; after it nothing is written any more."""
        if self._failure is not None:
            return False
        try:
            return self._append(kind, topic, t_ns, content)
        except EpisodeError as error:
            self._failure = error
        except Exception as error:
            self._failure = EpisodeError(f"{self.path}: recording {topic} failed: {error!r}. What was written stays.")
        return False

    def _append(self, kind: _Kind, topic: str, t_ns: int, content: Any) -> bool:
        try:
            if kind is _Kind.VECTOR:
                self._log.vector(topic, t_ns, content)
            elif kind is _Kind.PICTURE:
                self._log.picture(topic, t_ns, content)
            else:
                self._log.event(content)
        except SpecError as error:
            gap = self._unfit.setdefault(topic, _Gap(0, t_ns, t_ns, str(error)))
            gap.count, gap.to_ns = gap.count + 1, t_ns
            return False
        if self._unfit and kind is not _Kind.GAP and (found := self._unfit.pop(topic, None)) is not None:
            self._log.event(found.event(topic))
        return True
