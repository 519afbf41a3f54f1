"""The cameras by name. A new one is an entry here, a driver in its own file and a YAML file in `configs/camera/`."""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot.bridge.images import ENCODINGS, MAX_SIDE
from robot.contract import Camera
from robot.errors import ConfigError, DeviceError, unknown_name

LONGEST_NAME = 32
Sight = Callable[[], tuple[int, np.ndarray]]
"""When and where the tool was last: CLOCK_MONOTONIC [ns]; (3,), base frame [m]. What a simulated camera looks at."""


@dataclass(kw_only=True)
class CameraConfig:
    """What every camera has.

    Attributes:
        driver: Name in `hardware.cameras.config`.
        width: Of a picture [pixels].
        height: Of a picture [pixels].
        fps: Pictures a second.
        encoding: How pictures travel: `jpeg`, or `raw` for RGB as it is.
        quality: Of the JPEG, 1 to 100.
    """

    driver: str
    width: int
    height: int
    fps: float
    encoding: str
    quality: int

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise ConfigError(f"A camera has 1 to {MAX_SIDE} pixels a side, got {self.width} × {self.height}.")
        if not 1 <= self.fps <= 1000:
            raise ConfigError(f"A camera's fps is {self.fps}, expected 1 to 1000.")
        if self.encoding not in ENCODINGS:
            raise unknown_name("encoding", self.encoding, ENCODINGS)
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"A camera's quality is {self.quality}, expected 1 to 100.")


@dataclass(kw_only=True)
class FakeConfig(CameraConfig):
    """A camera of pure arithmetic.

    Attributes:
        shows: `pattern`, which moves by itself, or `arm`, which moves as the tool of the arm does.
        lag_s: How old what it shows is when its time stamp says "now" [s]: an error to be calibrated away.
    """

    shows: str
    lag_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shows not in ("pattern", "arm"):
            raise unknown_name("sight of a fake camera", self.shows, ("pattern", "arm"))
        if not 0 <= self.lag_s <= 1:
            raise ConfigError(f"A fake camera's lag_s is {self.lag_s}, expected 0 to 1.")


@dataclass(kw_only=True)
class OpencvConfig(CameraConfig):
    """Whatever OpenCV opens: V4L2 devices above all.

    Attributes:
        device: Path (`/dev/v4l/by-path/...` stays the same across restarts), index, stream or video file.
    """

    device: str


CAMERAS: dict[str, tuple[str, type[CameraConfig]]] = {
    "fake": ("hardware.cameras.fake:FakeCamera", FakeConfig),
    "opencv": ("hardware.cameras.opencv:OpencvCamera", OpencvConfig),
}
"""Class of each driver, and what configures it."""

CAMERA_SCHEMAS: dict[str, type] = {name: schema for name, (_, schema) in CAMERAS.items()}
"""Schema of each option of the config group `camera`."""


def build(config: CameraConfig, sight: Sight | None = None) -> Camera:
    """The driver, not yet open.

    Args:
        config: Which camera.
        sight: What a simulated camera looks at; None where there is no arm.

    Raises:
        UnknownNameError: No driver has that name.
        DeviceError: A package that the driver needs is not installed.
    """
    if config.driver not in CAMERAS:
        raise unknown_name("camera", config.driver, CAMERAS)
    module, name = CAMERAS[config.driver][0].split(":")
    try:
        driver = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"Camera driver {config.driver!r} needs the Python package {error.name!r}: `pip install '.[cameras]'` in "
            "a checkout."
        ) from error
    return driver(config, sight)


def to_json(config: CameraConfig) -> dict[str, Any]:
    """Plain JSON, for the camera's process."""
    return asdict(config)


def from_json(data: dict[str, Any]) -> CameraConfig:
    """The config that `to_json` wrote."""
    return CAMERAS[data["driver"]][1](**data)


def selections(text: str) -> list[str]:
    """Overrides that put cameras into a verb's `cameras`.

    Args:
        text: `[name:option,...]`, or `option` where that is the name as well.

    Raises:
        ConfigError: A name is used twice or would not do as a name.
    """
    chosen: dict[str, str] = {}
    for entry in filter(None, text.strip("[] ").split(",")):
        name, _, option = entry.strip().partition(":")
        if not (name.isidentifier() and len(name) <= LONGEST_NAME):
            raise ConfigError(
                f"A camera's name is letters, digits and underscores, at most {LONGEST_NAME}: got {name!r}."
            )
        if name in chosen:
            raise ConfigError(
                f"Two cameras are called {name!r}. Give each its own name: cameras=[{name}:...,other:...]."
            )
        chosen[name] = option or name
    return [f"+camera@cameras.{name}={option}" for name, option in chosen.items()]
