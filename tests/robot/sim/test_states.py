"""Episodes that begin where another once was, to the last bit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.errors import StateError, UnknownNameError
from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.states import StoredState, from_text, identity, to_text
from robot.sim.tasks import task
from robot.sim.world import build, seeded

STEPS = 12
QUICK = ("lift", "door", "pick_place_can")
REST = ("stack", "nut_assembly_square", "tool_hang", "wipe", "two_arm_lift", "two_arm_transport")


@pytest.fixture(scope="module")
def world() -> Callable[[str], RobosuiteEnvironment]:
    made: dict[str, RobosuiteEnvironment] = {}

    def of(task: str) -> RobosuiteEnvironment:
        if task not in made:
            made[task] = make(EnvConfig(task=task))
        return made[task]

    return of


def drive(environment: RobosuiteEnvironment, seed: int, steps: int = STEPS) -> list[np.ndarray]:
    """Everything that can be seen and is in MuJoCo's state over random actions."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        observation, reward, *_ = environment.step(environment.specs.action.generate_value(rng))
        data = environment.data
        seen.append(np.concatenate([*observation.values(), [reward, data.time], data.qpos, data.qvel]))
    return seen


def check_round_trip(environment: RobosuiteEnvironment, other: RobosuiteEnvironment) -> None:
    environment.reset(seed=3)
    drive(environment, 0)
    state = environment.stored_state()
    first = environment.reset(seed=8, options={"state": state})[0]
    data = environment.data
    np.testing.assert_array_equal(np.concatenate([[data.time], data.qpos, data.qvel]), state.flat)
    expected = drive(environment, 1)
    drive(environment, 2)
    for again, seed in ((environment, 9), (other, 10)):
        restored = again.reset(seed=seed, options={"state": StoredState.from_bytes(state.to_bytes())})[0]
        for key, array in first.items():
            np.testing.assert_array_equal(restored[key], array)
        np.testing.assert_array_equal(drive(again, 1), expected)


@pytest.mark.parametrize("task", QUICK)
def test_a_stored_state_begins_equal_episodes_whatever_the_seed(task: str, world: Callable) -> None:
    other = make(EnvConfig(task=task))
    check_round_trip(world(task), other)


@pytest.mark.slow
@pytest.mark.parametrize("task", REST)
def test_every_kind_of_task_can_be_restored(task: str) -> None:
    check_round_trip(make(EnvConfig(task=task)), make(EnvConfig(task=task)))


@pytest.mark.slow
def test_robosuites_own_loop_can_be_restored() -> None:
    config = EnvConfig(controller="JOINT_VELOCITY")
    check_round_trip(make(config), make(config))


def test_a_plain_vector_is_restored_exactly_and_seen_first(world: Callable) -> None:
    lift = world("lift")
    lift.reset(seed=1)
    drive(lift, 0)
    vector = lift.stored_state().flat
    seen = {key: array.copy() for key, array in lift.reset(seed=1, options={"state": vector})[0].items()}
    np.testing.assert_array_equal(np.concatenate([[lift.data.time], lift.data.qpos, lift.data.qvel]), vector)
    names = lift.specs.observation["observation.state"].names
    q = seen["observation.state"][[names.index(f"q{i}") for i in range(1, 8)]]
    np.testing.assert_array_equal(q, vector[1:8].astype(np.float32))
    # The object is where the vector has it, not where the seed put it.
    world_names = lift.specs.observation["observation.environment_state"].names
    cube = seen["observation.environment_state"][[world_names.index(f"cube_{axis}") for axis in "xyz"]]
    cube_qpos = vector[1 + lift.model.joint("cube_joint0").qposadr[0] :][:3]
    np.testing.assert_allclose(cube, cube_qpos - lift.data.body("robot0_base").xpos, atol=1e-6)
    expected = drive(lift, 1)
    lift.reset(seed=77, options={"state": vector.tolist()})
    np.testing.assert_array_equal(drive(lift, 1), expected)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.floats(-1.5, 1.5), min_size=7, max_size=7), st.floats(0, 1e3))
def test_any_posture_and_time_comes_back_exactly(world: Callable, seed: int, q: list[float], time_s: float) -> None:
    lift = world("lift")
    lift.reset(seed=seed)
    vector = lift.stored_state().flat
    vector[0], vector[1:8] = time_s, q
    lift.reset(options={"state": vector})
    np.testing.assert_array_equal(lift.stored_state().flat, vector)


def test_the_controller_holds_the_restored_pose_with_fingers_at_rest(world: Callable) -> None:
    """A robot that was on its way somewhere with its fingers closing stays where it is restored, as after a reset."""
    lift = world("lift")
    lift.reset(seed=0)
    resting = lift.stored_state().flat
    for _ in range(10):
        lift.step(np.array([1.0, 0, 0.5, 0, 0, 0, 1.0]))
    assert not np.allclose(lift.data.qpos[7:9], resting[8:10], atol=1e-3)
    lift.reset(options={"state": resting})
    before = lift.data.site("gripper0_right_grip_site").xpos.copy()
    for _ in range(5):
        lift.step(np.zeros(7))
    assert np.abs(lift.data.site("gripper0_right_grip_site").xpos - before).max() < 2e-3


