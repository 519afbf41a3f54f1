"""The twin, led by its joints: the simulated world as an arm that follows references, as a real one does."""

from dataclasses import replace

import numpy as np

from hardware.arms import ArmConfig
from hardware.twin import TwinArm
from robot.contract import ArmSpecs
from robot.control.action_spaces import joint_reference, spec
from robot.errors import ConfigError
from robot.sim.config import EnvConfig
from robot.sim.stepping import Stepper

JOINTS = slice(11, 18)
"""Joint positions in the observed state."""


class TwinJoints(TwinArm):
    """A robosuite arm behind JOINT_POSITION, whose goal is set so that the joints follow a motion without lag."""

    def __init__(self, config: ArmConfig, env: EnvConfig) -> None:
        """Build the world with that controller, whatever `env.controller` says.

        Raises:
            ConfigError: As for the twin.
        """
        super().__init__(config, replace(env, controller="JOINT_POSITION", absolute=True))

    def _require_one_compiled_arm(self, config: ArmConfig, env: EnvConfig) -> Stepper:
        stepper = self._env.stepper
        if stepper is None or not stepper.follows_joints or self._env.specs.action.shape != (8,):
            raise ConfigError(
                f"The twin is one arm with a gripper in the compiled stepper; {env.task} is something else."
            )
        return stepper

    def _make_specs(self, config: ArmConfig, env: EnvConfig) -> ArmSpecs:
        specs = super()._make_specs(config, env)
        action = spec(config.action_space, 7)
        environment = replace(specs.environment, action=action, action_space=config.action_space)
        return replace(specs, environment=environment, target=joint_reference(7), target_space="joint_reference")

    def write(self, target: np.ndarray) -> None:
        """Follow positions, velocities and accelerations of the joints from the next period on."""
        self._require_open()
        self._stepper.set_joint_reference(target[:7], target[7:14], target[14:21])
        self._stepper.set_gripper(float(target[21]), self._gripper_steps)

    def _hold(self, observed: np.ndarray) -> None:
        rest = np.zeros(7)
        self._stepper.set_joint_reference(observed[JOINTS].astype(np.float64), rest, rest)
