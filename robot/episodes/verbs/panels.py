"""What a plot of an episode shows: panels of lines over time, made of channels."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from robot.episodes.episode import ACTIONS, STEP_TOPIC, STEPS, Channel, Episode, action_topic
from robot.errors import unknown_name
from robot.specs import ArraySpec

ACTION_PREFIX = "/action/"
BOOKKEEPING = ("/status", "/command/")
"""Channels that are shown only where they are asked for: numbers of cycles, verdicts."""
MAX_LINES = 12
MAX_ELEMENTS = 4 * MAX_LINES
MAX_POINTS = 4000


@dataclass(frozen=True)
class Line:
    """Values over time: (T,) seconds after the beginning, and (T,)."""

    name: str
    t_s: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """Lines that share a scale.

    Attributes:
        title: What is shown.
        unit: Of the values.
        lines: In the order of their names.
        is_held: Whether a value holds until the next one, as that of an action.
    """

    title: str
    unit: str
    lines: list[Line] = field(default_factory=list)
    is_held: bool = False


def origin_ns(episode: Episode) -> int:
    """Time of the first message [ns]."""
    times = [channel.t_ns for channel in episode.channels.values()]
    times += [camera.t_ns for camera in episode.pictures.values()]
    return int(min(found[0] for found in times if len(found)))


def seconds(episode: Episode, t_ns: np.ndarray) -> np.ndarray:
    """Times of messages, seconds after the beginning; on a clock of steps, those of the steps in the world."""
    if episode.header.clock == STEPS:
        return np.arange(len(t_ns)) * episode.header.specs.dt_s
    return (t_ns - origin_ns(episode)) / 1e9


def panels(episode: Episode, topics: Sequence[str] = ()) -> list[Panel]:
    """Actions, an element each with all its stages; then the other channels, a unit each.

    Args:
        episode: To be shown.
        topics: Channels that are wanted; empty for all but bookkeeping.

    Raises:
        UnknownNameError: There is no such channel.
    """
    for topic in topics:
        if topic not in episode.channels:
            raise unknown_name("channel", topic, episode.channels)
    wanted = topics or [topic for topic, channel in episode.channels.items() if _is_shown(topic, channel)]
    found = _action_panels(episode, wanted)
    for topic in wanted:
        if not topic.startswith(ACTION_PREFIX) and topic != STEP_TOPIC:
            found += _channel_panels(episode, topic, episode.channels[topic])
    return found + (_step_panels(episode) if STEP_TOPIC in wanted else [])


def _is_shown(topic: str, channel: Channel) -> bool:
    """Without being asked for: neither bookkeeping nor pictures of depth or clouds of points."""
    return not topic.startswith(BOOKKEEPING) and channel.values[0].size <= MAX_ELEMENTS


def _action_panels(episode: Episode, wanted: Sequence[str]) -> list[Panel]:
    stages = [stage for stage in ACTIONS if action_topic(stage) in wanted and action_topic(stage) in episode.channels]
    spec = episode.header.specs.action
    made = []
    for at, (name, unit) in enumerate(zip(names(spec), units(spec), strict=True) if stages else ()):
        lines = []
        for stage in stages:
            channel = episode.channels[action_topic(stage)]
            flat = channel.values.reshape(len(channel.values), -1)
            lines.append(_line(stage, seconds(episode, channel.t_ns), flat[:, at]))
        lines += _measured(episode, name, spec)
        made.append(Panel(f"action: {name}", unit, lines, is_held=True))
    return made


def _measured(episode: Episode, name: str, action: ArraySpec) -> list[Line]:
    """What was measured of an element of the action: an observed element of the same name, which deltas have not."""
    for topic, channel in episode.channels.items():
        own = names(channel.spec)
        if topic.startswith("/observation/") and action.names and name in own:
            flat = channel.values.reshape(len(channel.values), -1)
            return [_line("measured", seconds(episode, channel.t_ns), flat[:, own.index(name)])]
    return []


def _channel_panels(episode: Episode, topic: str, channel: Channel) -> list[Panel]:
    """Elements of one unit share a panel, a few at a time."""
    flat = channel.values.reshape(len(channel.values), -1)
    t_s = seconds(episode, channel.t_ns)
    groups: dict[str, list[int]] = {}
    for at, unit in enumerate(units(channel.spec)):
        groups.setdefault(unit, []).append(at)
    made = []
    own = names(channel.spec)
    for unit, elements in groups.items():
        for first in range(0, min(len(elements), MAX_ELEMENTS), MAX_LINES):
            lines = [_line(own[at], t_s, flat[:, at]) for at in elements[first : first + MAX_LINES]]
            made.append(Panel(topic, unit, lines))
    return made


def _step_panels(episode: Episode) -> list[Panel]:
    channel = episode.channels[STEP_TOPIC]
    t_s = seconds(episode, channel.t_ns)
    fields = zip(names(channel.spec), channel.values.T, strict=True)
    lines = {name: _line(name, t_s, values) for name, values in fields}
    reward = lines.pop("reward")
    return [Panel(STEP_TOPIC, "", [reward]), Panel(STEP_TOPIC, "", list(lines.values()), is_held=True)]


def names(spec: ArraySpec) -> list[str]:
    """Names of the elements; their numbers where they have none."""
    return list(spec.names) or [str(at) for at in range(int(np.prod(spec.shape)))]


def units(spec: ArraySpec) -> list[str]:
    """The unit of each element."""
    size, each = int(np.prod(spec.shape)), spec.unit.split(" ")
    return each if len(each) == size else [spec.unit] * size


def _line(name: str, t_s: np.ndarray, values: np.ndarray) -> Line:
    return Line(name, *thinned(t_s, np.asarray(values, np.float64)))


def thinned(t_s: np.ndarray, values: np.ndarray, most: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """No more than about so many points, the lowest and the highest of each stretch among them."""
    if len(values) <= most:
        return t_s, values
    kept: list[int] = [0, len(values) - 1]
    for stretch in np.array_split(np.arange(len(values)), most // 2):
        kept += [int(stretch[np.argmin(values[stretch])]), int(stretch[np.argmax(values[stretch])])]
    at = np.unique(kept)
    return t_s[at], values[at]
