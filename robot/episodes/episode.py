"""What an episode's log holds: a header, channels that each have their own times, events, and how it ended."""

import importlib.metadata
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.specs import ArraySpec, Specs

STEPS, TIME = "steps", "time"
DEVICE, COMMANDED, APPLIED = "device", "commanded", "applied"
ACTIONS = (DEVICE, COMMANDED, APPLIED)
IMAGES = "observation.images."
STEP_TOPIC = "/step"
STEP_FIELDS = ("reward", "success", "terminated", "truncated")


@dataclass(frozen=True)
class Header:
    """What is known when an episode begins.

    Attributes:
        specs: Of the environment: what one row of a dataset made of this episode holds.
        source: Who acted: `expert`, or the name of a device, a policy or a bridge.
        clock: `steps` where message k of every channel belongs to control step k, as in a simulated world, which takes
            as long to step as it takes; `time` where every channel runs at its own rate.
        channels: Specs of vector channels beyond those that `specs` names, by topic.
        seed: Of the initial state and of the demonstrator.
        attempt: Number of the attempt among those of one recording; `seed - attempt` is the seed of the recording.
        quality: Quality that was asked for (see `robot.sim.experts.quality`); empty where nobody said.
        cameras: By key (`observation.images.front`): `intrinsics` (3 x 3 in pixels), `T_tool_camera` or
            `T_base_camera` (4 x 4), `latency_s`, whatever is known, as JSON.
        notes: What else belongs to the whole episode, as JSON: calibration, limits, identity of the arm's model.
        wall_time: Start, ISO 8601 with its offset from UTC.
        versions: Versions of the software that recorded.
    """

    specs: EnvironmentSpecs
    source: str
    clock: str = STEPS
    channels: Specs = field(default_factory=dict)
    seed: int = 0
    attempt: int = 0
    quality: str = ""
    cameras: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    wall_time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    versions: dict[str, str] = field(default_factory=lambda: software_versions())


@dataclass(frozen=True)
class Result:
    """How an episode ended; written last.

    Attributes:
        steps: Control steps in the file; 0 where the clock is `time`.
        success_final: Whether the task was fulfilled at the end.
        success_sticky: Whether it was fulfilled at any time.
        terminated: Whether the task ended the episode.
        truncated: Whether time ended it.
    """

    steps: int
    success_final: bool
    success_sticky: bool
    terminated: bool
    truncated: bool


@dataclass(frozen=True)
class Event:
    """Something that happened at one moment: `success`, `failure`, `intervention`, `note`, `dropped`, ...

    Attributes:
        t_ns: CLOCK_MONOTONIC of the machine that owns the arm [ns].
        name: What happened, one word.
        text: What a person would want to know of it.
        data: JSON that a program would want to know of it, e.g. `{"topic": "/observation/images/front", "count": 2}`.
    """

    t_ns: int
    name: str
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    """Vectors with their times.

    Attributes:
        spec: Of one value.
        t_ns: CLOCK_MONOTONIC of the machine that owns the arm [ns], int64, shape (N,), growing.
        values: Shape (N, *spec.shape), of the spec's dtype.
    """

    spec: ArraySpec
    t_ns: np.ndarray
    values: np.ndarray


class Pictures(Protocol):
    """Pictures in order, decoded only as they are asked for: RGB, uint8, all (H, W, 3).

    An array (N, H, W, 3) is some.
    """

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each picture, from the first; may be begun again."""
        ...


@dataclass(frozen=True)
class PictureChannel:
    """Pictures with their times of capture, int64 nanoseconds, shape (N,), growing."""

    spec: ArraySpec
    t_ns: np.ndarray
    pictures: Pictures


@dataclass(frozen=True)
class Episode:
    """One episode in memory, pictures still encoded.

    Attributes:
        header: What was known when it began.
        result: How it ended.
        channels: Vectors by topic (`/observation/state`, `/action/commanded`, `/step`, `/measured/q` ...).
        pictures: Pictures by topic (`/observation/images/front`).
        events: In the order of their times.
    """

    header: Header
    result: Result
    channels: dict[str, Channel]
    pictures: dict[str, PictureChannel]
    events: tuple[Event, ...] = ()


def topic_of(key: str) -> str:
    """`observation.state` is logged as `/observation/state`."""
    return "/" + key.replace(".", "/")


def action_topic(stage: str) -> str:
    """Topic of one of the three stages of an action: asked for by the device, commanded, applied by the robot."""
    return f"/action/{stage}"


def is_picture(spec: ArraySpec) -> bool:
    """Whether a spec is that of pictures: `observation.images.<camera>`, uint8, (H, W, 3)."""
    return spec.key.startswith(IMAGES)


def software_versions() -> dict[str, str]:
    """Versions of what decides how an episode goes; absent packages are left out."""
    versions = {}
    for package in ("armature", "numpy", "mujoco", "robosuite", "mcap"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
