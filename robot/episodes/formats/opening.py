"""Which format a file or folder is of, told by what is in it, and its episodes as a source of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot.episodes.formats import rlds_shards
from robot.episodes.formats.given import Given
from robot.episodes.rows import RowSource
from robot.errors import ConfigError, DatasetError, unknown_name

AUTO = "auto"
LEROBOT, ROBOMIMIC, RLDS, EPISODES = "lerobot", "robomimic", "rlds", "episodes"

FORMATS = {
    LEROBOT: "a LeRobotDataset v3, a folder with meta/info.json",
    ROBOMIMIC: "robomimic's or robosuite's HDF5, a file",
    RLDS: "RLDS of TensorFlow Datasets, a folder with features.json",
    EPISODES: "episodes that `armature record` wrote, a folder of MCAP files",
}

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".hdf5", ".h5")


@dataclass(frozen=True)
class Opened:
    """A source, and what was assumed or left aside, a sentence each; which episodes cannot be read, and why."""

    source: RowSource
    format: str
    remarks: list[str]
    damaged: dict[int, str]


def subsets_of(opened: Opened, number: int) -> tuple[str, ...]:
    """Names of the subsets that an episode is in, without reading it."""
    source: Any = opened.source
    return source.subsets_of(number) if hasattr(source, "subsets_of") else ()


def detect(path: Path) -> str:
    """The format of a file or folder.

    Raises:
        DatasetError: There is nothing, or it is of none of the formats.
    """
    if not path.exists():
        raise DatasetError(f"There is no file or folder {path}.")
    for name, fits in _TESTS.items():
        if fits(path):
            return name
    kinds = "; ".join(f"{name}: {words}" for name, words in FORMATS.items())
    raise DatasetError(f"{path} is of none of the formats that can be read. {_hint(path)}They are: {kinds}.")


def format_of(path: Path, name: str = AUTO) -> str:
    """The format that was named, or what `detect` finds. Raises `UnknownNameError`."""
    if name not in (AUTO, *FORMATS):
        raise unknown_name("format of a source", name, (AUTO, *FORMATS))
    return detect(path) if name == AUTO else name


def open_source(path: Path, given: Given, name: str, label: str = AUTO) -> Opened:
    """The episodes of a file or folder.

    Args:
        path: Of any of the formats.
        given: What the files do not say themselves.
        name: Of the format.
        label: Which recorded action is learnt, for `episodes`: `device`, `commanded`, `applied` or
            `auto` (see `EpisodeSource`).

    Raises:
        ConfigError: The format says itself what was given.
        ArmatureError: The source cannot be read.
    """
    if label != AUTO and name != EPISODES:
        raise ConfigError(f"label is for episodes that Armature recorded; {path} is {FORMATS[name]}.")
    return _OPENERS[name](path, given, label)


def _lerobot(path: Path, given: Given, label: str) -> Opened:
    from robot.episodes.formats.lerobot_reader import LeRobotSource

    if given.fps or given.state:
        raise ConfigError(f"{path} says its rate and its state itself; leave fps and state out.")
    source = LeRobotSource(path)
    remarks = [f"{key!r} is left out: {reason}." for key, reason in source.left_out.items()]
    return Opened(source, LEROBOT, remarks, {})


def _robomimic(path: Path, given: Given, label: str) -> Opened:
    from robot.episodes.formats.robomimic_reader import RobomimicSource

    source = RobomimicSource(path, given)
    return Opened(source, ROBOMIMIC, source.remarks, source.damaged)


def _rlds(path: Path, given: Given, label: str) -> Opened:
    from robot.episodes.formats.rlds import RldsSource

    source = RldsSource(path, given)
    return Opened(source, RLDS, source.remarks, {})


def _episodes(path: Path, given: Given, label: str) -> Opened:
    from robot.episodes.episode_source import EpisodeSource
    from robot.episodes.resample import Resampling

    if given.state:
        raise ConfigError(f"{path} says its state itself; leave state out.")
    if given.fps != round(given.fps):
        raise ConfigError(f"fps is {given.fps:g}, expected a whole number for recorded episodes.")
    how = Resampling(label=label, fps=round(given.fps))
    return Opened(EpisodeSource([path], how), EPISODES, [], {})


def _is_hdf5(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5 or path.suffix in _HDF5_SUFFIXES


def _hint(path: Path) -> str:
    if path.is_file():
        return "For a shard or an episode, name its folder. "
    files = sorted(found for suffix in _HDF5_SUFFIXES for found in path.glob(f"*{suffix}"))
    return f"It holds {files[0].name}: name that. " if files else ""


_TESTS: dict[str, Callable[[Path], bool]] = {
    LEROBOT: lambda path: (path / "meta" / "info.json").is_file(),
    ROBOMIMIC: _is_hdf5,
    RLDS: rlds_shards.looks_like,
    EPISODES: lambda path: path.is_dir() and any(path.glob("*.mcap")),
}

_OPENERS: dict[str, Callable[[Path, Given, str], Opened]] = {
    LEROBOT: _lerobot,
    ROBOMIMIC: _robomimic,
    RLDS: _rlds,
    EPISODES: _episodes,
}
