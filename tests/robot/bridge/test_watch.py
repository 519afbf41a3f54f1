import io
import os
import pty
from typing import Any

import pytest

from robot import cli
from robot.bridge import watch
from robot.bridge.schema import BridgeSchema
from robot.bridge.watch import Watcher, frame
from robot.errors import BridgeError
from tests.robot.bridge.sights import schema, state


class Bridge:
    """Stands for the bridge that clients find: there, gone, or another one."""

    def __init__(self) -> None:
        self.is_there, self.connected, self.closed, self.requests = True, 0, 0, 0
        self.t_ns = 10**12

    def client(self, endpoint: str, name: str, timeout_s: float, *, keys: str) -> "Client":
        return Client(self)


class Client:
    """Has what a watcher may use of a `BridgeClient`; no lease, no arm, no chunks."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.schema: BridgeSchema = schema()

    def __enter__(self) -> "Client":
        self._require()
        self._bridge.connected += 1
        return self

    def close(self) -> None:
        self._bridge.closed += 1

    def counters(self) -> dict[str, int]:
        self._require()
        self._bridge.requests += 1
        return {"CRC": 1}

    def holder(self) -> str:
        return "alice"

    def state(self) -> Any:
        self._require()
        self._bridge.t_ns += 2_000_000
        return state(self.schema, t_ns=self._bridge.t_ns, cycle=(self._bridge.t_ns - 10**12) / 2e6)

    def now_ns(self) -> int:
        return self._bridge.t_ns + 1_500_000

    def _require(self) -> None:
        if not self._bridge.is_there:
            raise BridgeError("No bridge answers.")


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Bridge:
    fake = Bridge()
    monkeypatch.setattr(watch, "BridgeClient", fake.client)
    return fake


def test_learns_rates_age_and_who_drives(bridge: Bridge) -> None:
    watcher = Watcher("tcp://127.0.0.1:5555")
    for _ in range(10):
        watcher.look()
    sight = watcher.sight
    assert (sight.holder, sight.counters) == ("alice", {"CRC": 1})
    assert sight.age_s == pytest.approx(0.0015)
    assert sight.state_hz == pytest.approx(500)
    assert sight.meter.per_second("cycle") == pytest.approx(500)
    # The gateway is asked once a second, however often we look.
    assert bridge.requests == 1


def test_connects_again_when_the_bridge_is_back(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "ASK_EVERY_S", 0.0)
    watcher = Watcher("tcp://127.0.0.1:5555")
    watcher.look()
    old = watcher.sight.meter
    bridge.is_there = False
    for _ in range(3):
        watcher.look()
    assert watcher.sight.trouble == "No bridge answers."
    # What was known last is still shown.
    assert watcher.sight.state is not None
    assert bridge.closed == 1
    bridge.is_there = True
    watcher.look()
    assert watcher.sight.trouble == ""
    assert bridge.connected == 2
    assert watcher.sight.meter is not old
    watcher.close()
    watcher.close()
    assert bridge.closed == 2


def test_does_not_hammer_a_bridge_that_is_away(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(
        watch, "BridgeClient", lambda *args, **keywords: tried.append(args) or bridge.client(*args, **keywords)
    )
    bridge.is_there = False
    watcher = Watcher("tcp://127.0.0.1:5555")
    for _ in range(100):
        watcher.look()
    assert len(tried) == 1
    assert watcher.sight.trouble


@pytest.mark.usefixtures("bridge")
def test_one_picture_for_scripts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(watch, "ONCE_S", 0.02)
    assert cli.main(["watch", "once=true"]) == 0
    out = capsys.readouterr().out
    assert "mode       DISARMED" in out
    assert "cycles 500.0/s" in out
    assert "\x1b" not in out


def test_one_picture_of_nothing_fails(bridge: Bridge, capsys: pytest.CaptureFixture[str]) -> None:
    bridge.is_there = False
    # The output is no terminal, so that it ends by itself.
    assert cli.main(["watch"]) == 1
    assert capsys.readouterr().err == "armature watch: No bridge answers.\n"


@pytest.mark.parametrize("override", ["hz=0", "hz=1000", "bridg=x"])
def test_wrong_keys_are_refused(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", override]) == 2
    assert capsys.readouterr().err.startswith("armature watch: ")


def test_a_frame_overwrites_what_was_there() -> None:
    assert frame(["a", "bc"]) == "\x1b[Ha\x1b[K\nbc\x1b[K\x1b[J"


@pytest.mark.parametrize(("encoding", "has"), [("utf-8", True), ("ascii", False), ("latin-1", False), ("cp437", False)])
def test_terminals_that_cannot_show_everything(encoding: str, has: bool) -> None:
    assert watch._has_unicode(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) == has


@pytest.mark.parametrize(("typed", "is_over"), [(b"q", True), (b"Q", True), (b"x", False), (b"", False)])
def test_q_ends(typed: bytes, is_over: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed)
        watch.tty.setcbreak(theirs, watch.termios.TCSANOW)
        assert watch._is_over(theirs, 0.05) == is_over
    finally:
        os.close(ours)
        os.close(theirs)
