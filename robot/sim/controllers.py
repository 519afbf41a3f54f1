"""The controllers by name: what each is called in robosuite, and the action space it gives an environment."""

from typing import Any

import numpy as np

from robot.control.action_spaces import matrix_from_rot6d, rotvec_from_matrix
from robot.errors import ConfigError, unknown_name
from robot.sim.config import EnvConfig

ACTION_SPACES: dict[str, dict[bool, str]] = {
    "OSC_POSE": {False: "ee_delta", True: "ee_pose"},
    "OSC_POSITION": {False: "ee_delta_position", True: "ee_position"},
    "JOINT_POSITION": {False: "joint_delta", True: "joint_position"},
    "JOINT_VELOCITY": {False: "joint_velocity"},
    "JOINT_TORQUE": {False: "joint_torque"},
}
"""Action space by the controller's name and by whether actions are absolute."""


def action_space(config: EnvConfig) -> str:
    """The action space of an environment, for each of its arms.

    Raises:
        UnknownNameError: The controller does not exist.
        ConfigError: It has no absolute goals.
    """
    if config.controller not in ACTION_SPACES:
        raise unknown_name("controller", config.controller, ACTION_SPACES)
    spaces = ACTION_SPACES[config.controller]
    if config.absolute not in spaces:
        able = ", ".join(name for name, kinds in ACTION_SPACES.items() if True in kinds)
        raise ConfigError(f"env.absolute is true, but {config.controller} has no goals to reach; {able} have.")
    return spaces[config.absolute]


def robosuite_config(robot: str, config: EnvConfig) -> dict[str, Any]:
    """robosuite's description of the controllers of one robot's arm and gripper."""
    from robosuite.controllers import load_composite_controller_config, load_part_controller_config

    whole = load_composite_controller_config(robot=robot) or load_composite_controller_config(controller="BASIC")
    arms = whole["body_parts"].get("arms", whole["body_parts"])
    for name, part in arms.items():
        if part["type"] != config.controller:
            part = {**load_part_controller_config(default_controller=config.controller), "gripper": {"type": "GRIP"}}
        arms[name] = {**part, "input_type": "absolute" if config.absolute else part.get("input_type", "delta")}
    return whole


def robosuite_action(action: np.ndarray, config: EnvConfig, arms: int) -> np.ndarray:
    """An action of ours as robosuite takes it: the rotation of an absolute pose as an axis-angle vector."""
    if action_space(config) != "ee_pose":
        return action
    parts = [
        np.concatenate([part[:3], rotvec_from_matrix(matrix_from_rot6d(part[3:9])), part[9:]])
        for part in np.split(np.asarray(action, np.float64), arms)
    ]
    return np.concatenate(parts)
