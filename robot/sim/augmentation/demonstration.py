"""A demonstration as poses: where the tool was, where each action wanted it, and where the objects were."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import ee_delta_from_pose, ee_pose_from_delta, matrix_from_rot6d, rot6d_from_matrix
from robot.errors import EpisodeError
from robot.sim.augmentation.poses import matrix, pose_names, poses_of

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
SPACES = ("ee_delta", "ee_pose")
"""Action spaces whose actions say where the tool is to go."""


@dataclass(frozen=True)
class Trajectory:
    """T steps of one arm.

    Attributes:
        tool: Pose of the tool that each action answered, (T, 4, 4).
        goals: Pose that each action asked for, (T, 4, 4).
        gripper: What it asked of the gripper, (T,): -1 opens, 1 closes.
        objects: Pose of each object by its name, (T, 4, 4).
    """

    tool: np.ndarray
    goals: np.ndarray
    gripper: np.ndarray
    objects: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.gripper)


def check_specs(specs: EnvironmentSpecs) -> None:
    """Refuse a robot whose actions are not about its tool, or that has no gripper or more than one arm.

    Raises:
        EpisodeError: Says what is the matter.
    """
    state = specs.observation.get(STATE)
    if state is None or not set(pose_names("ee")) <= set(state.names):
        raise EpisodeError(
            f"Augmentation moves one arm by the pose of its tool, and there is none in {STATE} (ee_x, ...): "
            f"{', '.join(state.names[:3]) if state else 'it is not observed'} ... Take a task and a robot of one arm."
        )
    if specs.action_space not in SPACES or specs.action.names[-1:] != ("gripper",):
        raise EpisodeError(
            f"Segments are moved as poses of a tool with a gripper: augmentation acts in {' or '.join(SPACES)}, here "
            f"actions are {specs.action_space} ({', '.join(specs.action.names)}). Record with env.controller=OSC_POSE."
        )


def trajectory(
    specs: EnvironmentSpecs, state: np.ndarray, environment: np.ndarray, names: tuple[str, ...], actions: np.ndarray
) -> Trajectory:
    """The poses of an episode.

    Args:
        specs: Of the environment that it was recorded in.
        state: `observation.state`, (T, S).
        environment: Poses of objects, (T, E).
        names: Of the elements of `environment`.
        actions: (T, A).
    """
    tool = poses_of(state, specs.observation[STATE].names, "ee")
    goals = np.stack([goal(specs, action, pose) for action, pose in zip(actions, tool, strict=True)])
    things = [name.removesuffix("_r11") for name in names if name.endswith("_r11")]
    objects = {thing: poses_of(environment, names, thing) for thing in things}
    return Trajectory(tool, goals, np.asarray(actions[:, -1], np.float64), objects)


def goal(specs: EnvironmentSpecs, action: np.ndarray, tool: np.ndarray) -> np.ndarray:
    """The pose (4, 4) that an action asks for where the tool is at a pose (4, 4)."""
    wanted = np.asarray(action, np.float64)
    if specs.action_space == "ee_delta":
        wanted = ee_pose_from_delta(wanted, tool[:3, 3], tool[:3, :3])
    return matrix(wanted[:3], matrix_from_rot6d(wanted[3:9]))


def action(specs: EnvironmentSpecs, goal: np.ndarray, gripper: float, tool: np.ndarray) -> np.ndarray:
    """The action, inside its spec, that asks for a pose (4, 4) where the tool is at a pose (4, 4); float32."""
    wanted = np.concatenate([goal[:3, 3], rot6d_from_matrix(goal[:3, :3]), [gripper]])
    if specs.action_space == "ee_delta":
        wanted = ee_delta_from_pose(wanted, tool[:3, 3], tool[:3, :3])
    low, high = specs.action.bounds()
    return np.clip(wanted, low, high).astype(np.float32)
