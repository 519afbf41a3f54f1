"""What an environment is made of, as numbers and names. Imports nothing heavy, so that command lines start fast."""

from dataclasses import dataclass, field

from robot.errors import ConfigError
from robot.sim.camera_config import CamerasConfig


@dataclass(kw_only=True)
class RandomisationConfig:
    """What each episode draws anew from its seed (see `robot.sim.randomisation`).

    Amounts are the largest change to either side, drawn evenly; factors multiply what the model has. MuJoCo takes the
    larger friction of two shapes that touch, so that objects and the furniture that they lie on are both drawn.

    Attributes:
        enabled: Whether anything is drawn.
        texture: Share of textures that get another pattern, from 0 to 1.
        colour: How far colours move towards drawn ones, from 0 to 1.
        light_position_m: Of each lamp, along each axis.
        light_direction_rad: Of each lamp, about each axis.
        light_intensity: Factors of each lamp's diffuse, ambient and specular light, and of the headlight's.
        camera_position_m: Of each camera, along each axis.
        camera_rotation_rad: Of each camera, about each axis.
        camera_fovy_deg: Of each camera's vertical field of view.
        friction: Factors of each object's and piece of furniture's friction.
        mass: Factors of each object's mass and inertia.
        arm: Whether the arms' own looks and masses are drawn too.
    """

    enabled: bool = False
    texture: float = 0.5
    colour: float = 0.5
    light_position_m: float = 0.5
    light_direction_rad: float = 0.35
    light_intensity: tuple[float, float] = (0.6, 1.4)
    camera_position_m: float = 0.02
    camera_rotation_rad: float = 0.03
    camera_fovy_deg: float = 2.0
    friction: tuple[float, float] = (0.7, 1.3)
    mass: tuple[float, float] = (0.7, 1.3)
    arm: bool = False

    def __post_init__(self) -> None:
        for key in ("texture", "colour"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ConfigError(f"randomisation.{key} is {getattr(self, key)}, expected 0 to 1.")
        for key in (
            *("light_position_m", "light_direction_rad"),
            *("camera_position_m", "camera_rotation_rad", "camera_fovy_deg"),
        ):
            if not 0.0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"randomisation.{key} is {getattr(self, key)}, expected an amount of 0 or more.")
        for key in ("light_intensity", "friction", "mass"):
            low, high = getattr(self, key)
            if not 0.0 < low <= high < float("inf"):
                raise ConfigError(f"randomisation.{key} is {(low, high)}, expected factors with 0 < low <= high.")


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
        randomisation: What each episode draws anew; off by default.
        cameras: What observations show; nothing by default.
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
    randomisation: RandomisationConfig = field(default_factory=RandomisationConfig)
    cameras: CamerasConfig = field(default_factory=CamerasConfig)

    def __post_init__(self) -> None:
        if isinstance(self.cameras, dict):  # from JSON
            self.cameras = CamerasConfig(**self.cameras)
        if isinstance(self.randomisation, dict):
            self.randomisation = RandomisationConfig(**self.randomisation)
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
