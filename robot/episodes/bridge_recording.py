"""`armature record source=bridge`: watch a bridge while somebody else drives its arm, and write what happens.

The recorder never drives. It takes the bridge's journal and pictures, whoever drives: a device, `armature deploy`, a
script. An episode lasts from armed to disarmed, or from key to key.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.schema import BridgeSchema
from robot.config import load
from robot.episodes import folder
from robot.episodes.bridge_feed import BridgeFeed
from robot.episodes.bridge_log import environment, header, sight
from robot.episodes.bridge_progress import Disk, Progress
from robot.episodes.bridge_session import ARMING, BY, INTERVENTION, Rules, Session
from robot.episodes.control_keys import HELP, Key, Keyboard, KeyReader, Wish
from robot.episodes.episode import Event
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.pictures import Encoding
from robot.episodes.recorder import Recorder
from robot.errors import BridgeError, ConfigError, EpisodeError, unknown_name

ALL = "all"
SILENCE_S = 3.0
"""A bridge that says nothing for so long is lost."""
LOOK_S = 0.1
"""How often keys, the disk and what has ended are looked at."""
BEGIN_S = 0.5
"""How long the next state may take, for what is typed after the key that begins an episode."""
INTERRUPTED = 130


@dataclass(kw_only=True)
class BridgeRecordConfig:
    """See `configs/record_bridge.yaml`."""

    bridge: str
    keys: str
    task: str
    cameras: list[str] = field(default_factory=lambda: [ALL])
    calibration: str
    latency: str
    episodes: int
    episodes_by: str
    max_s: float
    codec: str
    quality: int
    min_free_gb: float
    out: str

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ConfigError(f"episodes is {self.episodes}, expected at least 1.")
        if self.episodes_by not in BY:
            raise unknown_name("way to begin episodes", self.episodes_by, BY)
        if not self.max_s >= 0 or not self.min_free_gb >= 0:
            raise ConfigError(f"max_s is {self.max_s} and min_free_gb {self.min_free_gb}; neither may be negative.")
        Encoding(self.codec, self.quality)


def main(overrides: list[str]) -> int:
    """Record until there are enough episodes, q, or Ctrl-C; 130 after Ctrl-C or SIGTERM."""
    settings = load("record_bridge", BridgeRecordConfig, overrides)
    client = BridgeClient(settings.bridge, "record", SILENCE_S, keys=settings.keys)
    with client, folder.locked(Path(settings.out)):
        return BridgeRecording(settings, client).run()


class BridgeRecording:
    """One run of the recorder."""

    def __init__(self, settings: BridgeRecordConfig, client: BridgeClient) -> None:
        """Look at what is there; nothing is written yet.

        Raises:
            EpisodeError: The folder holds episodes of something else, or its disk is nearly full.
            ConfigError: A file of calibration or latency cannot be used.
            UnknownNameError: The bridge has no such camera.
        """
        self._settings, self._client, self._out = settings, client, Path(settings.out)
        cameras = list(client.schema.images) if settings.cameras == [ALL] else settings.cameras
        self._sight = sight(cameras, settings.calibration, settings.latency)
        self._encoding = Encoding(settings.codec, settings.quality, _fps(client.schema, cameras))
        self._done, self._succeeded = self._existing(), 0
        self._disk = Disk(self._out, settings.min_free_gb)
        if self._disk.is_short:
            raise EpisodeError(self._disk.complaint())
        self._rules = Rules(settings.episodes_by, settings.max_s, settings.episodes - self._done, tuple(cameras))
        self._reader = KeyReader()
        self._is_over = False

    def run(self) -> int:
        """Record; see `main`.

        Raises:
            BridgeError: The bridge was lost. The episode that went on is complete up to then.
            EpisodeError: Something could not be written.
        """
        self._say_what_was_left()
        if self._rules.count < 1:
            print(f"{self._out} holds {self._done} episodes already; episodes={self._settings.episodes}.")
            return 0
        asked: list[int] = []
        begun_with = self._done
        with _signals(asked):
            self._record(asked)
        new = self._done - begun_with
        print(f"{self._out}: {self._done} episodes, {new} of them new; {self._succeeded} of these succeeded.")
        return INTERRUPTED if asked else 0

    def _record(self, asked: list[int]) -> None:
        session = Session(self._client.schema, self._rules, self._open_next)
        why, happened = "the recording was ended", ""
        with ExitStack() as stack:
            progress = Progress(self._settings.episodes, self._done, self._rules.by, self._disk)
            stack.callback(progress.close)
            keyboard = stack.enter_context(Keyboard())
            feed = stack.enter_context(BridgeFeed(self._client, self._rules.cameras, session))
            try:
                self._await_first(feed, keyboard, progress)
                while not asked and not self._is_finished(session):
                    self._look(session, feed, keyboard, progress)
                why = "interrupted" if asked else why
            except BridgeError as error:
                why, happened = str(error), "bridge_lost"
                raise
            except EpisodeError as error:
                why = str(error)
                raise
            finally:
                feed.close()
                session.stop(why, happened)
                self._finish(session, progress)

    def _await_first(self, feed: BridgeFeed, keyboard: Keyboard, progress: Progress) -> None:
        if not feed.wait(SILENCE_S):
            raise BridgeError(f"The journal of the bridge at {self._client.endpoint} is silent.")
        if keyboard.is_there:
            progress.say(f"Keys: {HELP}.")
        elif self._rules.by != ARMING:
            raise ConfigError("episodes_by=keys needs a terminal to type on; episodes_by=arming does without.")

    def _is_finished(self, session: Session) -> bool:
        return self._is_over or (self._done >= self._settings.episodes and not session.is_busy)

    def _look(self, session: Session, feed: BridgeFeed, keyboard: Keyboard, progress: Progress) -> None:
        """Everything that is not receiving or writing."""
        for wish in self._reader.take(keyboard.typed(LOOK_S)):
            self._obey(wish, session, progress)
        self._client.state()
        feed.check()
        self._finish(session, progress)
        self._mind_disk(session)
        progress.show(session, self._reader.prompt)

    def _obey(self, wish: Wish, session: Session, progress: Progress) -> None:
        if wish.key == Key.QUIT:
            self._is_over = True
        elif wish.key == Key.TOGGLE:
            if self._rules.by == ARMING:
                progress.say("Episodes begin and end with the arm; s and f end one with a label.")
            elif session.running is None:
                session.begin(BEGIN_S)
            else:
                session.end()
        elif wish.key in (Key.SUCCESS, Key.FAILURE):
            self._heard(session.end(wish.key == Key.SUCCESS), progress)
        elif wish.key == Key.DISCARD:
            self._heard(session.discard(), progress)
        else:
            name = INTERVENTION if wish.key == Key.INTERVENTION else "note"
            self._heard(session.event(Event(self._client.now_ns(), name, wish.text)), progress)

    def _heard(self, is_running: bool, progress: Progress) -> None:
        if not is_running:
            progress.say("No episode goes on. Finished ones: `armature episodes label` and `discard`.")

    def _mind_disk(self, session: Session) -> None:
        if self._disk.is_ending or (self._disk.is_short and not session.is_busy):
            raise EpisodeError(self._disk.complaint())
        session.is_allowed = not self._disk.is_short

    def _finish(self, session: Session, progress: Progress) -> None:
        """Complete what has ended. What cannot be completed is said after the others are."""
        failures, complete = [], []
        while session.ended:
            take = session.ended.popleft()
            try:
                complete.append((take, take.finish()))
            except EpisodeError as error:
                failures.append(error)
        for take, result in complete:
            if not take.is_discarded:
                self._done += 1
                self._succeeded += result.success_final
            progress.tell(take, result)
        if failures:
            raise failures[0]

    def _open_next(self, state: BridgeState) -> tuple[int, Recorder]:
        number = folder.next_number(self._out)
        begun = header(self._client, state, self._sight, self._settings.task)
        open_log = partial(LogWriter, encoding=self._encoding)
        return number, Recorder(folder.episode_path(self._out, number), begun, open_log=open_log)

    def _existing(self) -> int:
        """How many episodes are there; refuses those of something else."""
        found = folder.finished(self._out)
        if found:
            specs = environment(self._client.schema, self._sight.names, self._settings.task)
            folder.check_same_specs(found[0], EpisodeReader(found[0]).header.specs, Path("This recording"), specs)
        return len(found)

    def _say_what_was_left(self) -> None:
        left = folder.interrupted(self._out)
        if left:
            print(
                f"{self._out} holds {len(left)} episode(s) that a killed recorder left: `armature episodes recover "
                f"episodes={self._out}` mends them.",
                file=sys.stderr,
            )


def _fps(schema: BridgeSchema, cameras: list[str]) -> int:
    """Of the fastest camera whose pictures are encoded here; the streams of others are not touched."""
    rates = [schema.images[name].fps for name in cameras if name in schema.images]
    return max(1, round(max(rates, default=30.0)))


@contextmanager
def _signals(asked: list[int]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a terminal that goes away are noted, so that the episode that goes on is completed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda got, _: asked.append(got)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
