from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.control.clearance import BOX_TOLERANCE_M, Clearance
from robot.control.joint_checks import OVERSHOOT, FiniteReference, JointTracking, joint_checks
from robot.control.kinematics import MODELS, ArmModel
from robot.control.safety import Check, Clamp, Fault, Situation
from tests.robot.control.joints import HOME, JOINT_LIMITS, joint_limits, worst_of

DT_S = 0.002


@pytest.fixture(scope="module")
def model() -> ArmModel:
    return ArmModel.load(MODELS / "panda.xml", JOINT_LIMITS["table_z_m"])


class Rig:
    """All checks, and an arm that is wherever its reference is."""

    def __init__(self, model: ArmModel, q: np.ndarray = HOME, **changed: Any) -> None:
        self.limits, self.model = joint_limits(**changed), model
        self.checks = joint_checks(self.limits, DT_S, model)
        self.previous = np.concatenate([q, np.zeros(15)])
        self.q, self.dq = q.copy(), np.zeros(7)
        self.situation = Situation(self.previous, self.q, self.dq, np.zeros(3), np.zeros(6), np.zeros(7))
        self.written = [q.copy()] * 4

    def check(self, kind: type[Check]) -> Check:
        return next(check for check in self.checks if isinstance(check, kind))

    def step(self, q: np.ndarray, dq: Any = 0.0, ddq: Any = 0.0, gripper: float = 0.0) -> Clamp | Fault:
        target = np.concatenate([np.broadcast_to(x, 7) for x in (q, dq, ddq)] + [[gripper]]).astype(float)
        total = Clamp.NONE
        for check in self.checks:
            verdict = check.apply(target, self.situation)
            if isinstance(verdict, Fault):
                return verdict
            total |= verdict
        self.previous[:] = target
        self.q[:], self.dq[:] = target[:7], target[7:14]
        self.written.append(target[:7].copy())
        return total

    def badness(self, q: np.ndarray) -> tuple[float, float]:
        pos, rot6d = np.zeros(3), np.zeros(6)
        self.model.pose(q, pos, rot6d)
        outside = np.maximum(self.limits.workspace_low_m - pos, pos - self.limits.workspace_high_m).max()
        return float(outside), self.limits.clearance_m - self.model.clearance(q)


wild = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, 1e300, 0.0])


@given(st.lists(wild, min_size=22, max_size=22).map(np.array))
def test_what_is_not_finite_is_the_reference_before_it_at_rest(target: np.ndarray) -> None:
    previous = np.arange(22.0)
    situation = Situation(previous, np.zeros(7), np.zeros(7), np.zeros(3), np.zeros(6))
    given_target = target.copy()
    clamp = FiniteReference().apply(target, situation)
    assert np.isfinite(target).all()
    if clamp == Clamp.REJECTED:
        np.testing.assert_array_equal(target[:7], previous[:7])
        assert not target[7:21].any()
    else:
        np.testing.assert_array_equal(target, given_target)


@settings(max_examples=25, deadline=None)
@given(
    goals=st.lists(
        st.tuples(st.integers(20, 250), st.lists(st.floats(-3, 3), min_size=7, max_size=7)), min_size=1, max_size=5
    )
)
def test_the_arm_stays_in_its_box_and_clear(model: ArmModel, goals: list[tuple[int, list[float]]]) -> None:
    """Wherever the joints are sent: no reference is outside the box or too near, by more than braking's curve."""
    rig = Rig(model)
    for cycles, goal in goals:
        for _ in range(cycles):
            verdict = rig.step(HOME + np.array(goal))
            assert isinstance(verdict, Clamp)
    worst = worst_of(np.array(rig.written), DT_S, rig.limits)
    assert max(worst.values()) <= 1 + 1e-6, worst
    outside, near = np.array([rig.badness(q) for q in rig.written[::5]]).max(axis=0)
    # The end of braking is held to the limits; on the way there joints move each in its own time.
    assert outside <= BOX_TOLERANCE_M + 0.02
    assert near <= 0.015


def test_out_of_a_bad_place_only_a_better_one_is_allowed(model: ArmModel) -> None:
    """Begun with the tool 10 cm below the box: up is allowed, further down is not, and no jump is made."""
    low = [0.2, -0.5, 0.55]
    rig = Rig(model, workspace_low_m=low, workspace_high_m=[0.8, 0.5, 1.2])
    start = rig.badness(HOME)[0]
    assert start > 0.05
    down = HOME + np.array([0, 0.3, 0, 0, 0, 0, 0])
    for _ in range(300):
        verdict = rig.step(down)
    assert isinstance(verdict, Clamp)
    assert verdict & Clamp.WORKSPACE
    assert rig.badness(rig.q)[0] <= start + 0.003
    up = HOME + np.array([0, 0, 0, 0.3, 0, 0.3, 0])
    assert rig.badness(up)[0] < 0
    for _ in range(1500):
        verdict = rig.step(up)
    assert verdict == Clamp.NONE
    np.testing.assert_allclose(rig.q, up, atol=1e-4)
    for _ in range(1500):
        verdict = rig.step(down)
    assert rig.badness(rig.q)[0] <= BOX_TOLERANCE_M + 1e-6, "once inside it stays inside"


def test_the_clearance_is_told(model: ArmModel) -> None:
    rig = Rig(model)
    check = rig.check(Clearance)
    assert isinstance(check, Clearance)
    assert check.clearance_m == -1.0
    rig.step(HOME)
    assert check.clearance_m == pytest.approx(model.clearance(HOME))


def test_an_arm_that_is_away_for_long_is_a_fault() -> None:
    limits = joint_limits(tracking_time_s=0.021)
    check = JointTracking(limits, DT_S)
    q = HOME.copy()
    situation = Situation(np.zeros(22), q, np.zeros(7), np.zeros(3), np.zeros(6))
    target = np.concatenate([HOME + limits.tracking_rad * 0.99, np.zeros(15)])
    assert all(check.apply(target, situation) == Clamp.NONE for _ in range(50))
    target[3] = HOME[3] + limits.tracking_rad * 1.01
    verdicts = [check.apply(target, situation) for _ in range(11)]
    assert verdicts[:10] == [Clamp.NONE] * 10
    assert verdicts[10] == Fault.TRACKING
    check.reset()
    assert check.apply(target, situation) == Clamp.NONE
    q[3] = np.nan
    assert [check.apply(target, situation) for _ in range(11)][-1] == Fault.TRACKING


def test_measured_speed_beyond_the_references_is_a_fault(model: ArmModel) -> None:
    rig = Rig(model)
    rig.dq[2] = OVERSHOOT * rig.limits.joint_velocity_radps[2] * 0.99
    target = rig.previous.copy()
    assert all(not isinstance(check.apply(target, rig.situation), Fault) for check in rig.checks)
    rig.dq[2] *= 1.05
    assert rig.step(HOME) == Fault.JOINT_VELOCITY
