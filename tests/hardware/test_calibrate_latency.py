"""`armature calibrate latency` against a whole bridge whose arm and camera are late by what the test says."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from robot.bridge import calibrate
from robot.bridge.client import BridgeClient
from robot.bridge.schema import Mode
from robot.control.latency import Latency
from robot.errors import BridgeError, SafetyError

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def bridge(**options: Any) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hardware.delayed_bridge", json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate("", timeout=15)


BUSY = ("disagree", "disarmed during the motion", "lease has ended", "did not follow")
"""What a calibration says, rightly, on a machine that is busy with other things."""


def calibrated(endpoint: str, folder: Path) -> Latency:
    path = folder / "latency.json"
    for left in (4, 3, 2, 1, 0):
        try:
            assert calibrate.main(["latency", f"bridge={endpoint}", "duration_s=4", f"out={path}"]) == 0
            break
        except BridgeError as error:
            if not left or not any(word in str(error) for word in BUSY):
                raise
    return Latency.load(path)


# What an arm does with a delta depends on where it is by then, so there a dead time of the arm itself would change more
# than times: the rows are delayed instead.
@pytest.mark.parametrize(("space", "where"), [("ee_delta", "plan_s"), ("ee_pose", "arm_s")])
def test_injected_delays_of_arm_and_camera_are_recovered(
    space: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for delay_s, lag_s in ((0.02, 0.0), (0.08, 0.05)):
        with bridge(**{where: delay_s}, lag_s=lag_s, space=space) as endpoint:
            found.append(calibrated(endpoint, tmp_path))
    at_once, late = found
    # The arm's own lag is in both; what was put in on top of it has to come out.
    assert late.action_s - at_once.action_s == pytest.approx(0.06, abs=0.002)
    half_a_frame_s = 0.5 / 60
    assert at_once.observation_s["front"] == pytest.approx(0.0, abs=half_a_frame_s)
    assert late.observation_s["front"] == pytest.approx(0.05, abs=half_a_frame_s)
    assert late.residual_s < half_a_frame_s
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "correlation" in out
    assert "front" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [({"stuck": True}, "The arm went 0.0 mm"), ({"blind": True}, "'front' sees does not change with the tool")],
)
def test_what_cannot_be_measured_is_refused_and_the_arm_rests(
    options: dict[str, bool], said: str, tmp_path: Path
) -> None:
    with bridge(arm_s=0.02, lag_s=0.0, **options) as endpoint:
        with pytest.raises(BridgeError, match=said):
            calibrated(endpoint, tmp_path)
        with BridgeClient(endpoint) as client:
            assert client.state().mode == Mode.DISARMED
            client.acquire()
    assert not list(tmp_path.iterdir())


def test_an_estop_in_the_middle_ends_it(tmp_path: Path) -> None:
    with bridge(arm_s=0.02, lag_s=0.0) as endpoint, BridgeClient(endpoint) as other:

        def stop() -> None:
            time.sleep(3.0)
            other.estop()

        thread = threading.Thread(target=stop)
        thread.start()
        with pytest.raises((SafetyError, BridgeError)):
            calibrated(endpoint, tmp_path)
        thread.join()
        assert other.state().mode == Mode.FAULT
    assert not list(tmp_path.iterdir())
