"""The simulated world: robosuite tasks behind the Gymnasium API, stepped by compiled code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot.contract import EnvironmentSpecs, Policy
    from robot.sim.config import EnvConfig
    from robot.sim.environment import RobosuiteEnvironment
    from robot.sim.randomisation import RandomisedEnvironment
    from robot.sim.seeing import CameraEnvironment


def make(config: "EnvConfig") -> "RobosuiteEnvironment | RandomisedEnvironment | CameraEnvironment":
    """The environment that `config` describes.

    Raises:
        UnknownNameError: Its task, robot, controller or camera does not exist.
    """
    from robot.sim.environment import RobosuiteEnvironment

    environment: Any = RobosuiteEnvironment(config)
    if config.randomisation.enabled:
        from robot.sim.randomisation import RandomisedEnvironment

        environment = RandomisedEnvironment(environment, config.randomisation)
    if config.cameras.all_names:
        from robot.sim.seeing import CameraEnvironment

        environment = CameraEnvironment(environment, config.cameras)
    return environment


def expert(task: str, specs: "EnvironmentSpecs") -> "Policy":
    """The scripted expert for a task.

    Raises:
        UnknownNameError: The task does not exist or has none.
    """
    from robot.sim.experts import expert as build

    return build(task, specs)
