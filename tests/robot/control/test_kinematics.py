import tracemalloc
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot.control.action_spaces import matrix_from_rot6d, rot6d_from_matrix
from robot.control.kinematics import MODELS, ArmModel
from robot.control.pose_trajectory import PoseTrajectory
from robot.control.rotations import angle_between
from robot.errors import ConfigError, SpecError

PANDA, WITHOUT_TABLE = ArmModel.load("panda.xml", table_z_m=0.0), ArmModel.load("panda.xml")
MUJOCO = mujoco.MjModel.from_xml_path(str(MODELS / "panda.xml"))
HOME = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])
seeds = st.integers(0, 2**31)


def pose(model: ArmModel, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pos, rot6d = np.zeros(3), np.zeros(6)
    model.pose(q, pos, rot6d)
    return pos, rot6d


def solve(model: ArmModel, start: np.ndarray, pos: np.ndarray, rot6d: np.ndarray) -> tuple[np.ndarray, float, float]:
    q = np.full(model.n, np.nan)
    return q, *model.solve(start, pos, rot6d, q)


def configuration(seed: int, margin: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(PANDA.low + margin, PANDA.high - margin)


@settings(deadline=None)
@given(seeds)
def test_jacobian_is_a_derivative(seed: int) -> None:
    q, h = configuration(seed), 1e-6
    J = np.full((6, 7), np.nan)
    PANDA.jacobian(q, J)
    for k in range(7):
        step = h * np.eye(7)[k]
        (before, first), (after, second) = pose(PANDA, q - step), pose(PANDA, q + step)
        turn = Rotation.from_matrix(matrix_from_rot6d(second) @ matrix_from_rot6d(first).T).as_rotvec()
        np.testing.assert_allclose(J[:, k], np.concatenate([after - before, turn]) / (2 * h), atol=1e-8)


@settings(deadline=None)
@given(seeds)
def test_a_pose_nearby_is_reached(seed: int) -> None:
    """At singular configurations the last micrometres come slowly: hence 0.1 mm and 0.1 mrad."""
    q = configuration(seed, margin=0.05)
    start = q + np.random.default_rng(seed + 1).uniform(-0.05, 0.05, 7)
    pos, rot6d = pose(PANDA, q)
    solved, error_m, error_rad = solve(PANDA, start, pos, rot6d)
    got_pos, got_rot6d = pose(PANDA, solved)
    assert np.linalg.norm(got_pos - pos) < 1e-4
    assert angle_between(got_rot6d, rot6d) < 1e-4
    assert error_m == pytest.approx(np.linalg.norm(got_pos - pos), abs=1e-9)
    assert error_rad == pytest.approx(angle_between(got_rot6d, rot6d), abs=1e-7)
    assert ((solved >= PANDA.low) & (solved <= PANDA.high)).all()


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.2, 1.5))
def test_any_goal_is_bounded_and_comes_to_rest(seed: int, reach: float) -> None:
    """Most of these goals cannot be reached, or not at once; twenty calls later than it stopped it has not moved."""
    rng = np.random.default_rng(seed)
    goal = reach * rng.normal(size=3)
    rot6d = rot6d_from_matrix(Rotation.random(random_state=rng).as_matrix())
    q, errors = configuration(seed), []
    for _ in range(400):
        solved, error_m, error_rad = solve(PANDA, q, goal, rot6d)
        assert np.abs(solved - q).max() <= PANDA.longest_step_rad + 1e-12
        assert ((solved >= PANDA.low) & (solved <= PANDA.high)).all()
        errors.append(error_m**2 + (0.3 * error_rad) ** 2)
        q = solved
    assert (np.diff(errors) <= 1e-9).all()
    assert np.abs(solve(PANDA, q, goal, rot6d)[0] - q).max() < 1e-3


def test_a_start_outside_the_range_is_led_back_inside() -> None:
    q = HOME.copy()
    q[3] = PANDA.high[3] + 0.5
    pos, rot6d = pose(PANDA, HOME)
    for _ in range(20):
        solved, _, _ = solve(PANDA, q, pos, rot6d)
        assert np.abs(solved - q).max() <= PANDA.longest_step_rad + 1e-12
        q = solved
    assert ((q >= PANDA.low) & (q <= PANDA.high)).all()


