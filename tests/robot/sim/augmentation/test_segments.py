import dataclasses

import numpy as np
import pytest

from robot.errors import ConfigError, EpisodeError
from robot.sim.augmentation.demonstration import Trajectory
from robot.sim.augmentation.poses import matrix
from robot.sim.augmentation.segments import cut, cut_automatically, placed
from robot.sim.augmentation.subtasks import DECLARATIONS as KNOWN
from robot.sim.augmentation.subtasks import RAISED, Declaration, Subtask, declaration
from robot.sim.tasks import TASKS
from tests.robot.sim.augmentation.fakes import about_z

TAKE = Declaration((Subtask("cube"),), {"cube": 4})
STACK = Declaration((Subtask("cube", ends=RAISED), Subtask("base", held="cube")))
DOWN = np.diag([1.0, -1.0, -1.0])
CLOSED, RAISES, OVER, OPENED, COUNT = 25, 30, 60, 75, 90


def stacking(turns: float = 0.0) -> Trajectory:
    """A tool comes from the side (steps 0-20), closes (25), raises a cube (30), carries it (to 60) and lets go (75)."""
    knots = np.array([0, 20, 25, 30, 35, OVER, 72, OPENED, COUNT - 1])
    xs = np.interp(np.arange(COUNT), knots, [0.0, 0.3, 0.3, 0.3, 0.3, 0.6, 0.6, 0.6, 0.6])
    zs = np.interp(np.arange(COUNT), knots, [0.2, 0.04, 0.02, 0.02, 0.1, 0.12, 0.065, 0.065, 0.2])
    tool = matrix(np.stack([xs, np.zeros(COUNT), zs], axis=1), np.broadcast_to(DOWN, (COUNT, 3, 3)))
    gripper = np.where((np.arange(COUNT) >= CLOSED) & (np.arange(COUNT) < OPENED), 1.0, -1.0)
    cube = np.array(tool)
    cube[:, :3, :3] = about_z(turns)
    cube[:RAISES, :3, 3] = [0.3, 0.0, 0.02]
    cube[OPENED:, :3, 3] = cube[OPENED - 1, :3, 3]
    base = matrix(np.broadcast_to([0.6, 0.0, 0.02], (COUNT, 3)), np.broadcast_to(np.eye(3), (COUNT, 3, 3)))
    goals = np.concatenate([tool[1:], tool[-1:]])
    return Trajectory(tool, goals, gripper, {"cube": cube, "base": base})


def without(trajectory: Trajectory, *names: str) -> Trajectory:
    kept = {name: poses for name, poses in trajectory.objects.items() if name not in names}
    return dataclasses.replace(trajectory, objects=kept)


def test_one_subtask_is_the_whole_demonstration():
    moves = stacking()
    (segment,) = cut(moves, TAKE)
    assert (segment.begin, len(segment), segment.event) == (0, COUNT, CLOSED)
    np.testing.assert_array_equal(segment.moving, moves.tool)
    np.testing.assert_array_equal(segment.goals, moves.goals)
    np.testing.assert_array_equal(segment.reference, moves.objects["cube"][0])


def test_what_is_left_of_an_offset_falls_until_the_tool_is_near():
    (segment,) = cut(stacking(), TAKE)
    assert segment.leading[0] == 1.0
    assert np.all(np.diff(segment.leading) <= 0)
    near = int(np.flatnonzero(segment.leading == 0)[0])
    aside = np.abs(segment.moving[:, 0, 3] - 0.3)
    assert aside[near - 1] > 0.05 >= aside[near]
    # In proportion to the way to the side: 0.3 m at the beginning, of which 0.25 m or a little more lead there.
    assert segment.leading[10] == pytest.approx((aside[10] - aside[near]) / (aside[0] - aside[near]), abs=1e-9)


def test_a_second_subtask_begins_when_the_object_is_raised_and_moves_with_what_is_held():
    moves = stacking(turns=0.4)
    take, place = cut(moves, STACK)
    assert take.begin == 0
    assert take.begin + len(take) == place.begin
    assert RAISES < place.begin < 35
    assert place.begin + place.event == OPENED
    assert place.begin + len(place) == COUNT
    held = slice(place.begin, OPENED)
    np.testing.assert_allclose(place.moving[: place.event], moves.objects["cube"][held], atol=1e-12)
    # Then on as if the hand had not let go: it goes up with the tool.
    assert place.moving[-1, 2, 3] == pytest.approx(moves.tool[-1, 2, 3])
    np.testing.assert_array_equal(place.reference, moves.objects["base"][0])
    np.testing.assert_allclose(moves.tool[place.begin] @ place.in_hand, place.moving[0], atol=1e-12)
    assert list(placed((take, place))) == ["cube", "base"]


