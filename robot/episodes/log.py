"""Episodes as logs: one MCAP file each, appended as it happens, which opens in Foxglove.

Every message is a JSON object with one number for each named element, and every channel has its own times. JSON keeps
float32 exactly: Python prints the shortest decimals that give back the same float64, which holds every float32.

A file carries its final name only when it is complete; a recorder that was killed leaves `<name>.part`, of which at
most the last chunk is lost.
"""

import contextlib
import importlib.metadata
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from mcap.writer import CompressionType, Writer

from robot.contract import EnvironmentSpecs
from robot.episodes import atomic
from robot.errors import EpisodeError, SpecError
from robot.loop import Step
from robot.specs import ArraySpec, Specs

PROFILE = "armature-episode"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Episodes of version 1 do not say their quality; nothing else differs."""

HEADER, OUTCOME = "armature.header", "armature.outcome"
DEVICE, COMMANDED, APPLIED = "device", "commanded", "applied"
REWARD_TOPIC, EVENTS_TOPIC = "/reward", "/events"
EVENTS = ("success", "terminated", "truncated")
CHUNK_BYTES = 8192
"""About half a second of a seven-joint arm at 20 Hz."""


@dataclass(frozen=True)
class Header:
    """What is known when an episode begins.

    Attributes:
        specs: Of the environment.
        seed: Of the initial state and of the demonstrator.
        attempt: Number of the attempt among those of one recording; `seed - attempt` is the seed of the recording.
        source: Who acted: `expert`, or the name of a device or policy.
        quality: Quality that was asked for (see `robot.sim.experts.quality`); empty where nobody said.
        wall_time: Start, ISO 8601 with its offset from UTC.
        versions: Versions of the software that recorded.
    """

    specs: EnvironmentSpecs
    seed: int
    attempt: int
    source: str
    quality: str = ""
    wall_time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    versions: dict[str, str] = field(default_factory=lambda: software_versions())

    def to_metadata(self) -> dict[str, str]:
        """Strings, as MCAP wants them; each is JSON."""
        data = {**self.__dict__, "specs": self.specs.to_json(), "version": FORMAT_VERSION}
        return {key: json.dumps(value) for key, value in data.items()}


@dataclass(frozen=True)
class Result:
    """How an episode ended; written last.

    Attributes:
        steps: Control steps in the file.
        success_final: Whether the task was fulfilled after the last step.
        success_sticky: Whether it was fulfilled after any step.
        terminated: Whether the task ended the episode.
        truncated: Whether time ended it.
    """

    steps: int
    success_final: bool
    success_sticky: bool
    terminated: bool
    truncated: bool

    def to_metadata(self) -> dict[str, str]:
        """Strings, as MCAP wants them; each is JSON."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}


