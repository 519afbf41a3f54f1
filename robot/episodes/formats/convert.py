"""`armature convert`: datasets of other formats, and into robomimic's."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from robot.config import load
from robot.episodes.episode import COMMANDED
from robot.episodes.formats import lerobot_writer, opening, robomimic_writer
from robot.episodes.formats.choosing import Chosen, chosen_numbers
from robot.episodes.formats.given import Given
from robot.episodes.formats.opening import AUTO, LEROBOT, ROBOMIMIC, Opened, open_source
from robot.episodes.formats.robomimic_writer import RobomimicSettings
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import RowSource
from robot.errors import ConfigError, DatasetError, unknown_name
from robot.sim.camera_config import CamerasConfig

NONE, AS_RECORDED, AS_ROBOSUITE, LOW_DIM, RENDER = "none", "replay", "robosuite", "low_dim", "render"
TARGETS = (LEROBOT, ROBOMIMIC)
_SUFFIXES = (".hdf5", ".h5")


@dataclass(kw_only=True)
class ConvertConfig:
    """See `configs/convert.yaml`."""

    source: str
    out: str
    source_format: str = AUTO
    out_format: str = AUTO
    episodes: list[int] = field(default_factory=list)
    subset: str = ""
    valid: float = 0.0
    fps: float = 0.0
    robot: str = ""
    action_space: str = ""
    task: str = ""
    state: list[str] = field(default_factory=list)
    label: str = AUTO
    states: str = NONE
    observations: str = NONE
    cameras: list[str] = field(default_factory=lambda: ["agentview", "robot0_eye_in_hand"])
    pixels: int = 84
    codec: str = "h264"
    crf: int = -1
    gop: int = -1
    preset: str = ""
    compression: str = "gzip"
    workers: int = 0

    def __post_init__(self) -> None:
        for key, got, known in (
            ("format of the result", self.out_format, (AUTO, *TARGETS)),
            ("states", self.states, (NONE, AS_RECORDED, AS_ROBOSUITE)),
            ("observations", self.observations, (NONE, LOW_DIM, RENDER)),
        ):
            if got not in known:
                raise unknown_name(key, got, known)
        if self.workers < 0 or not 0.0 <= self.valid < 1.0:
            raise ConfigError(f"Expected workers >= 0 and 0 <= valid < 1, got {self.workers} and {self.valid:g}.")
        if not self.source or not self.out:
            raise ConfigError("Say what to read and what to write: armature convert source=demo.hdf5 out=data/demo")
        self.seen()
        self.given()  # these raise where a value is wrong
        self.encoding()

    def given(self) -> Given:
        """What the files do not say themselves."""
        return Given(
            fps=self.fps,
            robot=self.robot,
            action_space=self.action_space,
            task=self.task,
            state=tuple(self.state),
        )

    def seen(self) -> CamerasConfig:
        """What is drawn of played states."""
        names = self.cameras if self.observations == RENDER else []
        return CamerasConfig(names=names, height=self.pixels, width=self.pixels, quality="robosuite")

    def encoding(self) -> Encoding:
        """How pictures are kept in a LeRobotDataset."""
        return Encoding(codec=self.codec, crf=self.crf, gop=self.gop, preset=self.preset)

    @property
    def target(self) -> str:
        """The format of the result."""
        if self.out_format != AUTO:
            return self.out_format
        return ROBOMIMIC if Path(self.out).suffix in _SUFFIXES else LEROBOT


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("convert", ConvertConfig, overrides)
    print(convert(config))
    return 0


def convert(config: ConvertConfig) -> str:
    """Read `config.source` and write `config.out`; what was written, in a sentence.

    Raises:
        ConfigError: Options do not fit each other or the source.
        ArmatureError: The source cannot be read, or the result not written. What was at `out` stays.
    """
    source, out = Path(config.source), Path(config.out)
    _refuse_overlap(source, out)
    name = opening.format_of(source, config.source_format)
    opened = open_source(source, config.given(), name, _label(config, name))
    for remark in opened.remarks:
        print(remark, file=sys.stderr)
    chosen = Chosen(_observed(config, opened), _numbers(config, opened), config.given(), config.valid)
    return _written(config, _played(config, chosen), opened.format, out)


def _label(config: ConvertConfig, name: str) -> str:
    """The recorded action to take; what was sent, where an episode is to be played again."""
    if config.states == NONE or name != opening.EPISODES:
        return config.label
    if config.label not in (AUTO, COMMANDED):
        raise ConfigError(f"states={config.states} plays what was sent; leave label={config.label} out.")
    return COMMANDED


def _refuse_overlap(source: Path, out: Path) -> None:
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise ConfigError(f"out={out} is in the way of source={source}. Choose another place.")


def _numbers(config: ConvertConfig, opened: Opened) -> list[int]:
    """Which episodes are wanted; all of them have to be whole."""
    numbers = chosen_numbers(len(opened.source), config.episodes)
    if config.subset:
        inside = {number: opening.subsets_of(opened, number) for number in numbers}
        numbers = [number for number in inside if config.subset in inside[number]]
        if not numbers:
            raise unknown_name("subset", config.subset, {name for names in inside.values() for name in names})
    for number in numbers:
        if number in opened.damaged:
            raise DatasetError(opened.damaged[number])
    return numbers


def _observed(config: ConvertConfig, opened: Opened) -> RowSource:
    if config.observations == NONE:
        return opened.source
    from robot.episodes.formats.robosuite_raw import ObservedSource

    return ObservedSource(opened.source, config.seen())


def _played(config: ConvertConfig, source: RowSource) -> RowSource:
    if config.states == NONE:
        return source
    if config.target != ROBOMIMIC:
        raise ConfigError(f"states={config.states} is for robomimic's HDF5; choose out=<name>.hdf5.")
    from robot.episodes.formats.robosuite_replay import ReplayedSource

    return ReplayedSource(source, config.states)


def _written(config: ConvertConfig, source: RowSource, kind: str, out: Path) -> str:
    if config.target == ROBOMIMIC:
        done = robomimic_writer.write(source, out, RobomimicSettings(compression=config.compression))
        size_mb = out.stat().st_size / 1e6
        words = f"{out}: {done.episodes} episodes, {done.frames} frames, robomimic HDF5, {size_mb:.1f} MB."
        return words + _verdict(config, source)
    workers = config.workers or len(os.sched_getaffinity(0))
    workers = 1 if config.observations != NONE else workers  # a simulated world does not go to other processes
    settings = lerobot_writer.Settings(encoding=config.encoding(), workers=workers, progress=True)
    written = lerobot_writer.write(source, out, settings, {"source": Path(config.source).name, "format": kind})
    kept = f", {written.kept} of the episodes as they were" if written.kept else ""
    return (
        f"{out}: {written.episodes} episodes, {written.frames} frames at {written.fps} Hz, LeRobotDataset v3, "
        f"{written.megabytes:.1f} MB{kept}."
    )


def _verdict(config: ConvertConfig, source: RowSource) -> str:
    """How well played episodes agree with what was recorded."""
    worst = getattr(source, "worst", None)
    if worst is None:
        return ""
    agree = "exactly" if worst == 0.0 else f"to {worst:.1g}"
    if config.states == AS_RECORDED:
        return f" Played again, every episode goes as it was recorded, {agree}."
    failures = getattr(source, "failures", 0)
    return (
        f" Played as robosuite's script plays, every episode begins as it was recorded, {agree}, and "
        f"{failures or 'none'} of them ends without success."
    )
