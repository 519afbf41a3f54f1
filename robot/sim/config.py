"""What an environment is made of, as numbers and names. Imports nothing heavy, so that command lines start fast."""

from dataclasses import dataclass

from robot.errors import ConfigError


@dataclass(kw_only=True)
class EnvConfig:
    """A simulated task.

    Attributes:
        task: Name in `robot.sim.tasks`.
        robot: robosuite's name of the arm. A task for two arms takes two of it, or two names joined by `+`.
        controller: robosuite's name of the arm's controller (see `robot.sim.controllers`).
        absolute: Whether actions are goals rather than displacements; for controllers of positions and poses.
        control_hz: Actions per second of simulated time.
        horizon: Control steps until an episode is truncated.
        success_hold: Control steps in a row that success has to last before an episode terminates.
        lite_physics: robosuite's order of computation since 1.5. False: that of 1.4, which replays demonstrations made
            with it; runs in robosuite's own loop.
        reward_shaping: Whether the reward is robosuite's dense one, in place of its sparse one.
    """

    task: str = "lift"
    robot: str = "Panda"
    controller: str = "OSC_POSE"
    absolute: bool = False
    control_hz: float = 20.0
    horizon: int = 200
    success_hold: int = 10
    lite_physics: bool = True
    reward_shaping: bool = False

    def __post_init__(self) -> None:
        for key in ("control_hz", "horizon", "success_hold"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"env.{key} is {getattr(self, key)}, expected more than 0.")


TASK_NAMES = (
    "lift",
    "stack",
    "pick_place_can",
    "pick_place",
    "nut_assembly_square",
    "nut_assembly",
    "door",
    "wipe",
    "tool_hang",
    "two_arm_lift",
    "two_arm_peg_in_hole",
    "two_arm_handover",
    "two_arm_transport",
)

ENV_SCHEMAS: dict[str, type] = dict.fromkeys(TASK_NAMES, EnvConfig)
"""Schema of each option of the config group `env`."""
