"""The state machine on an arm that follows its joints: from actions to references, through every check."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hardware.cycle import Cycle
from hardware.pacing import Pacer
from hardware.shared_memory import Kind, SharedMemory, Word
from robot.bridge.schema import Mode, Outcome, state_layout
from robot.control.action_spaces import matrix_from_rotvec, rot6d_from_matrix
from robot.control.kinematics import MODELS
from robot.control.plan import Reject
from robot.control.safety import Clamp, Fault
from tests.hardware.joint_arm import JointArm
from tests.hardware.test_cycle import DT, HOLDER, OTHER, PERIOD, Rig
from tests.robot.control.joints import HOME, joint_limits, worst_of

QUICK: dict[str, Any] = {"joint_acceleration_radps2": [30.0] * 7, "joint_jerk_radps3": [10_000.0] * 7}
"""Limits that the ways of these tests keep to by themselves."""


class JointRig(Rig):
    def __init__(self, action_space: str = "ee_delta", is_simulated: bool = True, **changed: Any) -> None:
        self.arm = JointArm(action_space, is_simulated)  # type: ignore[assignment]
        self.memory = SharedMemory.create()
        self.limits = joint_limits(**changed)  # type: ignore[assignment]
        self.cycle = Cycle(self.arm, self.limits, self.memory, Pacer(500), MODELS / "panda.xml")
        self.layout = state_layout(self.arm.specs)
        self.now = 10**12
        self.sequence = self.operation = 0
        self.is_alive = True
        self.run(1)

    @property
    def written(self) -> np.ndarray:
        return np.array(self.arm.written)

    def tool(self, q: np.ndarray | None = None) -> np.ndarray:
        pose = np.zeros(9)
        self.arm.model.pose(self.arm.q if q is None else q, pose[:3], pose[3:])  # type: ignore[attr-defined]
        return pose

    def require_limits(self) -> None:
        worst = worst_of(np.vstack([HOME] * 4 + [self.written[:, :7]]), PERIOD / 1e9, self.limits)  # type: ignore[arg-type]
        assert max(worst.values()) <= 1 + 1e-6, worst


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile what the loop calls before anything is timed."""
    rig = JointRig().armed()
    rig.send([[0.1, 0, 0, 0, 0, 0, 0]])
    rig.run(5)


def test_deltas_add_up() -> None:
    """Ten rows of 5 mm: the tool is 5 cm up when the last row ends, and rests."""
    rig = JointRig(**QUICK).armed()
    start = rig.tool()
    rig.send([[0, 0, 0.1, 0, 0, 0, 1.0]] * 10)
    rig.run(9 * 25)
    assert 0.03 < rig.tool()[2] - start[2] < 0.05
    rig.run(100)
    np.testing.assert_allclose(rig.tool(), start + np.array([0, 0, 0.05, *[0] * 6]), atol=2e-4)
    assert rig.mode == Mode.ARMED
    assert rig.arm.written[-1][-1] == 1.0
    rig.require_limits()


def test_chunks_are_joined_without_a_step_in_acceleration() -> None:
    """New chunks in mid-flight, each from another idea: the joints' acceleration never jumps by more than the jerk."""
    rig, rng = JointRig().armed(), np.random.default_rng(1)
    for _ in range(20):
        rig.send(rng.uniform(-0.4, 0.4, (8, 7)))
        rig.run(60)
    rig.require_limits()
    assert np.ptp(rig.written[:, :7], axis=0).max() > 0.05


def test_poses_are_reached_when_their_rows_end() -> None:
    rig = JointRig("ee_pose", **QUICK).armed()
    start = rig.tool()
    x, y = start[3:6], start[6:]
    R = matrix_from_rotvec(np.array([0.1, -0.2, 0.1])) @ np.column_stack([x, y, np.cross(x, y)])
    rows = np.zeros((10, 10))
    for i in range(10):
        rows[i, :3] = start[:3] + (i + 1) / 10 * np.array([0.05, 0.03, -0.04])
        rows[i, 3:9] = rot6d_from_matrix(R)
    rows[:, 3:9] *= 0.5  # of any length
    assert rig.send(rows, dt=100_000_000) == Reject.NONE
    rig.run(10 * 50 + 20)
    np.testing.assert_allclose(rig.tool(), [*rows[-1, :3], *rows[-1, 3:9] * 2], atol=1e-3)
    rig.require_limits()


