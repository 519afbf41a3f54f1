"""One new demonstration: a scene, a source that suits it, and a try in simulation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robot.contract import Environment, EnvironmentSpecs
from robot.episodes.collecting import Attempt, Job
from robot.episodes.episode import Header
from robot.episodes.log import EpisodeWriter
from robot.loop import Disturbance, rollout
from robot.sim.augmentation.following import SegmentFollower, Speed
from robot.sim.augmentation.guiding import Metric, Plan, Scene, scenes
from robot.sim.augmentation.poses import displacement
from robot.sim.augmentation.segments import placed
from robot.sim.augmentation.sources import Source

NEAREST, RANDOM = "nearest", "random"
NOTES = "augmentation"
"""Key of a header's notes that says how an episode came about."""


@dataclass(frozen=True)
class Recipe:
    """What decides which demonstrations come out; goes into each of them.

    Attributes:
        seed: The first candidate for a scene.
        guide: `coverage` or `uniform`; see `robot.sim.augmentation.guiding`.
        select: `nearest` or `random`: which source a scene gets.
        neighbours: Of the nearest, one of so many is drawn.
        segments: `declared` or `automatic`.
        noise: Standard deviation of the disturbance of an action.
        speed_m: How far the tool goes at most in a second, between segments [m].
        turn_rad: How far it turns at most in a second [rad].
        sources: Digest of the sources.
    """

    seed: int
    guide: str
    select: str
    neighbours: int
    segments: str
    noise: float
    speed_m: float
    turn_rad: float
    sources: str


def metric(sources: Sequence[Source], symmetry: dict[str, int]) -> Metric:
    """Of scenes: the objects that segments belong to and that a scene has to bring."""
    return Metric(tuple(placed(sources[0].segments)), symmetry)


def chosen(sources: Sequence[Source], scene: Scene, metric: Metric, recipe: Recipe, seed: int) -> Source:
    """The source that a scene gets; equal arguments give equal ones."""
    rng = np.random.default_rng([recipe.seed, seed])
    if recipe.select == RANDOM:
        return sources[int(rng.integers(len(sources)))]
    away = metric.between([scene], [placed(source.segments) for source in sources])[0]
    near = np.argsort(away, kind="stable")[: recipe.neighbours]
    return sources[int(near[rng.integers(len(near))])]


class Augmenter:
    """Makes attempts in one world; see `robot.episodes.collecting.Attempting`.

    Attributes:
        environment: The world.
    """

    def __init__(
        self,
        environment: Environment,
        plain: Environment,
        sources: Sequence[Source],
        symmetry: dict[str, int],
        recipe: Recipe,
    ) -> None:
        """Get ready.

        Args:
            environment: The world that attempts are made in.
            plain: The same one, or one that is quicker to look at for not having cameras.
            sources: Demonstrations.
            symmetry: Of objects, see `robot.sim.augmentation.poses.same_turned`.
            recipe: What decides the rest.
        """
        self.environment, self._plain = environment, plain
        self._sources, self._symmetry, self._recipe = sources, symmetry, recipe
        self._metric = metric(sources, symmetry)
        shown = [source.scene for source in sources]
        self._plan = Plan(recipe.guide, recipe.seed, (source.seed for source in sources), self._metric, shown)

    def attempt(self, job: Job, number: int) -> Attempt:
        """Attempt `number` of the plan, in a file."""
        path, specs = job.folder / f"attempt-{number:06d}.mcap", self.environment.specs
        seed = self._plan.seed(number, self._plain)
        (scene,) = scenes(self._plain, self._metric.objects, [seed])
        source = chosen(self._sources, scene, self._metric, self._recipe, seed)
        header = Header(
            specs,
            job.source,
            seed=seed,
            attempt=number,
            quality=source.quality,
            notes={**job.notes, NOTES: self._notes(source, scene)},
        )
        follower = SegmentFollower(specs, source.segments, self._symmetry, self._speed(specs))
        with EpisodeWriter(path, header, job.encoding) as writer:
            rollout(self.environment, follower, seed, disturbance(self._recipe.noise, seed), writer.write)
            result = writer.finish()
        return Attempt(number, path, result.success_final)

    def _speed(self, specs: EnvironmentSpecs) -> Speed:
        return Speed(self._recipe.speed_m * specs.dt_s, self._recipe.turn_rad * specs.dt_s)

    def _notes(self, source: Source, scene: Scene) -> dict[str, Any]:
        segments = []
        for segment in source.segments:
            name, found = segment.subtask.object, asdict(segment.subtask)
            found |= {"begin": segment.begin, "steps": len(segment)}
            if name in scene:  # of others the transform follows from where the hand has put them
                moved = displacement(segment.reference, scene[name], self._symmetry.get(name, 1))
                found["T_new_old"] = np.round(moved, 6).tolist()
            segments.append(found)
        return {"episode": source.name, "seed": source.seed, "segments": segments, "recipe": asdict(self._recipe)}


def disturbance(noise: float, seed: int) -> Disturbance | None:
    """White noise on all of an `ee_delta` but the gripper; None without noise."""
    if noise == 0.0:
        return None
    rng = np.random.default_rng(seed)

    def disturb(action: np.ndarray) -> np.ndarray:
        sent = np.array(action, np.float32)
        sent[:-1] += rng.normal(0.0, noise, len(sent) - 1).astype(np.float32)
        return np.clip(sent, -1.0, 1.0)

    return disturb
