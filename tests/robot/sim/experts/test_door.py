import numpy as np
import pytest

from robot.contract import Policy
from robot.errors import ConfigError
from robot.loop import Step, rollout
from robot.sim import expert
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.experts.noise import action_noise
from tests.robot.sim.experts.worlds import as_recorded, run_with_a_mishap

UNTOUCHED = 5000
"""First of the seeds that nothing was tuned on."""


@pytest.fixture(scope="module")
def world() -> RobosuiteEnvironment:
    return as_recorded("door")


@pytest.fixture(scope="module")
def policy(world: RobosuiteEnvironment) -> Policy:
    return expert("door", world.specs)


def angle(world: RobosuiteEnvironment, joint: str) -> float:
    return float(world.data.joint(joint).qpos[0])


def test_turns_the_handle_then_opens(world: RobosuiteEnvironment, policy: Policy) -> None:
    for seed in range(UNTOUCHED, UNTOUCHED + 3):
        angles: list[tuple[float, float]] = []

        def watch(step: Step, angles: list[tuple[float, float]] = angles) -> None:
            angles.append((angle(world, "Door_hinge"), angle(world, "Door_latch_joint")))

        outcome = rollout(world, policy, seed, on_step=watch)
        assert outcome.success_final
        assert outcome.steps <= 120
        hinge, latch = np.array(angles).T
        assert hinge[-10:].min() > 0.3
        # The latch lets go of the frame at about 1.3 rad.
        assert np.abs(latch[: np.argmax(hinge > 0.1)]).max() > 1.2


def test_recovers_from_noise(world: RobosuiteEnvironment, policy: Policy) -> None:
    assert all(rollout(world, policy, seed, action_noise(seed)).success_final for seed in range(3))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", [0, UNTOUCHED])
def test_success_over_a_hundred_seeds(world: RobosuiteEnvironment, policy: Policy, first: int) -> None:
    seeds = range(first, first + 100)
    assert sum(rollout(world, policy, seed).success_final for seed in seeds) >= 95
    assert sum(rollout(world, policy, seed, action_noise(seed)).success_final for seed in seeds) >= 95


def test_takes_the_handle_again_when_it_slips(world: RobosuiteEnvironment, policy: Policy) -> None:
    def slip() -> None:
        world.data.joint("Door_latch_joint").qpos[0] = -0.2
        world.data.joint("Door_latch_joint").qvel[0] = 0.0

    run_with_a_mishap(world, policy, 3, lambda: angle(world, "Door_latch_joint") < -0.9, slip)
    assert angle(world, "Door_hinge") > 0.3


def test_begins_again_when_the_door_falls_shut(world: RobosuiteEnvironment, policy: Policy) -> None:
    def shut() -> None:
        for joint in ("Door_hinge", "Door_latch_joint"):
            world.data.joint(joint).qpos[0] = world.data.joint(joint).qvel[0] = 0.0

    run_with_a_mishap(world, policy, 4, lambda: angle(world, "Door_hinge") > 0.2, shut)
    assert angle(world, "Door_hinge") > 0.3


def test_is_a_function_of_the_observation(world: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in world.reset(seed=1)[0].items()}
    first = policy.act(observation).actions
    rollout(world, policy, seed=7)
    np.testing.assert_array_equal(policy.act(observation).actions, first)
    world.specs.action.validate(first[0])


def test_refuses_another_task() -> None:
    with pytest.raises(ConfigError, match="latch"):
        expert("door", RobosuiteEnvironment(EnvConfig(task="lift")).specs)