def test_joints_go_where_they_are_told() -> None:
    rig = JointRig("joint_position", **QUICK).armed()
    goal = HOME + 0.1
    rows = np.column_stack([HOME + np.linspace(0.1, 1, 10)[:, None] * 0.1, np.zeros(10)])
    assert rig.send(rows) == Reject.NONE
    rig.run(10 * 25 + 60)
    np.testing.assert_allclose(rig.arm.q, goal, atol=1e-4)  # type: ignore[attr-defined]
    rig.require_limits()


def test_nonsense_rotations_are_refused() -> None:
    rig = JointRig("ee_pose").armed()
    row = np.concatenate([rig.tool(), [0.0]])
    row[6:9] = row[3:6]
    assert rig.send(row) == Reject.ROTATION
    row[3:9] = 0.0
    assert rig.send(row) == Reject.ROTATION


def test_the_box_is_not_left_and_deltas_do_not_wind_up() -> None:
    """Far longer against the face than there is way, along a straight line; then back, which begins at once."""
    rig = JointRig(**QUICK, workspace_high_m=[0.6, 0.5, 0.8]).armed()
    height = rig.tool()[2]
    for _ in range(12):
        rig.send([[0.2, 0, 0, 0, 0, 0, 0]] * 8)
        rig.run(100)
    face = rig.limits.workspace_high_m[0]
    tools = np.array([rig.tool(q)[:3] for q in rig.written[::10, :7]])
    assert tools[:, 0].max() <= face + 0.003
    np.testing.assert_allclose(tools[:, 2], height, atol=0.006)
    assert rig.tool()[0] == pytest.approx(face, abs=0.003)
    assert int(rig.status("clamp_mask")) & Clamp.WORKSPACE
    rig.send([[-0.2, 0, 0, 0, 0, 0, 0]] * 8)
    rig.run(250)
    assert rig.tool()[0] == pytest.approx(face - 0.08, abs=0.005)
    rig.require_limits()


def test_too_much_is_done_more_slowly_on_the_same_way() -> None:
    """Twice what a careful arm can do: the tool keeps to its line, only later, and that is said."""
    rig = JointRig(**QUICK, joint_velocity_radps=[0.4] * 7).armed()
    start = rig.tool()
    rig.send([[0, 0, -0.5, 0, 0, 0, 0]] * 8)
    rig.run(150)
    assert int(rig.status("clamp_mask")) & Clamp.JOINT_MOTION
    rig.run(1500)
    np.testing.assert_allclose(rig.tool()[2], start[2] - 0.2, atol=1e-3)
    tools = np.array([rig.tool(q)[:2] for q in rig.written[::10, :7]])
    np.testing.assert_allclose(tools, np.tile(start[:2], (len(tools), 1)), atol=0.005)
    rig.require_limits()


def test_the_table_is_not_touched() -> None:
    """The box would allow it; the hand's clearance does not."""
    rig = JointRig("joint_position", workspace_low_m=[-1.0, -1.0, -1.0], workspace_high_m=[1.0, 1.0, 1.5]).armed()
    down = HOME + np.array([0, 1.9, 0, 0, 0, 0, 0])
    rows = np.column_stack([HOME + np.linspace(0.05, 1, 20)[:, None] * (down - HOME), np.zeros(20)])
    assert rig.tool(down)[2] < 0
    seen = 0
    rig.send(rows)
    for _ in range(2500):
        rig.run(1)
        seen |= int(rig.status("clamp_mask"))
    assert seen & Clamp.CLEARANCE
    least = min(rig.cycle._clearance._model.clearance(q) for q in rig.written[::5, :7])  # type: ignore[union-attr]
    assert least >= rig.limits.clearance_m - 1e-3  # type: ignore[attr-defined]
    assert np.abs(rig.written[-50:, 7:21]).max() < 1e-6, "it rests at the boundary, and does not tremble"
    rig.require_limits()


