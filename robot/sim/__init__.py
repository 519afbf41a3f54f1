"""The simulated world: robosuite tasks behind the Gymnasium API, stepped by compiled code."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robot.contract import EnvironmentSpecs, Policy
    from robot.sim.config import EnvConfig
    from robot.sim.environment import RobosuiteEnvironment
    from robot.sim.randomisation import RandomisedEnvironment


def make(config: "EnvConfig") -> "RobosuiteEnvironment | RandomisedEnvironment":
    """The environment that `config` describes.

    Raises:
        UnknownNameError: Its task, robot or controller does not exist.
    """
    from robot.sim.environment import RobosuiteEnvironment

    environment = RobosuiteEnvironment(config)
    if not config.randomisation.enabled:
        return environment
    from robot.sim.randomisation import RandomisedEnvironment

    return RandomisedEnvironment(environment, config.randomisation)


def expert(task: str, specs: "EnvironmentSpecs") -> "Policy":
    """The scripted expert for a task.

    Raises:
        UnknownNameError: The task does not exist or has none.
    """
    from robot.sim.experts import expert as build

    return build(task, specs)
