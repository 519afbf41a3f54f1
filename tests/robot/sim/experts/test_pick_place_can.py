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
    return as_recorded("pick_place_can")


@pytest.fixture(scope="module")
def policy(world: RobosuiteEnvironment) -> Policy:
    return expert("pick_place_can", world.specs)


def place(world: RobosuiteEnvironment, x: float, y: float, z: float, lies: bool = False) -> None:
    """Put the can somewhere, at rest, in the world frame."""
    joint = world.data.joint("Can_joint0")
    joint.qpos[:] = [x, y, z, np.sqrt(0.5), np.sqrt(0.5) * lies, 0.0, np.sqrt(0.5) * (not lies)]
    joint.qvel[:] = 0.0


def check_inside(world: RobosuiteEnvironment) -> None:
    """The can is between the walls of its compartment, on its floor, and the hand is off it."""
    can = world.data.body("Can_main").xpos
    # Walls of robosuite's second bin: 2 cm thick, their middles at these places; the floor's surface is at 0.82.
    assert 0.10 + 0.01 < can[0] < 0.30 - 0.01
    assert 0.28 + 0.01 < can[1] < 0.53 - 0.01
    assert 0.82 < can[2] < 0.90
    assert np.linalg.norm(world.data.site("gripper0_right_grip_site").xpos - can) > 0.042


def test_puts_the_can_away(world: RobosuiteEnvironment, policy: Policy) -> None:
    for seed in range(UNTOUCHED, UNTOUCHED + 2):
        outcome = rollout(world, policy, seed)
        assert outcome.success_final
        assert outcome.steps <= 220
        check_inside(world)


def test_recovers_from_noise(world: RobosuiteEnvironment, policy: Policy) -> None:
    assert all(rollout(world, policy, seed, action_noise(seed)).success_final for seed in range(2))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", [0, UNTOUCHED])
def test_success_over_a_hundred_seeds(world: RobosuiteEnvironment, policy: Policy, first: int) -> None:
    seeds = range(first, first + 100)
    assert sum(rollout(world, policy, seed).success_final for seed in seeds) >= 95
    assert sum(rollout(world, policy, seed, action_noise(seed)).success_final for seed in seeds) >= 95


def test_begins_again_when_the_can_is_taken_away_and_lies(world: RobosuiteEnvironment, policy: Policy) -> None:
    is_carried = lambda: world.data.body("Can_main").xpos[2] > 0.93  # noqa: E731
    run_with_a_mishap(world, policy, 3, is_carried, lambda: place(world, 0.08, -0.3, 0.85, lies=True))
    check_inside(world)


def test_takes_the_can_out_of_another_compartment(world: RobosuiteEnvironment, policy: Policy) -> None:
    is_carried = lambda: world.data.body("Can_main").xpos[2] > 0.93  # noqa: E731
    run_with_a_mishap(world, policy, 4, is_carried, lambda: place(world, 0.0, 0.16, 0.87))
    check_inside(world)


def test_is_a_function_of_the_observation(world: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in world.reset(seed=1)[0].items()}
    first = policy.act(observation).actions
    policy.reset(seed=99)
    np.testing.assert_array_equal(policy.act(observation).actions, first)
    world.specs.action.validate(first[0])


def test_refuses_another_task() -> None:
    with pytest.raises(ConfigError, match="target_x"):
        expert("pick_place_can", RobosuiteEnvironment(EnvConfig(task="lift")).specs)
