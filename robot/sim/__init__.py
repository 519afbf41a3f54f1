"""The simulated world: robosuite tasks behind the Gymnasium API, stepped by compiled code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot.contract import EnvironmentSpecs, Policy
    from robot.sim.config import EnvConfig
    from robot.sim.environment import RobosuiteEnvironment


def make(config: "EnvConfig") -> "RobosuiteEnvironment":
    """The environment that `config` describes.

    Raises:
        UnknownNameError: Its task, robot or controller does not exist.
    """
    from robot.sim.environment import RobosuiteEnvironment

    return RobosuiteEnvironment(config)


def expert(task: str, specs: "EnvironmentSpecs") -> "Policy":
    """The scripted expert for a task.

    Raises:
        UnknownNameError: The task does not exist or has none.
    """
    from robot.sim.experts import expert as build

    return build(task, specs)


def register() -> None:
    """Make the tasks known to Gymnasium: `gymnasium.make("armature/Lift-v0", horizon=100)`."""
    import gymnasium

    from robot.sim.tasks import TASKS

    for name, task in TASKS.items():
        identifier = f"armature/{task.robosuite_name}-v0"
        if identifier not in gymnasium.registry:
            gymnasium.register(identifier, entry_point="robot.sim:from_keywords", kwargs={"task": name})


def from_keywords(render_mode: str | None = None, **fields: Any) -> "RobosuiteEnvironment":
    """The environment of an `EnvConfig` with these fields; Gymnasium's entry point."""
    from robot.sim.config import EnvConfig

    return make(EnvConfig(**fields))
