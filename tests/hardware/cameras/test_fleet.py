"""The fleet: a camera that dies is started again a few times, one that does not open is an error with its words."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hardware.cameras import fleet as module
from hardware.cameras.config import CameraConfig
from hardware.cameras.fake import decode_bands
from hardware.cameras.fleet import Fleet, Surroundings
from robot.errors import ConfigError, DeviceError
from tests.hardware.cameras.settings import fake, opencv

Make = Callable[..., Fleet]


@pytest.fixture
def make() -> Iterator[Make]:
    fleets: list[Fleet] = []

    def started(**configs: CameraConfig) -> Fleet:
        fleets.append(Fleet(configs, Surroundings(7, dict.fromkeys(configs, "tcp://127.0.0.1:*"))))
        return fleets[-1]

    yield started
    for fleet in fleets:
        fleet.end()


def until(fleet: Fleet, is_so: Callable[[], bool], within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        fleet.watch()
        if is_so():
            return True
        time.sleep(0.01)
    return False


def newest(fleet: Fleet, name: str) -> Any:
    got = fleet.ring(name).read()
    assert got is not None
    return got


def test_streams_are_as_configured_and_the_ring_holds_the_same_pictures(make: Make) -> None:
    fleet = make(front=fake(), side=fake(width=320, encoding="raw", fps=50.0))
    assert fleet.wait(lambda: False)
    assert list(fleet.streams) == ["front", "side"]
    side = fleet.streams["side"]
    assert (side.height, side.width, side.encoding, side.fps) == (120, 320, "raw", 50.0)
    assert until(fleet, lambda: fleet.ring("side").newest()[0] >= 3)
    got = newest(fleet, "side")
    assert decode_bands(got.frame.image)[1] == got.frame.t_ns
    assert fleet.down == 0
    report = fleet.end()
    assert report["side"]["pictures"] >= 3
    assert 0 < report["side"]["encode_ms"] < 50


def test_a_dead_camera_is_started_again_on_the_same_address_and_goes_on_counting(
    make: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    fleet = make(front=fake())
    fleet.wait(lambda: False)
    until(fleet, lambda: fleet.ring("front").newest()[0] > 0)
    before, first = newest(fleet, "front").number, fleet.pids()["front"]
    os.kill(first, signal.SIGKILL)
    assert until(fleet, lambda: fleet.down == 1)
    assert until(fleet, lambda: fleet.down == 0)
    assert fleet.pids()["front"] != first
    assert newest(fleet, "front").number > before
    os.kill(fleet.pids()["front"], signal.SIGKILL)
    assert until(fleet, lambda: fleet.down == 1)
    assert fleet.pids() == {}
    time.sleep(0.1)
    until(fleet, lambda: False, within_s=0.2)
    assert fleet.pids() == {}
    errors = capfd.readouterr().err
    assert errors.count("has ended: signal 9. Starting it again in 1 s (1 of 1).") == 1
    assert errors.count("has ended: signal 9. It stays down: check it") == 1
    assert errors.count("gives pictures again") == 1


def test_what_a_failing_camera_says_is_passed_on(make: Make) -> None:
    with pytest.raises(DeviceError, match="Camera 'front': No camera at '/dev/video93': /dev/video93 does not exist"):
        make(side=fake(), front=opencv("/dev/video93")).wait(lambda: False)
    with pytest.raises(ConfigError, match=r"Camera 'tiny': .* cannot say which picture"):
        make(tiny=fake(width=20)).wait(lambda: False)


def test_a_camera_that_is_slower_than_asked_for_is_said_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "RATE_S", 0.3)
    fleet = make(front=fake(), side=fake(fps=20.0))
    fleet.wait(lambda: False)
    fleet._keepers[1].config = fake(fps=100.0)
    until(fleet, lambda: False, within_s=1.2)
    errors = capfd.readouterr().err
    assert errors.count("'side' gives") == 1
    assert "pictures a second, asked for 100" in errors


def test_whoever_waits_may_give_up(make: Make) -> None:
    assert not make(front=fake()).wait(lambda: True)