def test_a_stream_of_poses_gives_smooth_joints() -> None:
    """At 1 kHz, and differentiated as a loop does it: accelerations without noise."""
    pos, rot6d = pose(PANDA, HOME)
    way = PoseTrajectory()
    R = Rotation.from_matrix(matrix_from_rot6d(rot6d))
    turned = rot6d_from_matrix((R * Rotation.from_euler("xyz", [0.3, -0.2, 0.5])).as_matrix())
    positions = pos + np.array([[0.1, 0.1, -0.1], [0.15, -0.2, 0.05], [0.0, 0.0, 0.0]])
    waypoints = np.hstack([positions, [turned, rot6d, turned]])
    way.plan(0, pos, rot6d, np.zeros(6), np.zeros(6), 10**9 * np.array([1, 2, 3]), waypoints)
    q, path, sampled = HOME, [], (np.zeros(3), np.zeros(6), np.zeros(6), np.zeros(6))
    for t_ms in range(3000):
        way.sample(t_ms * 10**6, *sampled)
        q, error_m, error_rad = solve(PANDA, q, sampled[0], sampled[1])
        assert error_m < 1e-9
        assert error_rad < 1e-9
        path.append(q)
    dq = np.diff(path, axis=0) / 1e-3
    ddq = np.diff(dq, axis=0) / 1e-3
    assert 0.2 < np.abs(dq).max() < 3.0
    assert np.abs(ddq).max() < 15.0
    # From one cycle to the next, acceleration changes by what jerk of a hundred times its size makes of it in 1 ms.
    assert np.abs(np.diff(ddq, axis=0)).max() < 1.5
    np.testing.assert_allclose(path[0], HOME, atol=1e-12)


def test_what_the_tool_leaves_free_leans_to_the_posture() -> None:
    """Back and forth along a line: what is free of the way to the posture dwindles, and waits while the tool does."""
    model = ArmModel.load("panda.xml")
    model.posture[:] = HOME + 0.5 * np.eye(7)[2]

    def free(q: np.ndarray) -> float:
        J = np.zeros((6, 7))
        model.jacobian(q, J)
        return abs(float(np.linalg.svd(J)[2][6] @ (model.posture - q)))

    q, (pos, rot6d) = HOME, pose(model, HOME)
    before = free(q)
    for t in range(4000):
        q, error_m, _ = solve(model, q, pos + 0.1 * np.sin(2e-3 * np.pi * t) * np.eye(3)[1], rot6d)
        assert error_m < 1e-9
    assert before > 0.2
    # 1.6 m with a gain of 1 / m.
    assert free(q) == pytest.approx(before * np.exp(-1.6), abs=0.1 * before)
    still, _, _ = solve(model, q, *pose(model, q))
    np.testing.assert_allclose(still, q, atol=1e-9)


@settings(deadline=None)
@given(seeds)
def test_least_distance_is_mujocos(seed: int) -> None:
    """Over the same pairs of capsules, by `mj_geomDistance`."""
    q = configuration(seed)
    data = mujoco.MjData(MUJOCO)
    data.qpos[:] = q
    mujoco.mj_kinematics(MUJOCO, data)
    least = min(mujoco.mj_geomDistance(MUJOCO, data, a, b, 10.0, None) for a, b in PANDA._pairs)
    assert WITHOUT_TABLE.clearance(q) == pytest.approx(least, abs=1e-9)


CRANE = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <body><joint axis="0 1 0" limited="true" range="-3 3"/>
      <geom name="beam" type="capsule" fromto="0 0 0 1 0 0" size="0.1"/>
      <body pos="1 0 0"><joint axis="0 1 0" limited="true" range="-3.1 3.1"/>
        <geom name="jib" type="capsule" fromto="0.3 0 0 0.5 0 0" size="0.05"/>
        <body pos="0.5 0 0"><joint axis="0 1 0" limited="true" range="-3.1 3.1"/>
          <geom name="hook" type="capsule" fromto="0.3 0 0 0.5 0 0" size="0.05"/>
          <site name="tool" pos="0.5 0 0"/>
        </body>
      </body>
    </body>
    <geom name="post" type="capsule" fromto="0 -1 0 0 1 0" size="0.1"/>
  </worldbody>
