import numpy as np
import pytest

from robot.contract import Policy
from robot.errors import ConfigError
from robot.loop import rollout
from robot.sim import expert
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.experts.noise import action_noise
from tests.robot.sim.experts.worlds import as_recorded, run_with_a_mishap

UNTOUCHED = 5000
"""First of the seeds that nothing was tuned on."""


@pytest.fixture(scope="module")
def world() -> RobosuiteEnvironment:
    return as_recorded("stack")


@pytest.fixture(scope="module")
def policy(world: RobosuiteEnvironment) -> Policy:
    return expert("stack", world.specs)


def place(world: RobosuiteEnvironment, cube: str, x: float, y: float, yaw: float = 0.0) -> None:
    """Lay a cube on the table, at rest, in the world frame."""
    joint = world.data.joint(f"{cube}_joint0")
    joint.qpos[:] = [x, y, 0.83, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    joint.qvel[:] = 0.0


def check_tower(world: RobosuiteEnvironment) -> None:
    upper, lower = world.data.body("cubeA_main").xpos, world.data.body("cubeB_main").xpos
    # Half a cube of 4 cm and half a one of 5 cm; it stands by itself while its middle is over the lower one.
    assert upper[2] - lower[2] == pytest.approx(0.045, abs=0.002)
    assert np.abs(upper - lower)[:2].max() < 0.02
    fingers = (
        world.data.joint("gripper0_right_finger_joint1").qpos - world.data.joint("gripper0_right_finger_joint2").qpos
    )
    assert fingers > 0.042


def test_stacks_and_is_short(world: RobosuiteEnvironment, policy: Policy) -> None:
    for seed in range(UNTOUCHED, UNTOUCHED + 3):
        outcome = rollout(world, policy, seed)
        assert outcome.success_final
        assert outcome.steps <= 100
        check_tower(world)


def test_recovers_from_noise(world: RobosuiteEnvironment, policy: Policy) -> None:
    assert all(rollout(world, policy, seed, action_noise(seed)).success_final for seed in range(3))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", [0, UNTOUCHED])
def test_success_over_a_hundred_seeds(world: RobosuiteEnvironment, policy: Policy, first: int) -> None:
    seeds = range(first, first + 100)
    assert sum(rollout(world, policy, seed).success_final for seed in seeds) >= 95
    assert sum(rollout(world, policy, seed, action_noise(seed)).success_final for seed in seeds) >= 95


def test_begins_again_when_the_cube_is_taken_away(world: RobosuiteEnvironment, policy: Policy) -> None:
    is_carried = lambda: world.data.body("cubeA_main").xpos[2] > 0.87  # noqa: E731
    run_with_a_mishap(world, policy, 3, is_carried, lambda: place(world, "cubeA", -0.08, 0.09))
    check_tower(world)


def test_follows_when_the_lower_cube_is_moved(world: RobosuiteEnvironment, policy: Policy) -> None:
    is_carried = lambda: world.data.body("cubeA_main").xpos[2] > 0.87  # noqa: E731
    run_with_a_mishap(world, policy, 4, is_carried, lambda: place(world, "cubeB", 0.1, -0.1, yaw=0.5))
    check_tower(world)


def test_fingers_stay_clear_of_a_cube_next_to_the_other(world: RobosuiteEnvironment, policy: Policy) -> None:
    def side_by_side() -> None:
        place(world, "cubeA", 0.0, 0.0)
        place(world, "cubeB", 0.0, 0.055)  # 1 cm between them, where the fingers would go without a turn

    moved = []

    def watch() -> bool:
        moved.append(world.data.body("cubeB_main").xpos[:2] - [0.0, 0.055])
        return len(moved) == 1

    run_with_a_mishap(world, policy, 5, watch, side_by_side)
    assert np.abs(moved[10:]).max() < 0.010
    check_tower(world)


def test_is_a_function_of_the_observation(world: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in world.reset(seed=1)[0].items()}
    first = policy.act(observation).actions
    rollout(world, policy, seed=7)
    np.testing.assert_array_equal(policy.act(observation).actions, first)
    world.specs.action.validate(first[0])


def test_equal_seeds_give_equal_episodes(world: RobosuiteEnvironment, policy: Policy) -> None:
    paths: list[list[float]] = [[], []]
    for path in paths:
        rollout(world, policy, 11, action_noise(11), lambda step, path=path: path.extend(step.commanded.tolist()))
    assert paths[0] == paths[1]


def test_refuses_another_world() -> None:
    with pytest.raises(ConfigError, match="cube_b_x"):
        expert("stack", RobosuiteEnvironment(EnvConfig(task="lift")).specs)
    with pytest.raises(ConfigError, match="ee_delta"):
        expert("stack", RobosuiteEnvironment(EnvConfig(task="stack", controller="JOINT_POSITION")).specs)
