"""Demonstrations from files: a folder of episodes, with what their logs know besides, or a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from robot.episodes import folder
from robot.episodes.curation.demonstrations import Demonstrations, of_rows
from robot.episodes.dataset import SUCCESS
from robot.episodes.episode import STEPS, Channel, Episode, Event, action_topic, topic_of
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.resample import KEEP, Resampling, resample, spans
from robot.errors import DatasetError, EpisodeError

CLAMPS, REFUSALS, DROPS, INTERVENTIONS, FAULTS = "clamps", "refusals", "drops", "interventions", "faults"
JITTER, SKEW = "jitter_ms", "skew_ms"
FACTS = (CLAMPS, REFUSALS, DROPS, INTERVENTIONS, FAULTS, JITTER, SKEW)
STATUS_TOPIC = "/status"
"""Of a bridge (`robot.episodes.bridge_log`, which needs ZMQ)."""
_REFUSED = ("rejected", "refused", "stale_rows")


def of_folder(path: Path, label: str, keys: Sequence[str] | None = None) -> Demonstrations:
    """The finished episodes of a folder.

    Args:
        path: The folder.
        label: Which of the three actions is measured: `device`, `commanded` or `applied`.
        keys: Which observations make up the state; all vectors if None.

    Raises:
        EpisodeError: There is none, one is damaged, or they do not belong together.
    """
    paths = folder.finished(path)
    if not paths:
        raise EpisodeError(f"{path} holds no finished episodes. Record some: `armature record out={path}`.")
    first = EpisodeReader(paths[0]).header.specs
    facts: dict[str, list[float]] = {name: [] for name in FACTS}
    tasks: list[str] = []

    def rows() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for episode_path in tqdm(paths, desc="read", unit="episode", mininterval=0.5, disable=None):
            episode = EpisodeReader(episode_path).read()
            if lines := first.difference(episode.header.specs):
                raise EpisodeError(
                    f"{episode_path} does not fit {paths[0]}: {'; '.join(lines)}. Measure episodes of different robots "
                    "or observations apart."
                )
            for name, value in facts_of(episode, label).items():
                facts[name].append(value)
            tasks.append(episode.header.specs.task)
            yield str(folder.episode_number(episode_path)), _columns(episode_path, episode, label)

    found = of_rows(first, rows(), keys)
    known = {name: np.array(values) for name, values in facts.items()}
    return replace(found, tasks=tuple(tasks), facts=known)


def of_dataset_folder(path: Path, keys: Sequence[str] | None = None) -> Demonstrations:
    """The episodes of a LeRobotDataset v3.

    Raises:
        DatasetError: It is missing, damaged or has no actions.
    """
    from robot.episodes.formats.lerobot_reader import LeRobotSource  # the only part that needs pyarrow

    source = LeRobotSource(path)
    if source.schema.specs.action.shape == (0,):
        raise DatasetError(
            f"{path} has no actions, so there is nothing to say about demonstrations. "
            "Give it proxy actions first: `armature dataset relabel`."
        )

    tasks: list[str] = []

    def rows() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for number in tqdm(range(len(source)), desc="read", unit="episode", mininterval=0.5, disable=None):
            episode = source.read(number)
            tasks.append(episode.task if isinstance(episode.task, str) else "; ".join(dict.fromkeys(episode.task)))
            said = episode.origin.get("success")
            known = {} if SUCCESS in episode.columns or said is None else {SUCCESS: np.array([bool(said)])}
            yield str(number), {**episode.columns, **known}

    found = of_rows(source.schema.specs, rows(), keys)
    return replace(found, tasks=tuple(tasks))


def facts_of(episode: Episode, label: str) -> dict[str, float]:
    """What only the log knows, by the names of measures; NaN where it does not.

    Drops, interventions and faults are counted from the events; clamped cycles and commands that came too late or were
    refused from the status of a bridge. Jitter is the 99th percentile of how far intervals are from their median, and
    skew the 95th percentile of how old the newest observation is when an action is sent, each of the worst channel
    [ms]; not known where the clock counts steps, because a simulated world takes the time that it takes.
    """
    facts = dict.fromkeys(FACTS, float("nan"))
    facts |= {DROPS: _count(episode.events, "dropped"), INTERVENTIONS: _count(episode.events, "intervention")}
    if episode.header.clock == STEPS:
        return facts
    facts[FAULTS] = _count(episode.events, "fault")
    facts |= _of_status(episode.channels.get(STATUS_TOPIC))
    times = {topic: channel.t_ns for topic, channel in episode.channels.items()}
    times |= {topic: channel.t_ns for topic, channel in episode.pictures.items()}
    seen = [times[topic_of(key)] for key in episode.header.specs.observation if topic_of(key) in times]
    jitters = [jitter_ms(t_ns) for t_ns in seen]
    sent = times.get(action_topic(label))
    skews = [] if sent is None else [age_ms(t_ns, sent) for t_ns in seen]
    return facts | {JITTER: max(jitters, default=float("nan")), SKEW: max(skews, default=float("nan"))}


def _of_status(status: Channel | None) -> dict[str, float]:
    """How much the bridge's counters grew; one that begins anew grows from zero."""
    if status is None or not {*_REFUSED, "clamped"} <= {*status.spec.names} or len(status.values) == 0:
        return {}

    def growth(name: str) -> float:
        return float(np.maximum(np.diff(status.values[:, status.spec.names.index(name)]), 0).sum())

    return {CLAMPS: growth("clamped"), REFUSALS: sum(map(growth, _REFUSED))}


def jitter_ms(t_ns: np.ndarray) -> float:
    """99th percentile of the difference of intervals from their median [ms]; 0 for fewer than three times."""
    intervals = np.diff(t_ns) / 1e6
    return float(np.quantile(np.abs(intervals - np.median(intervals)), 0.99)) if len(intervals) > 1 else 0.0


def age_ms(seen_ns: np.ndarray, sent_ns: np.ndarray) -> float:
    """95th percentile of the age of the newest of `seen_ns` at each of `sent_ns` [ms], from the first that was seen."""
    at = np.searchsorted(seen_ns, sent_ns, side="right") - 1
    ages = (sent_ns[at >= 0] - seen_ns[at[at >= 0]]) / 1e6
    return float(np.quantile(ages, 0.95)) if len(ages) else float("nan")


def _count(events: Sequence[Event], begins: str) -> float:
    """Events of a name, each as often as its data says."""
    return float(sum(int(event.data.get("count", 1)) for event in events if event.name.startswith(begins)))


def _columns(path: Path, episode: Episode, label: str) -> dict[str, np.ndarray]:
    """The whole episode as rows, gaps and all: whoever builds a dataset of it may cut there."""
    how = Resampling(label=label, gaps=KEEP)
    try:
        found = spans(episode, how)
        if not found:
            raise EpisodeError("its channels have no moment in common.")
        return dict(resample(episode, how, found[0]).columns)
    except EpisodeError as error:
        raise EpisodeError(f"{path}: {error}") from error
