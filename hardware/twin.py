"""The twin: the simulated world as an arm, in real time. Every period of the control loop is one substep of physics."""

import hashlib
from typing import Any

import numpy as np

from hardware.arms import ArmConfig
from hardware.measuring import Views, measured
from robot.contract import Arm, ArmSpecs
from robot.control.action_spaces import ee_pose
from robot.control.rotations import fill_matrix
from robot.errors import ConfigError, DeviceError
from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.observing import STATE
from robot.sim.stepping import Stepper
from robot.specs import ArraySpec

ROBOT = "Panda"
STILL_RADPS = 0.02
STILL_SUBSTEPS = 25
"""For how long the joints have to be slower than that: at a turning point they are for a moment, too."""
STOP_SUBSTEPS = 1000
"""Physics that `stop` lets pass at most until it gives up [substeps of 2 ms]."""


class TwinArm(Arm):
    """A robosuite arm and its task behind the compiled stepper, with the controller that policies are trained with."""

    def __init__(self, config: ArmConfig, env: EnvConfig) -> None:
        """Build the world.

        Raises:
            ConfigError: The controller is not compiled, there are cameras, or the loop's rate is not the physics's.
        """
        if env.cameras.all_names:
            raise ConfigError("The twin's state has no room for pictures; leave out env.cameras.")
        if env.robot != ROBOT:
            raise ConfigError(f"The twin's joints and limits are those of a {ROBOT}; env.robot is {env.robot}.")
        self._env = make(env)
        self._stepper: Stepper = self._require_one_compiled_arm(config, env)
        physics_hz = 1.0 / self._env.model.opt.timestep
        if not np.isclose(config.rate_hz, physics_hz):
            raise ConfigError(f"arm.rate_hz is {config.rate_hz}, the twin's physics runs at {physics_hz:.0f} Hz.")
        self._gripper_steps = env.control_hz / config.rate_hz
        dof = [self._env.model.joint(f"robot0_joint{i + 1}").dofadr[0] for i in range(7)]
        self._dof = np.array(dof, np.int64)
        self.specs = self._make_specs(config, env)
        self._R = np.eye(3)
        self._views = Views(self.specs.state)
        self._is_open = False

    def _require_one_compiled_arm(self, config: ArmConfig, env: EnvConfig) -> Stepper:
        stepper, specs = self._env.stepper, self._env.specs
        if (
            stepper is None
            or not stepper.is_cartesian
            or specs.action_space != "ee_delta"
            or specs.action.shape != (7,)
        ):
            raise ConfigError(
                f"The twin is one arm with a gripper behind OSC_POSE in the compiled stepper; {env.task} with "
                f"{env.controller}, absolute={env.absolute} and lite_physics={env.lite_physics} is something else."
            )
        if config.action_space != specs.action_space:
            raise ConfigError(
                f"arm.action_space is {config.action_space}; the twin takes {specs.action_space}; arm=twin_joints more."
            )
        return stepper

    def _make_specs(self, config: ArmConfig, env: EnvConfig) -> ArmSpecs:
        success = ArraySpec("success", (1,), "float64")
        state = measured(success, *self._env.specs.observation.values())
        model = self._env.model
        arrays = (model.body_pos, model.body_quat, model.body_mass, model.jnt_range, model.actuator_ctrlrange)
        identity = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        return ArmSpecs(env.robot, self._env.specs, state, ee_pose(), "ee_pose", config.rate_hz, identity, True)

    def open(self) -> None:
        """Begin some scene; a homing begins a given one."""
        self._env.reset(seed=0)
        self._is_open = True

    def read(self, state: np.ndarray) -> None:
        """Let one period pass, then measure."""
        self._require_open()
        self._stepper.run(1)
        views = self._views.of(state)
        self._env.fill_observation(views)
        observed = views[STATE]
        views["ee_pos"][:], views["ee_rot6d"][:] = observed[:3], observed[3:9]
        views["gripper"][:], views["q"][:] = observed[9:11], observed[11:18]
        self._env.data.qvel.take(self._dof, out=views["dq"], mode="clip")
        views["success"][0] = self._env.success()

    def write(self, target: np.ndarray) -> None:
        """Let the controller follow `target` from the next period on."""
        self._require_open()
        fill_matrix(target[3:9], self._R)
        self._stepper.set_goal_pose(target[:3], self._R)
        self._stepper.set_gripper(float(target[9]), self._gripper_steps)

    def stop(self) -> None:
        """Hold the pose of this moment and let physics pass until the joints rest."""
        if not self._is_open:
            return
        out: dict[str, Any] = {key: np.empty(spec.shape) for key, spec in self.specs.environment.observation.items()}
        self._env.fill_observation(out)
        self._hold(out[STATE])
        still = 0
        for _ in range(STOP_SUBSTEPS):
            still = still + 1 if np.abs(self._env.data.qvel[self._dof]).max() < STILL_RADPS else 0
            if still == STILL_SUBSTEPS:
                return
            self._stepper.run(1)
        raise DeviceError("The twin has not come to rest.")

    def _hold(self, observed: np.ndarray) -> None:
        """Strive for the pose that is observed now."""
        fill_matrix(observed[3:9], self._R)
        self._stepper.set_goal_pose(observed[:3], self._R)

    def recover(self, seed: int | None = None) -> None:
        """Begin the scene of `seed`, the arm at its start pose."""
        self._require_open()
        self._env.reset(seed=seed)

    def close(self) -> None:
        """Free the world."""
        if self._is_open:
            self._is_open = False
            self._env.close()

    def _require_open(self) -> None:
        if not self._is_open:
            raise DeviceError("The twin is not open. Call open() first.")
