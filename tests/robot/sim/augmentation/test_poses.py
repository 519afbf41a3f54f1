import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot.sim.augmentation.poses import (
    ANGLE_M,
    FREE,
    displacement,
    distance,
    distances,
    gap,
    inverse,
    matrix,
    poses_of,
    same_turned,
    shifted,
    size,
)
from tests.robot.sim.augmentation.fakes import flat, pose_elements

numbers = st.floats(-1.0, 1.0)
angles = st.floats(-3.1, 3.1)


@st.composite
def poses(draw):
    turn = draw(st.tuples(numbers, numbers, numbers))
    return matrix(np.array(draw(st.tuples(numbers, numbers, numbers))), Rotation.from_rotvec(turn).as_matrix())


@st.composite
def upright(draw):
    position = np.array(draw(st.tuples(numbers, numbers, numbers)))
    return matrix(position, Rotation.from_euler("z", draw(angles)).as_matrix())


def turned(angle: float) -> np.ndarray:
    return matrix(np.zeros(3), Rotation.from_euler("z", angle).as_matrix())


@given(poses(), poses())
def test_a_displacement_takes_the_old_pose_to_the_new_one(old, new):
    np.testing.assert_allclose(displacement(old, new) @ old, new, atol=1e-12)
    np.testing.assert_allclose(displacement(old, old), np.eye(4), atol=1e-12)


@given(poses(), poses(), poses())
def test_displacements_compose(first, second, third):
    chained = displacement(second, third) @ displacement(first, second)
    np.testing.assert_allclose(chained, displacement(first, third), atol=1e-12)


@given(poses(), poses(), poses())
def test_what_belongs_to_an_object_does_not_change_in_its_frame(old, new, tool):
    np.testing.assert_allclose(inverse(new) @ displacement(old, new) @ tool, inverse(old) @ tool, atol=1e-12)


@given(poses(), poses(), poses())
def test_a_displacement_is_the_same_in_every_frame(frame, old, new):
    elsewhere = displacement(frame @ old, frame @ new)
    np.testing.assert_allclose(elsewhere, frame @ displacement(old, new) @ inverse(frame), atol=1e-10)


@given(upright(), upright(), st.sampled_from([2, 3, 4, 6]))
def test_a_symmetric_thing_turns_no_more_than_half_a_symmetry(old, new, symmetry):
    moved = displacement(old, new, symmetry)
    assert Rotation.from_matrix(moved[:3, :3]).magnitude() <= np.pi / symmetry + 1e-9
    lands = inverse(new) @ moved @ old
    np.testing.assert_allclose(lands[:3, 3], 0.0, atol=1e-9)
    assert abs(Rotation.from_matrix(lands[:3, :3]).magnitude() * symmetry / (2 * np.pi) % 1.0 - 0.5) > 0.5 - 1e-6


@given(upright(), upright())
def test_a_round_thing_does_not_turn_at_all(old, new):
    moved = displacement(old, new, FREE)
    np.testing.assert_allclose(moved[:3, :3], np.eye(3), atol=1e-9)
    np.testing.assert_allclose(moved[:3, 3], new[:3, 3] - old[:3, 3], atol=1e-9)


@given(poses(), poses(), st.sampled_from([1, 4, FREE]))
def test_distances_agree_with_displacements(old, new, symmetry):
    turn = Rotation.from_matrix(displacement(old, new, symmetry)[:3, :3]).magnitude()
    shift = np.linalg.norm(new[:3, 3] - old[:3, 3])
    assert distance(old, new, symmetry) == pytest.approx(np.hypot(shift, ANGLE_M * turn), abs=1e-6)
    assert distances(old[None], np.stack([old, new]), symmetry)[0, 0] == pytest.approx(0.0, abs=1e-6)


@given(upright(), st.integers(0, 3))
def test_a_cube_that_was_turned_by_quarters_is_where_it_was(cube, quarters):
    assert distance(cube, cube @ turned(quarters * np.pi / 2), 4) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(
        cube @ turned(quarters * np.pi / 2) @ same_turned(cube, cube @ turned(quarters * np.pi / 2), 4), cube, atol=1e-9
    )


@given(poses(), poses(), st.floats(0.0, 1.0))
def test_a_part_of_the_way(start, goal, part):
    way = gap(start, goal)
    np.testing.assert_allclose(shifted(start, way), goal, atol=1e-9)
    np.testing.assert_allclose(shifted(start, way, 0.0), start, atol=1e-12)
    assert size(gap(start, shifted(start, way, part))) == pytest.approx(part * size(way), abs=1e-6)


def test_poses_are_read_by_name():
    one = matrix(np.array([1.0, 2.0, 3.0]), Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix())
    vector = np.concatenate([np.zeros(2), flat(one), [7.0]])
    found = poses_of(np.stack([vector, vector]), ("a", "b", *pose_elements("cube"), "c"), "cube")
    np.testing.assert_allclose(found, np.stack([one, one]), atol=1e-12)
