"""Episodes as logs: one MCAP file each, appended as it happens, which opens in Foxglove.

Every channel has its own times. Vectors are protobuf messages (see `messages`), pictures and events are Foxglove's own
message types. Chunks are closed four times a second, so a recorder that is killed loses no more than that, and they
are pushed to the disk twice a second, so a power cut costs little more. A file carries its final name only when it is
complete; a recorder that was killed leaves `<name>.part`, which `recover` makes an episode of.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from mcap.writer import CompressionType, Writer

from robot.episodes import atomic, foxglove, metadata
from robot.episodes.appending import AppendedFile
from robot.episodes.episode import (
    APPLIED,
    COMMANDED,
    DEVICE,
    STEP_TOPIC,
    STEPS,
    TIME,
    Event,
    Header,
    Result,
    action_topic,
    is_picture,
    topic_of,
)
from robot.episodes.messages import ENCODING, VectorMessages
from robot.episodes.pictures import Encoding, PictureMessages
from robot.episodes.topics import CALIBRATION, EVENTS_TOPIC, picture_topics, required_topics, vector_topics
from robot.errors import EpisodeError, SpecError
from robot.loop import Step

CHUNK_S = 0.25
"""Age at which a chunk is closed and written: what a killed recorder may lose [s]."""
CHUNK_BYTES = 256 * 1024
SYNC_EVERY = 2
"""Every how many of these periods all is pushed to the disk."""


class LogWriter:
    """Appends messages to `<path>.part`; `finish` gives it the name `path`.

    Use it as a context manager: a block that is left without `finish` leaves the unfinished file for recovery, unless
    nothing was written or `abandon` was called. Any thread may write, one at a time does.

    Args:
        path: Name of the finished episode.
        header: What is known now.
        encoding: How arrays of pixels are written.
        is_durable: Whether a thread closes chunks in silent times and pushes them to the disk. Without it they are
            closed as messages come, which is enough for what is worth nothing unfinished.

    Raises:
        EpisodeError: The episode or its unfinished file is there already, or cannot be written.
    """

    def __init__(self, path: Path, header: Header, encoding: Encoding | None = None, is_durable: bool = True) -> None:
        if header.clock not in (STEPS, TIME):
            raise EpisodeError(f"The clock of an episode is {STEPS!r} or {TIME!r}, got {header.clock!r}.")
        self.header = header
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._vectors = {topic: VectorMessages(topic, spec) for topic, spec in vector_topics(header).items()}
        cameras = picture_topics(header)
        self._cameras = {topic: PictureMessages(spec, encoding or Encoding()) for topic, spec in cameras.items()}
        self._lock = threading.RLock()
        self._failure: EpisodeError | None = None
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._last_ns: dict[str, int] = {}
        self._chunk_begin_s: float | None = None
        self._refuse_existing()
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = AppendedFile(self._part)
            self._mcap = Writer(self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)  # type: ignore[arg-type]
            self._mcap.start(profile=metadata.PROFILE)
            self._mcap.add_metadata(metadata.HEADER, metadata.of_header(header))
            if is_durable:
                atomic.fsync(path.parent)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_durable, name=f"log of {path.name}", daemon=True)
        if is_durable:
            self._thread.start()

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of messages so far, by topic."""
        return self._counts

    def vector(self, topic: str, t_ns: int, values: np.ndarray) -> None:
        """Append a vector to one of the channels of the header.

        Raises:
            SpecError: It has the wrong shape or is not finite, or the header has no such channel.
            EpisodeError: Times of the channel do not grow, or the disk is full or not writable.
        """
        vectors = self._vectors.get(topic)
        if vectors is None:
            raise SpecError(f"{topic} is no channel of vectors of this episode; it has {', '.join(self._vectors)}.")
        array = np.asarray(values)
        if array.shape != vectors.spec.shape or not np.isfinite(array).all():
            shown = np.array2string(array, threshold=20, separator=", ")
            raise SpecError(f"{topic}: expected finite values of shape {vectors.spec.shape}, got {shown}.")
        with self._writing():
            self._check_time(topic, t_ns)
            if topic not in self._channels:
                self._register(topic, vectors.name, vectors.schema())
            self._append(topic, t_ns, vectors.encode(array))

    def picture(self, topic: str, t_ns: int, picture: np.ndarray | bytes) -> None:
        """Append a picture to one of the cameras of the header.

        Args:
            topic: `/observation/images/<camera>`.
            t_ns: Time of capture.
            picture: RGB, uint8, (H, W, 3), or a JPEG as it came from a camera, whose bytes stay as they are.

        Raises:
            SpecError: It has the wrong shape, or the header has no such camera.
            EpisodeError: See `vector`.
        """
        camera = self._cameras.get(topic)
        if camera is None:
            raise SpecError(f"{topic} is no camera of this episode; it has {', '.join(self._cameras) or 'none'}.")
        with self._writing():
            self._check_time(topic, t_ns)
            message = camera.message(t_ns, picture)
            if topic not in self._channels:
                self._calibrate(topic, t_ns, camera)
                self._register(topic, camera.kind, foxglove.schema(camera.kind))
            self._append(topic, t_ns, message)

    def event(self, happened: Event) -> None:
        """Append an event; its time may be any. Raises `EpisodeError` where the disk is full or not writable."""
        with self._writing():
            if EVENTS_TOPIC not in self._channels:
                self._register(EVENTS_TOPIC, foxglove.LOG, foxglove.schema(foxglove.LOG))
            self._append(EVENTS_TOPIC, happened.t_ns, foxglove.event(happened))

    def finish(self, result: Result) -> None:
        """Write the result and the index, push everything to the disk, and give the file its name.

        Raises:
            EpisodeError: Nothing was written, a channel has not a message for every step, or the disk is full. The
                unfinished file stays.
        """
        self._check_complete(result)
        self._stop_thread()
        with self._writing():
            self._mcap.add_metadata(metadata.OUTCOME, metadata.of_result(result))
            self._mcap.finish()
            self._file.close()
            atomic.publish(self._part, self._path)

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._stop_thread()
        self._file.close()
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Leave the unfinished file, with all that was written, for recovery; no file if nothing was."""
        self._stop_thread()
        if not self._file.is_closed and not self._counts:
            self.abandon()
        elif not self._file.is_closed:
            with contextlib.suppress(EpisodeError), self._writing():  # what is full stays as it is
                self._mcap.flush()
                self._file.sync()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, topic: str, t_ns: int, data: bytes) -> None:
        now_s = time.monotonic()
        count = self._counts.get(topic, 0)
        if self._chunk_begin_s is None:
            self._chunk_begin_s = now_s
        size = self._file.tell()
        self._mcap.add_message(self._channels[topic], t_ns, data, t_ns, count)
        self._counts[topic], self._last_ns[topic] = count + 1, t_ns
        if self._file.tell() != size:
            self._chunk_begin_s = None
        elif now_s - self._chunk_begin_s > CHUNK_S:
            self._close_chunk()

    def _close_chunk(self) -> None:
        self._mcap.flush()
        self._chunk_begin_s = None

    def _register(self, topic: str, name: str, schema: bytes) -> None:
        if name not in self._schemas:
            self._schemas[name] = self._mcap.register_schema(name, ENCODING, schema)
        self._channels[topic] = self._mcap.register_channel(topic, ENCODING, self._schemas[name])

    def _calibrate(self, topic: str, t_ns: int, camera: PictureMessages) -> None:
        known = self.header.cameras.get(camera.spec.key, {})
        intrinsics = known.get("intrinsics") if isinstance(known, Mapping) else None
        if intrinsics is None:
            return
        matrix = np.asarray(intrinsics, np.float64)
        if matrix.shape != (3, 3):
            raise SpecError(f"{camera.spec.key}: intrinsics have shape {matrix.shape}, expected (3, 3).")
        self._register(topic + CALIBRATION, foxglove.CALIBRATION, foxglove.schema(foxglove.CALIBRATION))
        message = foxglove.calibration(t_ns, camera.frame, camera.spec.shape, matrix)
        self._append(topic + CALIBRATION, t_ns, message)

    def _check_time(self, topic: str, t_ns: int) -> None:
        last_ns = self._last_ns.get(topic, -1)
        if not t_ns > last_ns:
            raise EpisodeError(
                f"{self._part}: {topic} comes with {t_ns} ns, not after {last_ns} ns of the one before. Times come "
                "from CLOCK_MONOTONIC."
            )

    def _check_complete(self, result: Result) -> None:
        held = {topic: count for topic, count in self._counts.items() if not topic.endswith(CALIBRATION)}
        if not any(topic != EVENTS_TOPIC for topic in held):
            raise EpisodeError(f"{self._path} holds nothing; an episode needs at least one step or message.")
        if self.header.clock == TIME:
            return
        counted = {topic: held.get(topic, 0) for topic in required_topics(self.header)}
        counted |= {topic: count for topic, count in held.items() if topic != EVENTS_TOPIC}
        for topic, count in counted.items():
            if count != result.steps:
                raise EpisodeError(f"{self._part}: {topic} has {count} messages for {result.steps} steps.")

    def _refuse_existing(self) -> None:
        if self._path.exists():
            raise EpisodeError(f"{self._path} is there already. Choose another name.")
        if self._part.exists():
            raise EpisodeError(
                f"{self._part} was left by a recorder that was killed. Make an episode of it with `armature episodes "
                f"recover episodes={self._part.parent}`, or delete it."
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One thread at a time; what cannot be written is said, then and ever after, for a gap must not follow."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            try:
                yield
            except OSError as error:
                self._failure = EpisodeError(
                    f"{self._part} cannot be written: {error.strerror}. Make room or choose another folder; what was "
                    "written stays."
                )
                raise self._failure from error

    def _keep_durable(self) -> None:
        """The thread: closes chunks that nothing was added to, and pushes what was written to the disk."""
        period = 0
        while not self._ended.wait(CHUNK_S / 2):
            period += 1
            with contextlib.suppress(EpisodeError), self._writing():  # said to whoever writes next
                if self._chunk_begin_s is not None and time.monotonic() - self._chunk_begin_s > CHUNK_S:
                    self._close_chunk()
            if period % (2 * SYNC_EVERY) == 0:
                self._sync()

    def _sync(self) -> None:
        """Outside the lock: the disk may take its time, and the writer need not wait for it."""
        try:
            self._file.sync()
        except OSError as error:
            with contextlib.suppress(EpisodeError), self._writing():
                raise error

    def _stop_thread(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()


class EpisodeWriter:
    """Appends steps to `<path>.part`; `finish` gives it the name `path`.

    Use it as a context manager: leaving the block without `finish` removes the unfinished file, for an attempt in a
    simulated world can be made again.

    Raises:
        EpisodeError: The clock of the header is not that of steps; and see `LogWriter`.
    """

    def __init__(self, path: Path, header: Header, encoding: Encoding | None = None) -> None:
        if header.clock != STEPS:
            raise EpisodeError(f"{path}: steps have the clock {STEPS!r}, the header says {header.clock!r}.")
        self._path = path
        self._log = LogWriter(path, header, encoding, is_durable=False)
        self._last: Step | None = None
        self._last_ns = 0
        self._success_sticky = False
        self._is_finished = False

    def write(self, step: Step, applied: np.ndarray | None = None) -> None:
        """Append one step.

        Args:
            step: What happened. Observation and actions are logged at its time, how it ended at the present.
            applied: The action that the robot reports to have followed, where it reports one.

        Raises:
            SpecError: An array has the wrong shape or is not finite.
            EpisodeError: The step does not follow the last one, or the disk is full or not writable.
        """
        self._check_order(step)
        for key, spec in self._log.header.specs.observation.items():
            append = self._log.picture if is_picture(spec) else self._log.vector
            append(topic_of(key), step.t_ns, step.observation[key])
        actions = {DEVICE: step.device, COMMANDED: step.commanded} | ({} if applied is None else {APPLIED: applied})
        for stage, action in actions.items():
            self._log.vector(action_topic(stage), step.t_ns, action)
        self._last_ns = max(time.monotonic_ns(), step.t_ns, self._last_ns + 1)
        ending = np.array([step.reward, step.success, step.terminated, step.truncated], np.float64)
        self._log.vector(STEP_TOPIC, self._last_ns, ending)
        self._last, self._success_sticky = step, self._success_sticky or step.success

    def finish(self) -> Result:
        """Write the result and the index, push everything to the disk, and give the file its name."""
        if self._last is None:
            raise EpisodeError(f"{self._path} has no steps; an episode needs at least one.")
        last = self._last
        result = Result(
            last.index + 1, bool(last.success), bool(self._success_sticky), bool(last.terminated), bool(last.truncated)
        )
        self._log.finish(result)
        self._is_finished = True
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_finished:
            self._log.abandon()

    def _check_order(self, step: Step) -> None:
        wanted = 0 if self._last is None else self._last.index + 1
        if step.index != wanted:
            raise EpisodeError(f"{self._path}: step {step.index} follows, expected step {wanted}.")
