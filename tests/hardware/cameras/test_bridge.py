"""Cameras behind a whole bridge: every picture arrives, and none that dies, hangs or lies disturbs the arm."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from hardware.cameras.fake import decode_bands
from hardware.keys import authorise, make
from robot.bridge.client import BridgeClient
from robot.bridge.connection import Connection
from robot.bridge.image_client import ImageClient
from robot.contract import ActionChunk
from robot.errors import BridgeError

QUICK = ("cameras=[front:fake,side:fake]", "cameras.front.fps=60", "cameras.side.encoding=raw", "cameras.side.fps=60")


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "robot.cli", "bridge", "arm=fake", "port=0", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


class Running:
    def __init__(self, process: subprocess.Popen[str], endpoint: str) -> None:
        self.process, self.endpoint = process, endpoint
        self.out = self.errors = ""
        self.is_ended = False

    def camera_pids(self) -> list[int]:
        """In the order of the configuration."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(
            int(pid) for pid in children if b"hardware.cameras.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )

    def end(self) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.out, self.errors = self.process.communicate(timeout=15)


@contextmanager
def running(*overrides: str) -> Iterator[Running]:
    process = start(*overrides)
    assert process.stdout is not None
    ready = process.stdout.readline()
    found = re.match(r"Ready: (\S+) holds Fake", ready)
    up = Running(process, found[1] if found else "")
    try:
        assert found, ready + process.communicate(timeout=15)[1]
        yield up
    finally:
        up.end()


