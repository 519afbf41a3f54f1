"""What a user sees while a recording goes on, and how much room the disk has to have."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from robot.bridge.schema import Mode
from robot.episodes import bridge_progress
from robot.episodes.bridge_feed import STATES
from robot.episodes.bridge_progress import Disk, Progress
from robot.episodes.bridge_session import ARMING, KEYS
from tests.robot.episodes.test_bridge_session import MS, Rig


class Room(Disk):
    """A disk with as much room as a test says."""

    def __init__(self, left_gb: float, least_gb: float) -> None:
        super().__init__(Path("/data"), least_gb)
        self.left = left_gb
        self._measure = lambda path: int(self.left * 1e9)


class Shown:
    """The line as it is drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, by: str, disk: Disk) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(bridge_progress, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        self.progress = Progress(5, 0, by, disk)
        self.texts: list[str] = []
        monkeypatch.setattr(self.progress._bar, "set_postfix_str", lambda text, refresh: self.texts.append(text))

    def look(self, rig: Rig, after_s: float = 20.0, prompt: str = "") -> str:
        self.now_s += after_s
        count = len(self.texts)
        self.progress.show(rig.session, prompt)
        return self.texts[-1] if len(self.texts) > count else "as before"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path, ARMING)
    yield one
    one.finish()


def test_the_line_says_rates_what_is_missing_and_the_disk(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(monkeypatch, ARMING, Room(50.0, 2.0))
    assert shown.look(rig) == "waits for the arm to be armed | 50.0 GB left"
    assert shown.look(rig, 0.001) == "as before"
    assert shown.look(rig, 0.001, prompt="note: x_") == "note: x_"
    rig.states(0, 10, Mode.DISARMED)
    rig.states(10, 20)
    assert shown.look(rig).startswith("episode 0 0.0 s | missing 0 | queue ")
    rig.states(20, 2020)
    rig.pictures(20, 320)
    rig.session.on_gap(STATES, 1, 2018 * MS, 2024 * MS)
    rig.states(2024, 2026)
    text = shown.look(rig, 20.0)
    assert text.startswith("episode 0 2.0 s | state 50 Hz | front ")
    assert "missing 7" in text  # a state is seven channels
    rig.states(2026, 2028, Mode.BRAKING)
    rig.pictures(2030, 2040)
    rig.session.on_tick()
    take = rig.session.ended[0]
    result = take.finish()
    rig.session.ended.clear()
    shown.progress.tell(take, result)
    said = capsys.readouterr().err
    assert "Episode 0: 2.0 s, no success (the arm is BRAKING); 1007 states, front 30; missing 1 of /status" in said


def test_a_disk_that_will_be_full_is_warned_of_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = Room(7.0, 2.0)
    shown = Shown(monkeypatch, ARMING, room)
    rig.states(0, 10, Mode.DISARMED)
    for k in range(1, 5):
        rig.states(10 * k, 10 * k + 10)
        shown.look(rig)
    said = capsys.readouterr().err
    assert said.count("The disk has 7.0 GB left, enough for some") == 1


def test_how_much_room_there_has_to_be(tmp_path: Path) -> None:
    room = Room(10.0, 2.0)
    assert not room.is_short
    room.left = 1.9
    assert (room.is_short, room.is_ending) == (True, False)
    room.left = 0.4
    assert room.is_ending
    assert "/data has 0.40 GB of room left, and min_free_gb is 2.0" in room.complaint()
    assert Disk(tmp_path, 0.0).left_gb > 0


def test_who_types_is_told_how(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shown(monkeypatch, KEYS, Room(5.0, 2.0)).look(rig).startswith("space begins")
