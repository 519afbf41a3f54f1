import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.control.action_spaces import ee_pose_from_delta, matrix_from_rot6d, matrix_from_rotvec, rot6d_from_matrix
from robot.control.rotations import angle_between
from robot.control.safety import Clamp
from robot.control.waypoints import LATE_S, SHARE, next_pose, stretched


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile before hypothesis looks at the time."""
    pose = np.array([0.0, 0, 0, 1, 0, 0, 0, 1, 0])
    next_pose(pose, np.zeros(7), False, WIDE, pose.copy())
    stretched(np.ones(1), np.zeros((1, 2)), np.zeros((3, 2)), MOST_DQ, MOST_DDQ)


WIDE = np.array([-9.0, -9, -9, 9, 9, 9, 9, 9])
unit = st.floats(-1, 1)
rows = st.lists(unit, min_size=7, max_size=7).map(np.array)
turns = st.lists(st.floats(-2, 2), min_size=3, max_size=3).map(
    lambda x: rot6d_from_matrix(matrix_from_rotvec(np.array(x)))
)


@given(rows, turns)
def test_a_delta_leads_where_the_action_space_says(row: np.ndarray, rot6d: np.ndarray) -> None:
    before, pose = np.concatenate([[0.4, -0.1, 0.3], rot6d]), np.zeros(9)
    assert next_pose(before, row, False, WIDE, pose) == 0
    expected = ee_pose_from_delta(row, before[:3], matrix_from_rot6d(rot6d))
    np.testing.assert_allclose(pose, expected[:9], atol=1e-9)


@given(turns, turns, st.floats(0.01, 100))
def test_a_pose_is_taken_as_it_is_with_its_rotation_made_one(rot6d: np.ndarray, goal: np.ndarray, scale: float) -> None:
    before, pose = np.concatenate([[0.4, -0.1, 0.3], rot6d]), np.zeros(9)
    row = np.concatenate([[0.5, 0.2, 0.1], scale * goal, [0.0]])
    assert next_pose(before, row, True, WIDE, pose) == 0
    np.testing.assert_allclose(pose, [0.5, 0.2, 0.1, *goal], atol=1e-9)


@given(rows, turns, st.floats(0, 0.05), st.floats(0, 0.3))
def test_box_and_speed_hold_whatever_is_asked(row: np.ndarray, rot6d: np.ndarray, far: float, wide: float) -> None:
    tool = np.array([0.35, -0.12, 0.28, 0.42, 0.0, 0.31, far, wide])
    before, pose = np.concatenate([[0.4, -0.1, 0.3], rot6d]), np.zeros(9)
    clamp = Clamp(next_pose(before, row, False, tool, pose))
    way, angle = np.linalg.norm(pose[:3] - before[:3]), angle_between(rot6d, pose[3:])
    assert way <= far + 1e-12
    assert angle <= wide + 1e-6
    assert ((pose[:3] >= tool[:3] - 1e-12) & (pose[:3] <= tool[3:6] + 1e-12)).all()
    asked = ee_pose_from_delta(row, before[:3], matrix_from_rot6d(rot6d))
    was_changed = np.abs(asked[:9] - pose).max() > 1e-6
    assert bool(clamp) or not was_changed


MOST_DQ, MOST_DDQ = np.array([2.0, 1.0]), np.array([10.0, 5.0])


def means(times_s: np.ndarray, waypoints: np.ndarray, q0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lasts = np.diff(times_s, prepend=0.0)
    return np.diff(waypoints, axis=0, prepend=q0[None]) / lasts[:, None], lasts


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=12), st.floats(0.01, 0.3))
def test_no_piece_asks_for_more_than_its_share(points: list[tuple[float, float]], dt_s: float) -> None:
    waypoints, state = np.array(points), np.zeros((3, 2))
    asked = dt_s * np.arange(1, len(points) + 1)
    times = asked.copy()
    stretched(times, waypoints, state, MOST_DQ, MOST_DDQ)
    dq, _ = means(times, waypoints, state[0])
    assert (np.abs(dq) <= SHARE * MOST_DQ * (1 + 1e-9)).all()
    assert (times >= asked - 1e-9).all()
    assert (np.diff(times) > 0).all()


def test_what_is_slow_enough_keeps_its_times() -> None:
    """From rest, faster and slower by no more than the acceleration allows, and back to rest."""
    speed = np.array([0.2, 0.4, 0.6, 0.6, 0.4, 0.2])
    waypoints = np.column_stack([np.cumsum(speed * 0.1), np.zeros(6)])
    times = 0.1 * np.arange(1, 7)
    assert not stretched(times, waypoints, np.zeros((3, 2)), MOST_DQ, MOST_DDQ)
    np.testing.assert_allclose(times, 0.1 * np.arange(1, 7))


def test_twice_too_fast_takes_twice_as_long_and_says_so() -> None:
    waypoints = np.column_stack([np.linspace(0.32, 3.2, 10), np.zeros(10)])
    times = 0.1 * np.arange(1, 11)
    assert stretched(times, waypoints, np.array([[0, 0], [1.6, 0], [0, 0.0]]), MOST_DQ, np.array([1e6, 1e6]))
    assert times[-1] == pytest.approx(2.0)
    assert times[0] > 0.1 + LATE_S
