"""What an environment is made of, as numbers and names. Imports nothing heavy, so that command lines start fast."""

from dataclasses import dataclass

from robot.errors import ConfigError


@dataclass(kw_only=True)
class EnvConfig:
    """A simulated task.

    Attributes:
        task: Name in `robot.sim.tasks`.
        robot: robosuite's name of the arm.
        controller: robosuite's name of the arm's controller. `OSC_POSE` is compiled; others run in robosuite's loop.
        control_hz: Actions per second of simulated time.
        horizon: Control steps until an episode is truncated.
        success_hold: Control steps in a row that success has to last before an episode terminates.
    """

    task: str = "lift"
    robot: str = "Panda"
    controller: str = "OSC_POSE"
    control_hz: float = 20.0
    horizon: int = 200
    success_hold: int = 10

    def __post_init__(self) -> None:
        for key in ("control_hz", "horizon", "success_hold"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"env.{key} is {getattr(self, key)}, expected more than 0.")


ENV_SCHEMAS: dict[str, type] = {"lift": EnvConfig}
"""Schema of each option of the config group `env`."""
