"""Demonstrations to make others of: read from a folder of episodes, checked, and cut."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot.contract import Environment, EnvironmentSpecs
from robot.episodes import folder
from robot.episodes.episode import COMMANDED, DEVICE, STEPS, Episode, Header, action_topic, topic_of
from robot.episodes.log_reader import EpisodeReader
from robot.errors import EpisodeError
from robot.sim.augmentation.demonstration import (
    ENVIRONMENT_STATE,
    STATE,
    Trajectory,
    check_specs,
    trajectory,
)
from robot.sim.augmentation.segments import Segment
from robot.sim.tasks import TASKS
from robot.specs import Specs, difference

SAME = 1e-3
"""How far observations of an episode that is played again may be off its log's: float32, and a little chaos."""

Cut = Callable[[Trajectory], tuple[Segment, ...]]


@dataclass(frozen=True)
class Source:
    """One demonstration.

    Attributes:
        name: Of its file.
        seed: Of its initial state.
        quality: What its header says.
        scene: Pose (4, 4) of every object at the beginning.
        segments: What was done, in order.
    """

    name: str
    seed: int
    quality: str
    scene: Mapping[str, np.ndarray]
    segments: tuple[Segment, ...]


def sources(path: Path, environment: Environment, cut: Cut) -> list[Source]:
    """The demonstrations in a folder that others can be made of. Says on standard error why it leaves any out.

    Args:
        path: The folder.
        environment: The world that they were recorded in, without cameras.
        cut: Cuts a trajectory into segments, or raises `EpisodeError`.

    Raises:
        EpisodeError: Episodes are of another world or of a real robot, a file is damaged, or none can be used.
    """
    check_specs(environment.specs)
    paths = folder.finished(path)
    if not paths:
        raise EpisodeError(f"{path} holds no episodes. Record some with `armature record` first.")
    found = []
    for episode_path in paths:
        reader = EpisodeReader(episode_path)
        check_header(episode_path, reader.header, environment.specs)
        if not reader.result.success_final:
            _leave_out(episode_path, "it did not succeed")
            continue
        episode = reader.read()
        moves = _moves(episode_path, episode, environment)
        try:
            segments = cut(moves)
        except EpisodeError as error:
            _leave_out(episode_path, str(error))
            continue
        scene = {name: poses[0] for name, poses in moves.objects.items()}
        found.append(Source(episode_path.name, episode.header.seed, episode.header.quality, scene, segments))
    if not found:
        raise EpisodeError(f"No episode of {len(paths)} in {path} can be used; the reasons are above.")
    return found


def _leave_out(path: Path, reason: str) -> None:
    print(f"{path} is left out: {reason}.", file=sys.stderr)


def check_header(path: Path, header: Header, specs: EnvironmentSpecs) -> None:
    """Refuse an episode of another world than one with these specs, cameras aside.

    Raises:
        EpisodeError: Says what differs.
    """
    if header.clock != STEPS:
        raise EpisodeError(
            f"{path} was recorded on a clock of {header.clock}, as of a real robot: nobody knows where its objects "
            "were, and nothing can be tried there. Augmentation takes episodes that were recorded in simulation."
        )
    if header.specs.task != specs.task:
        env = [name for name, task in TASKS.items() if task.words == header.specs.task]
        fix = f"Add env={env[0]}." if env else "It is none of the simulated tasks."
        raise EpisodeError(f"{path} shows {header.specs.task!r}, this world is for {specs.task!r}. {fix}")
    lines = []
    for field in ("robot", "action_space", "dt_s"):
        want, have = getattr(specs, field), getattr(header.specs, field)
        if want != have:
            lines.append(f"{field} is {have}, expected {want}")
    # Of another robot everything is different, and nobody wants to read that.
    lines = lines or difference(_acting(specs), _acting(header.specs))
    if lines:
        raise EpisodeError(
            f"{path} is of another world: {'; '.join(lines)}. Give env. the values it was recorded with."
        )


def _acting(specs: EnvironmentSpecs) -> Specs:
    """What has to agree: the arm's own state, and actions."""
    return {
        key: spec for key, spec in {**specs.observation, "action": specs.action}.items() if key in (STATE, "action")
    }


def _moves(path: Path, episode: Episode, environment: Environment) -> Trajectory:
    specs, header = environment.specs, episode.header
    names = specs.observation[ENVIRONMENT_STATE].names
    logged = header.specs.observation.get(ENVIRONMENT_STATE)
    if logged is not None and logged.names == names:
        world = episode.channels[topic_of(ENVIRONMENT_STATE)].values
    else:
        world = _played_again(path, episode, environment)
    state, asked = (episode.channels[topic].values for topic in (topic_of(STATE), action_topic(DEVICE)))
    return trajectory(specs, state, world, names, asked)


def _played_again(path: Path, episode: Episode, environment: Environment) -> np.ndarray:
    """`observation.environment_state` (T, E) of an episode that does not hold it, from its seed and its actions."""
    sent = episode.channels[action_topic(COMMANDED)]
    logged, world = episode.channels[topic_of(STATE)].values, []
    observation, _ = environment.reset(seed=episode.header.seed)
    for step, action in enumerate(sent.values):
        off = float(np.abs(observation[STATE] - logged[step]).max())
        if not off <= SAME:
            raise EpisodeError(
                f"{path} does not hold where its objects were, and does not repeat here: at step {step} "
                f"{STATE} is off by {off:.2g}. Give env. the values it was recorded with, or record again."
            )
        world.append(observation[ENVIRONMENT_STATE])
        observation, *_ = environment.step(action)
    return np.stack(world)
