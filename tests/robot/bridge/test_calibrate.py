"""What a calibration concludes from a recording, and what it refuses to conclude."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.bridge import calibrate
from robot.bridge.calibrate import ACTION, Finding, conclude, require_trustworthy, table
from robot.bridge.excitation import AXES, Motion, Recording, _require_room, _require_undisturbed, small
from robot.control.alignment import Delay
from robot.errors import BridgeError, ConfigError, UnknownNameError

MOTION = Motion("y", 0.02, 8.0)
BEGIN_NS = 10**18
"""As a machine that has been up for thirty years: nothing may be lost in a float64."""
DT_S = 0.05


def recorded(action_s: float, picture_s: float, gain: float = 1.0, seed: int = 0, fps: float = 30.0) -> Recording:
    """What an arm with these delays would leave behind."""
    rng = np.random.default_rng(seed)
    steps = np.arange(round(MOTION.duration_s / DT_S) + 1)
    recording = Recording(BEGIN_NS + np.round(steps * DT_S * 1e9).astype(np.int64), MOTION.offset_m(steps * DT_S))
    times = np.sort(rng.uniform(-0.3, MOTION.duration_s + 0.7, 3000))
    moved = gain * MOTION.offset_m(times - action_s) + 1e-5 * rng.normal(size=3000)
    recording.state_ns = [BEGIN_NS + int(t * 1e9) for t in times]
    recording.moved_m = moved.tolist()
    recording.ee_pos = [np.array([0.5, offset, 0.1]) for offset in moved]
    taken = np.arange(-0.3, MOTION.duration_s + 0.7, 1 / fps) + 0.3 / fps * rng.uniform()
    shown = gain * MOTION.offset_m(taken - picture_s - action_s)
    x = np.arange(32)
    pictures = np.exp(-0.5 * ((x - 16 - 200 * shown[:, None]) / 5) ** 2) + 0.01 * rng.normal(size=(len(taken), 32))
    recording.picture_ns = {"front": [BEGIN_NS + int(t * 1e9) for t in taken]}
    recording.pictures = {"front": list(pictures)}
    return recording


def findings(*recordings: Recording) -> dict[str, Finding]:
    return calibrate._findings(list(recordings), {"front": 1 / 30})


@given(st.floats(0.0, 0.3), st.floats(0.0, 0.25), st.floats(0.3, 1.2), st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_injected_delays_come_out(action_s: float, picture_s: float, gain: float, seed: int) -> None:
    recordings = [recorded(action_s, picture_s, gain, seed + run) for run in range(2)]
    found = findings(*recordings)
    require_trustworthy(found, recordings, MOTION)
    latency = conclude(found, 1e-4)
    assert latency.action_s == pytest.approx(action_s, abs=0.002)
    assert latency.observation_s["front"] == pytest.approx(picture_s, abs=0.5 / 30)
    assert latency.observation_s["front"] == pytest.approx(picture_s, abs=0.003)
    assert latency.observation_s["state"] == 0.0
    assert 1e-4 <= latency.residual_s < 0.005
    assert "front" in table(found, latency, 1e-4)


def test_an_arm_that_hardly_moves_is_refused() -> None:
    recordings = [recorded(0.1, 0.05, gain=0.05)] * 2
    with pytest.raises(BridgeError, match=r"The arm went 1\.\d mm of \d\d\.\d mm.*larger amplitude_m"):
        require_trustworthy(findings(*recordings), recordings, MOTION)


def test_a_camera_that_sees_something_else_is_refused() -> None:
    rng = np.random.default_rng(0)
    recordings = [recorded(0.1, 0.05), recorded(0.1, 0.05)]
    for recording in recordings:
        recording.pictures["front"] = list(rng.normal(size=(len(recording.picture_ns["front"]), 32)))
    with pytest.raises(
        BridgeError, match=r"'front' sees does not change with the tool: correlation 0\.\d\d, expected 0.7"
    ):
        require_trustworthy(findings(*recordings), recordings, MOTION)


def test_runs_that_disagree_are_refused_with_what_they_said() -> None:
    recordings = [recorded(0.10, 0.05), recorded(0.12, 0.05)]
    with pytest.raises(
        BridgeError, match=r"disagree about 'action': (99|100)\.\d, 1(19|20)\.\d ms, expected within 5.0"
    ):
        require_trustworthy(findings(*recordings), recordings, MOTION)
    recordings = [recorded(0.10, 0.05), recorded(0.10, 0.08)]
    with pytest.raises(BridgeError, match=r"disagree about 'front'.*expected within 16\.7 ms"):
        require_trustworthy(findings(*recordings), recordings, MOTION)


@pytest.mark.parametrize(
    "one", [Delay(0.6, 0.99, 1, is_inside=False), Delay(0.1, 0.99, -1, is_inside=True)], ids=["beyond", "opposite"]
)
def test_a_delay_that_cannot_be_is_refused(one: Delay) -> None:
    recordings = [recorded(0.1, 0.05)]
    with pytest.raises(BridgeError, match=r"not between -0.1 and 0.6 s, or its motion is the opposite"):
        require_trustworthy({ACTION: Finding([one, one])}, recordings, MOTION)


def test_lost_pictures_and_silent_cameras_are_refused() -> None:
    recordings = [recorded(0.1, 0.05)] * 2
    recordings[0].missed["front"] = 80
    with pytest.raises(BridgeError, match="30% of the pictures of camera 'front' did not arrive"):
        require_trustworthy(findings(*recordings), recordings, MOTION)
    recordings[0].picture_ns["front"] = recordings[0].picture_ns["front"][:5]
    with pytest.raises(BridgeError, match="'front' sent 5 pictures"):
        findings(*recordings)


def test_an_arm_that_is_ahead_of_its_path_has_no_latency() -> None:
    found = {ACTION: Finding([Delay(-0.004, 0.99, 1, True), Delay(-0.003, 0.99, 1, True)])}
    assert conclude(found, 0.0).action_s == 0.0


def test_the_motion_is_small_begins_and_ends_at_rest_and_has_no_corner() -> None:
    t = np.arange(-1, MOTION.duration_s + 1, 0.001)
    offset = MOTION.offset_m(t)
    assert 0.6 * MOTION.amplitude_m < np.abs(offset).max() <= MOTION.amplitude_m
    outside = (t <= 0) | (t >= MOTION.duration_s)
    assert (offset[outside] == 0).all()
    speed, acceleration, jerk = (np.diff(offset, order) / 0.001**order for order in (1, 2, 3))
    assert np.abs(speed).max() < 0.15
    assert np.abs(acceleration).max() < 1.0
    # A jump of the acceleration would be a jerk of its size over a millisecond.
    assert np.abs(jerk).max() < 20.0


@pytest.mark.parametrize(
    "wrong", [{"axis": "w"}, {"amplitude_m": 0.2}, {"duration_s": 1.0}, {"amplitude_m": float("nan")}]
)
def test_other_motions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(MOTION, **wrong)


def state(**values: Any) -> Any:
    status = values.pop("status", {})
    return SimpleNamespace(values={key: np.array(value) for key, value in values.items()}, status=status.get)


def test_rows_lead_from_offset_to_offset_in_every_action_space() -> None:
    start = state(ee_pos=[0.3, 0.4, 0.2], ee_rot6d=[1.0, 0, 0, 0, 1, 0], q=np.zeros(7))
    specs: Any = SimpleNamespace(environment=SimpleNamespace(action=SimpleNamespace(shape=(7,))))
    delta = AXES["ee_delta"](specs, start, 1).row(0.01, 0.02)
    np.testing.assert_allclose(delta, [0, 0.01 / 0.05, 0, 0, 0, 0, 0])
    specs.environment.action.shape = (10,)
    pose = AXES["ee_pose"](specs, start, 2).row(0.01, 0.02)
    np.testing.assert_allclose(pose, [0.3, 0.4, 0.22, 1, 0, 0, 0, 1, 0, 0])
    joints = AXES["joint_position"](specs, start, 0)
    np.testing.assert_allclose(joints.row(0.01, 0.02), [0.02 / 0.5, *[0] * 7])
    moved = state(ee_pos=[0.3, 0.4, 0.2], q=[0.04, *[0] * 6])
    assert joints.measured_m(moved) == pytest.approx(0.02)


def test_a_motion_without_room_says_where_there_is_some() -> None:
    limits = SimpleNamespace(workspace_low_m=(0.1, -0.5, 0.0), workspace_high_m=(0.8, 0.5, 0.7))
    client: Any = SimpleNamespace(schema=SimpleNamespace(limits=limits))
    _require_room(client, state(ee_pos=[0.45, 0.4, 0.1]), MOTION)
    with pytest.raises(BridgeError, match=r"0\.005 m from the edge.* along y.*needs 0\.030 m.*axis=x"):
        _require_room(client, state(ee_pos=[0.45, 0.495, 0.1]), MOTION)


def test_a_motion_that_was_clamped_or_late_is_not_what_was_asked_for() -> None:
    calm = {"clamped": 3.0, "stale_rows": 1.0, "rejected": 0.0}
    _require_undisturbed(state(status=calm), state(status=calm))
    with pytest.raises(BridgeError, match="2 cycles clamped, 0 rows late, 0 chunks rejected"):
        _require_undisturbed(state(status=calm), state(status={**calm, "clamped": 5.0}))


def test_small_pictures_are_means_of_blocks() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[:20, :20, 1] = 100
    got = small(image)
    assert got.shape == (24 * 32,)
    assert got[0] == 100
    assert got[1:].max() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ([], ConfigError, "armature calibrate latency"),
        (["axis=y"], ConfigError, "armature calibrate latency"),
        (["latecny"], UnknownNameError, "Did you mean 'latency'"),
        (["latency", "axsi=y"], UnknownNameError, "axis"),
        (["latency", "runs=1"], ConfigError, "runs is 1"),
        (["latency", "out=latency"], ConfigError, r"\.json"),
        (["latency", "amplitude_m=1"], ConfigError, "amplitude_m is 1"),
    ],
)
def test_a_wrong_command_line_is_said_before_anything_moves(arguments: list[str], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        calibrate.main(arguments)


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="No bridge answers"):
        calibrate.main(["latency", "bridge=tcp://127.0.0.1:9", f"out={tmp_path}/latency.json"])
    assert not list(tmp_path.iterdir())
