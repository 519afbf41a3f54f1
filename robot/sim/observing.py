"""Observations, read from MjData without anything in between.

`observation.state` (18 for a Panda): tool position, tool 6-D rotation, finger positions, joint positions; of two arms
one after the other, with names that begin `robot0_` and `robot1_`. Each is in the base frame of its own arm.
`observation.environment_state`: for each object (12 with one arm) position, 6-D rotation, and position less the tool's,
for each arm; then positions of joints of the world, then measures of the task. Poses are in the base frame of the first
arm, differences in that of the arm they are of. The tool frame is the site that robosuite's operational-space control
moves, the base frame the one that its goals are in: of IIWA that one sits on the first link and turns with it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import numpy as np

from robot.control.action_spaces import ROT6D_NAMES
from robot.sim.compiled.frames import observe_arms, observe_world
from robot.sim.tasks import Task
from robot.sim.wiping import Dirt
from robot.specs import ArraySpec, Specs

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
FINGER_NAMES = ("finger_left", "finger_right")

Elements = list[tuple[str, str]]
"""Name and unit of each element of a vector."""


class Observer:
    """Fills observations of one world."""

    def __init__(self, arena: Any, task: Task) -> None:
        """Find sites, bodies and joints in a robosuite environment that has been reset."""
        model, data = arena.sim.model._model, arena.sim.data._data
        self._arms = [_Arm(robot, model, data) for robot in arena.robots]
        frames = [_frame(reference, model, data) for reference in task.objects.values()]
        self._frames = np.array([[*_addresses(arm.tool), *_addresses(arm.base)] for arm in self._arms], np.int64)
        self._objects = np.array([_addresses(frame) for frame in frames], np.int64).reshape(-1, 2)
        self._qpos = data.qpos
        self._arm_joints = np.concatenate([arm.joints for arm in self._arms])
        self._counts = np.array([len(arm.joints) for arm in self._arms], np.int64)
        self._joints = np.array([model.joint(name).qposadr[0] for name in task.joints.values()], np.int64)
        self._measures = [MEASURES[name](arena) for name in task.measures]
        self.n_joints = [len(arm.joints) - arm.fingers for arm in self._arms]
        self.specs: Specs = {
            STATE: _vector(STATE, self._state_elements()),
            ENVIRONMENT_STATE: _vector(ENVIRONMENT_STATE, self._environment_elements(task)),
        }
        self._state = np.zeros(self.specs[STATE].shape)
        self._environment_state = np.zeros(self.specs[ENVIRONMENT_STATE].shape)

    def fill(self, out: Mapping[str, np.ndarray]) -> None:
        """Write the present observation into `out[key]`, casting to the type found there."""
        state, world = self._state, self._environment_state
        observe_arms(self._frames, self._arm_joints, self._counts, self._qpos, state)
        observe_world(self._frames, self._objects, self._joints, self._qpos, world)
        if self._measures:
            world[-sum(len(elements) for elements, _ in self._measures) :] = np.concatenate(
                [measure() for _, measure in self._measures]
            )
        out[STATE][...] = state
        out[ENVIRONMENT_STATE][...] = world

    def _state_elements(self) -> Elements:
        prefixes = [""] if len(self._arms) == 1 else [f"robot{i}_" for i in range(len(self._arms))]
        elements: Elements = []
        for prefix, arm in zip(prefixes, self._arms, strict=True):
            fingers = FINGER_NAMES if arm.fingers == 2 else tuple(f"finger_{i + 1}" for i in range(arm.fingers))
            finger_unit = "m" if arm.fingers == 2 else "rad"
            pose = [*_pose_elements("ee")]
            joints = [(f"q{i + 1}", "rad") for i in range(len(arm.joints) - arm.fingers)]
            own = [*pose, *[(name, finger_unit) for name in fingers], *joints]
            elements += [(prefix + name, unit) for name, unit in own]
        return elements

    def _environment_elements(self, task: Task) -> Elements:
        suffixes = [""] if len(self._arms) == 1 else [str(i) for i in range(len(self._arms))]
        elements: Elements = []
        for name in task.objects:
            elements += _pose_elements(name)
            elements += [(f"{name}_d{axis}{suffix}", "m") for suffix in suffixes for axis in "xyz"]
        elements += [(name, "rad") for name in task.joints]
        for named, _ in self._measures:
            elements += named
        return elements


class _Arm:
    """Views of one arm's tool and base, and indices of its joints in qpos: fingers, then the arm's."""

    def __init__(self, robot: Any, model: Any, data: Any) -> None:
        arm = robot.arms[0]
        controller = robot.part_controllers[arm]
        tool = model.site(robot.gripper[arm].important_sites["grip_site"]).id
        base = model.site(f"{controller.naming_prefix}{controller.part_name}_center").id
        fingers = robot._ref_gripper_joint_pos_indexes.get(arm) or []
        self.base = (data.site_xpos[base], data.site_xmat[base])
        self.tool = (data.site_xpos[tool], data.site_xmat[tool])
        self.fingers = len(fingers)
        self.joints = np.array([*fingers, *controller.qpos_index], np.int64)


def _frame(reference: str, model: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Views of position (3,) and rotation (9,) of a `body:` or `site:` in the world."""
    kind, _, name = reference.partition(":")
    if kind == "body":
        at = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        return data.xpos[at], data.xmat[at]
    at = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, name)
    return data.site_xpos[at], data.site_xmat[at]


def _addresses(views: tuple[np.ndarray, np.ndarray]) -> tuple[int, int]:
    """Of a position and a rotation in MjData, which never moves."""
    return views[0].ctypes.data, views[1].ctypes.data


def _pose_elements(name: str) -> Elements:
    return [(f"{name}_{axis}", "m") for axis in "xyz"] + [(f"{name}_{part}", "1") for part in ROT6D_NAMES]


def _vector(key: str, elements: Elements) -> ArraySpec:
    names, units = zip(*elements, strict=True)
    return ArraySpec(key, (len(names),), unit=" ".join(units), frame="base", names=names)


def _wiped(arena: Any) -> tuple[Elements, Callable[[], np.ndarray]]:
    """Share of the dirt that is gone."""
    return [("wiped", "1")], lambda: np.array([len(arena.wiped_markers) / arena.num_markers])


def _dirt(arena: Any) -> tuple[Elements, Callable[[], np.ndarray]]:
    """Centroid of the dirt that is left, in the base frame, its radius, and the centroid less the tool's position."""
    elements = [(f"dirt_{axis}", "m") for axis in "xyz"] + [("dirt_radius", "m")]
    elements += [(f"dirt_d{axis}", "m") for axis in "xyz"]
    arm, dirt = _Arm(arena.robots[0], arena.sim.model._model, arena.sim.data._data), Dirt(arena)

    def measure() -> np.ndarray:
        left = dirt.positions()
        # Of nothing robosuite says that it is at the world's origin, and of no size.
        centroid = left.mean(axis=0) if len(left) else np.zeros(3)
        radius = float(np.sqrt(((left - centroid) ** 2).sum(axis=1).max())) if len(left) else 0.0
        R_base_world = arm.base[1].reshape(3, 3).T
        here = R_base_world @ (centroid - arm.base[0])
        return np.array([*here, radius, *(R_base_world @ (centroid - arm.tool[0]))])

    return elements, measure


MEASURES: dict[str, Callable[[Any], tuple[Elements, Callable[[], np.ndarray]]]] = {"wiped": _wiped, "dirt": _dirt}
"""What a task can be observed by besides poses: a function of the robosuite environment, by name."""
