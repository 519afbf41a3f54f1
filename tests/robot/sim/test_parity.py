"""Every task and controller against robosuite's own `env.step`: 100 steps of random actions, equal to 1e-6.

Both begin in the same state and take the same actions, open-loop. Differences are rounding, some 1e-13. MuJoCo's
contact solver stops at a tolerance, though, so rounding can decide after which iteration. Then robosuite parts from us,
and at the same step from itself if its torques are disturbed by 1e-14 of their size (a test shows it).
The seeds are such that this does not happen within the 100 steps.
"""

from typing import Any

import mujoco
import numpy as np
import pytest

from robot.control.action_spaces import (
    matrix_from_rot6d,
    matrix_from_rotvec,
    rot6d_from_matrix,
)
from robot.sim import make
from robot.sim.config import TASK_NAMES, EnvConfig
from robot.sim.controllers import ACTION_SPACES, robosuite_action
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.observing import STATE
from robot.sim.tasks import task
from robot.sim.world import build, seeded

STEPS, TOLERANCE = 100, 1e-6
SEEDS = {
    ("two_arm_peg_in_hole", "OSC_POSE", False): 8,
    ("two_arm_handover", "OSC_POSE", False): 1,
    ("two_arm_transport", "OSC_POSE", False): 3,
}
"""Seed where it is not 0: see above."""

CASES = [
    (name, controller, kind)
    for name in TASK_NAMES
    for controller in ACTION_SPACES
    for kind in ACTION_SPACES[controller]
]
ROBOTS = ("Sawyer", "IIWA", "UR5e", "Kinova3", "Jaco")


def is_fast(name: str, controller: str, is_absolute: bool) -> bool:
    return name == "lift" or (controller == "OSC_POSE" and not is_absolute)


def config_of(name: str, controller: str, is_absolute: bool, robot: str = "Panda") -> EnvConfig:
    return EnvConfig(
        task=name, robot=robot, controller=controller, absolute=is_absolute, horizon=10**6, success_hold=10**6
    )


def robosuites(config: EnvConfig) -> Any:
    """robosuite's environment of the same model; its observables are only computed when they are asked for."""
    arena = build(config, task(config.task))
    arena._update_observables, arena.update_now = lambda force=False: None, arena._update_observables
    return arena


