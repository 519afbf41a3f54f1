import numpy as np
import pytest

from robot.contract import Policy
from robot.errors import ConfigError
from robot.loop import rollout
from robot.sim import expert, make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.experts import tool_hang
from robot.sim.experts.noise import action_noise
from tests.robot.sim.experts.worlds import run_with_a_mishap

UNTOUCHED = 5000
"""First of the seeds that nothing was tuned on."""


@pytest.fixture(scope="module")
def world() -> RobosuiteEnvironment:
    return RobosuiteEnvironment(EnvConfig(task="tool_hang", horizon=700))


@pytest.fixture(scope="module")
def policy(world: RobosuiteEnvironment) -> Policy:
    return expert("tool_hang", world.specs)


def test_stands_the_frame_up_and_hangs_the_tool(world: RobosuiteEnvironment, policy: Policy) -> None:
    outcome = rollout(world, policy, UNTOUCHED)
    assert outcome.success_final
    assert outcome.steps <= 500
    site = {name: world.data.site(name).xpos for name in ("frame_hang_site", "frame_intersection_site")}
    bar = site["frame_intersection_site"] - site["frame_hang_site"]
    assert abs(bar[2]) < 0.005
    # The tool hangs down from the bar's outer half, and the hand is off it.
    ring, tool = world.data.site("tool_hole1_center").xpos, world.data.body("tool_root").xpos
    assert ring[2] - tool[2] > 0.08
    assert 0.0 < (ring - site["frame_hang_site"]) @ bar / (bar @ bar) < 0.5


@pytest.mark.slow
def test_success_over_a_hundred_seeds(world: RobosuiteEnvironment, policy: Policy) -> None:
    assert sum(rollout(world, policy, seed).success_final for seed in range(UNTOUCHED, UNTOUCHED + 100)) >= 90


@pytest.mark.slow
def test_recovers_from_noise_more_often_than_not(policy: Policy) -> None:
    patient = make(EnvConfig(task="tool_hang", horizon=1000))
    seeds = range(UNTOUCHED, UNTOUCHED + 40)
    assert sum(rollout(patient, policy, seed, action_noise(seed)).success_final for seed in seeds) >= 20


def test_begins_again_when_the_frame_is_taken_away(world: RobosuiteEnvironment, policy: Policy) -> None:
    world.reset(seed=1)
    lying = world.data.joint("frame_joint0").qpos.copy()

    def put_back() -> None:
        world.data.joint("frame_joint0").qpos[:] = lying
        world.data.joint("frame_joint0").qvel[:] = 0.0

    run_with_a_mishap(world, policy, 1, lambda: world.data.body("frame_root").xpos[2] > 1.0, put_back)


def test_is_a_function_of_the_observation(world: RobosuiteEnvironment, policy: Policy) -> None:
    observation = {key: array[None] for key, array in world.reset(seed=1)[0].items()}
    first = policy.act(observation).actions
    policy.reset(seed=99)
    for _ in range(20):
        following, *_ = world.step(policy.act(observation).actions[0])
        policy.act({key: array[None] for key, array in following.items()})
    np.testing.assert_array_equal(policy.act(observation).actions, first)
    world.specs.action.validate(first[0])


def test_points_are_those_of_the_model(world: RobosuiteEnvironment) -> None:
    world.reset(seed=4)
    found = {
        "stand_mount_site": ("stand_root", tool_hang.HOLE - [0.0, 0.045, 0.0]),
        "frame_tip_site": ("frame_root", tool_hang.TIP),
        "tool_hole1_center": ("tool_root", tool_hang.RING),
    }
    for name, (body, point) in found.items():
        on = world.data.body(body)
        expected = on.xpos + on.xmat.reshape(3, 3) @ point
        np.testing.assert_allclose(world.data.site(name).xpos, expected, atol=1e-4, err_msg=name)
    grip, hook = world.model.geom("frame_grip_frame").pos, world.model.geom("frame_hook_frame")
    np.testing.assert_allclose(grip, tool_hang.GRIP, atol=1e-4)
    np.testing.assert_allclose(hook.pos + hook.size * [0.0, 0.0, 1.0], tool_hang.HOOK, atol=1e-4)
    walls = [world.model.geom(f"stand_wall{i}").pos for i in range(4)]
    np.testing.assert_allclose(np.mean(walls, axis=0)[:2], tool_hang.HOLE[:2], atol=1e-6)


def test_refuses_another_task() -> None:
    with pytest.raises(ConfigError, match="stand_x"):
        expert("tool_hang", make(EnvConfig()).specs)
