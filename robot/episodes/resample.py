"""Episodes as rows on one clock.

Clock `steps` (a simulated world, which takes as long to step as it takes): row k is message k of every channel.

Clock `time`: rows lie 1 / fps apart, from the first moment at which every channel has data to the last. Row k, at t_k,

- sees of each observation and camera the newest sample at or before t_k (`align=previous`): what a policy would have
  seen; or, with `nearest`, the one nearest to t_k, which may be of the future. Samples are never mixed: the mean of two
  rotations is none.
- acts with the command that was in force in the middle of its period, at t_k + 1 / (2 fps): the newest one at or before
  that. Where commands are at least a period apart, it is the one that was in force for the greater part of it.

A camera's time may be moved back by its `latency_s` first. The skew of a channel in a row is the time of its sample
minus t_k. A picture that was never recorded shows as the one before it, with a skew of more than a period; rows after
it are where they belong.

`next.success` of a row is true if by the end of its period a `success` event had come and no `failure` after it;
`next.reward` is 1 there, else 0; `next.terminated` and `next.truncated` are those of the result, in the last row.
Of simulated steps all four are what the world said, but for the success of an episode that was labelled otherwise
since: then the last row alone has it, or none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import (
    ACTIONS,
    STEP_FIELDS,
    STEP_TOPIC,
    STEPS,
    Channel,
    Episode,
    Header,
    PictureChannel,
    Pictures,
    action_topic,
    is_picture,
    topic_of,
)
from robot.episodes.rows import ACTION, Rows, Schema
from robot.errors import ConfigError, DatasetError, EpisodeError, unknown_name
from robot.specs import ArraySpec, Specs

AUTO = "auto"
PREVIOUS, NEAREST = "previous", "nearest"
REFUSE, SPLIT, KEEP = "refuse", "split", "keep"
OUTCOMES = {f"next.{name}": "float32" if name == "reward" else "bool" for name in STEP_FIELDS}
PERIODS = 1.5


@dataclass(frozen=True, kw_only=True)
class MaxSkew:
    """Greatest distance in time between a sample and its row [s]; 0: 1.5 periods of the channel, or half a row's.

    Attributes:
        vectors: Of observations that are vectors, and of further channels.
        pictures: Of cameras.
        actions: Of commands.
    """

    vectors: float = 0.0
    pictures: float = 0.0
    actions: float = 0.0

    def __post_init__(self) -> None:
        if min(self.vectors, self.pictures, self.actions) < 0:
            raise ConfigError(f"max_skew_s is {self}; expected times of 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How an episode becomes rows.

    Attributes:
        label: Which action: `device`, `commanded` or `applied`; `auto` leaves it to `EpisodeSource`.
        fps: Rows per second; 0: the rate of the specs.
        align: `previous` or `nearest`.
        compensate_latency: Whether pictures are of the moment that their camera's `latency_s` says.
        skews: Whether rows get columns `skew.<channel>` [s].
        channels: Topics of further channels that become columns: `/measured/q` becomes `measured.q`.
        gaps: What to do where a skew is too great: `refuse` the episode, `split` it, or `keep` it as it is.
        max_skew_s: What is too great.
    """

    label: str = "device"
    fps: int = 0
    align: str = PREVIOUS
    compensate_latency: bool = False
    skews: bool = False
    channels: tuple[str, ...] = ()
    gaps: str = REFUSE
    max_skew_s: MaxSkew = field(default_factory=MaxSkew)

    def __post_init__(self) -> None:
        for kind, got, known in (
            ("label", self.label, (*ACTIONS, AUTO)),
            ("align", self.align, (PREVIOUS, NEAREST)),
            ("gaps", self.gaps, (REFUSE, SPLIT, KEEP)),
        ):
            if got not in known:
                raise unknown_name(kind, got, known)
        if self.fps < 0:
            raise ConfigError(f"fps is {self.fps}; expected rows per second, or 0 for the rate of the specs.")


@dataclass(frozen=True)
class Span:
    """Rows of an episode without a gap: the time of the first [ns], their number, and whether the episode ends there.

    With the clock `steps`, the time is 0.
    """

    start_ns: int
    rows: int
    is_last: bool = True


def schema(header: Header, how: Resampling) -> Schema:
    """What the rows of an episode hold; its own task is left to the rows.

    Raises:
        DatasetError: The rate is no whole number, or cannot be had.
        EpisodeError: A further channel does not exist.
    """
    specs = header.specs
    if how.fps and header.clock == STEPS and abs(how.fps * specs.dt_s - 1) > 1e-9:
        raise DatasetError(
            f"Episodes of simulated steps have the rate of their world, {1 / specs.dt_s:g} Hz, not fps={how.fps}. "
            "Leave fps out."
        )
    if how.fps:
        specs = replace(specs, dt_s=1 / how.fps)
    extras: Specs = {topic[1:].replace("/", "."): _channel_spec(header, topic) for topic in how.channels}
    extras |= {key: ArraySpec(key, (), dtype) for key, dtype in OUTCOMES.items()}
    if how.skews:
        keys = [*specs.observation, ACTION, *(topic[1:].replace("/", ".") for topic in how.channels)]
        extras |= {f"skew.{key}": ArraySpec(f"skew.{key}", (), unit="s") for key in keys}
    return Schema(specs, extras)