def arms_of(ours: RobosuiteEnvironment, observation: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What an observation says of each arm."""
    names, state = ours.specs.observation[STATE].names, observation[STATE].astype(np.float64)
    found = []
    for i in range(ours.n_arms):
        prefix = "" if ours.n_arms == 1 else f"robot{i}_"
        at = names.index(f"{prefix}ee_x")
        parts = {
            "q": [k for k, name in enumerate(names) if name.startswith(f"{prefix}q")],
            "fingers": [k for k, name in enumerate(names) if name.startswith(f"{prefix}finger")],
        }
        found.append({"pos": state[at : at + 3], "R": matrix_from_rot6d(state[at + 3 : at + 9])})
        found[-1] |= {key: state[indices] for key, indices in parts.items()}
    return found


def random_action(space: str, arm: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Of one arm, without its gripper; goals lie around where the arm began."""
    if space == "ee_pose":
        R_base_tool = matrix_from_rotvec(rng.uniform(-0.3, 0.3, 3)) @ arm["R"]
        return np.concatenate([arm["pos"] + rng.uniform(-0.08, 0.08, 3), rot6d_from_matrix(R_base_tool)])
    if space == "ee_position":
        return arm["pos"] + rng.uniform(-0.08, 0.08, 3)
    if space == "joint_position":
        return arm["q"] + rng.uniform(-0.2, 0.2, len(arm["q"]))
    width = {"ee_delta": 6, "ee_delta_position": 3}.get(space, len(arm["q"]))
    return rng.uniform(-1.0, 1.0, width)


def random_actions(ours: RobosuiteEnvironment, first: dict[str, np.ndarray], seed: int) -> list[np.ndarray]:
    rng, arms = np.random.default_rng(seed), arms_of(ours, first)
    has_gripper = any(name.endswith("gripper") for name in ours.specs.action.names)
    actions = []
    for _ in range(STEPS):
        parts = [random_action(ours.specs.action_space, arm, rng) for arm in arms]
        grips = rng.uniform(-1.0, 1.0, (len(arms), 1)) if has_gripper else np.empty((len(arms), 0))
        actions.append(np.concatenate([np.append(part, grip) for part, grip in zip(parts, grips, strict=True)]))
    return actions


def assert_same_observation(
    ours: RobosuiteEnvironment, observation: dict[str, np.ndarray], theirs: Any, name: str
) -> None:
    """Ours, put back into the world, against robosuite's observables and bodies."""
    theirs.update_now(force=True)
    observed = theirs._get_observations()
    for i, arm in enumerate(arms_of(ours, observation)):
        base = theirs.sim.data._data.site(f"robot{i}_right_center")
        R_world_base = base.xmat.reshape(3, 3)
        np.testing.assert_allclose(base.xpos + R_world_base @ arm["pos"], observed[f"robot{i}_eef_pos"], atol=TOLERANCE)
        np.testing.assert_allclose(arm["q"], observed[f"robot{i}_joint_pos"], atol=TOLERANCE)
        if len(arm["fingers"]):
            np.testing.assert_allclose(arm["fingers"], observed[f"robot{i}_gripper_qpos"], atol=TOLERANCE)
        quat = np.roll(observed[f"robot{i}_eef_quat_site"], 1)
        R_world_tool = np.zeros(9)
        mujoco.mju_quat2Mat(R_world_tool, quat)
        np.testing.assert_allclose(R_world_base @ arm["R"], R_world_tool.reshape(3, 3), atol=1e-5)
    assert_same_objects(ours, observation, theirs, name)


def assert_same_objects(ours: RobosuiteEnvironment, observation: dict[str, np.ndarray], theirs: Any, name: str) -> None:
    key = "observation.environment_state"
    names, world = ours.specs.observation[key].names, observation[key].astype(np.float64)
    data, known = theirs.sim.data._data, task(name)
    base = data.site("robot0_right_center")
    for item, reference in known.objects.items():
        kind, _, body = reference.partition(":")
        there = (data.body(body) if kind == "body" else data.site(body)).xpos
        at = names.index(f"{item}_x")
        here = base.xpos + base.xmat.reshape(3, 3) @ world[at : at + 3]
        np.testing.assert_allclose(here, there, atol=TOLERANCE)
    for item, joint in known.joints.items():
        assert world[names.index(item)] == pytest.approx(data.joint(joint).qpos[0], abs=TOLERANCE)
    if known.name == "wipe":
        assert world[names.index("wiped")] == len(theirs.wiped_markers) / theirs.num_markers
        radius, centroid, _ = theirs._get_wipe_information()
        at = names.index("dirt_x")
        np.testing.assert_allclose(base.xpos + base.xmat.reshape(3, 3) @ world[at : at + 3], centroid, atol=TOLERANCE)
        assert world[names.index("dirt_radius")] == pytest.approx(radius, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "controller", "is_absolute"),
    [pytest.param(*case, marks=() if is_fast(*case) else pytest.mark.slow) for case in CASES],
)
def test_random_actions_give_robosuites_trajectory(name: str, controller: str, is_absolute: bool) -> None:
    config = config_of(name, controller, is_absolute)
    ours, theirs, seed = make(config), robosuites(config), SEEDS.get((name, controller, is_absolute), 0)
    assert ours.stepper is not None
    observation, _ = ours.reset(seed=seed)
    with seeded(seed):
        theirs.reset()
    np.testing.assert_array_equal(ours.data.qpos, theirs.sim.data.qpos)
    assert_same_observation(ours, observation, theirs, name)
    for action in random_actions(ours, observation, seed):
        observation, reward, _, _, info = ours.step(action)
        _, their_reward, _, _ = theirs.step(robosuite_action(action, config, ours.n_arms))
        np.testing.assert_allclose(ours.data.qpos, theirs.sim.data.qpos, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(ours.data.qvel, theirs.sim.data.qvel, rtol=0, atol=TOLERANCE)
        assert reward == pytest.approx(their_reward, abs=TOLERANCE)
        assert info["success"] == bool(theirs._check_success())
    assert_same_observation(ours, observation, theirs, name)


def parts_at(ours: RobosuiteEnvironment, theirs: Any, actions: list[np.ndarray], other: Any = None) -> int | None:
    """The step after which robosuite's velocities differ by 1e-6 from ours, or from those of another of its own."""
    for step, action in enumerate(actions):
        theirs.step(action)
        if other is None:
            ours.step(action)
        else:
            other.step(action)
        beside = ours.data if other is None else other.sim.data
        if np.abs(beside.qvel - theirs.sim.data.qvel).max() > TOLERANCE:
            return step
    return None


@pytest.mark.slow
def test_where_we_part_robosuite_parts_from_itself_with_torques_that_are_wrong_by_rounding() -> None:
    config = config_of("two_arm_peg_in_hole", "OSC_POSE", False)
    ours, theirs, other = make(config), robosuites(config), robosuites(config)
    control, noise = other._pre_action, np.random.default_rng(0)

    def imprecise(action: np.ndarray, policy_step: bool = False) -> None:
        control(action, policy_step)
        other.sim.data.ctrl[:] *= 1.0 + 1e-14 * noise.normal(size=other.sim.data.ctrl.shape)

    other._pre_action = imprecise
    for seed in range(4):
        actions = random_actions(ours, ours.reset(seed=seed)[0], seed)
        parted = []
        for beside in (None, other):
            for arena in (theirs, other):
                with seeded(seed):
                    arena.reset()
            parted.append(parts_at(ours, theirs, actions, beside))
        assert None not in parted
        assert abs(parted[0] - parted[1]) <= 2


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("controller", ["OSC_POSE", pytest.param("JOINT_POSITION", marks=pytest.mark.slow)])
def test_other_robots_give_the_same_torques_in_the_same_state(robot: str, controller: str) -> None:
    # Robotiq's fingers touch themselves at a dozen points, where rounding grows to centimetres in two control steps,
    # robosuite's as well as ours. So each substep begins anew from robosuite's state.
    config = config_of("lift", controller, False, robot)
    ours, theirs = make(config), robosuites(config)
    ours.reset(seed=0)
    with seeded(0):
        theirs.reset()
    whole = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(ours.model, whole))
    rng = np.random.default_rng(0)
    for _ in range(20):
        mujoco.mj_getState(theirs.sim.model._model, theirs.sim.data._data, state, whole)
        mujoco.mj_setState(ours.model, ours.data, state, whole)
        action = rng.uniform(-1.0, 1.0, ours.specs.action.shape)
        ours.stepper.act(action, ours.specs.action)
        theirs.control_timestep = theirs.model_timestep  # one substep is a step
        theirs.step(action)
        ours.stepper.run(1)
        np.testing.assert_allclose(ours.data.ctrl, theirs.sim.data.ctrl, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("robot", ["Panda+UR5e", "Jaco+Kinova3"])
def test_two_different_arms_stand_side_by_side(robot: str) -> None:
    ours = make(config_of("two_arm_lift", "JOINT_POSITION", False, robot))
    observation, _ = ours.reset(seed=0)
    assert ours.stepper is not None
    before = [arm["q"] for arm in arms_of(ours, observation)]
    action = np.zeros(ours.specs.action.shape)
    action[ours.specs.action.names.index("robot1_q1")] = 1.0
    for _ in range(5):
        observation, *_ = ours.step(action)
    first, second = (arm["q"] - q for arm, q in zip(arms_of(ours, observation), before, strict=True))
    assert np.abs(first).max() < 0.02
    assert second[0] > 0.03