</mujoco>
"""


def load(tmp_path: Path, text: str, table_z_m: float | None = None) -> ArmModel:
    path = tmp_path / "arm.xml"
    path.write_text(text)
    return ArmModel.load(path, table_z_m)


@pytest.mark.parametrize(
    ("q", "distance", "between"),
    [
        ([0.0, 0.0, 0.0], 0.8 - 0.15, ("beam", "hook")),  # in a line: from the beam's end to 1.8
        ([0.0, 0.0, -np.pi / 2], np.hypot(0.5, 0.3) - 0.15, ("beam", "hook")),  # up from 1.5
        ([0.0, -np.pi / 2, -np.pi / 2], 0.5 - 0.15, ("beam", "hook")),  # back above the beam, beside it
        ([0.0, -2 * np.pi / 3, -2 * np.pi / 3], np.sqrt(0.1875) - 0.15, ("hook", "beam")),
        ([0.5, 0.0, 0.0], 0.8 - 0.15, ("beam", "hook")),
    ],
)
def test_distances_that_can_be_counted_on_the_fingers(
    tmp_path: Path, q: list[float], distance: float, between: tuple[str, str]
) -> None:
    crane = load(tmp_path, CRANE)
    if between == ("hook", "beam"):  # a triangle of sides 1, 0.5 and 0.5: the hook lies across the beam
        assert crane.clearance(np.array(q)) < 0
    else:
        assert crane.clearance(np.array(q)) == pytest.approx(distance, abs=1e-12)
    assert set(crane.nearest) == set(between)


def test_the_table_counts_for_what_moves(tmp_path: Path) -> None:
    crane = load(tmp_path, CRANE, table_z_m=-0.5)
    level = crane.clearance(np.zeros(3))
    assert level == pytest.approx(0.4, abs=1e-12)
    assert crane.nearest == ("beam", "table")
    # The hook hangs: its end is 0.5 below the line.
    assert crane.clearance(np.array([0.0, 0.0, np.pi / 2])) == pytest.approx(-0.05, abs=1e-12)
    assert crane.nearest == ("hook", "table")
    assert load(tmp_path, CRANE, table_z_m=-10.0).clearance(np.zeros(3)) == pytest.approx(0.65, abs=1e-12)


def test_the_hash_is_of_what_the_model_answers(tmp_path: Path) -> None:
    text = (MODELS / "panda.xml").read_text()
    assert load(tmp_path, text, 0.1).model_hash == PANDA.model_hash
    assert load(tmp_path, text.replace("0.1034", "0.1035")).model_hash != PANDA.model_hash
    assert load(tmp_path, text.replace('name="link6a"', 'name="wrist"')).model_hash == PANDA.model_hash
    assert load(tmp_path, text.replace("-3.0718", "-3.0")).model_hash != PANDA.model_hash


def test_a_range_can_be_narrowed() -> None:
    model = ArmModel.load("panda.xml")
    low, high = HOME - 0.1, HOME + 0.1
    model.set_range(low, high)
    pos, rot6d = pose(model, HOME)
    q = HOME
    for _ in range(5):
        q, error_m, _ = solve(model, q, pos + np.array([0.3, 0.0, 0.0]), rot6d)
    assert ((q >= low) & (q <= high)).all()
    assert error_m > 0.1
    with pytest.raises(ConfigError, match="low below high"):
        model.set_range(high, low)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<mujoco>", "<mujoco", "no model of an arm"),
        ('name="tool"', 'name="tip"', "site named 'tool'"),
        ('<joint axis="0 1 0" limited="true" range="-3 3"/>', '<freejoint name="loose"/>', "loose"),
        ('limited="true" range="-3 3"', 'limited="false" range="-3 3"', "has a range"),
        ('type="capsule" fromto="0 -1 0 0 1 0" size="0.1"', 'type="box" size="1 1 1"', "post"),
        ('range="-3 3"', 'range="-3 3" pos="0 0 1" name="off"', "off"),
    ],
)
def test_what_is_no_arm_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in CRANE
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path, CRANE.replace(old, new))


def test_a_model_that_is_missing_is_named_with_those_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"No model at ur5\.xml\. .*panda\.xml"):
        ArmModel.load("ur5.xml")


@pytest.mark.parametrize(
    "change",
    [
        {"rot6d": np.zeros(6)},
        {"pos": np.full(3, np.nan)},
        {"q_start": np.full(7, np.inf)},
        {"rot6d": np.full(6, np.nan)},
    ],
)
def test_nonsense_is_not_solved(change: dict[str, Any]) -> None:
    pos, rot6d = pose(PANDA, HOME)
    with pytest.raises(SpecError):
        PANDA.solve(**{"q_start": HOME, "pos": pos, "rot6d": rot6d, "q_out": np.zeros(7), **change})


def test_a_cycle_keeps_no_memory() -> None:
    pos, rot6d = pose(PANDA, HOME)
    q, J = np.zeros(7), np.zeros((6, 7))

    def cycles(count: int) -> None:
        for _ in range(count):
            PANDA.solve(HOME, pos, rot6d, q)
            PANDA.jacobian(q, J)
            PANDA.clearance(q)

    cycles(100)
    tracemalloc.start()
    cycles(100)
    before = tracemalloc.get_traced_memory()[0]
    cycles(500)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000
