"""How a world looks: its textures, colours, lights and cameras, drawn from a seed."""

from typing import Any

import mujoco
import numpy as np

from robot.sim.bodies import arm_bodies
from robot.sim.config import RandomisationConfig

_TILES = 64
"""Resolution of a drawn pattern along each side of a texture."""
_TEXTURES, _COLOURS, _LIGHTS, _CAMERAS = range(10, 14)
"""Numbers of the streams that each kind draws from."""
_FIELDS = (
    *("mat_rgba", "light_pos", "light_dir", "light_diffuse", "light_ambient", "light_specular"),
    *("cam_pos", "cam_quat", "cam_fovy"),
)
_INTENSITIES = ("diffuse", "ambient", "specular")


class Appearance:
    """What can be seen of one model."""

    def __init__(self, model: mujoco.MjModel, config: RandomisationConfig) -> None:
        self._model, self._config = model, config
        self._nominal = {name: getattr(model, name).copy() for name in _FIELDS}
        self._geom_rgb = model.geom_rgba[:, :3].copy()  # opacity is the task's: Wipe makes dirt vanish with it
        self._headlight = {name: getattr(model.vis.headlight, name).copy() for name in _INTENSITIES}
        self._materials, self._textures, self._plain = _surfaces(model, config.arm)
        self._pixels = {texture: _pixels(model, texture).copy() for texture in self._textures if config.texture > 0.0}
        self._changed: list[int] = []

    def restore(self) -> None:
        """As it was built."""
        model = self._model
        for name, value in self._nominal.items():
            getattr(model, name)[:] = value
        model.geom_rgba[:, :3] = self._geom_rgb
        for name, value in self._headlight.items():
            getattr(model.vis.headlight, name)[:] = value
        for texture in self._changed:
            _pixels(model, texture)[:] = self._pixels[texture]
        self._changed = []

    def draw(self, seed: int) -> dict[str, Any]:
        """Draw all of it, each kind from a stream of its own; says what was drawn."""
        return {
            "textures": self._draw_textures(np.random.default_rng([seed, _TEXTURES])),
            "colours": self._draw_colours(np.random.default_rng([seed, _COLOURS])),
            "lights": self._draw_lights(np.random.default_rng([seed, _LIGHTS])),
            "cameras": self._draw_cameras(np.random.default_rng([seed, _CAMERAS])),
        }

    def _draw_textures(self, rng: np.random.Generator) -> dict[str, str]:
        drawn = {}
        for texture in self._pixels:
            pixels = _pixels(self._model, texture)
            is_drawn, (kind, tiles) = rng.random() < self._config.texture, _pattern(rng, pixels.shape[2])
            if is_drawn:
                rows, columns = (np.arange(size) * _TILES // size for size in pixels.shape[:2])
                pixels[:] = tiles.take(rows, 0).take(columns, 1)
                self._changed.append(texture)
                drawn[self._model.texture(texture).name or "skybox"] = kind
        return drawn

    def _draw_colours(self, rng: np.random.Generator) -> dict[str, list[float]]:
        drawn = {}
        share = self._config.colour
        for ids, rgba, accessor in (
            (self._materials, self._model.mat_rgba, self._model.material),
            (self._plain, self._model.geom_rgba, self._model.geom),
        ):
            for number in ids:
                colour = rng.uniform(0.0, 1.0, 3)
                if share > 0.0:
                    rgba[number, :3] = (1.0 - share) * rgba[number, :3] + share * colour
                    drawn[accessor(number).name] = rgba[number, :3].tolist()
        return drawn

    def _draw_lights(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        model, config, drawn = self._model, self._config, []
        for light in range(model.nlight):
            shift = rng.uniform(-1.0, 1.0, 3) * config.light_position_m
            turn = rng.uniform(-1.0, 1.0, 3) * config.light_direction_rad
            model.light_pos[light] += shift
            model.light_dir[light] = _rotated(model.light_dir[light], turn)
            factors = rng.uniform(*config.light_intensity, 3)
            for name, factor in zip(_INTENSITIES, factors, strict=True):
                getattr(model, f"light_{name}")[light] *= factor
            drawn.append({"position": shift.tolist(), "direction": turn.tolist(), "intensity": factors.tolist()})
        factors = rng.uniform(*config.light_intensity, 3)
        for name, factor in zip(_INTENSITIES, factors, strict=True):
            getattr(model.vis.headlight, name)[:] *= factor
        return [*drawn, {"headlight": factors.tolist()}]

    def _draw_cameras(self, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
        model, config, drawn = self._model, self._config, {}
        for camera in range(model.ncam):
            shift = rng.uniform(-1.0, 1.0, 3) * config.camera_position_m
            turn = rng.uniform(-1.0, 1.0, 3) * config.camera_rotation_rad
            fovy = rng.uniform(-1.0, 1.0) * config.camera_fovy_deg
            model.cam_pos[camera] += shift
            if config.camera_rotation_rad > 0.0:
                mujoco.mju_mulQuat(model.cam_quat[camera], model.cam_quat[camera].copy(), _quat(turn))
            model.cam_fovy[camera] += fovy
            drawn[model.camera(camera).name] = {
                "position": shift.tolist(),
                "rotation": turn.tolist(),
                "fovy": float(fovy),
            }
        return drawn


def _surfaces(model: mujoco.MjModel, with_arm: bool) -> tuple[list[int], list[int], list[int]]:
    """Materials, textures, and visible shapes without a material, that may look different."""
    of_arm = arm_bodies(model)[model.geom_bodyid] & (not with_arm)
    kept = set(model.geom_matid[of_arm].tolist())
    materials = sorted(set(model.geom_matid[~of_arm].tolist()) - kept - {-1})
    kept_textures = {int(texture) for material in kept - {-1} for texture in model.mat_texid[material]}
    sky = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX).tolist()
    found = {int(texture) for material in materials for texture in model.mat_texid[material]} | set(sky)
    # robosuite's group 0 are the shapes that collide, which nobody sees.
    plain = np.flatnonzero((model.geom_matid == -1) & (model.geom_group != 0) & ~of_arm)
    return materials, sorted(found - kept_textures - {-1}), plain.tolist()


def _pixels(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """View of a texture's pixels: uint8, (height, width, channels)."""
    shape = [int(sizes[texture]) for sizes in (model.tex_height, model.tex_width, model.tex_nchannel)]
    start = int(model.tex_adr[texture])
    view: np.ndarray = model.tex_data[start : start + int(np.prod(shape))].reshape(shape)
    return view


def _pattern(rng: np.random.Generator, channels: int) -> tuple[str, np.ndarray]:
    """One of four patterns in two colours: its name and pixels, uint8, (_TILES, _TILES, channels)."""
    colours = rng.integers(0, 256, (2, channels)).astype(np.float32)
    kind = ("flat", "gradient", "checker", "noise")[int(rng.integers(4))]
    rows, columns = np.mgrid[:_TILES, :_TILES]
    side = 2 ** int(rng.integers(1, 5))
    noise = rng.random((_TILES, _TILES))
    weight = {
        "flat": np.zeros((_TILES, _TILES)),
        "gradient": (rows if side > 4 else columns) / (_TILES - 1),
        "checker": (rows // side + columns // side) % 2,
        "noise": noise,
    }[kind][..., None]
    return kind, ((1.0 - weight) * colours[0] + weight * colours[1]).astype(np.uint8)


def _quat(turn: np.ndarray) -> np.ndarray:
    """Quaternion wxyz of a rotation vector [rad]."""
    angle = float(np.linalg.norm(turn))
    quat = np.array([1.0, 0.0, 0.0, 0.0])
    if angle > 0.0:
        mujoco.mju_axisAngle2Quat(quat, turn / angle, angle)
    return quat


def _rotated(direction: np.ndarray, turn: np.ndarray) -> np.ndarray:
    out = np.zeros(3)
    mujoco.mju_rotVecQuat(out, np.asarray(direction, np.float64), _quat(turn))
    return out
