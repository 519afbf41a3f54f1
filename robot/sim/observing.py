"""Observations, read from MjData without anything in between.

`observation.state` (18 for a Panda): tool position, tool 6-D rotation, finger positions, joint positions.
`observation.environment_state` (12 for each object): position, 6-D rotation, and position less the tool's.
All poses are in the robot's base frame; the tool frame is the site that robosuite's operational-space control moves.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot.control.action_spaces import ROT6D_NAMES
from robot.sim.compiled import pose_in_base
from robot.sim.tasks import Task
from robot.specs import ArraySpec, Specs

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
FINGER_NAMES = ("finger_left", "finger_right")


class Observer:
    """Fills observations of one world."""

    def __init__(self, arena: Any, task: Task) -> None:
        """Find sites, bodies and joints in a robosuite environment that has been reset."""
        robot, model, data = arena.robots[0], arena.sim.model._model, arena.sim.data._data
        arm = robot.arms[0]
        controller = robot.part_controllers[arm]
        tool = model.site(robot.gripper[arm].important_sites["grip_site"]).id
        base = model.site(f"{controller.naming_prefix}{controller.part_name}_center").id
        bodies = [model.body(name).id for name in task.objects.values()]
        self._base = (data.site_xpos[base], data.site_xmat[base])
        self._tool = (data.site_xpos[tool], data.site_xmat[tool])
        self._objects = [(data.xpos[body], data.xmat[body]) for body in bodies]
        self._qpos = data.qpos
        self._joints = np.array([*robot._ref_gripper_joint_pos_indexes[arm], *controller.qpos_index], dtype=np.int64)
        self.n_joints = len(controller.qpos_index)
        fingers = len(self._joints) - self.n_joints
        self._state = np.zeros(9 + len(self._joints))
        self._environment_state = np.zeros(12 * len(bodies))
        self.specs: Specs = {spec.key: spec for spec in (_state_spec(fingers, self.n_joints), _environment_spec(task))}

    def fill(self, out: Mapping[str, np.ndarray]) -> None:
        """Write the present observation into `out[key]`, casting to the type found there."""
        state, environment = self._state, self._environment_state
        pose_in_base(*self._tool, *self._base, state[:9])
        self._qpos.take(self._joints, out=state[9:], mode="clip")
        for i, body in enumerate(self._objects):
            part = environment[12 * i : 12 * i + 12]
            pose_in_base(*body, *self._base, part[:9])
            np.subtract(part[:3], state[:3], out=part[9:])
        out[STATE][...] = state
        out[ENVIRONMENT_STATE][...] = environment


def _state_spec(fingers: int, joints: int) -> ArraySpec:
    pose = ("ee_x", "ee_y", "ee_z", *(f"ee_{name}" for name in ROT6D_NAMES))
    finger_names = FINGER_NAMES if fingers == 2 else tuple(f"finger_{i + 1}" for i in range(fingers))
    names = (*pose, *finger_names, *(f"q{i + 1}" for i in range(joints)))
    units = ["m"] * 3 + ["1"] * 6 + ["m"] * fingers + ["rad"] * joints
    return ArraySpec(STATE, (len(names),), unit=" ".join(units), frame="base", names=names)


def _environment_spec(task: Task) -> ArraySpec:
    names: list[str] = []
    for name in task.objects:
        names += [f"{name}_{part}" for part in ("x", "y", "z", *ROT6D_NAMES, "dx", "dy", "dz")]
    unit = " ".join((["m"] * 3 + ["1"] * 6 + ["m"] * 3) * len(task.objects))
    return ArraySpec(ENVIRONMENT_STATE, (len(names),), unit=unit, frame="base", names=tuple(names))
