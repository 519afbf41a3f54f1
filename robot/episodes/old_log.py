"""Messages of episodes of the format's versions 1 and 2: JSON objects of numbers, one step at a time."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from robot.episodes.episode import STEP_FIELDS, STEP_TOPIC, Channel, Header
from robot.episodes.mcap_records import Logged
from robot.episodes.topics import vector_topics
from robot.specs import ArraySpec

_REWARD, _EVENTS = "/reward", "/events"
Messages = Mapping[str, Sequence[tuple[int, bytes]]]
"""(time, JSON) of every message by topic."""


def gathered(logged: Iterable[Logged]) -> Messages:
    """Messages by topic."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for message in logged:
        found.setdefault(message.topic, []).append((message.t_ns, message.data))
    return found


def channels(header: Header, messages: Messages) -> dict[str, Channel]:
    """Vectors by topic; what was `/reward` and `/events` is `/step`.

    Raises:
        ValueError, KeyError, TypeError: A message is damaged.
    """
    parsed = {topic: [(t_ns, json.loads(data)) for t_ns, data in found] for topic, found in messages.items()}
    rewards, endings = parsed.pop(_REWARD, []), parsed.pop(_EVENTS, [])
    steps = [(t_ns, {**reward, **ending}) for (t_ns, reward), (_, ending) in zip(rewards, endings, strict=True)]
    parsed[STEP_TOPIC] = steps
    return {
        topic: _channel(spec, STEP_FIELDS if topic == STEP_TOPIC else _names(spec), parsed[topic])
        for topic, spec in vector_topics(header).items()
        if topic in parsed
    }


def _channel(spec: ArraySpec, names: Sequence[str], messages: list[tuple[int, dict[str, float]]]) -> Channel:
    times = np.array([t_ns for t_ns, _ in messages], np.int64)
    values = np.array([[fields[name] for name in names] for _, fields in messages], spec.dtype)
    return Channel(spec, times, values.reshape(-1, *spec.shape))


def _names(spec: ArraySpec) -> Sequence[str]:
    return spec.names or tuple(map(str, range(int(np.prod(spec.shape)))))
