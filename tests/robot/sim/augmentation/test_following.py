import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import ee_pose
from robot.loop import rollout
from robot.sim.augmentation.demonstration import ENVIRONMENT_STATE, STATE, action, goal, trajectory
from robot.sim.augmentation.following import BEHIND_M, SegmentFollower, Speed, points
from robot.sim.augmentation.poses import gap, inverse, matrix, size
from robot.sim.augmentation.segments import cut
from robot.sim.augmentation.subtasks import declaration
from tests.robot.sim.augmentation.fakes import Picker, TableWorld, about_z, specs, undisturbed
from tests.robot.sim.augmentation.test_segments import STACK, stacking

LIFT = declaration("lift")
SPEED = Speed(0.02, 0.15)
turns = st.floats(-np.pi, np.pi)
places = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))


@functools.cache
def demonstrated(seed: int):
    """The segments and the actions of a demonstration in the world of the table."""
    world, steps = TableWorld(), []
    assert rollout(world, Picker(world), seed, None, steps.append).success_final
    columns = [np.stack([step.observation[key] for step in steps]) for key in (STATE, ENVIRONMENT_STATE)]
    actions = np.stack([step.device for step in steps])
    moves = trajectory(world.specs, *columns, world.specs.observation[ENVIRONMENT_STATE].names, actions)
    return cut(moves, LIFT), actions


def follower(segments) -> SegmentFollower:
    return SegmentFollower(specs(), segments, LIFT.symmetry, SPEED)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_scene_gives_the_same_actions(seed):
    segments, actions = demonstrated(seed)
    steps = []
    assert rollout(TableWorld(), follower(segments), seed, None, steps.append).success_final
    np.testing.assert_allclose([step.device for step in steps], actions, atol=1e-5)


def test_other_scenes_succeed_too():
    segments = [demonstrated(seed)[0] for seed in range(3)]
    done = [rollout(TableWorld(), follower(segments[seed % 3]), seed).success_final for seed in range(100, 140)]
    assert np.mean(done) > 0.9, done


def test_a_blow_is_made_up_for():
    segments, _ = demonstrated(0)
    rng = np.random.default_rng(0)

    def blow(sent: np.ndarray) -> np.ndarray:
        shoved = np.array(sent)
        if rng.random() < 0.1:
            shoved[:3] = rng.uniform(-1.0, 1.0, 3)
        return shoved

    done = [rollout(TableWorld(), follower(segments), seed, blow).success_final for seed in range(20)]
    assert np.mean(done) > 0.8, done


@settings(deadline=None, max_examples=30)
@given(turns, places)
def test_a_scene_that_is_moved_as_a_whole_moves_every_pose_and_action(turn, place):
    """Nothing depends on where the base is: tool, cube and actions turn together."""
    moved = matrix(np.array([*place, 0.0]), about_z(turn))
    (segment,) = demonstrated(0)[0]
    stood = points(segment, np.eye(4), segment.moving[0], SPEED)
    elsewhere = points(segment, moved, moved @ segment.moving[0], SPEED)
    assert len(stood) == len(elsewhere)
    for one, other in zip(stood, elsewhere, strict=True):
        np.testing.assert_allclose(other.pose, moved @ one.pose, atol=1e-9)
        np.testing.assert_allclose(other.lead[:3], moved[:3, :3] @ one.lead[:3], atol=1e-9)
        np.testing.assert_allclose(other.lead[3:], moved[:3, :3] @ one.lead[3:], atol=1e-6)
        assert other.gripper == one.gripper


@settings(deadline=None, max_examples=30)
@given(turns, places, turns, places)
def test_near_the_object_the_motion_is_that_of_the_demonstration(turn, place, start_turn, start_place):
    moved = matrix(np.array([*place, 0.0]), about_z(turn))
    start = matrix(np.array([*start_place, 0.25]), about_z(start_turn) @ np.diag([1.0, -1.0, -1.0]))
    (segment,) = demonstrated(1)[0]
    near = int(np.count_nonzero(segment.leading))
    found = points(segment, moved, start, SPEED)
    np.testing.assert_allclose(found[0].pose, start, atol=1e-9)
    last = [moved @ pose for pose in segment.moving[near:]]
    for pose, point in zip(last, found[-len(last) :], strict=True):
        np.testing.assert_allclose(point.pose, pose, atol=1e-9)
    grips = [point.gripper for point in found]
    changes = np.flatnonzero(np.diff(grips))
    assert len(changes) == np.count_nonzero(np.diff(segment.gripper)), "no gripper action is lost or added"