def test_an_automatic_cut_finds_the_same():
    for moves, declared in ((stacking(), STACK), (without(stacking(), "base"), TAKE)):
        for found, expected in zip(cut_automatically(moves), cut(moves, declared), strict=True):
            assert found.subtask.object == expected.subtask.object
            assert found.subtask.held == expected.subtask.held
            assert (found.begin, len(found), found.event) == (expected.begin, len(expected), expected.event)
            np.testing.assert_array_equal(found.moving, expected.moving)


def test_an_automatic_cut_takes_no_part_of_a_thing_for_another():
    moves = stacking()
    handle = moves.objects["cube"] @ matrix(np.array([0.02, 0.0, 0.0]), np.eye(3))
    take, place = cut_automatically(dataclasses.replace(moves, objects={**moves.objects, "handle": handle}))
    assert (take.subtask.object, place.subtask.object) == ("cube", "base")


def test_a_grasp_of_nothing_is_no_subtask():
    moves = stacking()
    gripper = np.array(moves.gripper)
    gripper[3:8] = 1.0
    first = cut_automatically(dataclasses.replace(moves, gripper=gripper))[0]
    assert first.begin + first.event == CLOSED


def test_what_came_before_the_object_last_moved_is_left_out():
    moves = stacking()
    cube = np.array(moves.objects["cube"])
    cube[:12, :3, 3] = [0.35, 0.1, 0.02]  # pushed to where it is taken at step 12
    (segment,) = cut(dataclasses.replace(moves, objects={"cube": cube}), TAKE)
    assert segment.begin == 12
    np.testing.assert_allclose(segment.reference, moves.objects["cube"][0], atol=1e-12)


def test_what_falls_at_the_beginning_is_taken_as_it_was_then():
    """So that a segment that is done again while the object falls aims at where it will lie."""
    moves = stacking()
    for pushed in (False, True):
        cube = np.array(moves.objects["cube"])
        cube[:3, 2, 3] += [0.06, 0.05, 0.02]
        if pushed:
            cube[:12, 0, 3] += 0.05
        (segment,) = cut(dataclasses.replace(moves, objects={"cube": cube}), TAKE)
        np.testing.assert_allclose(segment.reference[:3, 3], [0.3, 0.0, 0.08], atol=1e-12)


def test_a_flicker_of_the_gripper_is_no_release():
    moves = stacking()
    gripper = np.array(moves.gripper)
    gripper[27:29] = -1.0
    (segment,) = cut(dataclasses.replace(moves, gripper=gripper), TAKE)
    assert segment.event == CLOSED


def test_what_cannot_be_cut_says_why():
    moves = stacking()
    lying = {"cube": np.broadcast_to(moves.objects["cube"][0], (COUNT, 4, 4))}
    with pytest.raises(EpisodeError, match="the cube is never raised"):
        cut(dataclasses.replace(moves, objects=lying), TAKE)
    with pytest.raises(EpisodeError, match="the gripper never raises anything"):
        cut_automatically(dataclasses.replace(moves, objects=lying))
    with pytest.raises(EpisodeError, match="the cube is raised by an open gripper"):
        cut(dataclasses.replace(moves, gripper=-np.ones(COUNT)), TAKE)
    with pytest.raises(EpisodeError, match=r"no nut is among its objects \(cube, base\)"):
        cut(moves, Declaration((Subtask("nut", ends=RAISED), Subtask("base", held="nut"))))
    fallen = np.array(moves.objects["cube"])
    fallen[:10, :3, :3] = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    with pytest.raises(EpisodeError, match="the cube had fallen over when it was taken"):
        cut(dataclasses.replace(moves, objects={"cube": fallen}), TAKE)


def test_declarations_name_objects_of_their_tasks():
    assert {"lift", "stack", "pick_place_can", "nut_assembly_square"} <= set(KNOWN)
    for name, known in KNOWN.items():
        named = {*known.objects, *known.symmetry, *(subtask.held for subtask in known.subtasks if subtask.held)}
        assert named <= set(TASKS[name].objects), name


def test_a_task_that_nobody_declared_is_refused():
    with pytest.raises(ConfigError, match=r"declared the subtasks of wipe; those of lift, .* try segments=automatic"):
        declaration("wipe")
    with pytest.raises(ConfigError, match="The last subtask of a task ends with the demonstration"):
        Declaration((Subtask("cube", ends=RAISED),))
