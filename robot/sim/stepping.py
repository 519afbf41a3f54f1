"""The stepper: one arm's controller and the physics under it, advanced any number of substeps by one compiled call."""

from typing import Any

import mujoco
import numpy as np

from robot.sim.compiled import advance, move_fingers
from robot.sim.plant import gains_of, goal_of, plant_of, work_of


def not_compiled_because(arena: Any) -> str | None:
    """Why the compiled stepper cannot stand in for a robosuite environment's own loop, or None where it can.

    Args:
        arena: A robosuite environment that has been reset.
    """
    if len(arena.robots) != 1 or len(arena.robots[0].arms) != 1:
        return "it has more than one arm"
    robot = arena.robots[0]
    arm = robot.arms[0]
    parts, gripper = robot.part_controllers, robot.gripper[arm]
    controller = parts[arm]
    if controller.name != "OSC_POSE":
        return f"the controller {controller.name} is not compiled, only OSC_POSE is"
    if set(parts) != {arm, robot.get_gripper_name(arm)}:
        return f"it drives the parts {sorted(parts)}, only an arm with a gripper is compiled"
    plain = controller.impedance_mode == "fixed" and controller.input_type == "delta"
    if not plain or controller.input_ref_frame != "base" or controller.interpolator_pos or controller.interpolator_ori:
        return "only fixed impedance, deltas in the base frame and no interpolation are compiled"
    if gripper.dof != 1 or not arena.lite_physics:
        return "only a gripper with one command and lite physics are compiled"
    if arena.sim.model._model.opt.integrator not in (mujoco.mjtIntegrator.mjINT_EULER,):
        return "MuJoCo splits a step in two halves only for the Euler integrator"
    return None


class Stepper:
    """Goals in, physics out: robosuite's operational-space controller at every substep, without Python in between.

    A goal stays until it is replaced. Nothing here allocates or takes the interpreter's lock once it has been warmed
    by a first call of each method.
    """

    def __init__(self, arena: Any) -> None:
        """Read the controller's parameters from a robosuite environment that has been reset."""
        robot = arena.robots[0]
        self._controller_of = lambda: robot.part_controllers[robot.arms[0]]
        self.model: mujoco.MjModel = arena.sim.model._model
        self.data: mujoco.MjData = arena.sim.data._data
        self._plant = plant_of(self.model, self.data, robot)
        self._gains = gains_of(robot, self._plant)
        n, nv = len(self._plant.arm_dof), self.model.nv
        self._goal = goal_of(n, len(self._plant.finger_ctrl))
        self._work = work_of(n, nv)
        self.begin_episode()
        self.run(0)
        self.set_gripper(0.0)

    @property
    def base(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and rotation (9,), row by row, of the base in the world."""
        return self._plant.base_pos, self._plant.base_mat

    @property
    def tool(self) -> tuple[np.ndarray, np.ndarray]:
        """Views of position (3,) and rotation (9,) of the controlled tool site in the world."""
        return self._plant.tool_pos, self._plant.tool_mat

    @property
    def goal(self) -> tuple[np.ndarray, np.ndarray]:
        """Views of the goal: position (3,) [m] and rotation (3, 3) of the tool in the base frame."""
        return self._goal.pos_base, self._goal.mat_base

    def begin_episode(self) -> None:
        """Take the posture from the reset robot, hold its pose, and let the fingers rest.

        robosuite computes the mass matrix of the very first substep before it places the fingers. To stay on its
        trajectories, that substep uses the same matrix.
        """
        controller = self._controller_of()
        self._goal.posture[:] = controller.initial_joint
        self._goal.finger[:] = 0.0
        self._goal.delta[:] = 0.0
        self._goal.is_pending[0] = True
        self._work.mass[:] = controller.mass_matrix
        self._work.use_given_mass[0] = True

    def set_goal_delta(self, action: np.ndarray) -> None:
        """Move by an `ee_delta` action, relative to the pose that is reached when `run` begins.

        Args:
            action: (7,) in [-1, 1]: position, axis-angle rotation, gripper (see `set_gripper`), in the base frame.
        """
        np.multiply(action[:6], self._gains.delta_scale, out=self._goal.delta)
        self._goal.is_pending[0] = True
        self.set_gripper(float(action[6]))

    def set_goal_pose(self, pos_base: np.ndarray, R_base_tool: np.ndarray) -> None:
        """Strive for a pose of the tool.

        Args:
            pos_base: (3,) position in the base frame [m].
            R_base_tool: (3, 3) rotation matrix; the caller answers for its being one (see `matrix_from_rot6d`).
        """
        self._goal.pos_base[:] = pos_base
        self._goal.mat_base[:] = R_base_tool
        self._goal.is_pending[0] = False

    def set_gripper(self, g: float, steps: float = 1.0) -> None:
        """Move the fingers' setting towards open (g < 0) or closed (g > 0), or leave it (g = 0).

        Args:
            g: Its sign counts, as in robosuite.
            steps: For how many control periods; less than one where this is called more often than once a period.
        """
        move_fingers(self._goal, self._gains, g, steps)

    def run(self, n_substeps: int) -> None:
        """Advance physics by `n_substeps` time steps of the model, controlling in each."""
        advance(self._plant, self._gains, self._goal, self._work, n_substeps)
