import numpy as np
import pytest

from robot.contract import Policy
from robot.errors import ConfigError, SpecError, UnknownNameError
from robot.loop import rollout
from robot.sim import expert, make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.experts.noise import action_noise


@pytest.fixture(scope="module")
def lift() -> RobosuiteEnvironment:
    return make(EnvConfig())


@pytest.fixture(scope="module")
def policy(lift: RobosuiteEnvironment) -> Policy:
    return expert("lift", lift.specs)


def test_lifts_and_is_short(lift: RobosuiteEnvironment, policy: Policy) -> None:
    outcomes = [rollout(lift, policy, seed) for seed in range(10)]
    assert all(outcome.success_final for outcome in outcomes)
    assert max(outcome.steps for outcome in outcomes) <= 60


def test_recovers_from_noise(lift: RobosuiteEnvironment, policy: Policy) -> None:
    outcomes = [rollout(lift, policy, seed, action_noise(seed)) for seed in range(20)]
    assert sum(outcome.success_final for outcome in outcomes) >= 19


@pytest.mark.slow
def test_success_over_a_hundred_seeds(lift: RobosuiteEnvironment, policy: Policy) -> None:
    clean = sum(rollout(lift, policy, seed).success_final for seed in range(100))
    noisy = sum(rollout(lift, policy, seed, action_noise(seed)).success_final for seed in range(100))
    assert clean >= 99
    assert noisy >= 95


def test_grasps_again_when_the_cube_is_taken_away(lift: RobosuiteEnvironment, policy: Policy) -> None:
    observation, _ = lift.reset(seed=3)
    taken = terminated = truncated = False
    while not (terminated or truncated):
        action = policy.act({key: array[None] for key, array in observation.items()}).actions[0]
        observation, _, terminated, truncated, info = lift.step(action)
        if info["success"] and not taken:
            taken = True
            lift.data.joint("cube_joint0").qpos[:3] = [0.05, 0.05, 0.83]
    assert taken
    assert terminated


def test_is_a_function_of_the_observation(lift: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in lift.reset(seed=1)[0].items()}
    first = policy.act(observation).actions
    policy.reset(seed=99)
    np.testing.assert_array_equal(policy.act(observation).actions, first)
    lift.specs.action.validate(first[0])


def test_refuses_what_it_cannot_read(lift: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in lift.reset(seed=1)[0].items()}
    with pytest.raises(SpecError, match=r"observation\.environment_state"):
        policy.act({"observation.state": observation["observation.state"]})
    observation["observation.state"][0, 0] = np.nan
    with pytest.raises(SpecError, match="ee_x is nan"):
        policy.act(observation)


def test_unknown_task_and_foreign_action_space(lift: RobosuiteEnvironment) -> None:
    with pytest.raises(UnknownNameError, match="lift"):
        expert("lfit", lift.specs)
    joints = make(EnvConfig(controller="JOINT_POSITION"))
    with pytest.raises(ConfigError, match="ee_delta"):
        expert("lift", joints.specs)