def test_a_restored_episode_goes_on_as_in_robosuites_own_loop(world: Callable) -> None:
    """robosuite puts a state back by `set_state_from_flattened`; its controllers then look at the world anew."""
    lift, theirs = world("lift"), build(EnvConfig(), task("lift"))
    lift.reset(seed=6)
    drive(lift, 0)
    vector = lift.stored_state().flat
    lift.reset(seed=1, options={"state": vector})
    with seeded(2):
        theirs.reset()
    theirs.sim.set_state_from_flattened(vector.copy())
    theirs.sim.forward()
    for controller in theirs.robots[0].part_controllers.values():
        controller.update_initial_joints(theirs.sim.data.qpos[controller.qpos_index])
    rng = np.random.default_rng(3)
    for _ in range(20):
        action = rng.uniform(-1.0, 1.0, 7)
        lift.step(action)
        theirs.step(action)
        np.testing.assert_allclose(lift.data.qpos, theirs.sim.data.qpos, rtol=0, atol=1e-6)
        np.testing.assert_allclose(lift.data.qvel, theirs.sim.data.qvel, rtol=0, atol=1e-5)


def test_a_door_stands_where_it_stood_and_dirt_lies_where_it_lay(world: Callable) -> None:
    door = world("door")
    door.reset(seed=0)
    state, stood = door.stored_state(), door.data.body("Door_main").xpos.copy()
    door.reset(seed=1)
    assert np.abs(door.data.body("Door_main").xpos - stood).max() > 1e-3
    door.reset(seed=2, options={"state": state})
    np.testing.assert_array_equal(door.data.body("Door_main").xpos, stood)


@pytest.mark.slow
def test_wiped_dirt_stays_wiped() -> None:
    wipe = make(EnvConfig(task="wipe"))
    wipe.reset(seed=0)
    arena = wipe._arena
    markers = arena.model.mujoco_arena.markers
    arena.wiped_markers = [markers[3], markers[11]]
    state = wipe.stored_state()
    wipe.reset(seed=5)
    assert not wipe.stored_state().wiped.any()
    observation, _ = wipe.reset(seed=5, options={"state": state})
    names = wipe.specs.observation["observation.environment_state"].names
    assert observation["observation.environment_state"][names.index("wiped")] == pytest.approx(0.02)
    assert wipe.model.geom(markers[3].visual_geoms[0]).rgba[3] == 0.0
    assert wipe.model.geom(markers[4].visual_geoms[0]).rgba[3] == 1.0


def test_states_of_another_model_are_refused_before_anything_moves(world: Callable) -> None:
    lift, door = world("lift"), world("door")
    door.reset(seed=0)
    lift.reset(seed=0)
    foreign, own = door.stored_state(), lift.stored_state()
    other_robot = StoredState("Lift", "0" * 64, own.flat, own.posture, own.bodies, own.wiped)
    bad = own.flat.copy()
    bad[4] = np.nan
    faults = [
        (foreign, "task Door"),
        (foreign.flat, r"32 numbers \(time, 16 qpos, 15 qvel\), got shape \(23,\)"),
        (other_robot, "another model of Lift"),
        (bad, "Element 4 of a state is nan"),
        (np.full(32, np.inf), "Element 0"),
        (own.flat[None], "shape"),
        ("yesterday", "got str"),
    ]
    drive(lift, 0)
    before = lift.stored_state().to_bytes()
    for state, words in faults:
        with pytest.raises(StateError, match=words):
            lift.reset(seed=1, options={"state": state})
        assert lift.stored_state().to_bytes() == before


def test_an_unknown_option_is_named(world: Callable) -> None:
    with pytest.raises(UnknownNameError, match=r"'states'.*Did you mean 'state'"):
        world("lift").reset(options={"states": np.zeros(32)})


def test_damaged_bytes_are_refused(world: Callable) -> None:
    world("lift").reset(seed=0)
    data = world("lift").stored_state().to_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    with pytest.raises(StateError, match="checksum"):
        StoredState.from_bytes(bytes(flipped))
    with pytest.raises(StateError, match="checksum"):
        StoredState.from_bytes(data[:-8])
    with pytest.raises(StateError, match="Not a stored state"):
        StoredState.from_bytes(b"PK\x03\x04 something else")
    with pytest.raises(StateError, match="head"):
        StoredState.from_bytes(data[:40])


def test_both_kinds_travel_as_text(world: Callable) -> None:
    world("lift").reset(seed=0)
    state = world("lift").stored_state()
    back = from_text(to_text(state))
    assert isinstance(back, StoredState)
    assert back.to_bytes() == state.to_bytes()
    np.testing.assert_array_equal(from_text(to_text(state.flat)), state.flat)


def test_identity_is_of_the_model_and_not_of_the_episode(world: Callable) -> None:
    door = world("door")
    door.reset(seed=0)
    first = identity(door.model)
    door.reset(seed=1)
    assert identity(door.model) == first
    assert identity(world("lift").model) != first
    size = door.model.geom_size.copy()
    try:
        door.model.geom_size[:] *= 1.01
        assert identity(door.model) != first
    finally:
        door.model.geom_size[:] = size
