"""Whoever is killed in mid-motion, what is commanded comes to rest in time, inside the limits, and stays there.

The commanded velocity is read from the memory that the real-time process writes to: no gateway is needed to see it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from hardware.shared_memory import SharedMemory
from robot.bridge.client import BridgeClient
from robot.bridge.schema import INDEX, BridgeSchema, Mode
from robot.control.limits import JointLimits
from robot.errors import BridgeError
from tests.hardware.test_bridge import children, gone, is_alive

pytestmark = pytest.mark.slow

CLIENT = """
import sys, time
import numpy as np
from robot.bridge.client import BridgeClient
from robot.contract import ActionChunk
with BridgeClient(sys.argv[1], "victim") as client:
    client.acquire()
    client.home(int(sys.argv[2]))
    client.arm()
    begin = time.monotonic()
    print("driving", flush=True)
    while True:
        t = time.monotonic() - begin
        rows = np.zeros((12, 7))
        rows[:, 1], rows[:, 2] = 0.25 * np.cos(4 * t), 0.25 * np.sin(4 * t)
        client.send_chunk(ActionChunk(rows, 0.05), client.now_ns() + 2_000_000)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            client.state()
"""
LOOKING = """
import sys, time
import numpy as np
from robot.bridge.client import BridgeClient
from robot.bridge.image_client import ImageClient
from robot.contract import ActionChunk
with BridgeClient(sys.argv[1], "looking") as client, ImageClient(client) as images:
    images.newest("front", 1.0, wait_s=5.0)
    client.acquire()
    client.home(int(sys.argv[2]))
    client.arm()
    begin = time.monotonic()
    print("driving", flush=True)
    while True:
        # Whoever acts on pictures says how old they may be, here two periods: this raises, and leaving disarms.
        images.newest("front", max_age_s=0.075)
        t = time.monotonic() - begin
        rows = np.zeros((12, 7))
        rows[:, 1], rows[:, 2] = 0.25 * np.cos(4 * t), 0.25 * np.sin(4 * t)
        client.send_chunk(ActionChunk(rows, 0.05), client.now_ns() + 2_000_000)
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            client.state()
"""
KILLS = 6
SILENCE_S = 0.1
SLACK_S = 0.03
"""For a loaded machine: a cycle that is late."""


class Watched:
    """A running bridge, its real-time process, and what that writes."""

    def __init__(self, process: subprocess.Popen[str], endpoint: str) -> None:
        self.process, self.endpoint = process, endpoint
        self.realtime = self.child("hardware.realtime")
        with BridgeClient(endpoint) as client:
            self.schema: BridgeSchema = client.schema
        folder = Path(f"/proc/{self.realtime}/fd")
        link = next(path for path in folder.iterdir() if "armature-bridge" in os.readlink(path))
        self.memory = SharedMemory(os.open(link, os.O_RDWR))
        self.flat = np.zeros(self.schema.layout.size)
        self.views = self.schema.layout.views(self.flat)

    def child(self, module: str) -> int:
        """The child that runs a module."""
        found = (pid for pid in children(self.process) if module in Path(f"/proc/{pid}/cmdline").read_text())
        return next(found)

    def speed(self) -> float:
        """Highest commanded speed of a joint now [rad/s]."""
        self.memory.states.read(self.flat)
        return float(np.abs(self.views["target"][7:14]).max())

    def mode(self) -> Mode:
        return Mode(int(self.views["status"][INDEX["mode"]]))

    def wait_until_free(self) -> None:
        """Until nobody holds the lease: one that came back has renewed it."""
        until = time.monotonic() + 2.0
        while self.views["status"][INDEX["lease"]]:
            assert time.monotonic() < until
            self.memory.states.read(self.flat)
            time.sleep(0.01)

    def drive(self, seed: int, client: str = CLIENT) -> "subprocess.Popen[str]":
        victim = subprocess.Popen(
            [sys.executable, "-c", client, self.endpoint, str(seed)], stdout=subprocess.PIPE, text=True
        )
        assert victim.stdout is not None
        assert victim.stdout.readline() == "driving\n"
        until = time.monotonic() + 3
        while self.speed() < 0.1:
            assert time.monotonic() < until
            time.sleep(0.001)
        return victim

    def rest_after(self, killed: float) -> tuple[float, float, float]:
        """When braking began and when it was over, since `killed` [s], and the highest speed at that moment."""
        began, fastest = 0.0, 0.0
        while time.monotonic() - killed < 3.0:
            speed, now = self.speed(), time.monotonic() - killed
            if self.mode() == Mode.ARMED:
                began, fastest = now, speed
            elif speed == 0.0:
                return began, now, fastest
            time.sleep(0.0005)
        raise AssertionError(f"still commanded to move at {self.speed()} rad/s in mode {self.mode().name}")

    def braking_s(self, speed: float) -> float:
        """Longest time that the limits need from a speed to rest: at full deceleration, and jerk at both ends."""
        limits = self.schema.limits
        assert isinstance(limits, JointLimits)
        a, j = min(limits.joint_acceleration_radps2), min(limits.joint_jerk_radps3)
        return speed / a + 3 * a / j


@contextmanager
def running(*overrides: str) -> Iterator[Watched]:
    command = [sys.executable, "-m", "robot.cli", "bridge", "arm=twin_joints", "port=0", *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        found = re.match(r"Ready: (\S+) holds", process.stdout.readline())
        assert found
        yield Watched(process, found[1])
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=15)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Watched]:
    with running() as up:
        yield up


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_policy_node_that_is_killed_or_hangs(bridge: Watched, how: signal.Signals) -> None:
    rng = np.random.default_rng(3)
    for seed in range(KILLS):
        victim = bridge.drive(seed)
        time.sleep(rng.uniform(0, 0.3))
        victim.send_signal(how)
        began, rested, speed = bridge.rest_after(time.monotonic())
        assert began <= SILENCE_S + SLACK_S
        print(f"braking from {speed:.2f} rad/s began after {began:.3f} s and was over after {rested:.3f} s")
        assert rested <= SILENCE_S + bridge.braking_s(speed) + SLACK_S
        time.sleep(0.02)
        assert bridge.speed() == 0.0
        assert bridge.mode() == Mode.DISARMED
        if how == signal.SIGSTOP:
            # Back again, it finds the arm disarmed: nothing moves before somebody arms it.
            victim.send_signal(signal.SIGCONT)
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            assert bridge.speed() == 0.0
        victim.kill()
        victim.communicate()
        bridge.wait_until_free()


def test_a_gateway_that_is_killed() -> None:
    for seed in range(KILLS // 2):
        with running() as up:
            victim = up.drive(seed)
            up.process.kill()
            _, rested, speed = up.rest_after(time.monotonic())
            assert rested <= SILENCE_S + up.braking_s(speed) + SLACK_S
            assert gone([up.realtime], within_s=3.0)
            victim.communicate(timeout=10)
            assert victim.returncode != 0


def test_a_real_time_process_that_is_killed_is_reported() -> None:
    with running() as up:
        victim = up.drive(0)
        os.kill(up.realtime, signal.SIGKILL)
        assert up.process.wait(timeout=5) == 1
        assert not is_alive(up.realtime)
        with pytest.raises(BridgeError), BridgeClient(up.endpoint, timeout_s=0.5) as client:
            client.state()
        victim.communicate(timeout=10)
        assert victim.returncode != 0


def test_a_camera_that_is_killed_stops_who_acts_on_its_pictures() -> None:
    with running("cameras=[front:fake]") as up:
        victim = up.drive(0, LOOKING)
        time.sleep(0.3)
        os.kill(up.child("hardware.cameras.process"), signal.SIGKILL)
        began, rested, speed = up.rest_after(time.monotonic())
        print(f"braking from {speed:.2f} rad/s began after {began:.3f} s and was over after {rested:.3f} s")
        assert began <= 0.1 + SLACK_S
        assert rested <= 0.1 + up.braking_s(speed) + SLACK_S
        _, _ = victim.communicate(timeout=10)
        assert victim.returncode != 0
