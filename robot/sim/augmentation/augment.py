"""`armature episodes augment`: new demonstrations from old ones, each checked by replay in simulation."""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from robot.config import load
from robot.contract import Environment
from robot.episodes import atomic, folder
from robot.episodes.collecting import Attempt, Job
from robot.episodes.episode import Header
from robot.episodes.filling import KEEPS, SUMMARY, Filling
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.pictures import Encoding
from robot.errors import ConfigError, EpisodeError, unknown_name
from robot.sim.augmentation.attempting import NEAREST, NOTES, RANDOM, Augmenter, Recipe, metric
from robot.sim.augmentation.guiding import COVERAGE, UNIFORM, Coverage, coverage, judges, scenes
from robot.sim.augmentation.segments import cut, cut_automatically
from robot.sim.augmentation.sources import Source, sources
from robot.sim.augmentation.subtasks import declaration
from robot.sim.camera_config import CamerasConfig
from robot.sim.config import ENV_SCHEMAS, EnvConfig
from robot.sim.tasks import task

SOURCE = "augmented"
"""Who acted, as headers say it."""

DECLARED, AUTOMATIC = "declared", "automatic"
WORDS = (
    "augmenting",
    "Look at some with keep=all count=5 out=<another folder>; more or cleaner demonstrations help, and so does more "
    "time (env.horizon).",
)
"""What the bar says, and what to do where nothing succeeds."""


