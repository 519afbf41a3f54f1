"""One episode that is being recorded from a bridge: from the state that it begins with to the pictures that end it."""

import time
from collections.abc import Sequence

import numpy as np

from robot.bridge.client import BridgeState
from robot.bridge.journal import Taken
from robot.episodes.bridge_feed import CHUNKS, DEVICE, STATES
from robot.episodes.bridge_log import CHUNKS_TOPIC, ChunkTopics, StateTopics
from robot.episodes.commanded import CommandedRow
from robot.episodes.episode import COMMANDED, IMAGES, Event, Result, action_topic, topic_of
from robot.episodes.episode import DEVICE as DEVICE_STAGE
from robot.episodes.recorder import Recorder
from robot.errors import EpisodeError

GRACE_S = 0.5
"""How long an episode that has ended waits for pictures that were taken before its end."""
FRESH_NS = 500_000_000
"""A picture that was taken longer before the beginning is not of this episode."""
SUCCESS, FAILURE, UNLABELLED = "success", "failure", "unlabelled"


class Take:
    """Writes what belongs to one episode. All times are the bridge's.

    Attributes:
        number: Of the episode.
        recorder: Its file.
        begin_ns: Time of its first state.
        end_ns: Time of its last state; None while it goes on.
        why: Why it ended, in words.
        label: Whether somebody said that it succeeded; None for nobody.
        is_discarded: Whether it is to be thrown away.
        failure: What went wrong with its file.
    """

    def __init__(self, number: int, recorder: Recorder, state: BridgeState, topics: StateTopics) -> None:
        self.number, self.recorder, self.begin_ns = number, recorder, state.t_ns
        self.end_ns: int | None = None
        self.label: bool | None = None
        self.failure: EpisodeError | None = None
        self.why, self.is_discarded = "", False
        self._topics, self._chunks = topics, ChunkTopics(topics.width)
        self._state_ns = -1
        self._knows_success = "success" in state.values
        self._success = self._success_sticky = self._is_truncated = False
        self._late: set[str] = set()
        self._until_s = 0.0

    def state(self, state: BridgeState, rows: Sequence[CommandedRow]) -> None:
        """Append a state and the rows that came into force by then.

        A cycle that was interrupted, as by an arm that homes, tells of one measurement twice; once is enough.
        """
        if state.t_ns > self._state_ns:
            self._topics.write(self.recorder, state)
            self._state_ns = state.t_ns
        for row in rows:
            self.recorder.vector(action_topic(COMMANDED), row.t_ns, row.action)
        self._success = state.success
        if state.success and not self._success_sticky:
            self._success_sticky = True
            self.recorder.event(Event(state.t_ns, SUCCESS, "the arm's world says so"))

    def chunk(self, chunk: Taken) -> None:
        """Append a chunk with its verdict."""
        self._chunks.write(self.recorder, chunk)

    def device(self, t_ns: int, action: np.ndarray) -> None:
        """Append what a device asked for."""
        self.recorder.vector(action_topic(DEVICE_STAGE), t_ns, action)

    def picture(self, camera: str, t_ns: int, picture: bytes | np.ndarray) -> None:
        """Append a picture if it was taken during the episode; one of just before it is welcome."""
        if self.end_ns is not None and t_ns >= self.end_ns:
            self._late.discard(camera)
            return
        if t_ns >= self.begin_ns - FRESH_NS:
            self.recorder.picture(f"/{IMAGES.replace('.', '/')}{camera}", t_ns, picture)

    def gap(self, source: str, count: int, from_ns: int, to_ns: int) -> None:
        """Tell of what was lost, if it was lost during the episode."""
        if to_ns < self.begin_ns or (self.end_ns is not None and from_ns >= self.end_ns):
            return
        of_journal = {STATES: self._topics.names, CHUNKS: [CHUNKS_TOPIC], DEVICE: [action_topic(DEVICE_STAGE)]}
        for topic in of_journal.get(source, [topic_of(f"{IMAGES}{source}")]):
            self.recorder.gap(topic, count, from_ns, to_ns, "lost between the bridge and the recorder")

    def end(self, t_ns: int, why: str, is_truncated: bool, cameras: Sequence[str]) -> None:
        """Take no more states; pictures of before may still come."""
        self.end_ns, self.why, self._is_truncated = t_ns, why, is_truncated
        self._late, self._until_s = set(cameras), time.monotonic() + GRACE_S

    @property
    def is_complete(self) -> bool:
        """Whether nothing more is to come."""
        return self.end_ns is not None and (not self._late or time.monotonic() >= self._until_s)

    @property
    def seconds(self) -> float:
        """How long it has lasted [s]."""
        last_ns = self._state_ns if self.end_ns is None else self.end_ns
        return max(0, last_ns - self.begin_ns) / 1e9

    def finish(self) -> Result:
        """Complete the file, or remove it if it is discarded. Waits for the disk.

        Raises:
            EpisodeError: Something could not be written; the unfinished file stays.
        """
        success = self._success if self.label is None else self.label
        is_over = self.label is not None or success
        result = Result(0, success, success or self._success_sticky, is_over, self._is_truncated or not is_over)
        if self.is_discarded:
            self.recorder.abandon()
            return result
        try:
            self._say_outcome()
            self.recorder.finish(result)
        finally:
            self.recorder.close()
        return result

    def _say_outcome(self) -> None:
        end_ns = self.begin_ns if self.end_ns is None else self.end_ns
        if self.label is not None:
            self.recorder.event(Event(end_ns, SUCCESS if self.label else FAILURE, "somebody said so"))
        elif not self._knows_success:
            text = "nobody said whether it succeeded; `armature episodes label` does"
            self.recorder.event(Event(end_ns, UNLABELLED, text))
        self.recorder.event(Event(end_ns, "end", self.why))
