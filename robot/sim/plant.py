"""Fills the records that compiled code works on: where the physics is, and what robosuite's controllers were given."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robot.sim.compiled import records
from robot.sim.compiled.records import ARM, WORLD, N

KINDS = {
    "OSC_POSE": records.OSC_POSE,
    "OSC_POSITION": records.OSC_POSITION,
    "JOINT_POSITION": records.JOINT_POSITION,
    "JOINT_VELOCITY": records.JOINT_VELOCITY,
    "JOINT_TORQUE": records.JOINT_TORQUE,
}
"""Compiled controllers by robosuite's names."""

_OSC = (records.OSC_POSE, records.OSC_POSITION)
_NEEDS_MASS = (*_OSC, records.JOINT_POSITION)


@cache
def _library() -> ctypes.CDLL:
    """The MuJoCo library that the `mujoco` package has already loaded."""
    folder = Path(mujoco.__file__).parent
    return ctypes.CDLL(str(next(path for path in sorted(folder.glob("libmujoco*")) if path.is_file())))


def _address(function: str) -> int:
    pointer = ctypes.cast(getattr(_library(), function), ctypes.c_void_p).value
    return int(pointer or 0)


def arms_of(arena: Any) -> np.ndarray:
    """One `ARM` record for each arm of a robosuite environment that has been reset."""
    model, data = arena.sim.model._model, arena.sim.data._data
    arms = np.zeros(len(arena.robots), ARM)
    for arm, robot in zip(arms, arena.robots, strict=True):
        _describe(arm, robot, model, data)
        _tune(arm, robot, model)
        begin(arm, robot)
    return arms


class World:
    """The `WORLD` record, and the memory that it has the addresses of.

    Attributes:
        record: Shape (1,).
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, arms: np.ndarray) -> None:
        nv = model.nv
        self._model, self._data = model, data
        self._jac_pos, self._jac_rot, self._full = np.zeros((3, nv)), np.zeros((3, nv)), np.zeros((nv, nv))
        self.record = np.zeros(1, WORLD)
        fields = {
            "step1": _address("mj_step1"),
            "step2": _address("mj_step2"),
            "jac_site": _address("mj_jacSite"),
            "full_m": _address("mj_fullM"),
            "model": model._address,
            "data": data._address,
            "inertia_at": data.qM.ctypes.data,
            "qpos_at": data.qpos.ctypes.data,
            "qvel_at": data.qvel.ctypes.data,
            "bias_at": data.qfrc_bias.ctypes.data,
            "ctrl_at": data.ctrl.ctypes.data,
            "jac_pos_at": self._jac_pos.ctypes.data,
            "jac_rot_at": self._jac_rot.ctypes.data,
            "full_at": self._full.ctypes.data,
            "nq": model.nq,
            "nv": nv,
            "nu": model.nu,
            "needs_mass": int(np.isin(arms["kind"], _NEEDS_MASS).any()),
        }
        for name, value in fields.items():
            self.record[name] = value


def begin(arm: Any, robot: Any) -> None:
    """Take the posture from a reset robot, hold its pose, let the fingers rest, and forget the last episode.

    robosuite computes the mass matrix of the very first substep before it places the fingers. To stay on its
    trajectories, that substep uses the same matrix.
    """
    controller, n = robot.part_controllers[robot.arms[0]], int(arm["n"])
    arm["posture"][:n] = controller.initial_joint
    hold(arm)
    if arm["kind"] in _NEEDS_MASS:
        arm["mass"][:n, :n] = controller.mass_matrix
        arm["use_given_mass"] = 1


def hold(arm: Any) -> None:
    """Hold the pose of the next substep, let the fingers rest, and forget the errors of the past."""
    for field in ("finger", "asked", "goal", "integral", "last_error", "ring"):
        arm[field][...] = 0.0
    for field in ("ring_size", "is_saturated", "use_given_mass"):
        arm[field] = 0
    arm["ring_at"] = records.RING - 1
    arm["is_pending"] = arm["is_relative"] = 1


def _describe(arm: Any, robot: Any, model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Where the arm is in the model."""
    name = robot.arms[0]
    controller, gripper = robot.part_controllers[name], robot.gripper[name]
    actuators = robot._ref_actuators_indexes_dict
    fingers = actuators.get(robot.get_gripper_name(name), [])
    base = model.site(f"{controller.naming_prefix}{controller.part_name}_center").id
    arm["kind"] = KINDS[controller.name]
    arm["is_absolute"] = getattr(controller, "input_type", "delta") == "absolute"
    systems = ((0, 0, 3), (3, 3, 3), (6, 0, 6)) if getattr(controller, "uncoupling", False) else ((0, 0, 6), (6, 0, 6))
    arm["n_systems"] = len(systems)
    for i, (at, row, size) in enumerate(systems):
        arm["system_at"][i], arm["system_row"][i], arm["system_size"][i] = at, row, size
    arm["n"], arm["g"] = len(controller.qpos_index), len(fingers)
    arm["has_gripper"] = gripper.dof
    site = model.site(gripper.important_sites["grip_site"] if controller.ref_name is None else controller.ref_name).id
    arm["site"], arm["base_site"] = site, base
    arm["base_moves"] = model.body_weldid[model.site_bodyid[base]] != 0
    arm["tool_pos_at"], arm["tool_mat_at"] = data.site_xpos[site].ctypes.data, data.site_xmat[site].ctypes.data
    arm["base_pos_at"], arm["base_mat_at"] = data.site_xpos[base].ctypes.data, data.site_xmat[base].ctypes.data
    for field, values in (
        ("qpos", controller.qpos_index),
        ("dof", controller.qvel_index),
        ("ctrl", actuators[name]),
        ("finger_ctrl", fingers),
    ):
        arm[field][: len(values)] = values