def test_silence_brakes_and_disarms_within_the_limits() -> None:
    rig = JointRig().armed()
    rig.send([[0, 0.5, 0, 0, 0, 0, 0]] * 40)
    rig.run(100)
    assert np.abs(rig.written[-1, 7:14]).max() > 0.1
    rig.is_alive, silent_from = False, rig.now
    while rig.mode == Mode.ARMED:
        rig.run(1)
    assert rig.now - silent_from <= 102_000_000 + 2 * PERIOD
    braking_from = rig.now
    while rig.mode == Mode.BRAKING:
        rig.run(1)
    assert rig.mode == Mode.DISARMED
    # The deceleration of 7 rad/s² and more that the limits allow takes 1 rad/s away in less than 0.2 s.
    assert rig.now - braking_from < 300_000_000
    assert np.abs(rig.written[-1, 7:21]).max() < 1e-2
    rig.is_alive = True
    count = len(rig.arm.written)
    assert rig.send([[0, 0, 0.5, 0, 0, 0, 0]] * 4) == Reject.NOT_ARMED
    rig.run(50)
    assert len(rig.arm.written) == count, "nothing moves again before it is armed again"
    rig.require_limits()


def test_a_loop_that_was_away_does_not_go_on() -> None:
    rig = JointRig().armed()
    rig.send([[0, 0.5, 0, 0, 0, 0, 0]] * 40)
    rig.run(50)
    rig.cycle._pacer.gap_ns = 300_000_000
    rig.run(1)
    assert rig.mode == Mode.BRAKING


def test_a_real_arm_is_led_home_through_every_check() -> None:
    rig = JointRig("joint_position", is_simulated=False).armed()
    away = HOME + np.array([0.4, 0.2, -0.3, 0.3, 0.2, -0.3, 0.5])
    rows = np.column_stack([HOME + np.linspace(0.025, 1, 40)[:, None] * (away - HOME), np.zeros(40)])
    rig.send(rows)
    rig.run(40 * 25 + 300)
    np.testing.assert_allclose(rig.arm.q, away, atol=1e-3)  # type: ignore[attr-defined]
    rig.ask(Kind.DISARM)
    rig.run(100)
    scene = rig.status("scene")
    assert rig.ask(Kind.HOME) == Outcome.DONE
    assert rig.mode == Mode.HOMING
    assert rig.ask(Kind.ARM) == Outcome.MOVING
    cycles = 0
    while rig.mode == Mode.HOMING:
        rig.run(1)
        cycles += 1
        assert cycles < 10_000
    np.testing.assert_allclose(rig.arm.q, HOME, atol=1e-3)  # type: ignore[attr-defined]
    assert rig.mode == Mode.DISARMED
    assert rig.status("scene") == scene + 1
    speed = np.abs(rig.written[-cycles:, 7:14]).max(axis=0)
    assert (speed <= rig.limits.home_speed * np.array(rig.limits.joint_velocity_radps) * 1.01).all()  # type: ignore[attr-defined]
    rig.require_limits()


def test_stop_ends_a_homing_and_so_does_the_estop() -> None:
    for stops_by in ("stop", "estop", "lease"):
        rig = JointRig(is_simulated=False, home_q_rad=[1.0, *HOME[1:]])
        rig.lease()
        assert rig.ask(Kind.HOME) == Outcome.DONE
        rig.run(600)
        assert np.abs(rig.written[-1, 7:14]).max() > 0.05
        if stops_by == "stop":
            rig.ask(Kind.STOP, session=OTHER)
        elif stops_by == "estop":
            rig.memory.words[Word.ESTOP] = 1
        else:
            rig.memory.words[Word.LEASE_UNTIL_NS] = 0
        scene = rig.status("scene")
        rig.run(300)
        assert rig.mode == (Mode.FAULT if stops_by == "estop" else Mode.DISARMED)
        assert rig.status("scene") == scene, "it has not come home"
        rest = rig.arm.q.copy()  # type: ignore[attr-defined]
        rig.run(100)
        np.testing.assert_array_equal(rig.arm.q, rest)  # type: ignore[attr-defined]


