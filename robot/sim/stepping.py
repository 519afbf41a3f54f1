"""The stepper: the controllers and the physics under them, advanced any number of substeps by one compiled call."""

from typing import Any

import mujoco
import numpy as np

from robot.errors import SpecError
from robot.sim import plant
from robot.sim.compiled.stepping import advance, ask, move_fingers
from robot.specs import ArraySpec


def not_compiled_because(arena: Any) -> str | None:
    """Why the compiled stepper cannot stand in for a robosuite environment's own loop, or None where it can.

    Args:
        arena: A robosuite environment that has been reset.
    """
    if not arena.lite_physics:
        return "robosuite's old order of computation (lite_physics=false) is not compiled"
    if arena.sim.model._model.opt.integrator != mujoco.mjtIntegrator.mjINT_EULER:
        return "MuJoCo splits a step in two halves only for the Euler integrator"
    return next((reason for robot in arena.robots if (reason := _hindrance(robot)) is not None), None)


def _hindrance(robot: Any) -> str | None:
    if len(robot.arms) != 1:
        return f"{robot.name} has more than one arm on one base"
    name = robot.arms[0]
    controller = robot.part_controllers[name]
    if controller.name not in plant.KINDS:
        return f"the controller {controller.name} is not compiled, {', '.join(plant.KINDS)} are"
    others = set(robot.part_controllers) - {name, robot.get_gripper_name(name)}
    if others or not plant.fits(robot):
        return f"{robot.name} has more parts, joints or gripper commands than are compiled"
    is_plain = getattr(controller, "impedance_mode", "fixed") == "fixed"
    if not is_plain or getattr(controller, "input_ref_frame", "base") != "base":
        return "only fixed impedance and goals in the base frame are compiled"
    if any(getattr(controller, name, None) for name in ("interpolator", "interpolator_pos", "interpolator_ori")):
        return "interpolated goals are not compiled"
    return None


class Stepper:
    """Goals in, physics out: robosuite's controllers at every substep, without Python in between.

    A goal stays until it is replaced. Nothing here allocates or takes the interpreter's lock once it has been warmed
    by a first call of each method. The methods that move one arm only take its number, `arm`.
    """

    def __init__(self, arena: Any) -> None:
        """Read the controllers' parameters from a robosuite environment that has been reset."""
        self._robots = arena.robots
        self.model: mujoco.MjModel = arena.sim.model._model
        self.data: mujoco.MjData = arena.sim.data._data
        self._arms = plant.arms_of(arena)
        self._world = plant.World(self.model, self.data, self._arms)
        self._goals = [(arm["pos_base"], arm["mat_base"]) for arm in self._arms]
        self._flags = [(self._arms["is_pending"][i : i + 1]) for i in range(len(self._arms))]
        self.run(0)
        self.set_gripper(0.0)

    @property
    def is_cartesian(self) -> bool:
        """Whether `set_goal_pose` can be used: the controller is OSC_POSE."""
        return bool((self._arms["kind"] == plant.KINDS["OSC_POSE"]).all())

    @property
    def follows_joints(self) -> bool:
        """Whether `set_joint_reference` can be used: the controller is JOINT_POSITION."""
        return bool((self._arms["kind"] == plant.KINDS["JOINT_POSITION"]).all())

    @property
    def goal(self) -> tuple[np.ndarray, np.ndarray]:
        """Views of the first arm's goal: position (3,) [m] and rotation (3, 3) of the tool in the base frame."""
        return self._goals[0]

    def begin_episode(self) -> None:
        """Hold the pose of the robots, which robosuite has just reset."""
        for arm, robot in zip(self._arms, self._robots, strict=True):
            plant.begin(arm, robot)

    def hold(self) -> None:
        """Hold the present pose, whatever brought the arms there; of the null space's posture nothing changes."""
        for arm in self._arms:
            plant.hold(arm)

    def act(self, action: np.ndarray, spec: ArraySpec) -> None:
        """Take an action of the environment as the goals of all arms.

        Args:
            action: Of the shape of `spec`, in the controller's action space; displacements are relative to what is
                reached when `run` begins.
            spec: What it has to be inside.

        Raises:
            SpecError: It is not.
        """
        given = np.asarray(action)
        if given.dtype.kind != "f" or given.shape != spec.shape:
            given = spec.validate(given)
        verdict = ask(self._arms, np.ascontiguousarray(given, np.float64), *spec.bounds())
        if verdict == 1:
            spec.validate(given)
        if verdict:
            raise SpecError("'action' holds a 6-D rotation whose two vectors are not apart, or have no length.")

    def set_goal_pose(self, pos_base: np.ndarray, R_base_tool: np.ndarray, arm: int = 0) -> None:
        """Strive for a pose of the tool; for OSC_POSE.

        Args:
            pos_base: (3,) position in the base frame [m].
            R_base_tool: (3, 3) rotation matrix; the caller answers for its being one (see `matrix_from_rot6d`).
            arm: Which arm.
        """
        pos, mat = self._goals[arm]
        pos[:] = pos_base
        mat[:] = R_base_tool
        self._flags[arm][0] = 0

    def set_joint_reference(self, q: np.ndarray, dq: np.ndarray, ddq: np.ndarray, arm: int = 0) -> None:
        """Let the joints follow a motion, of which this is the present; for JOINT_POSITION.

        robosuite's controller accelerates joints by kp (goal - q) - kd dq. The goal at which that is what the motion
        asks for, plus spring and damper on what is missing, is q + (kd dq + ddq) / kp.

        Args:
            q: Positions (n,) [rad].
            dq: Velocities (n,).
            ddq: Accelerations (n,).
            arm: Which arm.
        """
        record = self._arms[arm]
        n = len(q)
        record["goal"][:n] = q + (record["kd"][:n] * dq + ddq) / record["kp"][:n]
        self._flags[arm][0] = 0

    def set_gripper(self, g: float, steps: float = 1.0, arm: int = 0) -> None:
        """Move the fingers' setting towards open (g < 0) or closed (g > 0), or leave it (g = 0).

        Args:
            g: Its sign counts, as in robosuite.
            steps: For how many control periods; less than one where this is called more often than once a period.
            arm: Which arm.
        """
        move_fingers(self._arms, arm, g, steps)

    def run(self, n_substeps: int) -> None:
        """Advance physics by `n_substeps` time steps of the model, controlling in each."""
        advance(self._world.record, self._arms, n_substeps)
