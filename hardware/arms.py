"""The arms by name. A new one is an entry here, a driver in its own file and a YAML file in `configs/arm/`."""

import importlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import robot.control
from robot.contract import Arm
from robot.control.limits import Limits, limits_from_mapping
from robot.errors import BridgeError, ConfigError, unknown_name
from robot.sim.config import EnvConfig

ARMS = {
    "twin": ("hardware.twin:TwinArm", "ee_pose"),
    "twin_joints": ("hardware.twin_joints:TwinJoints", "joint_reference"),
    "fake": ("hardware.fake:FakeArm", "ee_pose"),
    "franka": ("hardware.franka:FrankaArm", "joint_reference"),
}
"""Class of each driver, and the space of its targets, which decides what its limits are."""


MODELS = Path(robot.control.__file__).parent / "models"
ACTION_SPACES = ("ee_delta", "ee_pose", "joint_position")


@dataclass(kw_only=True)
class ArmConfig:
    """One arm.

    Attributes:
        driver: Name in `hardware.arms`.
        rate_hz: Rate of the control loop [Hz].
        action_space: What a policy sends: `ee_delta`, or where joints are followed `ee_pose`, `joint_position`.
        limits: What `robot.control.limits` wants for an arm of its target space, all of it.
        model: Kinematics of an arm that follows joints: a name in `robot/control/models`.
        device: What only this driver reads: an address, gains.
    """

    driver: str
    rate_hz: float
    limits: dict[str, Any]
    action_space: str = "ee_delta"
    model: str = ""
    device: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action_space not in ACTION_SPACES:
            raise unknown_name("action space of an arm", self.action_space, ACTION_SPACES)
        if not 1 <= self.rate_hz <= 2000:
            raise ConfigError(f"arm.rate_hz is {self.rate_hz}, expected 1 to 2000.")


ARM_SCHEMAS: dict[str, type] = dict.fromkeys(ARMS, ArmConfig)
"""Schema of each option of the config group `arm`."""


def build(config: ArmConfig, env: EnvConfig) -> tuple[Arm, Limits]:
    """The driver, not yet open, and its limits.

    Args:
        config: Which arm.
        env: World that a simulated arm stands in, and whose observations it gives.

    Raises:
        SafetyError: A limit is missing.
        UnknownNameError: No driver has that name.
    """
    if config.driver not in ARMS:
        raise unknown_name("arm", config.driver, ARMS)
    place, target_space = ARMS[config.driver]
    limits = limits_from_mapping(target_space, config.limits)
    module, name = place.split(":")
    try:
        driver = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        extra = "franka" if error.name == "franky" else "sim"
        raise BridgeError(
            f"Arm {config.driver!r} needs the Python package {error.name!r}: `pip install '.[{extra}]'` in a checkout."
        ) from error
    return driver(config, env), limits


def to_json(config: ArmConfig, env: EnvConfig) -> dict[str, Any]:
    """Plain JSON, for the real-time process."""
    return {"arm": asdict(config), "env": asdict(env)}


def from_json(data: dict[str, Any]) -> tuple[ArmConfig, EnvConfig]:
    """The configs that `to_json` wrote."""
    return ArmConfig(**data["arm"]), EnvConfig(**data["env"])


def model_path(config: ArmConfig) -> Path | None:
    """Where the kinematics of an arm are described, or None for one that needs none.

    Raises:
        UnknownNameError: There is no such model.
    """
    if not config.model:
        return None
    path = MODELS / f"{config.model}.xml"
    if not path.exists():
        raise unknown_name("model of an arm", config.model, [found.stem for found in MODELS.glob("*.xml")])
    return path
