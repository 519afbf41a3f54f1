"""Demonstrations from files: a folder of episodes, with what their logs know besides, or a dataset."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from robot.episodes import folder
from robot.episodes.curation.demonstrations import Demonstrations, of_rows
from robot.episodes.dataset import REWARD, SUCCESS
from robot.episodes.episode import STEP_FIELDS, STEP_TOPIC, STEPS, Episode, Event, action_topic, topic_of
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.rows import ACTION
from robot.errors import DatasetError, EpisodeError

CLAMPS, DROPS, INTERVENTIONS = "clamps", "drops", "interventions"
JITTER, SKEW = "jitter_ms", "skew_ms"
_MOST_FACTS = (CLAMPS, DROPS, INTERVENTIONS, JITTER, SKEW)


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
    facts: dict[str, list[float]] = {name: [] for name in _MOST_FACTS}
    vectors = [key for key, spec in first.observation.items() if len(spec.shape) == 1]

    def rows() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for episode_path in tqdm(paths, desc="read", unit="episode", mininterval=0.5, disable=None):
            episode = EpisodeReader(episode_path).read()
            folder.check_same_specs(paths[0], first, episode_path, episode.header.specs)
            for name, value in facts_of(episode, label).items():
                facts[name].append(value)
            yield str(folder.episode_number(episode_path)), _columns(episode_path, episode, label, vectors)

    found = of_rows(first, rows(), keys)
    known = {name: np.array(values) for name, values in facts.items()}
    return Demonstrations(**{**vars(found), "facts": known})


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

    def rows() -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
        for number in tqdm(range(len(source)), desc="read", unit="episode", mininterval=0.5, disable=None):
            yield str(number), source.read(number).columns

    return of_rows(source.schema.specs, rows(), keys)


def facts_of(episode: Episode, label: str) -> dict[str, float]:
    """What only the log knows, by the names of measures.

    Clamps, drops and interventions are counted from the events. Jitter is the 99th percentile of how far intervals are
    from their median, and skew the 95th percentile of how old the newest observation is when an action is sent, each of
    the worst channel [ms]; NaN where the clock counts steps, because a simulated world takes the time that it takes.
    """
    facts = {
        CLAMPS: _count(episode.events, "clamp"),
        DROPS: _count(episode.events, "dropped"),
        INTERVENTIONS: _count(episode.events, "intervention"),
        JITTER: float("nan"),
        SKEW: float("nan"),
    }
    if episode.header.clock == STEPS:
        return facts
    times = {topic: channel.t_ns for topic, channel in episode.channels.items()}
    times |= {topic: channel.t_ns for topic, channel in episode.pictures.items()}
    seen = [times[topic_of(key)] for key in episode.header.specs.observation if topic_of(key) in times]
    jitters = [jitter_ms(t_ns) for t_ns in seen]
    sent = times.get(action_topic(label))
    skews = [] if sent is None else [age_ms(t_ns, sent) for t_ns in seen]
    return facts | {JITTER: max(jitters, default=float("nan")), SKEW: max(skews, default=float("nan"))}


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


def _columns(path: Path, episode: Episode, label: str, vectors: Sequence[str]) -> dict[str, np.ndarray]:
    topics = {key: topic_of(key) for key in vectors} | {ACTION: action_topic(label)}
    missing = [topic for topic in topics.values() if topic not in episode.channels]
    if missing:
        raise EpisodeError(
            f"{path} has no channel {', '.join(missing)}; it has {', '.join(sorted(episode.channels))}. "
            "label=... chooses the action: device, commanded or applied."
        )
    if episode.header.clock != STEPS:
        raise EpisodeError(f"{path} runs on time; build a dataset of it first and measure that (dataset=...).")
    columns = {key: episode.channels[topic].values for key, topic in topics.items()}
    if STEP_TOPIC in episode.channels:
        steps = episode.channels[STEP_TOPIC].values
        columns[REWARD] = steps[:, STEP_FIELDS.index("reward")]
    # The result has it after labels that were given later.
    columns[SUCCESS] = np.full(len(columns[ACTION]), episode.result.success_final)
    return columns