def soon(is_so: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if is_so():
            return True
        time.sleep(0.01)
    return False


def down(client: BridgeClient) -> int:
    return int(client.state().status("cameras_down"))


def drive_until(client: BridgeClient, until_s: float, on_tick: Callable[[], None] = lambda: None) -> int:
    """Send a chunk that moves nothing every 50 ms; how many were sent."""
    rows, sent = np.zeros((4, 7)), 0
    while time.monotonic() < until_s:
        client.send_chunk(ActionChunk(rows, 0.05), client.now_ns())
        sent += 1
        tick = time.monotonic() + 0.05
        while time.monotonic() < tick:
            client.state()
            on_tick()
    return sent


def test_every_picture_of_two_cameras_arrives_and_no_command_is_lost() -> None:
    with running("cameras=[front:fake,side:fake]") as up:
        with BridgeClient(up.endpoint) as client, ImageClient(client) as images:
            seen: dict[str, list[tuple[int, int, int, float]]] = {name: [] for name in images.streams}

            def look() -> None:
                for name, got in seen.items():
                    for picture in images.after(name, got[-1][0] if got else 0):
                        told, t_ns = decode_bands(picture.image)
                        assert t_ns == picture.t_ns
                        got.append((picture.number, told, picture.t_ns, picture.age_s))

            client.acquire()
            client.arm()
            sent = drive_until(client, time.monotonic() + 2.5, look)
            state = client.state()
            assert state.status("last_sequence") == sent
            assert state.status("rejected") == state.status("refused") == state.status("cameras_down") == 0
            assert not images.rejected
        for got in seen.values():
            numbers, told, times, ages = (np.array(column) for column in zip(*got, strict=True))
            assert (np.diff(numbers) == 1).all()
            # A machine that is busy with other things may make the camera itself late; then it says so.
            assert np.diff(told).sum() >= 60
            assert (np.diff(told) > 1).sum() <= 3
            np.testing.assert_allclose(np.diff(times), np.diff(told) * 1e9 / 30, rtol=1e-6)
            assert np.median(ages) < 0.1
    assert len(re.findall(r"Camera (?:front|side): \d+ pictures, [\d.]+ ms to encode one", up.out)) == 2
    assert "Traceback" not in up.errors


@pytest.mark.slow
def test_a_killed_camera_is_said_once_shown_and_started_again() -> None:
    with running(*QUICK) as up, BridgeClient(up.endpoint) as client, ImageClient(client) as images:
        before = images.newest("front", 1.0, wait_s=2.0).number
        images.newest("side", 1.0, wait_s=2.0)
        client.acquire()
        client.arm()
        os.kill(up.camera_pids()[0], signal.SIGKILL)
        killed = time.monotonic()
        drive_until(client, killed + 0.3)
        assert down(client) == 0b01
        with pytest.raises(BridgeError, match="'front' is"):
            images.newest("front", max_age_s=0.15)
        images.newest("side", max_age_s=0.15)
        back: list[float] = []

        def look() -> None:
            if not back and images.age_s("front") < 0.1:
                back.append(time.monotonic() - killed)

        sent = 0
        while not back and time.monotonic() < killed + 15:
            sent += drive_until(client, time.monotonic() + 0.2, look)
        assert back[0] > 1.0
        assert soon(lambda: down(client) == 0, within_s=1.0)
        assert images.newest("front", 0.2).number > before
        assert decode_bands(images.newest("front", 0.2).image)[1] > 0
        state = client.state()
        assert state.status("cameras_down") == state.status("rejected") == state.status("refused") == 0
        assert state.status("last_sequence") >= sent
    assert up.errors.count("'front' has ended: signal 9. Starting it again in 1 s (1 of 5).") == 1
    assert up.errors.count("'front' gives pictures again") == 1
    assert "'side'" not in up.errors


@pytest.mark.slow
def test_a_frozen_camera_is_seen_by_its_age_and_goes_on_when_it_thaws() -> None:
    with running(*QUICK) as up, BridgeClient(up.endpoint) as client, ImageClient(client) as images:
        images.newest("side", 1.0, wait_s=2.0)
        pid = up.camera_pids()[1]
        os.kill(pid, signal.SIGSTOP)
        assert soon(lambda: down(client) == 0b10, within_s=2.0)
        assert images.age_s("side") > 0.3
        assert images.age_s("front") < 0.2
        os.kill(pid, signal.SIGCONT)
        assert soon(lambda: down(client) == 0, within_s=2.0)
        assert images.newest("side", max_age_s=0.2).age_s < 0.2
    assert up.errors.count("gives no pictures") == 1


@pytest.mark.slow
def test_a_camera_that_stays_frozen_is_killed_and_started_again() -> None:
    with running(*QUICK) as up, BridgeClient(up.endpoint) as client:
        pid = up.camera_pids()[0]
        os.kill(pid, signal.SIGSTOP)
        assert soon(lambda: down(client) == 0b01, within_s=2.0)
        assert soon(lambda: down(client) == 0, within_s=9.0)
        assert pid not in up.camera_pids()


@pytest.mark.slow
def test_a_subscriber_that_never_reads_makes_nothing_grow() -> None:
    def resident_mb(pid: int) -> float:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    with running(*QUICK) as up, BridgeClient(up.endpoint) as client, ImageClient(client) as images:
        pid = up.camera_pids()[1]
        context: zmq.Context[Any] = zmq.Context()
        lazy = context.socket(zmq.SUB)
        lazy.setsockopt(zmq.LINGER, 0)
        lazy.setsockopt(zmq.RCVHWM, 2)
        lazy.setsockopt(zmq.SUBSCRIBE, b"")
        lazy.connect(client.schema.images["side"].endpoint)
        time.sleep(1.0)
        before = resident_mb(pid)
        # 55 MB of pictures a second.
        time.sleep(3.0)
        assert resident_mb(pid) - before < 20
        assert images.newest("side", max_age_s=0.5).age_s < 0.5
        lazy.close()
        context.term()


@pytest.mark.slow
def test_a_frozen_camera_does_not_keep_the_arm_from_stopping() -> None:
    with running(*QUICK) as up:
        os.kill(up.camera_pids()[0], signal.SIGSTOP)
        up.end()
        assert up.process.returncode == 0
    assert re.search(r"\d+ cycles; lateness", up.out)
    assert "Camera side: " in up.out
    assert "Camera front: " not in up.out
    assert "Traceback" not in up.errors


@pytest.mark.parametrize("how", [pytest.param("kill", marks=pytest.mark.slow), "ctrl-c"])
def test_no_camera_outlives_its_bridge(how: str) -> None:
    with running(*QUICK) as up:
        pids = up.camera_pids()
        assert len(pids) == 2
        if how == "kill":
            up.process.kill()
        else:
            os.killpg(up.process.pid, signal.SIGINT)
        assert soon(lambda: not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids), within_s=3.0)
    if how == "ctrl-c":
        assert up.process.returncode == 0
        assert "Traceback" not in up.errors


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("cameras=[front:opencv]", "cameras.front.device=/dev/video93"), "'front': No camera at '/dev/video93'"),
        (("cameras=[front:webcam]",), "Unknown camera 'webcam'"),
        (("cameras=[front:fake]", "cameras.front.fsp=3"), "Did you mean 'cameras.front.fps'"),
    ],
)
def test_a_camera_that_does_not_open_is_said_and_the_bridge_does_not_start(
    overrides: tuple[str, ...], said: str
) -> None:
    process = start(*overrides)
    out, errors = process.communicate(timeout=30)
    assert process.returncode in (1, 2)
    assert said in errors
    assert "Ready" not in out
    assert "Traceback" not in errors


@pytest.mark.slow
def test_pictures_are_for_those_with_a_key(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    make(folder, "bridge")
    authorise(folder, make(folder, "alice"))
    make(folder, "mallory")
    alice = folder / "alice.key_secret"
    with running("cameras=[front:fake]", f"keys={folder}") as up, BridgeClient(up.endpoint, keys=alice) as client:
        with ImageClient(client) as images:
            assert images.newest("front", 0.5, wait_s=2.0).number > 0
        for keys in ("", str(folder / "mallory.key_secret")):
            connection = Connection(up.endpoint, keys)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(client, "_connection", connection)
                with ImageClient(client) as images:
                    time.sleep(0.5)
                    assert images.age_s("front") == float("inf")
            connection.close()