@settings(deadline=None, max_examples=30)
@given(turns, places, st.floats(0.003, 0.05), st.floats(0.05, 0.5))
def test_no_step_is_longer_than_the_speed_allows(turn, place, step_m, step_rad):
    moved = matrix(np.array([*place, 0.0]), about_z(turn))
    (segment,) = demonstrated(2)[0]
    found = points(segment, moved, segment.moving[0], Speed(step_m, step_rad))
    ways = np.array([gap(one.pose, other.pose) for one, other in itertools.pairwise(found)])
    own = np.array([gap(*pair) for pair in itertools.pairwise(segment.moving)])
    for part, limit in ((slice(0, 3), step_m), (slice(3, 6), step_rad)):
        fastest = np.linalg.norm(own[:, part], axis=1).max()
        assert np.linalg.norm(ways[:, part], axis=1).max() <= max(limit, fastest) + 1e-5


def test_a_segment_that_begins_near_its_object_is_led_up_to():
    _, place = cut(stacking(), STACK)
    at = int(np.flatnonzero(place.leading == 0.0)[0])
    near = type(place)(
        **{
            **vars(place),
            **{name: getattr(place, name)[at:] for name in ("moving", "goals", "gripper", "leading")},
            "event": place.event - at,
        }
    )
    start = matrix(np.array([0.1, 0.2, 0.15]), np.eye(3))
    found = points(near, np.eye(4), start, SPEED)
    np.testing.assert_allclose(found[0].pose, start)
    assert len(found) >= len(near) + 0.49 / 0.02
    np.testing.assert_allclose(found[-1].pose, near.moving[-1])


def test_what_is_held_is_put_where_it_was_put_however_it_was_taken():
    """A cube that lies turned in the hand, and a base elsewhere: the cube comes to the base as it did."""
    moves = stacking()
    take, place = cut(moves, STACK)
    base = matrix(np.array([0.1, 0.5, 0.02]), about_z(0.7))
    in_hand = matrix(np.array([0.01, -0.004, 0.006]), about_z(0.3))
    names = tuple(f"{thing}_{part}" for thing in ("cube", "base") for part in _PARTS)
    world = specs()
    seen = {**world.observation, ENVIRONMENT_STATE: _spec(names)}
    policy = SegmentFollower(
        EnvironmentSpecs(seen, ee_pose(), "ee_pose", world.dt_s, world.robot, world.task), [place], {}, SPEED
    )
    tool = np.array(take.moving[-1])
    for _ in range(200):
        vector = np.concatenate([_flat(tool @ in_hand), _flat(base)])
        state = np.concatenate([_flat(tool), [0.02, -0.02]])
        wanted = policy.act({STATE: state[None], ENVIRONMENT_STATE: vector[None]}).actions[0]
        if wanted[-1] < 0:
            break
        tool = goal(policy.specs.environment, wanted, tool)
    let_go = inverse(moves.objects["base"][0]) @ moves.objects["cube"][place.begin + place.event - 1]
    np.testing.assert_allclose(inverse(base) @ tool @ in_hand, let_go, atol=1e-3)


def test_it_waits_for_a_tool_that_lags_but_not_for_ever():
    segments, _ = demonstrated(0)
    policy, world = follower(segments), TableWorld()
    observation, _ = world.reset(seed=0)
    stacked = {key: value[None] for key, value in observation.items()}
    sent = [policy.act(stacked).actions[0] for _ in range(200)]  # the tool does not move at all
    assert size(gap(world.tool, segments[0].moving[-1])) > BEHIND_M
    grips = np.array([row[-1] for row in sent])
    assert grips[-1] == segments[0].gripper[-1], "it comes to its end"
    assert np.all(np.abs(sent) <= 1.0)
    assert np.flatnonzero(grips > 0)[0] > np.flatnonzero(segments[0].gripper > 0)[0], "later than it would"


def test_reset_forgets():
    segments, _ = demonstrated(0)
    policy, runs = follower(segments), []
    for _ in range(2):
        steps = []
        rollout(TableWorld(), policy, 7, undisturbed(7), steps.append)
        runs.append(np.stack([step.device for step in steps]))
    np.testing.assert_array_equal(*runs)


@given(turns, places, st.sampled_from(["ee_delta", "ee_pose"]))
def test_actions_and_goals_are_inverses(turn, place, space):
    world = specs()
    spec = world.action if space == "ee_delta" else ee_pose()
    world = EnvironmentSpecs(world.observation, spec, space, world.dt_s, world.robot, world.task)
    tool = matrix(np.array([*place, 0.2]), about_z(turn))
    wanted = matrix(tool[:3, 3] + [0.02, -0.03, 0.01], about_z(turn + 0.3))
    np.testing.assert_allclose(goal(world, action(world, wanted, 1.0, tool), tool), wanted, atol=1e-6)


_PARTS = ("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32")


def _flat(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([pose[:3, 3], pose[:3, 0], pose[:3, 1]])


def _spec(names: tuple[str, ...]):
    from robot.specs import ArraySpec

    return ArraySpec(ENVIRONMENT_STATE, (len(names),), frame="base", names=names)
