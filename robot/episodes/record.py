"""`armature record`: demonstrations in the simulated world, one MCAP file each."""

import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from robot.config import load
from robot.contract import EnvironmentSpecs
from robot.episodes import atomic, folder
from robot.episodes.collecting import Demonstration, Job, Setup
from robot.episodes.filling import ALL, KEEPS, SUCCESS, SUMMARY, Filling
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.pictures import Encoding
from robot.errors import ConfigError, EpisodeError, unknown_name
from robot.sim.config import ENV_SCHEMAS, EnvConfig
from robot.sim.experts.quality import QUALITIES

BRIDGE = "bridge"
"""The source that is no world of ours: see `robot.episodes.bridge_recording`."""
ENV = "env"
"""Name of the note, in an episode's header, of the simulated world that it was recorded in."""
WORDS = (
    "recording",
    "Look at some with keep=all episodes=5 out=<another folder>, or give the demonstrator more time (env.horizon).",
)
"""What the bar says, and what to do where nothing succeeds."""


@dataclass(kw_only=True)
class RecordConfig:
    """See `configs/record.yaml`."""

    env: EnvConfig = field(default_factory=EnvConfig)
    source: str
    quality: str
    episodes: int
    seed: int
    workers: int
    keep: str
    codec: str
    out: str

    def __post_init__(self) -> None:
        for key, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected at least {least}.")
        if self.keep not in KEEPS:
            raise unknown_name("choice of keep", self.keep, KEEPS)
        Encoding(self.codec)
        if self.source not in SOURCES:
            raise unknown_name("source", self.source, (*SOURCES, BRIDGE))
        if self.quality not in QUALITIES:
            raise unknown_name("quality", self.quality, QUALITIES)
        if QUALITIES[self.quality].fails and self.keep == SUCCESS:
            raise ConfigError(
                f"Episodes of quality={self.quality} mostly fail, and keep={SUCCESS} drops those: add keep={ALL}."
            )


@dataclass
class Summary:
    """What a folder holds and what it took, over all runs that contributed to it.

    Attributes:
        episodes: Episodes in the folder.
        attempts: Attempts that were made for them.
        success_rate: Share of the attempts that fulfilled the task.
        wall_s: Time that recording took, without runs that were interrupted [s].
    """

    episodes: int
    attempts: int
    success_rate: float
    wall_s: float


def scripted_expert(config: EnvConfig, quality: str) -> Demonstration:
    """The scripted expert of a task in its world, as good as one of `QUALITIES`."""
    from robot import sim

    environment, chosen = sim.make(config), QUALITIES[quality]
    return Demonstration(environment, chosen.demonstrator(sim.expert(config.task, environment.specs)), chosen.noise)


SOURCES: dict[str, Callable[[EnvConfig, str], Demonstration]] = {"expert": scripted_expert}
"""Who may demonstrate."""


def main(overrides: list[str]) -> int:
    """Run the verb. What is recorded from a bridge has keys of its own (`configs/record_bridge.yaml`)."""
    from_bridge = [text for text in overrides if text.replace('"', "").replace("'", "") == f"source={BRIDGE}"]
    if from_bridge:
        from robot.episodes import bridge_recording

        return bridge_recording.main([text for text in overrides if text not in from_bridge])
    config = load("record", RecordConfig, overrides, {"env": ENV_SCHEMAS})
    summary = record(config, partial(SOURCES[config.source], config.env, config.quality))
    print(
        f"{config.out}: {summary.episodes} episodes, {summary.success_rate:.0%} of {summary.attempts} attempts "
        f"succeeded, {summary.wall_s:.0f} s."
    )
    return 0


def record(config: RecordConfig, setup: Setup) -> Summary:
    """Fill the folder `config.out` up to `config.episodes` episodes.

    Attempt i begins from `seed + i`. Attempts enter the folder in this order, so what it holds depends neither on the
    number of workers nor on interruptions. Qualities may be mixed by recording several times into one folder: each
    episode says its own, and later ones go on with the seeds after those of the earlier ones.

    Raises:
        EpisodeError: The folder holds something else, a worker failed, or nothing succeeds.
    """
    out = Path(config.out)
    with folder.locked(out):
        _tidy(out)
        filling = Filling(out, config.episodes, config.keep)
        earlier = _Earlier(config, filling)
        begin = time.monotonic()
        try:
            if filling.is_short:
                earlier.tell_of_other_qualities()
                filling.run(_job(config, setup), config.workers, WORDS, earlier.check)
        finally:
            shutil.rmtree(out / folder.ATTEMPTS, ignore_errors=True)
        return _summarised(filling, time.monotonic() - begin)


def _job(config: RecordConfig, setup: Setup) -> Job:
    notes, encoding = {ENV: asdict(config.env)}, Encoding(config.codec, fps=max(1, round(config.env.control_hz)))
    attempts = Path(config.out) / folder.ATTEMPTS
    return Job(setup, attempts, config.seed, config.source, config.quality, notes, encoding)


class _Earlier:
    """What earlier runs left in the folder, which this one goes on with."""

    def __init__(self, config: RecordConfig, filling: Filling) -> None:
        self._config, self._filling = config, filling
        self._first: tuple[Path, EnvironmentSpecs] | None = None
        self._qualities: Counter[str] = Counter()
        for path in folder.finished(filling.out):
            self._count(path, is_held=True)
        for path in folder.discarded(filling.out):  # their attempts were made, and are not made again
            self._count(path, is_held=False)

    def tell_of_other_qualities(self) -> None:
        """Say so where the folder is about to become a mixture, which may be a mistake."""
        quality, out = self._config.quality, self._filling.out
        others = {name: count for name, count in self._qualities.items() if name != quality}
        if others:
            held = ", ".join(f"{count} of quality {name or '(not said)'}" for name, count in others.items())
            print(f"{out} holds {held}; adding {quality} ones. Each says its own.", file=sys.stderr)

    def check(self, specs: EnvironmentSpecs) -> None:
        """Refuse to add episodes that do not belong to those that are there."""
        if self._first:
            folder.check_same_specs(*self._first, Path("This recording"), specs)

    def _count(self, path: Path, is_held: bool) -> None:
        reader = EpisodeReader(path)
        header = reader.header
        if self._first is None:
            self._first = (path, header.specs)
        folder.check_same_specs(*self._first, path, header.specs)
        if header.seed - header.attempt != self._config.seed:
            raise EpisodeError(
                f"{path} belongs to a recording with seed={header.seed - header.attempt}, not {self._config.seed}. "
                "Go on with that seed, or choose another folder with out=."
            )
        self._qualities[header.quality] += 1
        self._filling.count(header.attempt, reader.outcome.success_final, is_held)


def _tidy(out: Path) -> None:
    left = folder.attempts(out)
    if left:
        print(f"Removing {len(left)} unfinished attempt(s) of an interrupted run from {out}.", file=sys.stderr)
    for path in left:
        path.unlink()
    for path in folder.interrupted(out):
        print(
            f"{path} was interrupted and stays. Make an episode of it with `armature episodes recover episodes={out}`.",
            file=sys.stderr,
        )


def _summarised(filling: Filling, now_s: float) -> Summary:
    rate = filling.successes / filling.attempts
    summary = Summary(filling.episodes, filling.attempts, rate, filling.wall_s(now_s))
    atomic.write_text(filling.out / SUMMARY, json.dumps(asdict(summary), indent=2) + "\n")
    return summary
