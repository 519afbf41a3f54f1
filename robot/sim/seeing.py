"""An environment that sees: pictures, depths, segmentations and point clouds beside what it observes anyway."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from robot.contract import Observation
from robot.errors import ConfigError
from robot.sim.camera_config import CamerasConfig
from robot.sim.cameras import OVERVIEW, overview
from robot.sim.environment import PICTURE, RobosuiteEnvironment
from robot.sim.point_cloud import cropped, sampled, unprojected
from robot.sim.rendering import NOTHING, Renderer
from robot.sim.spaces import box
from robot.sim.wrapping import WorldWrapper
from robot.specs import ArraySpec, Specs

IMAGES, DEPTH, SEGMENTATION = "observation.images", "observation.depth", "observation.segmentation"
POINTS = "observation.points"

CLOUD_SEED = 0
"""Of which points a cloud keeps, from each reset on: equal episodes see equal clouds."""


class CameraEnvironment(WorldWrapper):
    """A robosuite environment whose observations also contain, for each camera as `CamerasConfig` says:

    `observation.images.<camera>`: RGB, uint8, (H, W, 3), row 0 on top;
    `observation.depth.<camera>`: distance along the optical axis [m], float32, (H, W); the far plane's for nothing;
    `observation.segmentation.<camera>`: the geom in each pixel, its number in MjModel, int32, (H, W), -1 for none
    (`model.geom_bodyid[n]` is the body of geom n);
    `observation.points`: x, y, z in the world's frame [m], float32, (N, 3), or (N, 6) with red, green, blue in [0, 1].

    Attributes:
        specs: What it gives and takes.
        renderer: Draws; further pictures of the same world come at no further cost.
    """

    def __init__(self, environment: RobosuiteEnvironment | WorldWrapper, config: CamerasConfig) -> None:
        """Wrap an environment.

        Raises:
            UnknownNameError: There is no such camera, or no body that one is attached to.
            ConfigError: There are no cameras.
        """
        super().__init__(environment)
        if not config.all_names:
            raise ConfigError("env.cameras has no cameras; set names or placed.")
        self._config = config
        placed = [*config.placed, overview(environment.n_arms)]
        self.renderer = Renderer(environment.model, environment.data, placed, config.quality)
        for name in config.names:
            self.renderer.cameras.check(name)
        self.specs = dataclasses.replace(
            environment.specs, observation={**environment.specs.observation, **self._seen_specs()}
        )
        self.observation_space: Any = gymnasium.spaces.Dict(
            {key: box(spec) for key, spec in self.specs.observation.items()}
        )
        self._rng = np.random.default_rng(CLOUD_SEED)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; takes and raises what the wrapped environment does.

        Raises:
            RenderingError: There is no OpenGL library that MuJoCo can render with.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._rng = np.random.default_rng(CLOUD_SEED)
        self.renderer.refresh()
        return {**observation, **self._seen()}, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one control period, then look; takes and raises what the wrapped environment does."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return {**observation, **self._seen()}, float(reward), terminated, truncated, info

    def render(self) -> np.ndarray:
        """The world as a camera beside the table sees it: RGB, uint8, (256, 256, 3), upright."""
        return self.renderer.draw(OVERVIEW, PICTURE, PICTURE)

    def close(self) -> None:
        """Free the renderer and what is wrapped; may be called twice."""
        self.renderer.close()
        super().close()

    def intrinsics(self, camera: str) -> np.ndarray:
        """K (3, 3) [pixels] of a camera's pictures in observations; see `robot.sim.cameras`."""
        return self.renderer.cameras.intrinsics(camera, self._config.height, self._config.width)

    def extrinsics(self, camera: str) -> np.ndarray:
        """`T_world_camera` (4, 4) of the pictures in the last observation; see `robot.sim.cameras`."""
        return self.renderer.cameras.extrinsics(camera)

    def fill_observation(self, out: Mapping[str, np.ndarray]) -> None:
        """Write the present observation into arrays by key, of the specs' shapes."""
        self.env.fill_observation(out)
        for key, array in self._seen().items():
            out[key][...] = array

    def _seen_specs(self) -> Specs:
        config, specs = self._config, []
        size = (config.height, config.width)
        for name in config.all_names:
            if config.rgb:
                specs.append(ArraySpec(f"{IMAGES}.{name}", (*size, 3), "uint8", 0, 255))
            if config.depth:
                specs.append(ArraySpec(f"{DEPTH}.{name}", size, low=0.0, high=self.renderer.far_m, unit="m"))
            if config.segmentation:
                highest = self.renderer.n_geoms - 1
                specs.append(ArraySpec(f"{SEGMENTATION}.{name}", size, "int32", NOTHING, highest))
        if config.points:
            unit = " ".join(["m"] * 3 + ["1"] * 3) if config.colours else "m"
            specs.append(ArraySpec(POINTS, (config.points, 6 if config.colours else 3), unit=unit, frame="world"))
        return {spec.key: spec for spec in specs}

    def _seen(self) -> Observation:
        config, seen, clouds = self._config, {}, []
        size = (config.height, config.width)
        needs_rgb = config.rgb or (config.points > 0 and config.colours)
        for name in config.all_names:
            rgb = self.renderer.draw(name, *size) if needs_rgb else None
            if rgb is not None and config.rgb:
                seen[f"{IMAGES}.{name}"] = rgb
            if not (config.depth or config.segmentation or config.points):
                continue
            measured = self.renderer.measure(name, *size)
            if config.depth:
                seen[f"{DEPTH}.{name}"] = measured.depth
            if config.segmentation:
                seen[f"{SEGMENTATION}.{name}"] = measured.segmentation
            if config.points:
                clouds.append(self._cloud(name, measured.depth, rgb if config.colours else None))
        if config.points:
            seen[POINTS] = sampled(np.concatenate(clouds), config.points, config.sampling, self._rng)
        return seen

    def _cloud(self, name: str, depth: np.ndarray, rgb: np.ndarray | None) -> np.ndarray:
        points = unprojected(depth, self.intrinsics(name), self.extrinsics(name), self.renderer.far_m, rgb)
        return cropped(points, self._config.workspace_m)
