from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.control.limits import PoseLimits
from robot.control.rotations import angle_between, is_orthonormal
from robot.control.safety import Clamp, Fault, Situation, pose_checks
from robot.errors import SafetyError

DT_S = 0.002
LIMITS: dict[str, Any] = {
    "workspace_low_m": [0.2, -0.4, 0.0],
    "workspace_high_m": [0.8, 0.4, 0.6],
    "linear_speed_mps": 2.0,
    "angular_speed_radps": 8.0,
    "speed_window_s": 0.05,
    "joint_low_rad": [-1.0, -2.0],
    "joint_high_rad": [1.0, 2.0],
    "joint_velocity_radps": [1.5, 2.5],
    "tracking_m": 0.1,
    "tracking_rad": 0.5,
    "tracking_time_s": 0.02,
    "gateway_timeout_s": 0.25,
    "silence_s": 0.1,
    "max_ahead_s": 1.0,
    "max_age_s": 1.0,
    "hold_periods": 1.5,
    "brake_s": 0.1,
}
START = np.array([0.5, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0])


class Rig:
    """The checks, and a tool that is wherever its target is."""

    def __init__(self, **changed: Any) -> None:
        self.limits = PoseLimits.from_mapping({**LIMITS, **changed})
        self.checks = pose_checks(self.limits, DT_S)
        self.previous = START.copy()
        self.q, self.dq = np.zeros(2), np.zeros(2)
        self.ee_pos, self.ee_rot6d = START[:3].copy(), START[3:9].copy()

    def write(self, wanted: np.ndarray) -> tuple[np.ndarray, Clamp | Fault]:
        target = np.array(wanted, np.float64)
        situation = Situation(self.previous, self.q, self.dq, self.ee_pos, self.ee_rot6d)
        total = Clamp.NONE
        for check in self.checks:
            verdict = check.apply(target, situation)
            if isinstance(verdict, Fault):
                return self.previous, verdict
            total |= verdict
        self.previous[:] = target
        return target, total


wild = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0, 1e-300])
targets = st.lists(wild, min_size=10, max_size=10).map(np.array)
nearby = st.lists(st.floats(-1, 1), min_size=10, max_size=10).map(lambda x: START + np.array(x))


@settings(max_examples=150, deadline=None)
@given(st.lists(targets | nearby, min_size=1, max_size=40))
def test_whatever_is_asked_what_is_written_is_safe(stream: list[np.ndarray]) -> None:
    rig = Rig()
    low, high = np.array(rig.limits.workspace_low_m), np.array(rig.limits.workspace_high_m)
    path = [START]
    for wanted in stream:
        with np.errstate(all="ignore"):
            written, _ = rig.write(wanted)
        rig.ee_pos, rig.ee_rot6d = written[:3].copy(), written[3:9].copy()
        assert np.isfinite(written).all()
        assert ((written[:3] >= low) & (written[:3] <= high)).all()
        assert is_orthonormal(written[3:9])
        assert -1 <= written[9] <= 1
        path.append(written.copy())
    # A budget of one window, and what flows in since: no stretch of the path is longer or turns further.
    metres = np.array([np.linalg.norm(b[:3] - a[:3]) for a, b in pairwise(path)])
    radians = np.array([angle_between(a[3:9], b[3:9]) for a, b in pairwise(path)])
    for first in range(len(metres)):
        for last in range(first, len(metres)):
            window_s = 0.05 + (last - first) * DT_S
            assert metres[first : last + 1].sum() <= 2.0 * window_s + 1e-9
            assert radians[first : last + 1].sum() <= 8.0 * window_s + 1e-4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e12])
@pytest.mark.parametrize("at", range(10))
def test_nonsense_keeps_the_previous_target(bad: float, at: int) -> None:
    rig, wanted = Rig(), START.copy()
    wanted[at] = bad
    written, verdict = rig.write(wanted)
    assert verdict == Clamp.REJECTED
    np.testing.assert_array_equal(written, START)


def test_parallel_columns_are_no_rotation() -> None:
    wanted = START.copy()
    wanted[6:9] = wanted[3:6]
    assert Rig().write(wanted)[1] == Clamp.REJECTED


def test_small_moves_pass_untouched() -> None:
    wanted = START + np.array([0.01, -0.01, 0.01, 0, 0, 0, 0, 0, 0, 1.0])
    written, verdict = Rig().write(wanted)
    assert verdict == Clamp.NONE
    np.testing.assert_array_equal(written, wanted)


def test_clamps_say_which() -> None:
    for change, bit in (
        ({2: -0.05}, Clamp.WORKSPACE),
        ({0: 0.79}, Clamp.LINEAR_SPEED),
        ({9: 3.0}, Clamp.GRIPPER),
    ):
        rig, wanted = Rig(linear_speed_mps=2.0 if 0 in change else 50.0), START.copy()
        for at, value in change.items():
            wanted[at] = value
        assert rig.write(wanted)[1] == bit


def test_turning_is_limited_to_the_budget() -> None:
    wanted = START.copy()
    wanted[3:9] = [-1, 0, 0, 0, -1, 0]
    written, verdict = Rig().write(wanted)
    assert verdict == Clamp.ANGULAR_SPEED
    assert angle_between(START[3:9], written[3:9]) == pytest.approx(8.0 * 0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("q", [1.01, 0.0], Fault.JOINT_RANGE),
        ("q", [np.nan, 0.0], Fault.JOINT_RANGE),
        ("dq", [0.0, -2.6], Fault.JOINT_VELOCITY),
        ("dq", [np.nan, 0.0], Fault.JOINT_VELOCITY),
    ],
)
def test_measured_violations_stop(field: str, value: list[float], fault: Fault) -> None:
    rig = Rig()
    setattr(rig, field, np.array(value))
    assert rig.write(START)[1] == fault


@pytest.mark.parametrize("away", [{"ee_pos": START[:3] + 0.1}, {"ee_rot6d": np.array([0.0, 1, 0, -1, 0, 0])}])
def test_a_tool_that_stays_away_stops_after_a_while(away: dict[str, np.ndarray]) -> None:
    rig = Rig()
    for name, value in away.items():
        setattr(rig, name, value)
    verdicts = [rig.write(START)[1] for _ in range(12)]
    assert verdicts[:9] == [Clamp.NONE] * 9
    assert verdicts[11] == Fault.TRACKING


def test_a_tool_that_comes_back_in_time_does_not() -> None:
    rig = Rig()
    for cycle in range(100):
        rig.ee_pos = START[:3] + (0.2 if cycle % 10 else 0.0)
        assert rig.write(START)[1] == Clamp.NONE


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_required_and_named(name: str) -> None:
    with pytest.raises(SafetyError, match=name):
        PoseLimits.from_mapping({key: value for key, value in LIMITS.items() if key != name})


@pytest.mark.parametrize(
    "changed",
    [
        {"linear_speed_mps": 0},
        {"linear_speed_mps": float("nan")},
        {"linear_speed_mps": "fast"},
        {"linear_speed_mps": True},
        {"workspace_low_m": [0.9, -0.4, 0.0]},
        {"workspace_low_m": [0.2, -0.4]},
        {"joint_velocity_radps": [1.0]},
        {"joint_low_rad": 3.0},
        {"no_such_limit": 1.0},
    ],
)
def test_limits_that_make_no_sense_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(SafetyError, match=next(iter(changed)).split("_")[0]):
        PoseLimits.from_mapping({**LIMITS, **changed})


def test_limits_survive_json() -> None:
    limits = PoseLimits.from_mapping(LIMITS)
    assert PoseLimits.from_mapping(limits.to_json()) == limits
