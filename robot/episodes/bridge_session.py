"""When episodes begin and end, while a bridge's journal goes by."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot.bridge.client import BridgeState
from robot.bridge.journal import Taken
from robot.bridge.schema import BridgeSchema, Mode, Priority
from robot.control.safety import Fault
from robot.episodes.bridge_log import StateTopics
from robot.episodes.bridge_take import FRESH_NS, Take
from robot.episodes.commanded import CommandedRow, CommandedRows
from robot.episodes.episode import Event
from robot.episodes.recorder import Recorder
from robot.errors import EpisodeError

ARMING, KEYS = "arming", "keys"
BY = (ARMING, KEYS)
INTERVENTION = "intervention"


@dataclass(frozen=True)
class Rules:
    """What makes an episode.

    Attributes:
        by: `arming`: from armed to disarmed; `keys`: whenever somebody says so.
        max_s: Longest episode [s]; 0 for any.
        count: How many are wanted.
        cameras: Names of the cameras.
    """

    by: str
    max_s: float
    count: int
    cameras: tuple[str, ...]


class Session:
    """Is told what the bridge sends, in the feed's thread, and what the user wants, in another.

    Attributes:
        ended: Episodes that are over and want to be finished; whoever takes one finishes it.
        is_allowed: Whether new episodes may begin.
    """

    def __init__(
        self, schema: BridgeSchema, rules: Rules, open_next: Callable[[BridgeState], tuple[int, Recorder]]
    ) -> None:
        """No episode has begun.

        Args:
            schema: Of the bridge.
            rules: When episodes begin and end.
            open_next: Opens the file of the episode that begins with a state; gives its number as well.
        """
        self._rules, self._open_next = rules, open_next
        self._topics, self._rows = StateTopics(schema), CommandedRows()
        self._lock = threading.RLock()
        self._running: Take | None = None
        self._closing: list[Take] = []
        self._previous: BridgeState | None = None
        self._newest: dict[str, tuple[int, bytes | np.ndarray]] = {}
        self._row: CommandedRow | None = None
        self._is_asked = False
        self._has_begun = threading.Event()
        self._begun = 0
        self.ended: deque[Take] = deque()
        self.is_allowed = True

    @property
    def running(self) -> Take | None:
        """The episode that goes on."""
        return self._running

    @property
    def is_busy(self) -> bool:
        """Whether an episode goes on, or waits for its end."""
        with self._lock:
            return self._running is not None or bool(self._closing) or bool(self.ended)

    @property
    def begun(self) -> int:
        """Episodes that have begun and were not discarded."""
        return self._begun

    def begin(self, wait_s: float = 0.0) -> None:
        """Begin an episode with the next state, if none goes on.

        Args:
            wait_s: How long to wait for that at most, so that what is asked for next is of this episode [s].
        """
        self._has_begun.clear()
        self._is_asked = True
        self._has_begun.wait(wait_s)

    def end(self, label: bool | None = None) -> bool:
        """End the episode that goes on with the last state; False if there is none.

        Args:
            label: Whether it succeeded; None where nobody says.
        """
        with self._lock:
            take, state = self._running, self._previous
            if take is None or state is None:
                return False
            take.label = label
            self._end(take, state.t_ns, "ended by key", is_truncated=False)
            return True

    def discard(self) -> bool:
        """Throw the episode that goes on away; False if there is none."""
        with self._lock:
            take, state = self._running, self._previous
            if take is None or state is None:
                return False
            take.is_discarded = True
            self._begun -= 1
            self._end(take, state.t_ns, "discarded", is_truncated=True)
            return True

    def event(self, happened: Event) -> bool:
        """Put an event into the episode that goes on; False if there is none."""
        with self._lock:
            take = self._running
            if take is None:
                return False
            self._guarded(take, lambda: take.recorder.event(happened))
            return True

    def stop(self, why: str, happened: str = "") -> None:
        """End whatever goes on, at once; call it when the feed has ended.

        Args:
            why: In words.
            happened: Name of an event for the log; empty for none.
        """
        with self._lock:
            take, state = self._running, self._previous
            if take is not None and state is not None:
                if happened:
                    self._guarded(take, lambda: take.recorder.event(Event(state.t_ns, happened, why)))
                if self._running is not None:
                    self._end(take, state.t_ns, why, is_truncated=True)
            self.ended.extend(self._closing)
            self._closing.clear()

    def on_state(self, state: BridgeState) -> None:
        """See `robot.episodes.bridge_feed.Listener`."""
        rows = self._rows.reached(state)
        with self._lock:
            if self._running is None and self._may_begin(state):
                self._begin(state)
                rows = [*self._in_force(state), *rows]
            take = self._running
            if take is not None:
                self._guarded(take, lambda: self._record(take, state, rows))
            self._previous = state
            self._row = rows[-1] if rows else self._row

    def on_chunk(self, chunk: Taken) -> None:
        """See `robot.episodes.bridge_feed.Listener`."""
        self._rows.take(chunk)
        with self._lock:
            if (take := self._running) is not None:
                self._guarded(take, lambda: take.chunk(chunk))

    def on_device(self, t_ns: int, action: np.ndarray) -> None:
        """See `robot.episodes.bridge_feed.Listener`."""
        with self._lock:
            if (take := self._running) is not None:
                self._guarded(take, lambda: take.device(t_ns, action))

    def on_picture(self, camera: str, t_ns: int, picture: bytes | np.ndarray) -> None:
        """See `robot.episodes.bridge_feed.Listener`."""
        with self._lock:
            self._newest[camera] = t_ns, picture
            for take in self._open():
                self._guarded(take, lambda take=take: take.picture(camera, t_ns, picture))  # type: ignore[misc]

    def on_gap(self, source: str, count: int, from_ns: int, to_ns: int) -> None:
        """See `robot.episodes.bridge_feed.Listener`."""
        with self._lock:
            for take in self._open():
                self._guarded(take, lambda take=take: take.gap(source, count, from_ns, to_ns))  # type: ignore[misc]

    def on_tick(self) -> None:
        """See `robot.episodes.bridge_feed.Listener`."""
        with self._lock:
            for take in [take for take in self._closing if take.is_complete]:
                self._closing.remove(take)
                self.ended.append(take)

    def _open(self) -> list[Take]:
        return [*self._closing, *([self._running] if self._running is not None else [])]

    def _may_begin(self, state: BridgeState) -> bool:
        if not self.is_allowed or self._begun >= self._rules.count:
            return False
        if self._rules.by == KEYS:
            return self._is_asked
        return self._previous is not None and self._previous.mode != Mode.ARMED == state.mode

    def _begin(self, state: BridgeState) -> None:
        self._is_asked = False
        number, recorder = self._open_next(state)
        self._begun += 1
        take = self._running = Take(number, recorder, state, self._topics)
        self._has_begun.set()
        for camera, (t_ns, picture) in self._newest.items():
            self._guarded(take, lambda c=camera, t=t_ns, p=picture: take.picture(c, t, p))  # type: ignore[misc]

    def _in_force(self, state: BridgeState) -> list[CommandedRow]:
        """The row that an episode in mid-motion begins with."""
        row = self._row
        is_played = row is not None and state.mode == Mode.ARMED and row.t_ns > state.t_ns - FRESH_NS
        return [row] if row is not None and is_played else []

    def _record(self, take: Take, state: BridgeState, rows: list[CommandedRow]) -> None:
        take.state(state, rows)
        if self._previous is not None:
            for happened in changes(self._previous, state):
                take.recorder.event(happened)
        if self._rules.by == ARMING and state.mode != Mode.ARMED:
            self._end(take, state.t_ns, f"the arm is {state.mode.name}", is_truncated=False)
        elif 0 < self._rules.max_s <= (state.t_ns - take.begin_ns) / 1e9:
            self._end(take, state.t_ns, f"it has lasted for {self._rules.max_s} s", is_truncated=True)

    def _end(self, take: Take, t_ns: int, why: str, is_truncated: bool) -> None:
        take.end(t_ns, why, is_truncated, self._rules.cameras)
        self._running = None
        self._closing.append(take)

    def _guarded(self, take: Take, write: Callable[[], object]) -> None:
        """What cannot be written ends the episode; whoever finishes it is told why."""
        try:
            write()
        except EpisodeError as error:
            take.failure = error
            if take is self._running:
                self._running = None
            elif take in self._closing:
                self._closing.remove(take)
            if take not in self.ended:
                self.ended.append(take)


def changes(before: BridgeState, after: BridgeState) -> list[Event]:
    """What happened between two states that somebody will want to find again."""
    found = []
    if after.mode != before.mode:
        data = {"from": before.mode.name, "to": after.mode.name}
        found.append(Event(after.t_ns, "mode", f"{before.mode.name} to {after.mode.name}", data))
    fault = Fault(int(after.status("fault")))
    if fault and fault != before.status("fault"):
        found.append(Event(after.t_ns, "fault", fault.name or "", {"fault": fault.name}))
    driver, was = int(after.status("lease")), int(before.status("lease"))
    if driver != was and driver:
        priority = Priority(int(after.status("lease_priority")))
        is_hand = priority == Priority.TELEOP and 0 < before.status("lease_priority") < priority
        name = INTERVENTION if is_hand else "driver"
        told = {"driver": driver, "priority": priority.name}
        found.append(Event(after.t_ns, name, f"a {priority.name.lower()} client drives", told))
    return found