def software_versions() -> dict[str, str]:
    """Versions of what decides how an episode goes; absent packages are left out."""
    versions = {}
    for package in ("armature", "numpy", "mujoco", "robosuite", "mcap"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def topic_specs(specs: EnvironmentSpecs) -> Specs:
    """Specs of the messages of every channel of vectors, by topic."""
    topics = {topic_of(key): spec for key, spec in specs.observation.items()}
    return topics | {action_topic(channel): specs.action for channel in (DEVICE, COMMANDED, APPLIED)}


def topic_of(key: str) -> str:
    """`observation.state` is logged as `/observation/state`."""
    return "/" + key.replace(".", "/")


def action_topic(channel: str) -> str:
    """Topic of one of the three stages of an action: asked for by the device, commanded, applied by the robot."""
    return f"/action/{channel}"


def element_names(spec: ArraySpec) -> tuple[str, ...]:
    """Names of the fields of a message: those of the spec, or the numbers of the elements in C order."""
    return spec.names or tuple(map(str, range(int(np.prod(spec.shape)))))


class EpisodeWriter:
    """Appends steps to `<path>.part`; `finish` gives it the name `path`.

    Use it as a context manager: leaving the block without `finish` removes the unfinished file.
    """

    def __init__(self, path: Path, header: Header) -> None:
        for key, spec in header.specs.observation.items():
            if len(spec.shape) != 1:
                raise EpisodeError(
                    f"Episodes hold vectors, {key!r} has shape {spec.shape}; record without it, for pictures without "
                    "env.cameras."
                )
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._specs = header.specs
        self._last: Step | None = None
        self._success_sticky = False
        self._channels: dict[str, int] = {}
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
            self._mcap = Writer(self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
            self._mcap.start(profile=PROFILE)
            self._mcap.add_metadata(HEADER, header.to_metadata())

    def write(self, step: Step, applied: np.ndarray | None = None) -> None:
        """Append one step.

        Args:
            step: What happened. Observation and actions are logged at its time, reward and events at the present.
            applied: The action that the robot reports to have followed, where it reports one.

        Raises:
            SpecError: An array has the wrong shape or is not finite.
            EpisodeError: The step does not follow the last one, or the disk is full or not writable.
        """
        self._check_order(step)
        with self._writing():
            self._append(step, applied)
        self._last, self._success_sticky = step, self._success_sticky or step.success

    def _append(self, step: Step, applied: np.ndarray | None) -> None:
        actions = {DEVICE: step.device, COMMANDED: step.commanded} | ({} if applied is None else {APPLIED: applied})
        for key, spec in self._specs.observation.items():
            self._vector(topic_of(key), step.t_ns, spec, step.observation[key])
        for channel, action in actions.items():
            self._vector(action_topic(channel), step.t_ns, self._specs.action, action)
        now_ns = max(time.monotonic_ns(), step.t_ns)
        self._message(REWARD_TOPIC, now_ns, {"reward": float(step.reward)})
        self._message(EVENTS_TOPIC, now_ns, {name: bool(getattr(step, name)) for name in EVENTS})
        self._file.flush()

    def finish(self) -> Result:
        """Write the outcome and the index, push everything to the disk, and give the file its name."""
        if self._last is None:
            raise EpisodeError(f"{self._path} has no steps; an episode needs at least one.")
        last = self._last
        result = Result(last.index + 1, last.success, self._success_sticky, last.terminated, last.truncated)
        with self._writing():
            self._mcap.add_metadata(OUTCOME, result.to_metadata())
            self._mcap.finish()
            self._file.close()
            atomic.publish(self._part, self._path)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed or self._part.exists():
            with contextlib.suppress(OSError):  # what cannot be written is about to be removed
                self._file.close()
            self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EpisodeError(
                f"{self._part} cannot be written: {error.strerror}. Make room or choose another folder."
            ) from error

    def _check_order(self, step: Step) -> None:
        wanted = 0 if self._last is None else self._last.index + 1
        if step.index != wanted:
            raise EpisodeError(f"{self._part}: step {step.index} follows, expected step {wanted}.")
        if self._last is not None and not step.t_ns > self._last.t_ns:
            raise EpisodeError(
                f"{self._part}: step {step.index} is of {step.t_ns} ns, not after {self._last.t_ns} ns of the one "
                "before. Times come from CLOCK_MONOTONIC."
            )

    def _vector(self, topic: str, t_ns: int, spec: ArraySpec, value: np.ndarray) -> None:
        array = np.asarray(value, np.float32)
        if array.shape != spec.shape or not np.isfinite(array).all():
            raise SpecError(f"{topic}: expected finite values of shape {spec.shape}, got {array.tolist()}.")
        self._message(topic, t_ns, dict(zip(element_names(spec), array.ravel().tolist(), strict=True)))

    def _message(self, topic: str, t_ns: int, fields: Mapping[str, Any]) -> None:
        if topic not in self._channels:
            self._channels[topic] = self._registered(topic, fields)
        data = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()
        self._mcap.add_message(self._channels[topic], log_time=t_ns, data=data, publish_time=t_ns)

    def _registered(self, topic: str, fields: Mapping[str, Any]) -> int:
        kinds = {name: {"type": "boolean" if isinstance(value, bool) else "number"} for name, value in fields.items()}
        schema = {"type": "object", "properties": kinds, "required": list(kinds)}
        name = "armature" + topic.replace("/", ".")
        schema_id = self._mcap.register_schema(name, encoding="jsonschema", data=json.dumps(schema).encode())
        return self._mcap.register_channel(topic, message_encoding="json", schema_id=schema_id)
