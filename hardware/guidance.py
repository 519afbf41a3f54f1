"""What guides an arm: who makes its targets from a plan, and which checks they pass, by the space of its targets."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from robot.contract import ArmSpecs
from robot.control.action_spaces import ee_pose_from_delta, matrix_from_rot6d
from robot.control.limits import JointLimits, Limits, PoseLimits
from robot.control.plan import Follower, Plan, ToTarget
from robot.control.safety import Check, Clamp, Situation, pose_checks
from robot.errors import BridgeError

if TYPE_CHECKING:
    from robot.control.clearance import Clearance


class Guide(Protocol):
    """Makes the target of every cycle: `robot.control.plan.Follower`, `robot.control.reference.JointFollower`."""

    row_index: int
    is_resting: bool
    applied_sequence: int
    clamp: Clamp

    def rest(self, situation: Situation, gripper: float | None = None) -> None:
        """Hold, until a row begins."""

    def brake(self, now_ns: int) -> None:
        """Drop the plan and come to rest."""

    def replan(self, now_ns: int, situation: Situation) -> None:
        """Take note of a new chunk in the plan."""

    def lead_home(self, now_ns: int, situation: Situation) -> bool:
        """Set out for the home position; False where only the device can go there."""

    def fill(self, now_ns: int, situation: Situation, target: np.ndarray) -> None:
        """Fill the target of now."""


def delta_to_target(action: np.ndarray, ee_pos: np.ndarray, ee_rot6d: np.ndarray, target: np.ndarray) -> None:
    """Fill a target (10,) from an `ee_delta` (7,) in [-1, 1] and the tool's pose."""
    target[:] = ee_pose_from_delta(action, ee_pos, matrix_from_rot6d(ee_rot6d))


def pose_to_target(action: np.ndarray, ee_pos: np.ndarray, ee_rot6d: np.ndarray, target: np.ndarray) -> None:
    """Fill a target (10,) from an `ee_pose` (10,)."""
    target[:] = action


TO_TARGET: dict[str, ToTarget] = {"ee_delta": delta_to_target, "ee_pose": pose_to_target}


def guidance(
    specs: ArmSpecs, limits: Limits, model_path: Path | None, plan: Plan
) -> tuple[Guide, list[Check], "Clearance | None"]:
    """The guide of an arm, the checks that its targets pass, in order, and of these the one that measures clearance.

    Args:
        specs: Of the arm.
        limits: Of its target space.
        model_path: Kinematics of an arm that follows joints.
        plan: What the guide follows.

    Raises:
        BridgeError: The arm cannot be guided by such actions, or its model is missing.
    """
    space, dt_s = specs.environment.action_space, 1.0 / specs.rate_hz
    if isinstance(limits, PoseLimits):
        if space not in TO_TARGET:
            raise BridgeError(f"An arm that follows poses takes actions of {', '.join(TO_TARGET)}, not {space}.")
        return Follower(plan, limits, TO_TARGET[space]), pose_checks(limits, dt_s), None
    if not isinstance(limits, JointLimits) or model_path is None:
        raise BridgeError(f"{specs.robot} follows its joints; that needs limits of joints and arm.model.")
    from robot.control.clearance import Clearance
    from robot.control.joint_checks import joint_checks
    from robot.control.kinematics import ArmModel
    from robot.control.reference import JointFollower

    model = ArmModel.load(model_path, limits.table_z_m)
    found = joint_checks(limits, dt_s, model)
    clearance = next(check for check in found if isinstance(check, Clearance))
    return JointFollower(plan, limits, model, space), found, clearance
