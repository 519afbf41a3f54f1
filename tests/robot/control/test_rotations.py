import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot.control.action_spaces import matrix_from_rot6d, rot6d_from_matrix
from robot.control.rotations import angle_between, fill_matrix, is_orthonormal, turn_part

seeds = st.integers(0, 2**31)


def rotation(seed: int) -> Rotation:
    return Rotation.random(random_state=np.random.default_rng(seed))


@given(seeds, seeds)
def test_angle_is_scipys(a: int, b: int) -> None:
    first, second = rotation(a), rotation(b)
    got = angle_between(rot6d_from_matrix(first.as_matrix()), rot6d_from_matrix(second.as_matrix()))
    assert abs(got - (first.inv() * second).magnitude()) < 1e-6


@given(seeds, seeds, st.floats(0, 1))
def test_part_of_the_way(a: int, b: int, part: float) -> None:
    first, second = rot6d_from_matrix(rotation(a).as_matrix()), rot6d_from_matrix(rotation(b).as_matrix())
    whole = angle_between(first, second)
    turned = second.copy()
    turn_part(first, turned, part)
    assert is_orthonormal(turned)
    assert abs(angle_between(first, turned) - part * whole) < 1e-5
    assert abs(angle_between(turned, second) - (1 - part) * whole) < 1e-5


@given(seeds)
def test_third_column(seed: int) -> None:
    rot6d, out = rot6d_from_matrix(rotation(seed).as_matrix()), np.zeros((3, 3))
    fill_matrix(rot6d, out)
    np.testing.assert_allclose(out, matrix_from_rot6d(rot6d), atol=1e-12)


def test_nan_is_not_orthonormal() -> None:
    assert not is_orthonormal(np.full(6, np.nan))
    assert not is_orthonormal(np.array([1.0, 0, 0, 1, 0, 0]))
