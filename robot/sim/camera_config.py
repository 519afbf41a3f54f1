"""What an environment sees, as numbers and names. Imports nothing heavy, so that command lines start fast."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from robot.errors import ConfigError, unknown_name

QUALITIES = ("fast", "robosuite")
SAMPLINGS = ("farthest", "random")
LARGEST_PICTURE = 8192
"""Pixels along an edge that OpenGL libraries can be expected to draw."""


@dataclass(kw_only=True)
class PlacedCamera:
    """A camera that the task's model does not have.

    Attributes:
        name: How observations call it.
        position_m: In the frame of `body` [m], 3 numbers.
        look_at_m: Point that it looks at, upright, in the frame of `body` [m], 3 numbers. Or:
        quat_wxyz: Its orientation in the frame of `body` with OpenCV's axes (x right, y down, z forward), 4 numbers.
        fovy_deg: Vertical field of view [deg].
        body: MuJoCo's name of the body that carries it.
    """

    name: str
    position_m: list[float]
    look_at_m: list[float] = field(default_factory=list)
    quat_wxyz: list[float] = field(default_factory=list)
    fovy_deg: float = 45.0
    body: str = "world"

    def __post_init__(self) -> None:
        who = f"Placed camera {self.name!r}"
        if not self.name or "." in self.name:
            raise ConfigError(f"{who} wants a name without a dot, which observations can call it by.")
        if bool(self.look_at_m) == bool(self.quat_wxyz):
            raise ConfigError(f"{who} wants either look_at_m or quat_wxyz, got {'both' if self.look_at_m else 'none'}.")
        for key, size in (("position_m", 3), ("look_at_m", 3), ("quat_wxyz", 4)):
            values = list(getattr(self, key))
            if (values or key == "position_m") and (len(values) != size or not all(map(math.isfinite, values))):
                raise ConfigError(f"{who}: {key} is {values}, expected {size} finite numbers.")
        if list(self.position_m) == list(self.look_at_m) or not any(self.quat_wxyz or [1]):
            raise ConfigError(f"{who} looks nowhere: it wants to look at another point, or a quaternion that is not 0.")
        if not 0 < self.fovy_deg < 180:
            raise ConfigError(f"{who}: fovy_deg is {self.fovy_deg}, expected more than 0 and less than 180.")


@dataclass(kw_only=True)
class CamerasConfig:
    """What an environment sees. Without names and placed cameras it sees nothing.

    Attributes:
        names: Cameras of the task's model, e.g. `agentview`, `robot0_eye_in_hand`.
        placed: Further cameras.
        height: Of pictures [pixels].
        width: Of pictures [pixels].
        quality: `fast` (no shadows, reflections or smoothed edges, simplified meshes), or `robosuite`, equal to its
            pixels.
        rgb: Whether observations contain `observation.images.<camera>`.
        depth: Whether they contain `observation.depth.<camera>`.
        segmentation: Whether they contain `observation.segmentation.<camera>`.
        points: Points in `observation.points`, a cloud from all cameras together; 0: no cloud.
        colours: Whether points have red, green and blue in [0, 1] beside x, y and z.
        sampling: How the cloud's points are chosen: `farthest` from one another, or `random`.
        workspace_m: Box that the cloud is cropped to, world [m]: lowest x, y, z, highest x, y, z. Empty: no crop.
    """

    names: list[str] = field(default_factory=list)
    placed: list[PlacedCamera] = field(default_factory=list)
    height: int = 84
    width: int = 84
    quality: str = "fast"
    rgb: bool = True
    depth: bool = False
    segmentation: bool = False
    points: int = 0
    colours: bool = False
    sampling: str = "farthest"
    workspace_m: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Plain JSON and command lines have mappings.
        self.placed = [PlacedCamera(**camera) if isinstance(camera, Mapping) else camera for camera in self.placed]
        for kind, got, available in (("quality", self.quality, QUALITIES), ("sampling", self.sampling, SAMPLINGS)):
            if got not in available:
                raise unknown_name(f"{kind} of env.cameras", got, available)
        for key in ("height", "width"):
            if not 1 <= getattr(self, key) <= LARGEST_PICTURE:
                raise ConfigError(f"env.cameras.{key} is {getattr(self, key)}, expected 1 to {LARGEST_PICTURE} pixels.")
        if self.points < 0:
            raise ConfigError(f"env.cameras.points is {self.points}, expected 0 (no cloud) or more.")
        self._check_names()
        self._check_workspace()

    @property
    def all_names(self) -> list[str]:
        """Every camera that observations come from."""
        return [*self.names, *(camera.name for camera in self.placed)]

    def _check_names(self) -> None:
        names = self.all_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"env.cameras names {twice[0]!r} twice; every camera has a name of its own.")
        if names and not (self.rgb or self.depth or self.segmentation or self.points):
            raise ConfigError("env.cameras has cameras and nothing to see; set rgb, depth, segmentation or points.")

    def _check_workspace(self) -> None:
        box = self.workspace_m
        if box and (len(box) != 6 or not all(low < high for low, high in zip(box[:3], box[3:], strict=True))):
            raise ConfigError(
                f"env.cameras.workspace_m is {list(box)}, expected lowest x, y, z and highest x, y, z, 6 numbers."
            )
