"""How late a robot sees and acts: measured once by `armature calibrate latency`, kept in one file, read by the node.

What was observed at t was true at t - observation_s; what is commanded for t happens at t + action_s. A node that knows
both looks back by the one and sends early by the other (Chi et al. 2024, "Universal Manipulation Interface", IV-B).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot.episodes.atomic import write_text
from robot.errors import ConfigError

VERSION = 1
STATE = "state"
"""Name of the arm's own state among the observations; every other is a camera's."""
LONGEST_S = 2.0
"""A latency beyond this is a wrong number, not a slow device."""
_AGAIN = "Measure it again with `armature calibrate latency`."


@dataclass(frozen=True)
class Latency:
    """Delays of one robot.

    Attributes:
        observation_s: By `state` or name of a camera: time from an event to the time stamp that is on it [s]. About
            zero where the stamp is the time of capture; what remains is exposure, read-out and transfer.
        action_s: Time from the moment that a target is commanded for to the measured motion [s].
        residual_s: How far two measurements disagreed, at most [s]: how much to trust the rest.
    """

    observation_s: dict[str, float] = field(default_factory=dict)
    action_s: float = 0.0
    residual_s: float = 0.0

    def __post_init__(self) -> None:
        named = {f"observation_s.{name}": value for name, value in self.observation_s.items()}
        for name, value in {**named, "action_s": self.action_s, "residual_s": self.residual_s}.items():
            if not -LONGEST_S <= value <= LONGEST_S:
                raise ConfigError(f"latency: {name} is {value} s, expected at most {LONGEST_S} s. {_AGAIN}")
        if self.action_s < 0 or self.residual_s < 0:
            raise ConfigError(
                f"latency: nothing happens before it is commanded, got action_s {self.action_s} s and residual_s "
                f"{self.residual_s} s. {_AGAIN}"
            )

    @classmethod
    def none(cls) -> "Latency":
        """Of a robot that sees and acts at once: nothing is compensated."""
        return cls()

    @classmethod
    def load(cls, path: str | Path) -> "Latency":
        """The latency that `save` wrote.

        Raises:
            ConfigError: The file is missing, of another version, or holds something else.
        """
        try:
            data = json.loads(Path(path).read_text())
        except OSError as error:
            raise ConfigError(
                f"latency: cannot read {path}: {error.strerror}. `armature calibrate latency` writes it."
            ) from error
        except ValueError as error:
            raise ConfigError(f"latency: {path} is not JSON: {error}. {_AGAIN}") from error
        return _checked(data, path)

    def save(self, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
        """Write one file, whole or not at all.

        Args:
            path: Of the file.
            about: How it was measured: kept with it for people, read by nobody.
        """
        content = {
            "version": VERSION,
            "observation_s": self.observation_s,
            "action_s": self.action_s,
            "residual_s": self.residual_s,
            "about": dict(about or {}),
        }
        write_text(Path(path), json.dumps(content, indent=2) + "\n")


def _checked(data: Any, path: str | Path) -> Latency:
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise ConfigError(f"latency: {path} has version {version!r}, expected {VERSION}. {_AGAIN}")
    observation = data.get("observation_s")
    if not isinstance(observation, dict):
        raise ConfigError(f"latency: observation_s in {path} is {observation!r}, expected names and seconds. {_AGAIN}")
    seconds = {f"observation_s.{name}": value for name, value in observation.items()}
    for name in ("action_s", "residual_s"):
        seconds[name] = data.get(name)
    for name, value in seconds.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"latency: {name} in {path} is {value!r}, expected a number of seconds. {_AGAIN}")
    return Latency(
        {str(name): float(value) for name, value in observation.items()},
        float(data["action_s"]),
        float(data["residual_s"]),
    )
