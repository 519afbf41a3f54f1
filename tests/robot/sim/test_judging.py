"""Reward and success against robosuite's own, in states that no random policy reaches."""

from typing import Any

import mujoco
import numpy as np
import pytest

from robot.sim import make
from robot.sim.config import TASK_NAMES, EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.judging import CONDITIONS

GOALS: dict[str, dict[str, str]] = {
    "stack": {"cubeA_joint0": "cubeB_main"},
    "pick_place_can": {"Can_joint0": "VisualCan_main"},
    "pick_place": {f"{name}_joint0": f"Visual{name}_main" for name in ("Milk", "Bread", "Cereal", "Can")},
    "nut_assembly_square": {"SquareNut_joint0": "peg1"},
    "nut_assembly": {"SquareNut_joint0": "peg1", "RoundNut_joint0": "peg2"},
    "two_arm_transport": {
        "payload_joint0": "transport_target_bin_root",
        "trash_joint0": "transport_trash_bin_root",
    },
}
"""Where each free object has to go, roughly: its joint to a body."""

MAY_NEVER_SUCCEED = {"tool_hang", "two_arm_handover", "two_arm_peg_in_hole", "wipe"}
"""Success takes a grasp or a fit that no placement at random finds; experts' tests cover some."""


def scatter(environment: RobosuiteEnvironment, name: str, rng: np.random.Generator) -> None:
    """Put everything that moves where it should go, more or less, and the arms anywhere near where they are."""
    data = environment.data
    for joint, body in GOALS.get(name, {}).items():
        place = data.joint(joint).qpos
        # A bin's body is at the middle of its height, and contact with its bottom counts.
        low, high = (-0.075, -0.03) if name == "two_arm_transport" else (-0.02, 0.08)
        place[:3] = data.body(body).xpos + rng.normal(size=3) * 0.03 + [0.0, 0.0, rng.uniform(low, high)]
    if name == "lift":
        data.joint("cube_joint0").qpos[2] += rng.uniform(0.0, 0.08)
    if name == "door":
        data.joint("Door_hinge").qpos[0] = rng.uniform(0.0, 0.6)
    if name == "two_arm_handover":
        place = data.joint("hammer_joint0").qpos
        place[2] += rng.uniform(0.0, 0.6)
        mujoco.mju_axisAngle2Quat(place[3:], rng.normal(size=3), rng.uniform(-3.0, 3.0))
    if name == "two_arm_lift":
        place = data.joint("pot_joint0").qpos
        place[2] += rng.uniform(0.0, 0.3)
        tilt = np.zeros(4)
        mujoco.mju_axisAngle2Quat(tilt, [1.0, 0.0, 0.0], rng.uniform(0.0, 1.0))
        mujoco.mju_mulQuat(place[3:], tilt, place[3:].copy())
    for joint in range(7):
        data.joint(f"robot0_joint{joint + 1}").qpos[0] += rng.normal() * 0.2
    mujoco.mj_forward(environment.model, data)


def verdict_of(arena: Any) -> tuple[float, bool]:
    return float(arena.reward(None)), bool(arena._check_success())


@pytest.mark.parametrize("name", TASK_NAMES)
def test_verdicts_are_robosuites(name: str) -> None:
    environment, rng = make(EnvConfig(task=name)), np.random.default_rng(0)
    verdicts = []
    for seed in range(60):
        environment.reset(seed=seed)
        scatter(environment, name, rng)
        verdicts.append(environment._judge())
        assert verdicts[-1] == pytest.approx(verdict_of(environment._arena))
    if name not in MAY_NEVER_SUCCEED:
        assert 0 < sum(success for _, success in verdicts) < len(verdicts)


def test_no_wiped_marker_is_missed() -> None:
    environment = make(EnvConfig(task="wipe"))
    arena = environment._arena
    observation, _ = environment.reset(seed=0)
    names = environment.specs.observation["observation.environment_state"].names
    at = names.index("dirt_dx")
    for step in range(80):
        towards = np.clip(observation["observation.environment_state"][at : at + 3] / 0.05, -1.0, 1.0)
        sweep = [0.0, 0.5 * np.sin(0.4 * step), -0.3]
        observation, *_ = environment.step(np.clip([*(towards + sweep), 0.0, 0.0, 0.0], -1.0, 1.0))
        counted = len(arena.wiped_markers)
        arena.reward(None)  # counts whatever we did not ask it to
        assert len(arena.wiped_markers) == counted
    assert observation["observation.environment_state"][names.index("wiped")] == counted / arena.num_markers > 0.05


def test_shaped_rewards_are_robosuites() -> None:
    environment = make(EnvConfig(task="stack", reward_shaping=True))
    environment.reset(seed=0)
    _, reward, *_ = environment.step(np.zeros(7))
    assert 0.0 < reward < 0.3
    assert reward == pytest.approx(environment._arena.reward(None))


def test_the_hammers_height_is_robosuites() -> None:
    environment, rng = make(EnvConfig(task="two_arm_handover")), np.random.default_rng(0)
    arena, high = environment._arena, CONDITIONS["two_arm_handover"](environment._arena)
    found = set()
    for seed in range(60):
        environment.reset(seed=seed)
        scatter(environment, "two_arm_handover", rng)
        _, _, hammer_height, table_height = arena._get_task_info()
        is_high = bool(hammer_height - table_height > arena.height_threshold)
        assert high() == is_high
        found.add(is_high)
    assert found == {False, True}
