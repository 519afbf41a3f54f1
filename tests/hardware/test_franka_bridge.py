"""The whole way to a Franka: client, gateway, real-time process, franky, its protocol, a simulated robot."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

from robot.bridge.client import BridgeClient
from robot.bridge.schema import Mode
from robot.contract import ActionChunk
from robot.control.safety import Fault
from tests.hardware.emulated_franka import Emulated, own_address
from tests.hardware.test_bridge import settle

pytestmark = pytest.mark.slow

DT_S, TIME_S, AHEAD_S = 0.05, 6.0, 0.15


@pytest.fixture(scope="module")
def robot() -> Iterator[Emulated]:
    emulated = Emulated(own_address(9))
    yield emulated
    emulated.close()


@pytest.fixture
def endpoint(robot: Emulated) -> Iterator[str]:
    # A loaded machine keeps this test's client from showing life in time; what is tested here is another matter.
    overrides = ["arm=franka", f"arm.device.address={robot.address}", "arm.limits.silence_s=0.5", "port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "robot.cli", "bridge", *overrides, "arm.action_space=ee_pose"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        found = re.match(r"Ready: (\S+) holds FR3", process.stdout.readline())
        assert found
        yield found[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=20)


def test_a_figure_is_tracked_within_five_millimetres(robot: Emulated, endpoint: str) -> None:
    """A figure of eight, 0.1 m wide, of poses at 20 Hz: row k is where the tool is when it ends."""
    with BridgeClient(endpoint) as client:
        client.acquire()
        client.home()
        client.arm()
        start = client.state().values["ee_pos"].copy()
        rot6d = client.state().values["ee_rot6d"].copy()

        def where(t: float) -> np.ndarray:
            u = min(max(t / TIME_S, 0.0), 1.0)
            phase = 2 * np.pi * u**3 * (10 - 15 * u + 6 * u**2)
            return start + np.array([0.025 * np.sin(2 * phase), 0.05 * np.sin(phase), 0.0])

        t0_ns, sent, count = client.now_ns() + 200_000_000, 0, round(TIME_S / DT_S)
        errors, extent = [], []
        while client.now_ns() < t0_ns + int(TIME_S * 1e9):
            if (client.now_ns() - t0_ns) / 1e9 >= sent * DT_S - AHEAD_S and sent < count:
                rows = [[*where((sent + i + 1) * DT_S), *rot6d, 0.0] for i in range(min(6, count - sent))]
                client.send_chunk(ActionChunk(np.array(rows), DT_S), t0_ns + int(sent * DT_S * 1e9))
                sent += 1
            state = client.state()
            if (t := (state.t_ns - t0_ns) / 1e9) > 0:
                errors.append(np.linalg.norm(state.values["ee_pos"] - where(t)))
                extent.append(state.values["ee_pos"].copy())
        state = client.state()
        rms_mm, most_mm = 1e3 * np.sqrt(np.mean(np.square(errors))), 1e3 * np.max(errors)
        print(f"RMS {rms_mm:.2f} mm, most {most_mm:.2f} mm; {state.status('clamped'):.0f} cycles clamped")
        assert np.ptp(extent, axis=0)[1] > 0.09
        assert rms_mm <= 5.0
        assert state.mode == Mode.ARMED
        assert state.status("rejected") == 0
        client.disarm()
    # It would say so if it had stopped itself: too late, too fast, a reflex.
    assert robot.heard(0.1) is None


def test_a_reflex_is_a_fault_that_recovers_once_it_is_asked(robot: Emulated, endpoint: str) -> None:
    with BridgeClient(endpoint) as client:
        client.acquire()
        client.home()
        client.arm()
        robot.say("reflex joint_reflex")
        state = settle(client, Mode.FAULT)
        assert Fault(int(state.status("fault"))) == Fault.DEVICE
        client.reset()
        assert settle(client, Mode.DISARMED).mode == Mode.DISARMED
        client.arm()
        began = time.monotonic()
        client.estop()
        assert time.monotonic() - began < 1.0
        assert settle(client, Mode.FAULT).status("fault") == Fault.ESTOP
        client.reset()
    robot.heard(0.1)
