"""What the compiled stepper works on: where the physics is, the controller's parameters, its goal, and its memory.

Legend: n arm joints, nv degrees of freedom of the world, g finger joints. Vectors and matrices are float64; poses are
in the world unless the name ends in `_base`.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np


class Plant(NamedTuple):
    """Where the physics is: addresses of C functions and structures, and views of MjData.

    The views stay valid across `mj_resetData`, which clears memory but does not move it.
    """

    step1: int
    step2: int
    jac_site: int
    full_m: int
    model: int
    data: int
    inertia: int  # address of the sparse mass matrix
    site: int
    qpos: np.ndarray  # (nq,)
    qvel: np.ndarray  # (nv,)
    bias: np.ndarray  # (nv,) gravity, Coriolis and centrifugal torques
    ctrl: np.ndarray  # (nu,)
    tool_pos: np.ndarray  # (3,)
    tool_mat: np.ndarray  # (9,) row by row
    base_pos: np.ndarray  # (3,)
    base_mat: np.ndarray  # (9,)
    arm_qpos: np.ndarray  # (n,) indices into qpos
    arm_dof: np.ndarray  # (n,) indices into qvel
    arm_ctrl: np.ndarray  # (n,) indices into ctrl
    finger_ctrl: np.ndarray  # (g,) indices into ctrl


class Gains(NamedTuple):
    """What robosuite's controller was configured with."""

    kp: np.ndarray  # (6,) position then orientation
    kd: np.ndarray  # (6,)
    torque_low: np.ndarray  # (n,)
    torque_high: np.ndarray  # (n,)
    delta_scale: np.ndarray  # (6,) from an action in [-1, 1] to metres and radians
    finger_rate: np.ndarray  # (g,) change of the fingers' setting in one control period, with sign
    finger_low: np.ndarray  # (g,) ctrl at setting -1
    finger_high: np.ndarray  # (g,) ctrl at setting +1
    is_uncoupled: bool


class Goal(NamedTuple):
    """What the controller strives for; written by the setters, read by `advance`."""

    delta: np.ndarray  # (6,) scaled; taken relative to the pose reached when the next substep begins
    is_pending: np.ndarray  # (1,) bool: whether `delta` waits for that substep
    pos_base: np.ndarray  # (3,)
    mat_base: np.ndarray  # (3, 3)
    posture: np.ndarray  # (n,) joint positions that the null space is drawn to
    finger: np.ndarray  # (g,) settings in [-1, 1]


class Work(NamedTuple):
    """Memory that a substep needs, allocated once."""

    jac_pos: np.ndarray  # (3, nv)
    jac_rot: np.ndarray  # (3, nv)
    full: np.ndarray  # (nv, nv)
    jac: np.ndarray  # (6, n)
    mass: np.ndarray  # (n, n)
    factor: np.ndarray  # (n, n)
    half: np.ndarray  # (n, 6) L^-1 J^T
    inverse_lambda: np.ndarray  # (6, 6) J M^-1 J^T
    square: np.ndarray  # (6, 6)
    vectors: np.ndarray  # (6, 6)
    rhs: np.ndarray  # (6,)
    wrench: np.ndarray  # (6,)
    posture: np.ndarray  # (n,)
    torque: np.ndarray  # (n,)
    use_given_mass: np.ndarray  # (1,) bool: the next substep takes `mass` as it is
    jac_pos_at: int
    jac_rot_at: int
    full_at: int


@cache
def _library() -> ctypes.CDLL:
    """The MuJoCo library that the `mujoco` package has already loaded."""
    folder = Path(mujoco.__file__).parent
    return ctypes.CDLL(str(next(path for path in sorted(folder.glob("libmujoco*")) if path.is_file())))


def _address(function: str) -> int:
    pointer = ctypes.cast(getattr(_library(), function), ctypes.c_void_p).value
    return int(pointer or 0)


def _indices(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def plant_of(model: mujoco.MjModel, data: mujoco.MjData, robot: Any) -> Plant:
    """Addresses and views for a robosuite robot in a world."""
    arm = robot.arms[0]
    controller = robot.part_controllers[arm]
    actuators = robot._ref_actuators_indexes_dict
    base = model.site(f"{controller.naming_prefix}{controller.part_name}_center").id
    site = model.site(controller.ref_name).id
    return Plant(
        step1=_address("mj_step1"),
        step2=_address("mj_step2"),
        jac_site=_address("mj_jacSite"),
        full_m=_address("mj_fullM"),
        model=model._address,
        data=data._address,
        inertia=data.qM.ctypes.data,
        site=site,
        qpos=data.qpos,
        qvel=data.qvel,
        bias=data.qfrc_bias,
        ctrl=data.ctrl,
        tool_pos=data.site_xpos[site],
        tool_mat=data.site_xmat[site],
        base_pos=data.site_xpos[base],
        base_mat=data.site_xmat[base],
        arm_qpos=_indices(controller.qpos_index),
        arm_dof=_indices(controller.qvel_index),
        arm_ctrl=_indices(actuators[arm]),
        finger_ctrl=_indices(actuators[robot.get_gripper_name(arm)]),
    )


def gains_of(robot: Any, plant: Plant) -> Gains:
    """The parameters of a robosuite robot's controller and gripper."""
    controller, gripper = robot.part_controllers[robot.arms[0]], robot.gripper[robot.arms[0]]
    ctrl_range = robot.sim.model._model.actuator_ctrlrange
    # `format_action` integrates a command: from rest, one call with +1 gives the setting's rate in a control period.
    kept, gripper.current_action = gripper.current_action, np.zeros(len(plant.finger_ctrl))
    finger_rate = np.array(gripper.format_action(np.ones(1)), np.float64)
    gripper.current_action = kept
    return Gains(
        kp=np.array(controller.kp, np.float64),
        kd=np.array(controller.kd, np.float64),
        torque_low=ctrl_range[plant.arm_ctrl, 0].copy(),
        torque_high=ctrl_range[plant.arm_ctrl, 1].copy(),
        delta_scale=np.array(controller.output_max, np.float64),
        finger_rate=finger_rate,
        finger_low=ctrl_range[plant.finger_ctrl, 0].copy(),
        finger_high=ctrl_range[plant.finger_ctrl, 1].copy(),
        is_uncoupled=bool(controller.uncoupling),
    )


def goal_of(n: int, fingers: int) -> Goal:
    """A goal for n arm joints that holds still."""
    return Goal(
        delta=np.zeros(6),
        is_pending=np.zeros(1, np.bool_),
        pos_base=np.zeros(3),
        mat_base=np.eye(3),
        posture=np.zeros(n),
        finger=np.zeros(fingers),
    )


def work_of(n: int, nv: int) -> Work:
    """Memory for n arm joints in a world of nv degrees of freedom."""
    jac_pos, jac_rot, full = np.zeros((3, nv)), np.zeros((3, nv)), np.zeros((nv, nv))
    return Work(
        jac_pos=jac_pos,
        jac_rot=jac_rot,
        full=full,
        jac=np.zeros((6, n)),
        mass=np.zeros((n, n)),
        factor=np.zeros((n, n)),
        half=np.zeros((n, 6)),
        inverse_lambda=np.zeros((6, 6)),
        square=np.zeros((6, 6)),
        vectors=np.zeros((6, 6)),
        rhs=np.zeros(6),
        wrench=np.zeros(6),
        posture=np.zeros(n),
        torque=np.zeros(n),
        use_given_mass=np.zeros(1, np.bool_),
        jac_pos_at=jac_pos.ctypes.data,
        jac_rot_at=jac_rot.ctypes.data,
        full_at=full.ctypes.data,
    )