def _channel_spec(header: Header, topic: str) -> ArraySpec:
    known = {action_topic(stage): header.specs.action for stage in ACTIONS} | header.channels
    if topic not in known:
        raise unknown_name("channel", topic, known)
    spec = known[topic]
    return replace(spec, key=topic[1:].replace("/", "."))


def spans(episode: Episode, how: Resampling) -> tuple[Span, ...]:
    """The stretches of an episode that become rows, in order; none where channels have no moment in common.

    Raises:
        EpisodeError: A channel is missing, or a skew is too great and `gaps` is `refuse`; says which and where.
    """
    if episode.header.clock == STEPS:
        return (Span(0, episode.result.steps),)
    tracks = _tracks(episode, how)
    start, stop = max(int(t.t_ns[0]) for t in tracks.values()), min(int(t.t_ns[-1]) for t in tracks.values())
    fps = _fps(episode.header.specs, how)
    count = 0 if stop < start else int((stop - start) * fps // 1_000_000_000) + 1
    if count == 0 or how.gaps == KEEP:
        return (Span(start, count),) if count else ()
    clock = _Clock(start, count, fps)
    ok = np.ones(count, bool)
    for key, track in tracks.items():
        skew = track.picked(clock).skew_s
        far = np.abs(skew) > track.bound_s(fps)
        if far.any() and how.gaps == REFUSE:
            row = int(np.argmax(np.abs(skew)))
            raise EpisodeError(
                f"{key} is {abs(skew[row]):.3f} s off its row at {row / fps:.2f} s, more than {track.bound_s(fps):.3f} "
                f"s, in {int(far.sum())} of {count} rows. Cut there with gaps=split, keep it with gaps=keep, or allow "
                "more with max_skew_s."
            )
        ok &= ~far
    return _stretches(ok, clock)


def resample(episode: Episode, how: Resampling, span: Span) -> Rows:
    """Rows of one stretch of an episode; see the module.

    Raises:
        EpisodeError: A channel is missing.
    """
    if episode.header.clock == STEPS:
        picked = _picked_steps(episode, how)
        outcomes = _step_outcomes(episode)
    else:
        fps = _fps(episode.header.specs, how)
        clock = _Clock(span.start_ns, span.rows, fps)
        picked = {key: track.picked(clock) for key, track in _tracks(episode, how).items()}
        outcomes = _event_outcomes(episode, clock, span.is_last)
    columns: dict[str, np.ndarray] = dict(outcomes)
    pictures: dict[str, Pictures] = {}
    for key, one in picked.items():
        if isinstance(one.channel, PictureChannel):
            pictures[key] = Picked(one.channel.pictures, one.numbers)
        else:
            columns[key] = one.channel.values[one.numbers]
        if how.skews:
            columns[f"skew.{key}"] = one.skew_s.astype(np.float32)
    origin = {"label": how.label, "skew_s": {key: _summary(one.skew_s) for key, one in picked.items()}}
    return Rows(columns, pictures, episode.header.specs.task, origin)


class Picked:
    """Some of the pictures of a channel, by numbers that do not decrease; each is decoded once."""

    def __init__(self, pictures: Pictures, numbers: np.ndarray) -> None:
        self._pictures, self._numbers = pictures, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        wanted, repeats = np.unique(self._numbers, return_counts=True)
        for picture, count in zip(self._some(wanted), repeats, strict=True):
            for _ in range(count):
                yield picture

    def _some(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        if hasattr(self._pictures, "picked"):
            yield from self._pictures.picked(numbers.tolist())
            return
        chosen, last = set(numbers.tolist()), int(numbers[-1]) if len(numbers) else -1
        for number, picture in zip(range(last + 1), self._pictures, strict=False):
            if number in chosen:
                yield picture


@dataclass(frozen=True)
class _Choice:
    """Which sample of a channel each row has, and its skew [s]; both of shape (T,)."""

    channel: Channel | PictureChannel
    numbers: np.ndarray
    skew_s: np.ndarray


class _Clock:
    """Times of rows without rounding: whole numbers of 1 / (2 fps) nanoseconds from the first row on."""

    half = 1_000_000_000
    """Half a row's period."""

    def __init__(self, start_ns: int, rows: int, fps: int) -> None:
        self._start_ns, self._scale = start_ns, 2 * fps
        self.rows = np.arange(rows, dtype=np.int64) * 2 * self.half

    def ticks(self, t_ns: np.ndarray | np.int64) -> Any:
        return (t_ns - self._start_ns) * self._scale

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        return ticks / (1e9 * self._scale)

    def time_ns(self, row: int) -> int:
        return self._start_ns + round(int(self.rows[row]) / self._scale)


@dataclass(frozen=True)
class _Track:
    """A channel with its times as they count [ns], how its samples are chosen, and the limit of its skew [s]."""

    channel: Channel | PictureChannel
    t_ns: np.ndarray
    align: str
    is_action: bool
    limit_s: float

    def picked(self, clock: "_Clock") -> _Choice:
        moments, t = clock.rows + clock.half * self.is_action, clock.ticks(self.t_ns)
        numbers = np.maximum(np.searchsorted(t, moments, side="right") - 1, 0)
        if self.align == NEAREST and not self.is_action:
            after = np.minimum(numbers + 1, len(t) - 1)
            numbers = np.where(np.abs(t[after] - moments) < np.abs(moments - t[numbers]), after, numbers)
        return _Choice(self.channel, numbers, clock.seconds(t[numbers] - clock.rows))

    def bound_s(self, fps: int) -> float:
        if self.limit_s:
            return self.limit_s
        period_s = float(np.median(np.diff(self.t_ns))) / 1e9 if len(self.t_ns) > 1 else 0.0
        return max(PERIODS * period_s, 0.5 / fps)


def _tracks(episode: Episode, how: Resampling) -> dict[str, _Track]:
    """Every channel that rows are made of, by key of its column."""
    header, limits = episode.header, how.max_skew_s
    tracks = {}
    for key, spec in header.specs.observation.items():
        limit = limits.pictures if is_picture(spec) else limits.vectors
        channel = _found(episode, topic_of(key))
        late_s = header.cameras.get(key, {}).get("latency_s", 0.0) if how.compensate_latency else 0.0
        tracks[key] = _Track(channel, channel.t_ns - round(late_s * 1e9), how.align, False, limit)
    action = _found(episode, action_topic(how.label), " Choose another label.")
    tracks[ACTION] = _Track(action, action.t_ns, PREVIOUS, True, limits.actions)
    for topic in how.channels:
        channel, is_action = _found(episode, topic), topic.startswith("/action/")
        limit = limits.actions if is_action else limits.vectors
        tracks[topic[1:].replace("/", ".")] = _Track(channel, channel.t_ns, how.align, is_action, limit)
    return tracks


def _found(episode: Episode, topic: str, advice: str = "") -> Channel | PictureChannel:
    found: Mapping[str, Channel | PictureChannel] = {**episode.channels, **episode.pictures}
    if topic not in found or len(found[topic].t_ns) == 0:
        has = ", ".join(sorted(name for name, channel in found.items() if len(channel.t_ns)))
        raise EpisodeError(f"it has no {topic}; it has {has or 'nothing'}.{advice}")
    return found[topic]


def _fps(specs: EnvironmentSpecs, how: Resampling) -> int:
    return how.fps or round(1 / specs.dt_s)


def _stretches(ok: np.ndarray, clock: _Clock) -> tuple[Span, ...]:
    """Runs of rows that are all right."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ok.astype(np.int8), [0]])))
    return tuple(
        Span(clock.time_ns(begin), int(end - begin), bool(end == len(ok)))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    )


def _picked_steps(episode: Episode, how: Resampling) -> dict[str, _Choice]:
    tracks = _tracks(episode, how)
    rows = np.arange(episode.result.steps)
    times = tracks[ACTION].t_ns
    for key, track in tracks.items():
        if len(track.t_ns) != len(rows):
            raise EpisodeError(f"{key} has {len(track.t_ns)} messages for {len(rows)} steps.")
    return {key: _Choice(track.channel, rows, (track.t_ns - times) / 1e9) for key, track in tracks.items()}


def _step_outcomes(episode: Episode) -> dict[str, np.ndarray]:
    values = episode.channels[STEP_TOPIC].values
    found = {f"next.{name}": values[:, k].astype(OUTCOMES[f"next.{name}"]) for k, name in enumerate(STEP_FIELDS)}
    success, ended = found["next.success"], episode.result.success_final
    if bool(success[-1]) != ended:  # somebody has labelled it since
        success[:] = False
        success[-1] = ended
    return found


def _event_outcomes(episode: Episode, clock: _Clock, is_last: bool) -> dict[str, np.ndarray]:
    ends = clock.rows + 2 * clock.half
    success = np.zeros(len(ends), bool)
    for event in sorted(episode.events, key=lambda event: event.t_ns):
        if event.name in ("success", "failure"):
            success[ends >= clock.ticks(np.int64(event.t_ns))] = event.name == "success"
    if is_last:
        success[-1] = episode.result.success_final
    last = np.arange(len(ends)) == len(ends) - 1
    return {
        "next.reward": success.astype(np.float32),
        "next.success": success,
        "next.terminated": last & (is_last and episode.result.terminated),
        "next.truncated": last & (episode.result.truncated if is_last else True),
    }


def _summary(skew_s: np.ndarray) -> dict[str, Any]:
    """Of a channel's skew over the rows [s]; `p99` of its size."""
    return {
        "min": float(skew_s.min()),
        "mean": float(skew_s.mean()),
        "max": float(skew_s.max()),
        "p99": float(np.quantile(np.abs(skew_s), 0.99)),
    }