def test_a_hand_over_by_agreement_goes_on_from_the_motion() -> None:
    rig = JointRig().armed()
    rig.send([[0, 0.3, 0, 0, 0, 0, 0]] * 40)
    rig.run(100)
    rig.memory.words[Word.LEASE_BLEND_SESSION] = OTHER
    rig.lease(OTHER)
    rig.run(1)
    assert rig.mode == Mode.ARMED
    assert rig.send([[0, 0, 0.3, 0, 0, 0, 0]] * 10, session=HOLDER, sequence=500) == Reject.NO_LEASE
    assert rig.send([[0, 0, 0.3, 0, 0, 0, 0]] * 10, session=OTHER, sequence=1) == Reject.NONE
    rig.run(300)
    assert rig.mode == Mode.ARMED
    rig.require_limits()


def test_a_hand_over_without_agreement_ends_the_motion() -> None:
    rig = JointRig().armed()
    rig.send([[0, 0.3, 0, 0, 0, 0, 0]] * 40)
    rig.run(100)
    rig.lease(OTHER)
    rig.run(1)
    assert rig.mode == Mode.BRAKING


def test_an_arm_that_does_not_follow_is_stopped() -> None:
    rig = JointRig().armed()
    rig.arm.write = lambda target: rig.arm.written.append(target.copy())  # type: ignore[method-assign]
    rig.send([[0, 0.5, 0, 0, 0, 0, 0]] * 40)
    rig.run(400)
    assert rig.mode == Mode.FAULT
    assert Fault(int(rig.status("fault"))) == Fault.TRACKING


def test_arming_begins_where_the_reference_is_unless_the_arm_was_moved() -> None:
    rig = JointRig().armed()
    rig.ask(Kind.DISARM)
    rig.run(100)
    rig.arm.q[:] = HOME + 0.01  # type: ignore[attr-defined]
    rig.ask(Kind.ARM)
    np.testing.assert_allclose(rig.arm.written[-1][:7], HOME, atol=1e-9)
    rig.ask(Kind.DISARM)
    rig.run(100)
    rig.arm.q[:] = HOME + 0.3  # type: ignore[attr-defined]
    rig.run(1)
    rig.ask(Kind.ARM)
    np.testing.assert_allclose(rig.arm.written[-1][:7], HOME + 0.3, atol=1e-9)


@pytest.mark.parametrize("space", ["ee_delta", "joint_position"])
@pytest.mark.parametrize("ahead_ns", [1, 2, 3, 1_000_000, 3_999_999])
def test_rows_may_begin_or_end_within_nanoseconds(space: str, ahead_ns: int) -> None:
    """A chunk that begins in a moment, and one that cuts the row before it down to a moment."""
    rig = JointRig(space).armed()
    row = [0.1] * 6 + [0.0] if space == "ee_delta" else [*HOME, 0.0]
    assert rig.send([row] * 3, t0=rig.now + ahead_ns) == Reject.NONE
    rig.run(10)
    assert rig.send([row] * 3, t0=rig.now + ahead_ns) == Reject.NONE
    assert rig.send([row] * 3, t0=rig.now + ahead_ns + 1) == Reject.NONE
    rig.run(20)
    assert rig.send([row], t0=rig.now - DT + PERIOD + ahead_ns) == Reject.NONE
    rig.run(100)
    assert rig.mode == Mode.ARMED
    rig.require_limits()


@hypothesis_settings(max_examples=12, deadline=None)
@given(
    space=st.sampled_from(["ee_delta", "ee_pose", "joint_position"]),
    stream=st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(-40, 120), st.integers(1, 80)),
        min_size=1,
        max_size=12,
    ),
)
def test_whatever_is_commanded_the_reference_stays_inside(space: str, stream: list[tuple[int, int, int, int]]) -> None:
    rig = JointRig(space).armed()
    for seed, count, offset_ms, cycles in stream:
        rng = np.random.default_rng(seed)
        rows = rng.uniform(-1, 1, (count, rig.cycle._action.shape[0])) * rng.choice([0.2, 1.0, 3.0])
        rig.send(rows, t0=rig.now + offset_ms * 1_000_000, dt=DT)
        rig.run(cycles)
        if rig.mode != Mode.ARMED:
            break
    rig.require_limits()
    model = rig.cycle._clearance._model  # type: ignore[union-attr]
    least = min(model.clearance(q) for q in rig.written[::7, :7])
    assert least >= min(rig.limits.clearance_m, model.clearance(HOME)) - 0.01  # type: ignore[attr-defined]
