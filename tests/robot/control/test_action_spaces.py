import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot.control.action_spaces import (
    ee_delta_from_pose,
    ee_pose_from_delta,
    matrix_from_rot6d,
    matrix_from_rotvec,
    rot6d_from_matrix,
    rotvec_from_matrix,
    spec,
)
from robot.errors import SpecError, UnknownNameError

unit = st.floats(-1.0, 1.0)
vectors = st.tuples(unit, unit, unit).map(np.array)
actions = st.tuples(*[unit] * 7).map(np.array)


@given(vectors)
def test_rotvec_is_scipys(vector: np.ndarray) -> None:
    matrix = matrix_from_rotvec(3.0 * vector)
    np.testing.assert_allclose(matrix, Rotation.from_rotvec(3.0 * vector).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)


@given(vectors.filter(lambda v: np.linalg.norm(v) <= 1.0))
def test_rotvec_there_and_back(vector: np.ndarray) -> None:
    np.testing.assert_allclose(rotvec_from_matrix(matrix_from_rotvec(3.1 * vector)), 3.1 * vector, atol=1e-7)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, -0.8, 0], [0.48, 0.6, -0.64]])
def test_half_a_turn(axis: list[float]) -> None:
    found = rotvec_from_matrix(matrix_from_rotvec(np.pi * np.array(axis)))
    assert np.linalg.norm(found) == pytest.approx(np.pi)
    assert abs(found @ axis) == pytest.approx(np.pi)


@given(vectors)
def test_rot6d_there_and_back(vector: np.ndarray) -> None:
    matrix = matrix_from_rotvec(2.0 * vector)
    np.testing.assert_allclose(matrix_from_rot6d(rot6d_from_matrix(matrix)), matrix, atol=1e-12)


def test_rot6d_is_the_first_two_columns_in_batches() -> None:
    matrix = np.arange(18.0).reshape(2, 3, 3)
    np.testing.assert_array_equal(rot6d_from_matrix(matrix)[1], [9, 12, 15, 10, 13, 16])


@given(st.tuples(*[st.floats(-5, 5)] * 6).map(np.array))
def test_any_rot6d_is_a_rotation_or_refused(rot6d: np.ndarray) -> None:
    try:
        matrix = matrix_from_rot6d(rot6d)
    except SpecError:
        return
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [[0] * 6, [1, 0, 0, 2, 0, 0], [np.nan, 0, 0, 0, 1, 0], [np.inf, 0, 0, 0, 1, 0]])
def test_what_is_no_rotation_is_refused(bad: list[float]) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(SpecError, match="6-D rotation"):
        matrix_from_rot6d(np.array(bad, float))


@settings(max_examples=50)
@given(actions, vectors, vectors)
def test_delta_to_pose_and_back(action: np.ndarray, position: np.ndarray, turn: np.ndarray) -> None:
    R_base_tool = matrix_from_rotvec(turn)
    pose = ee_pose_from_delta(action, position, R_base_tool)
    spec("ee_pose").validate(np.clip(pose, *spec("ee_pose").bounds()))
    np.testing.assert_allclose(ee_delta_from_pose(pose, position, R_base_tool), action, atol=1e-6)


def test_a_unit_of_delta_is_five_centimetres_and_half_a_radian() -> None:
    pose = ee_pose_from_delta(np.array([1.0, 0, 0, 0, 0, 1.0, -1.0]), np.zeros(3), np.eye(3))
    c, s = np.cos(0.5), np.sin(0.5)
    np.testing.assert_allclose(pose, [0.05, 0, 0, c, s, 0, -s, c, 0, -1], atol=1e-12)


def test_specs_by_name() -> None:
    assert spec("ee_delta").shape == (7,)
    assert spec("ee_pose").shape == (10,)
    assert spec("joint_position", n_joints=6).names[-2:] == ("q6", "gripper")
    with pytest.raises(SpecError):
        spec("ee_delta").validate(np.full(7, 1.01))
    with pytest.raises(UnknownNameError, match="ee_delta"):
        spec("ee_detla")
