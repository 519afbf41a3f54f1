"""Stored states: an episode that begins where another once was.

A plain vector is robomimic's: time, qpos, qvel. Some tasks also place things in the model (Door its door, Wipe its
dirt), and the null space of an arm's controller is drawn to the posture that the episode began in; a `StoredState`
holds those as well, and the identity of the model that it is of.
"""

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np

from robot.contract import Environment
from robot.errors import StateError

MAGIC = b"armature-state-1\n"
_ARRAYS = ("flat", "posture", "bodies", "wiped")


@dataclass(frozen=True, eq=False)
class StoredState:
    """Where everything is.

    Attributes:
        task: robosuite's name of the task.
        model: Identity of the model (see `identity`).
        flat: Time [s], qpos, qvel: float64, (1 + nq + nv,).
        posture: Joint positions that the arms' null spaces are drawn to [rad]: float64, arm after arm.
        bodies: Pose of each body in its parent: position [m], quaternion wxyz: float64, (nbody, 7).
        wiped: Which of the dirt is gone, 0 or 1: float64, (markers,); empty where the task has none.
    """

    task: str
    model: str
    flat: np.ndarray
    posture: np.ndarray
    bodies: np.ndarray
    wiped: np.ndarray

    def to_bytes(self) -> bytes:
        """A line of JSON, then the numbers; equal states give equal bytes."""
        arrays = [np.ascontiguousarray(getattr(self, name), "<f8") for name in _ARRAYS]
        numbers = b"".join(array.tobytes() for array in arrays)
        shapes = {name: list(array.shape) for name, array in zip(_ARRAYS, arrays, strict=True)}
        digest = hashlib.sha256(numbers).hexdigest()
        header = {"task": self.task, "model": self.model, "shapes": shapes, "sha256": digest}
        return MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n" + numbers

    @classmethod
    def from_bytes(cls, data: bytes) -> "StoredState":
        """The state that `to_bytes` wrote.

        Raises:
            StateError: The bytes are something else, or were damaged.
        """
        head, _, numbers = data.removeprefix(MAGIC).partition(b"\n")
        if not data.startswith(MAGIC):
            raise StateError(f"Not a stored state: it begins with {data[:16]!r}, expected {MAGIC!r}.")
        try:
            header = json.loads(head)
            shapes = [tuple(header["shapes"][name]) for name in _ARRAYS]
            task, model, digest = header["task"], header["model"], header["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"The head of a stored state is damaged: {error!r}.") from error
        if hashlib.sha256(numbers).hexdigest() != digest or len(numbers) != 8 * sum(map(math.prod, shapes)):
            raise StateError("A stored state is damaged: its numbers do not have the checksum that was stored.")
        values, parts = np.frombuffer(numbers, "<f8").astype(np.float64), {}
        for name, shape in zip(_ARRAYS, shapes, strict=True):
            parts[name], values = values[: math.prod(shape)].reshape(shape), values[math.prod(shape) :]
        return cls(task, model, **parts)


class Storing(Environment, Protocol):
    """An environment whose states can be stored."""

    def stored_state(self) -> StoredState:
        """The present state."""
        ...


def to_text(state: "StoredState | np.ndarray") -> str:
    """A state of either kind as text, for JSON."""
    data = state.to_bytes() if isinstance(state, StoredState) else np.asarray(state, "<f8").tobytes()
    return base64.b64encode(data).decode()


def from_text(text: str) -> "StoredState | np.ndarray":
    """The state that `to_text` wrote."""
    data = base64.b64decode(text)
    return StoredState.from_bytes(data) if data.startswith(MAGIC) else np.frombuffer(data, "<f8").astype(np.float64)


def identity(model: mujoco.MjModel) -> str:
    """SHA-256 over what gives a state its meaning: joints, bodies, actuators, and the shapes that collide.

    Placements of bodies, colours, cameras, masses and frictions are left out: they change while the model stays what it
    is. Lengths count to 10 µm, so that another build of MuJoCo does not count as another model.
    """
    solid = np.flatnonzero((model.geom_contype != 0) | (model.geom_conaffinity != 0))
    names = {
        "bodies": [model.body(i).name for i in range(model.nbody)],
        "joints": [model.joint(i).name for i in range(model.njnt)],
        "actuators": [model.actuator(i).name for i in range(model.nu)],
    }
    digest = hashlib.sha256(json.dumps(names).encode())
    for whole in (model.body_parentid, model.jnt_type, model.jnt_bodyid, model.geom_type[solid]):
        digest.update(np.asarray(whole, "<i8").tobytes())
    lengths = (model.jnt_axis, model.jnt_range, model.geom_size[solid], model.geom_pos[solid])
    for array in lengths:
        digest.update(np.rint(np.asarray(array, "<f8") * 1e5).astype("<i8").tobytes())
    return digest.hexdigest()


class StateKeeper:
    """Takes states from one robosuite environment and puts them back."""

    def __init__(self, arena: Any, task: str) -> None:
        """Read the model's identity.

        Args:
            arena: A robosuite environment that has been reset.
            task: robosuite's name of its task.
        """
        self._arena, self._task = arena, task
        self._model: mujoco.MjModel = arena.sim.model._model
        self._data: mujoco.MjData = arena.sim.data._data
        self._identity = identity(self._model)

    def capture(self) -> StoredState:
        """The present state."""
        data, model = self._data, self._model
        return StoredState(
            task=self._task,
            model=self._identity,
            flat=np.concatenate([[data.time], data.qpos, data.qvel]),
            posture=np.concatenate([controller.initial_joint for controller in self._arms()]),
            bodies=np.concatenate([model.body_pos, model.body_quat], axis=1),
            wiped=np.array([marker in self._arena.wiped_markers for marker in self._markers()], np.float64),
        )

    def checked(self, state: Any) -> StoredState | np.ndarray:
        """The state, if it can be put into this world.

        Args:
            state: A `StoredState`, or time, qpos and qvel as one vector.

        Raises:
            StateError: It is of another model or task, has another size, or holds a NaN.
        """
        if isinstance(state, StoredState):
            self._check_model(state)
            for name in ("posture", "bodies"):
                _finite(getattr(state, name), f"the stored state's {name}")
            self._check_flat(state.flat)
            return state
        flat = np.asarray(state)
        if flat.dtype.kind not in "fiu":
            raise StateError(
                f"A state is a StoredState or a vector of time, qpos and qvel, got {type(state).__name__}."
            )
        self._check_flat(flat)
        return flat.astype(np.float64)

    def restore(self, state: StoredState | np.ndarray) -> None:
        """Put a checked state into this world, which has just been reset: controllers at rest where the arms are.

        qpos, qvel and time are then exactly the state's. What a plain vector does not hold stays as the reset left it.
        """
        data, arms = self._data, self._arms()
        flat = state.flat if isinstance(state, StoredState) else state
        # Nothing of the episode that the reset began may show: warm starts, torques, forces.
        mujoco.mj_resetData(self._model, data)
        data.time = flat[0]
        data.qpos[:] = flat[1 : 1 + self._model.nq]
        data.qvel[:] = flat[1 + self._model.nq :]
        if isinstance(state, StoredState):
            self._model.body_pos[:], self._model.body_quat[:] = state.bodies[:, :3], state.bodies[:, 3:]
            self._wipe(state.wiped)
        mujoco.mj_forward(self._model, data)
        at = 0
        for robot in self._arena.robots:
            for controller in robot.part_controllers.values():
                posture = data.qpos[controller.qpos_index]
                if isinstance(state, StoredState) and controller in arms:
                    posture = state.posture[at : at + len(posture)]
                    at += len(posture)
                controller.update_initial_joints(posture)
                controller.reset_goal()

    def _arms(self) -> list[Any]:
        return [robot.part_controllers[arm] for robot in self._arena.robots for arm in robot.arms]

    def _markers(self) -> list[Any]:
        return list(getattr(self._arena.model.mujoco_arena, "markers", []))

    def _wipe(self, wiped: np.ndarray) -> None:
        for marker, is_gone in zip(self._markers(), wiped, strict=True):
            # As robosuite does it: a wiped one is listed, and transparent.
            self._model.geom_rgba[self._model.geom(marker.visual_geoms[0]).id, 3] = 1.0 - is_gone
            if is_gone:
                self._arena.wiped_markers.append(marker)

    def _check_model(self, state: StoredState) -> None:
        if state.task != self._task:
            raise StateError(f"The stored state is of the task {state.task}, this world's is {self._task}.")
        if state.model != self._identity:
            raise StateError(
                f"The stored state is of another model of {self._task} ({state.model[:12]}, expected "
                f"{self._identity[:12]}): make the environment with the robot that it was stored with."
            )
        shapes = {
            "posture": (sum(len(controller.qpos_index) for controller in self._arms()),),
            "bodies": (self._model.nbody, 7),
            "wiped": (len(self._markers()),),
        }
        for name, shape in shapes.items():
            if getattr(state, name).shape != shape:
                raise StateError(f"The stored state's {name} has shape {getattr(state, name).shape}, expected {shape}.")

    def _check_flat(self, flat: np.ndarray) -> None:
        nq, nv = self._model.nq, self._model.nv
        if flat.shape != (1 + nq + nv,):
            raise StateError(
                f"A state of {self._task} has {1 + nq + nv} numbers (time, {nq} qpos, {nv} qvel), got shape "
                f"{flat.shape}: it is of another model. Make the environment with the task and robot of the state."
            )
        _finite(flat, "a state")


def _finite(array: np.ndarray, what: str) -> None:
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise StateError(f"Element {bad[0]} of {what} is {array.ravel()[bad[0]]}, expected finite numbers.")