@dataclass(kw_only=True)
class AugmentConfig:
    """See `configs/episodes_augment.yaml`."""

    env: EnvConfig = field(default_factory=EnvConfig)
    episodes: str
    out: str
    count: int
    guide: str
    select: str
    neighbours: int
    segments: str
    noise: float
    speed_m: float
    turn_rad: float
    keep: str
    codec: str
    seed: int
    workers: int

    def __post_init__(self) -> None:
        for key, least in (("count", 1), ("neighbours", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected at least {least}.")
        for key in ("speed_m", "turn_rad"):
            if not 0 < getattr(self, key) < float("inf"):
                raise ConfigError(f"{key} is {getattr(self, key)}, expected more than 0.")
        if not 0 <= self.noise <= 1:
            raise ConfigError(f"noise is {self.noise}, expected 0 to 1, the largest action.")
        if self.noise and self.env.absolute:
            raise ConfigError("noise disturbs displacements; with env.absolute actions are poses: set noise=0.")
        Encoding(self.codec)
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise unknown_name(f"choice of {key}", getattr(self, key), known)
        if Path(self.out).resolve() == Path(self.episodes).resolve():
            raise ConfigError(f"out={self.out} is where the demonstrations are; new ones go into another folder.")


_CHOICES = {
    "guide": (COVERAGE, UNIFORM),
    "select": (NEAREST, RANDOM),
    "segments": (DECLARED, AUTOMATIC),
    "keep": KEEPS,
}


@dataclass
class Summary:
    """What came of it, over all runs that contributed to the folder.

    Attributes:
        episodes: Episodes in the folder.
        attempts: Attempts that were made for them.
        success_rate: Share of the attempts that fulfilled the task.
        wall_s: Time that attempts took, without runs that were interrupted [s].
        before: Coverage by the demonstrations.
        after: Coverage by them and the new ones that succeeded.
    """

    episodes: int
    attempts: int
    success_rate: float
    wall_s: float
    before: Coverage
    after: Coverage


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("episodes_augment", AugmentConfig, overrides, {"env": ENV_SCHEMAS})
    summary = augment(config)
    print(
        f"{config.out}: {summary.episodes} episodes, {summary.success_rate:.0%} of {summary.attempts} attempts "
        f"succeeded, {summary.wall_s:.0f} s.\n"
        f"From a scene that the task draws to the nearest demonstration: {summary.before}; now {summary.after}."
    )
    return 0


World = Callable[[EnvConfig], Environment]
"""Makes a world; a function of a module, for workers call it too."""


def simulated(env: EnvConfig) -> Environment:
    """robosuite's world."""
    from robot import sim

    return sim.make(env)


def augment(config: AugmentConfig, world: World = simulated) -> Summary:
    """Fill the folder `config.out` up to `config.count` new episodes.

    Attempts enter the folder in their order, so what it holds depends neither on the number of workers nor on
    interruptions.

    Raises:
        ConfigError: Nobody has declared the task's subtasks.
        EpisodeError: The demonstrations cannot be used, the folder holds something else, a worker failed, or nothing
            succeeds.
    """
    out, known = Path(config.out), None if config.segments == AUTOMATIC else declaration(task(config.env.task).name)
    symmetry = {} if known is None else known.symmetry
    with folder.locked(out):
        shutil.rmtree(out / folder.ATTEMPTS, ignore_errors=True)
        environment = world(_blind(config.env))
        try:
            how = cut_automatically if known is None else partial(cut, declaration=known)
            found = sources(Path(config.episodes), environment, how)
            recipe = _recipe(config, found)
            filling = Filling(out, config.count, config.keep)
            seeds = _earlier(filling, recipe)
            begin = time.monotonic()
            try:
                if filling.is_short:
                    setup = partial(augmenter, world, config.env, found, symmetry, recipe)
                    filling.run(_job(config, setup), config.workers, WORDS, note=partial(_note_seed, seeds))
            finally:
                shutil.rmtree(out / folder.ATTEMPTS, ignore_errors=True)
            wall_s = time.monotonic() - begin
            return _summarised(filling, wall_s, _coverages(environment, found, symmetry, seeds))
        finally:
            environment.close()


def augmenter(
    world: World, env: EnvConfig, found: Sequence[Source], symmetry: dict[str, int], recipe: Recipe
) -> Augmenter:
    """What a worker process makes for itself."""
    environment = world(env)
    plain = environment if _blind(env) == env else world(_blind(env))
    return Augmenter(environment, plain, found, symmetry, recipe)


def _job(config: AugmentConfig, setup: "partial[Augmenter]") -> Job:
    return Job(setup, Path(config.out) / folder.ATTEMPTS, config.seed, SOURCE, "")


def _earlier(filling: Filling, recipe: Recipe) -> list[int]:
    """Take into account what earlier runs left in the folder; the seeds of scenes in which they succeeded."""
    seeds = []
    for is_held, paths in ((True, folder.finished(filling.out)), (False, folder.discarded(filling.out))):
        for path in paths:
            reader = EpisodeReader(path)
            _check_recipe(path, reader.header, recipe)
            filling.count(reader.header.attempt, reader.outcome.success_final, is_held)
            if is_held and reader.result.success_final:
                seeds.append(reader.header.seed)
    return seeds


def _note_seed(seeds: list[int], attempt: Attempt) -> None:
    if attempt.success:
        seeds.append(EpisodeReader(attempt.path).header.seed)


def _check_recipe(path: Path, header: Header, recipe: Recipe) -> None:
    notes = header.notes.get(NOTES)
    if notes is None:
        raise EpisodeError(
            f"{path} was not made by augmentation (source {header.source}). New episodes go into a folder of their "
            "own: choose another with out=."
        )
    wanted, got = asdict(recipe), notes["recipe"]
    differing = [f"{key} was {got.get(key)}, now {wanted[key]}" for key in wanted if got.get(key) != wanted[key]]
    if differing:
        raise EpisodeError(
            f"{path} was made otherwise: {'; '.join(differing)}. Go on as it began, or choose another folder with out=."
        )


def _blind(env: EnvConfig) -> EnvConfig:
    """The same world without cameras and without chance in how it looks and slides: enough to see where things are."""
    chance = dataclasses.replace(env.randomisation, enabled=False)
    return dataclasses.replace(env, cameras=CamerasConfig(), randomisation=chance)


def _recipe(config: AugmentConfig, found: Sequence[Source]) -> Recipe:
    text = json.dumps([[source.name, source.seed, *(len(segment) for segment in source.segments)] for source in found])
    values = {key.name: getattr(config, key.name) for key in dataclasses.fields(Recipe) if key.name != "sources"}
    return Recipe(**values, sources=hashlib.sha256(text.encode()).hexdigest()[:16])


def _coverages(
    environment: Environment, found: Sequence[Source], symmetry: dict[str, int], seeds: Sequence[int]
) -> tuple[Coverage, Coverage]:
    measure = metric(found, symmetry)
    judged, shown = judges(environment, measure), [source.scene for source in found]
    new = scenes(environment, measure.objects, seeds)
    return coverage(measure, judged, shown), coverage(measure, judged, [*shown, *new])


def _summarised(filling: Filling, now_s: float, coverages: tuple[Coverage, Coverage]) -> Summary:
    rate = filling.successes / filling.attempts
    summary = Summary(filling.episodes, filling.attempts, rate, filling.wall_s(now_s), *coverages)
    atomic.write_text(filling.out / SUMMARY, json.dumps(asdict(summary), indent=2) + "\n")
    return summary