def _tune(arm: Any, robot: Any, model: mujoco.MjModel) -> None:
    """What the controller and the gripper were configured with."""
    name, n, g = robot.arms[0], int(arm["n"]), int(arm["g"])
    controller, gripper = robot.part_controllers[name], robot.gripper[name]
    for field in ("kp", "ki", "kd"):
        values = getattr(controller, field, None)
        if values is not None:
            arm[field][: len(values)] = values
    span_in = controller.input_max - controller.input_min
    scale = np.abs(controller.output_max - controller.output_min) / np.abs(span_in)
    middle_in, middle_out = controller.input_max + controller.input_min, controller.output_max + controller.output_min
    arm["scale"][: len(scale)] = scale
    arm["shift"][: len(scale)] = 0.5 * middle_out - 0.5 * middle_in * scale
    limits = {
        "JOINT_POSITION": getattr(controller, "position_limits", None),
        "JOINT_VELOCITY": getattr(controller, "velocity_limits", None),
        "JOINT_TORQUE": getattr(controller, "torque_limits", None),
    }.get(controller.name)
    arm["goal_low"], arm["goal_high"] = -np.inf, np.inf
    # robosuite does not apply the limits of joints to absolute positions.
    if limits is not None and not arm["is_absolute"]:
        arm["goal_low"][:n], arm["goal_high"][:n] = limits[0], limits[1]
    arm["own_low"][:n], arm["own_high"][:n] = controller.actuator_limits
    indices, fingers = arm["ctrl"][:n], arm["finger_ctrl"][:g]
    arm["torque_low"][:n], arm["torque_high"][:n] = model.actuator_ctrlrange[indices].T
    arm["finger_low"][:g], arm["finger_high"][:g] = model.actuator_ctrlrange[fingers].T
    if g:
        # `format_action` integrates a command: from rest, one call with +1 gives the rate in a control period.
        kept, gripper.current_action = gripper.current_action, np.zeros(gripper.dof)
        arm["finger_rate"][:g] = gripper.format_action(np.ones(1))
        gripper.current_action = kept


def fits(robot: Any) -> bool:
    """Whether a record has room for a robot's arm and gripper."""
    name = robot.arms[0]
    return len(robot.part_controllers[name].qpos_index) <= N and robot.gripper[name].dof <= 1
