"""`armature episodes show`: a plot of an episode's channels and a contact sheet of its pictures, or Rerun."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robot.config import load
from robot.episodes import folder
from robot.episodes.episode import STEPS, Episode, PictureChannel
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.pictures import LoggedPictures
from robot.episodes.verbs.choosing import chosen, require_folder, size
from robot.episodes.verbs.listing import told
from robot.episodes.verbs.panels import origin_ns, panels, seconds
from robot.episodes.verbs.timing import Timing, timing
from robot.errors import ConfigError, unknown_name

PNG, RERUN = "png", "rerun"
VIEWERS = (PNG, RERUN)


@dataclass(kw_only=True)
class ShowConfig:
    """See `configs/episodes_show.yaml`."""

    episodes: str
    number: int
    channels: list[str] = field(default_factory=list)
    pictures: int
    viewer: str
    out: str

    def __post_init__(self) -> None:
        if self.viewer not in VIEWERS:
            raise unknown_name("viewer", self.viewer, VIEWERS)
        if self.pictures < 0:
            raise ConfigError(f"pictures is {self.pictures}, expected at least 0.")


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("episodes_show", ShowConfig, overrides)
    where = require_folder(config.episodes)
    path = chosen(where, [config.number])[0]
    if config.viewer == RERUN:
        return _open_rerun(path)
    reader = EpisodeReader(path)
    episode = reader.read()
    lanes = timings(episode)
    for line in summary(path, reader, episode, lanes):
        print(line)
    for made in draw(episode, lanes, config, Path(config.out or where / "shown")):
        print(made)
    return 0


def timings(episode: Episode) -> dict[str, Timing]:
    """Of every channel by topic; of none where a simulated world took as long as it took."""
    if episode.header.clock == STEPS:
        return {}
    begin_ns = origin_ns(episode)
    times = {topic: channel.t_ns for topic, channel in episode.channels.items()}
    times |= {topic: camera.t_ns for topic, camera in episode.pictures.items()}
    return {topic: timing(t_ns, begin_ns) for topic, t_ns in times.items()}


def summary(path: Path, reader: EpisodeReader, episode: Episode, lanes: dict[str, Timing]) -> Iterator[str]:
    """What is known of an episode, a line each."""
    header, result = episode.header, episode.result
    yield f"{path}: {size(path.stat().st_size)}, recorded {header.wall_time} by {header.source}"
    yield f"  robot     {header.specs.robot}, actions {header.specs.action_space}"
    yield f"  task      {header.specs.task}"
    steps = f"{result.steps} steps, " if header.clock == STEPS else ""
    seed = f", seed {header.seed}, quality {header.quality or 'not said'}" if header.clock == STEPS else ""
    yield f"  length    {steps}{reader.duration_s:.2f} s{seed}"
    outcome = "" if reader.outcome == result else f", recorded as {_word(reader.outcome.success_final)}"
    yield f"  success   {_word(result.success_final)}{outcome}"
    for label in reader.labels:
        said = "" if label.success is None else f" {_word(label.success)}"
        yield f"  label     {label.wall_time}{said}{f': {label.note}' if label.note else ''}"
    yield f"  events    {told(episode.events) or 'none that are out of the ordinary'}"
    width = max(map(len, [*episode.channels, *episode.pictures]))
    for topic, channel in episode.channels.items():
        what = f"{len(channel.t_ns)} x {'x'.join(map(str, channel.spec.shape))} {channel.spec.dtype}"
        yield f"  {topic:<{width}}  {what:<22} {lanes[topic].words() if lanes else ''}".rstrip()
    for topic, camera in episode.pictures.items():
        what = f"{len(camera.t_ns)} x {'x'.join(map(str, camera.spec.shape))}"
        yield f"  {topic:<{width}}  {what:<22} {lanes[topic].words() if lanes else ''}".rstrip()


def draw(episode: Episode, lanes: dict[str, Timing], config: ShowConfig, out: Path) -> Iterator[Path]:
    """Write the pictures; gives the path of each."""
    from robot.episodes.verbs import plots  # matplotlib takes a second to import

    header, result = episode.header, episode.result
    how = ", ".join(part for part in (header.source, header.quality) if part)
    title = f"episode {config.number:06d}   {header.specs.robot}   {header.specs.task}   {how}   "
    title += "success" if result.success_final else "no success"
    path = out / f"{folder.episode_path(out, config.number).stem}-channels.png"
    plots.draw_channels(path, episode, title, panels(episode, config.channels), lanes)
    yield path
    sheets = [
        sheet(episode, topic, camera, config.pictures) for topic, camera in episode.pictures.items() if config.pictures
    ]
    if sheets:
        path = path.with_name(path.name.replace("-channels", "-pictures"))
        plots.draw_pictures(path, title, [plots.Sheet(*parts) for parts in sheets])
        yield path


def sheet(episode: Episode, topic: str, camera: PictureChannel, count: int) -> tuple[str, list[np.ndarray], list[str]]:
    """Title, pictures and captions of some pictures of one camera, evenly spaced."""
    pictures, shape = camera.pictures, camera.spec.shape
    numbers = np.unique(np.linspace(0, len(pictures) - 1, count).round().astype(int)).tolist()
    if isinstance(pictures, LoggedPictures):
        taken = list(pictures.picked(numbers))
    else:
        taken = [picture for number, picture in enumerate(pictures) if number in {*numbers}]
    times = seconds(episode, camera.t_ns)
    captions = [f"{times[number]:.2f} s   #{number}" for number in numbers]
    return f"{topic}   {len(pictures)} pictures, {shape[1]} x {shape[0]}", taken, captions


def _open_rerun(path: Path) -> int:
    """Rerun reads MCAP with Foxglove's schemas by itself."""
    if importlib.util.find_spec("rerun") is None:
        raise ConfigError(
            "viewer=rerun needs the Python package 'rerun-sdk': `pip install rerun-sdk`. Without it: viewer=png, or "
            f"drop {path} on Foxglove (https://app.foxglove.dev)."
        )
    return subprocess.run([sys.executable, "-m", "rerun", str(path)], check=False).returncode


def _word(success: bool) -> str:
    return "yes" if success else "no"
