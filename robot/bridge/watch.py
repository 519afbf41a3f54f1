"""`armature watch`: a live picture of a bridge in a terminal. It only looks; it never drives."""

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from robot import config
from robot.bridge.client import BridgeClient
from robot.bridge.meter import Meter
from robot.bridge.screen import Sight, lines, painted
from robot.errors import BridgeError, ConfigError

TIMEOUT_S = 1.0
"""Longest wait for a bridge that does not answer; meanwhile no key is seen."""
ASK_EVERY_S = 1.0
"""How often the gateway is asked what the states do not say, and how often a bridge that is gone is tried again."""
ONCE_S = 0.5
"""How long a single picture looks, so that it has rates to show."""
BURST = 16
"""States that are counted to know how often they come."""
_FOOT = "q or Ctrl-C ends"


@dataclass(kw_only=True)
class WatchConfig:
    """Keys of `configs/watch.yaml`.

    Attributes:
        bridge: Address of its control channel.
        keys: This client's secret file; empty for none.
        hz: How often the picture changes.
        once: Whether to print one picture and end.
    """

    bridge: str
    keys: str
    hz: float
    once: bool

    def __post_init__(self) -> None:
        if not 0.2 <= self.hz <= 30:
            raise ConfigError(f"hz is {self.hz}, expected 0.2 to 30.")


def main(overrides: list[str]) -> int:
    """Show the bridge until q or Ctrl-C. With `once`, 1 if there is no bridge."""
    settings = config.load("watch", WatchConfig, overrides)
    watcher = Watcher(settings.bridge, settings.keys)
    try:
        if settings.once or not sys.stdout.isatty():
            return _show_once(watcher)
        return _show(watcher, settings.hz)
    finally:
        watcher.close()


class Watcher:
    """Keeps a `Sight` of one bridge up to date; connects again when the bridge was restarted.

    Attributes:
        sight: What is known.
    """

    def __init__(self, endpoint: str, keys: str = "") -> None:
        """Nothing is sent yet."""
        self.sight = Sight(endpoint)
        self._keys = keys
        self._client: BridgeClient | None = None
        self._asked_s = self._tried_s = -ASK_EVERY_S

    def look(self) -> None:
        """Learn what is new. A bridge that is not there is tried again now and then, and its `trouble` is noted."""
        try:
            if self._client is None:
                if time.monotonic() - self._tried_s < ASK_EVERY_S:
                    return
                self._tried_s = time.monotonic()
                self._connect()
            self._take()
            self.sight.trouble = ""
        except BridgeError as error:
            self.sight.trouble = str(error)
            self.close()

    def close(self) -> None:
        """Disconnect; may be called twice."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self) -> None:
        client = BridgeClient(self.sight.endpoint, "watch", TIMEOUT_S, keys=self._keys)
        self._client = client.__enter__()
        self.sight.schema, self.sight.meter = client.schema, Meter()
        self._asked_s = -ASK_EVERY_S

    def _take(self) -> None:
        client, sight = self._client, self.sight
        assert client is not None
        if time.monotonic() - self._asked_s >= ASK_EVERY_S:
            self._asked_s = time.monotonic()
            sight.counters, sight.holder = client.counters(), client.holder()
            begin = client.state().t_ns
            for _ in range(BURST):
                end = client.state().t_ns
            sight.state_hz = BURST * 1e9 / max(end - begin, 1)
        sight.state = client.state()
        sight.age_s = max(0.0, (client.now_ns() - sight.state.t_ns) / 1e9)
        sight.meter.add(sight.state)


def _show_once(watcher: Watcher) -> int:
    until = time.monotonic() + ONCE_S
    while True:
        watcher.look()
        if watcher.sight.trouble:
            raise BridgeError(watcher.sight.trouble)
        if time.monotonic() >= until:
            break
        time.sleep(ONCE_S / 10)
    # Whoever reads a file or a pipe wants all of it.
    for line in painted(lines(watcher.sight, _has_unicode(sys.stdout)), 10_000, 0, has_colours=False):
        print(line)
    return 0


def _show(watcher: Watcher, hz: float) -> int:
    has_unicode, has_colours = _has_unicode(sys.stdout), not os.environ.get("NO_COLOR")
    with _screen(sys.stdout), _keys() as keyboard, contextlib.suppress(KeyboardInterrupt):
        while True:
            watcher.look()
            width, height = shutil.get_terminal_size()
            shown = [*lines(watcher.sight, has_unicode), [(_FOOT, "dim")]]
            sys.stdout.write(frame(painted(shown, width, height, has_colours)))
            sys.stdout.flush()
            if _is_over(keyboard, 1.0 / hz):
                break
    return 0


def frame(rows: list[str]) -> str:
    """What makes a terminal show these rows and nothing else, without flicker."""
    return "\x1b[H" + "\n".join(row + "\x1b[K" for row in rows) + "\x1b[J"


def _has_unicode(stream: TextIO) -> bool:
    try:
        "▁█├●".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@contextlib.contextmanager
def _screen(stream: TextIO) -> Iterator[None]:
    """A screen of our own, without a cursor; what was there before comes back however we end."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    stream.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        stream.write("\x1b[?25h\x1b[?1049l")
        stream.flush()
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """File descriptor that gives keys as they are pressed; -1 where nobody types."""
    if not sys.stdin.isatty():
        yield -1
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _is_over(keyboard: int, seconds: float) -> bool:
    """Wait until the next picture; whether q was pressed meanwhile."""
    if keyboard < 0:
        time.sleep(seconds)
        return False
    until = time.monotonic() + seconds
    while select.select([keyboard], [], [], max(0.0, until - time.monotonic()))[0]:
        typed = os.read(keyboard, 64)
        if not typed or b"q" in typed.lower():
            return True
    return False
