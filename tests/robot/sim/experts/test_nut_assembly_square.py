import numpy as np
import pytest

from robot.contract import Policy
from robot.errors import ConfigError
from robot.loop import rollout
from robot.sim import expert, make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.experts.noise import action_noise
from tests.robot.sim.experts.worlds import run_with_a_mishap

TASK = "nut_assembly_square"
UNTOUCHED = 5000
"""First of the seeds that nothing was tuned on."""


@pytest.fixture(scope="module")
def world() -> RobosuiteEnvironment:
    return RobosuiteEnvironment(EnvConfig(task=TASK, horizon=400))


@pytest.fixture(scope="module")
def policy(world: RobosuiteEnvironment) -> Policy:
    return expert(TASK, world.specs)


def test_puts_the_nut_on(world: RobosuiteEnvironment, policy: Policy) -> None:
    outcomes = [rollout(world, policy, seed) for seed in range(UNTOUCHED, UNTOUCHED + 3)]
    assert all(outcome.success_final for outcome in outcomes)
    assert max(outcome.steps for outcome in outcomes) <= 250
    nut, peg = world.data.body("SquareNut_main").xpos, world.data.body("peg1").xpos
    # Its hole leaves 6.75 mm to each side of the peg, so this nut is around it, not only near.
    assert np.abs(nut - peg)[:2].max() < 0.0095
    assert nut[2] < peg[2] + 0.02


@pytest.mark.slow
def test_success_over_a_hundred_seeds(world: RobosuiteEnvironment, policy: Policy) -> None:
    seeds = range(UNTOUCHED, UNTOUCHED + 100)
    assert sum(rollout(world, policy, seed).success_final for seed in seeds) >= 95
    assert sum(rollout(world, policy, seed, action_noise(seed)).success_final for seed in seeds) >= 90


def test_begins_again_when_the_nut_is_taken_away(world: RobosuiteEnvironment, policy: Policy) -> None:
    def take_away() -> None:
        world.data.joint("SquareNut_joint0").qpos[:3] = [-0.05, -0.10, 0.84]
        world.data.joint("SquareNut_joint0").qvel[:] = 0.0

    run_with_a_mishap(world, policy, 2, lambda: world.data.body("SquareNut_main").xpos[2] > 0.90, take_away)


def test_is_a_function_of_the_observation(world: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in world.reset(seed=1)[0].items()}
    first = policy.act(observation).actions
    rollout(world, policy, seed=7)
    np.testing.assert_array_equal(policy.act(observation).actions, first)
    world.specs.action.validate(first[0])


def test_equal_seeds_give_equal_episodes(world: RobosuiteEnvironment, policy: Policy) -> None:
    def returned() -> tuple[int, list[float]]:
        path: list[float] = []
        outcome = rollout(world, policy, 11, action_noise(11), lambda step: path.extend(step.commanded.tolist()))
        return outcome.steps, path

    assert returned() == returned()


def test_refuses_another_task() -> None:
    with pytest.raises(ConfigError, match="handle_x"):
        expert(TASK, make(EnvConfig()).specs)
