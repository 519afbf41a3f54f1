"""What only shows over seconds: punctuality, tracking, and what the robot does with a client that is late."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from hardware.franka import FrankaArm
from robot.contract import Arm
from robot.control.kinematics import ArmModel
from tests.hardware.emulated_franka import Emulated, driver, own_address, punctual

pytestmark = pytest.mark.slow

EXTENT_M, LAP_S, LAPS, WAYPOINT_S = 0.1, 4.0, 2, 0.05


@pytest.fixture(scope="module")
def robot() -> Iterator[Emulated]:
    emulated = Emulated(own_address(5))
    yield emulated
    emulated.close()


@pytest.fixture(params=[500, 1000])
def arm(robot: Emulated, request: pytest.FixtureRequest) -> Iterator[FrankaArm]:
    arm = driver(robot.address, f"arm.rate_hz={request.param}")
    arm.open()
    yield arm
    arm.close()


def follow(arm: FrankaArm, way: CubicSpline, time_s: float) -> dict[str, np.ndarray]:
    """Stream joint references of a C2 way; what happened, a row for each cycle."""
    state, target = np.zeros(arm.specs.state.size), np.zeros(22)
    views, rows = arm.specs.state.views(state), []
    arm.read(state)
    began_ms = arm._beat_ms
    while (t := (arm._beat_ms - began_ms) / 1000) < time_s:
        for order in range(3):
            target[7 * order : 7 * order + 7] = way(t, order)
        began = time.perf_counter()
        arm.write(target)
        wrote_s = time.perf_counter() - began
        rows.append([t, wrote_s, arm._state.control_command_success_rate, *views["q"], *views["ee_pos"]])
        arm.read(state)
    table = np.array(rows)
    return {
        "t": table[:, 0],
        "wrote_s": table[:, 1],
        "success": table[:, 2],
        "q": table[:, 3:10],
        "ee_pos": table[:, 10:13],
    }


def eight(t: np.ndarray, start: np.ndarray) -> np.ndarray:
    """A figure of eight, 0.1 m wide in y and 0.05 m high in z, that grows within a second."""
    u = np.minimum(t, 1.0)
    grown = u**3 * (10 - 15 * u + 6 * u**2)
    w = 2 * np.pi * t / LAP_S
    return start + np.stack([0 * t, EXTENT_M / 2 * grown * np.sin(w), EXTENT_M / 4 * grown * np.sin(2 * w)], axis=-1)


def way_through(arm: Arm, time_s: float) -> tuple[CubicSpline, np.ndarray]:
    """Joints through the figure's waypoints at 20 Hz, by inverse kinematics; where the figure begins."""
    model = ArmModel.load("panda.xml")
    state = np.zeros(arm.specs.state.size)
    arm.read(state)
    views = arm.specs.state.views(state)
    q, start, rot6d = views["q"].copy(), np.zeros(3), np.zeros(6)
    model.pose(q, start, rot6d)
    times = np.arange(0.0, time_s + WAYPOINT_S, WAYPOINT_S)
    waypoints = []
    for pos in eight(times, start):
        left_m, left_rad = model.solve(q, pos, rot6d, q)
        assert left_m < 1e-4
        assert left_rad < 1e-3
        waypoints.append(q.copy())
    return CubicSpline(times, np.array(waypoints), bc_type="clamped"), start


def test_a_figure_at_20_hz_waypoints_is_tracked(
    arm: FrankaArm, robot: Emulated, capsys: pytest.CaptureFixture[str]
) -> None:
    time_s = LAPS * LAP_S
    way, start = way_through(arm, time_s)
    with punctual():
        seen = follow(arm, way, time_s)
    arm.stop()
    off_m = np.linalg.norm(seen["ee_pos"] - eight(seen["t"], start), axis=1)
    rms_mm, most_mm = 1e3 * np.sqrt(np.mean(off_m**2)), 1e3 * off_m.max()
    with capsys.disabled():
        print(f"\n{arm.specs.rate_hz} Hz: {rms_mm:.2f} mm RMS, {most_mm:.2f} mm at most")
    assert robot.heard(0.0) is None, "the robot has stopped itself"
    assert rms_mm < 5.0
    assert np.ptp(seen["ee_pos"], axis=0)[1] == pytest.approx(EXTENT_M, abs=0.01)


def test_20_seconds_without_a_violation(arm: FrankaArm, robot: Emulated, capsys: pytest.CaptureFixture[str]) -> None:
    state = np.zeros(arm.specs.state.size)
    arm.read(state)
    times = np.arange(0.0, 21.5, 0.5)
    sway = np.zeros((len(times), 7))
    sway[1:-1] = np.random.default_rng(0).uniform(-0.1, 0.1, (len(times) - 2, 7))
    way = CubicSpline(times, arm.specs.state.views(state)["q"] + sway, bc_type="clamped")
    with punctual() as is_privileged:
        seen = follow(arm, way, 20.0)
    arm.stop()
    steps_ms = np.round(1e3 * np.diff(seen["t"]))
    missed = float(np.mean(steps_ms > 1.5 * arm._cycle_ms))
    error_mrad = 1e3 * np.sqrt(np.mean((seen["q"] - way(seen["t"])) ** 2, axis=0))
    late_percent, wrote_us = 100 * missed, 1e6 * np.percentile(seen["wrote_s"], [50, 99])
    with capsys.disabled():
        print(
            f"\n{arm.specs.rate_hz} Hz: {late_percent:.2f} % of cycles late, write {wrote_us[0]:.0f} µs (p99 "
            f"{wrote_us[1]:.0f}), commands that arrived {seen['success'].mean():.4f} (at least "
            f"{seen['success'].min():.2f} of any 100), joints off by {error_mrad.max():.1f} mrad RMS at most"
        )
    assert robot.heard(0.0) is None, "the robot has stopped itself"
    assert len(seen["t"]) > (0.9 if is_privileged else 0.5) * 20.0 * arm.specs.rate_hz
    assert error_mrad.max() < 20.0


CLIENT = """
import sys, numpy as np
from robot.errors import DeviceError
from tests.hardware.emulated_franka import driver
arm = driver(sys.argv[1])
arm.open()
state = np.zeros(arm.specs.state.size)
print("open", flush=True)
try:
    while True:
        arm.read(state)
except DeviceError as error:
    print(error, flush=True)
arm.recover()
arm.read(state)
print("recovered", flush=True)
arm.close()
"""


def test_a_client_that_is_late_makes_the_robot_stop_and_says_why(robot: Emulated) -> None:
    client = subprocess.Popen([sys.executable, "-c", CLIENT, robot.address], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == "open\n"
        time.sleep(0.2)
        os.kill(client.pid, signal.SIGSTOP)
        heard = robot.heard(1.0)
        os.kill(client.pid, signal.SIGCONT)
        assert heard == {"halted": "kReflex", "error": "communication_constraints_violation"}, json.dumps(heard)
        assert "communication_constraints_violation" in client.stdout.readline()
        assert client.stdout.readline() == "recovered\n"
        assert client.wait(10.0) == 0
    finally:
        client.kill()
        client.communicate()
