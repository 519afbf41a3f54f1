"""Header, result and labels of an episode as MCAP metadata: strings that are JSON, and a checksum over them.

MCAP has checksums for chunks of messages and for the summary, none for metadata.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import Header, Result
from robot.specs import ArraySpec

PROFILE = "armature-episode"
FORMAT_VERSION = 3
HEADER, OUTCOME, LABEL = "armature.header", "armature.outcome", "armature.label"
CHECKSUM = "crc32"


class NewerVersionError(ValueError):
    """The header of a version that this Armature does not know."""


@dataclass(frozen=True)
class Label:
    """What somebody said about an episode after it was finished.

    Attributes:
        wall_time: When, ISO 8601 with its offset from UTC.
        success: Whether the task was fulfilled; None where nothing is said about it.
        note: Anything else.
    """

    wall_time: str
    success: bool | None = None
    note: str = ""


def sealed(data: Mapping[str, Any]) -> dict[str, str]:
    """Strings for MCAP, with a checksum."""
    strings = {key: json.dumps(value, default=_plain) for key, value in data.items()}
    return {**strings, CHECKSUM: _checksum(strings)}


def unsealed(strings: Mapping[str, str]) -> dict[str, Any]:
    """What `sealed` was given.

    Raises:
        ValueError: The checksum is wrong.
    """
    plain = {key: value for key, value in strings.items() if key != CHECKSUM}
    if strings.get(CHECKSUM) != _checksum(plain):
        raise ValueError("wrong checksum of the metadata")
    return {key: json.loads(value) for key, value in plain.items()}


def _checksum(strings: Mapping[str, str]) -> str:
    return f"{zlib.crc32(json.dumps(dict(sorted(strings.items()))).encode()):08x}"


def _plain(value: Any) -> Any:
    """Arrays, e.g. of a calibration, as lists."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")


def of_header(header: Header) -> dict[str, str]:
    """Metadata of a header."""
    channels = [{"topic": topic, **spec.to_json()} for topic, spec in header.channels.items()]
    data = {**header.__dict__, "specs": header.specs.to_json(), "channels": channels, "version": FORMAT_VERSION}
    return sealed(data)


def header_of(strings: Mapping[str, str]) -> tuple[Header, int]:
    """The header, and the version of the format: of this one, or of 1 and 2, which had no channels and no checksum.

    Raises:
        NewerVersionError: It is of a later version.
        ValueError, KeyError, TypeError: It is damaged.
    """
    version = json.loads(strings["version"])
    if version > FORMAT_VERSION:
        raise NewerVersionError(version)
    if version < 1 or (version < FORMAT_VERSION and CHECKSUM in strings):
        raise ValueError(f"version {version}")
    data = unsealed(strings) if version == FORMAT_VERSION else {k: json.loads(v) for k, v in strings.items()}
    data.pop("version")
    specs = EnvironmentSpecs.from_json(data.pop("specs"))
    found = data.pop("channels", [])
    channels = {item["topic"]: ArraySpec.from_json(item) for item in found}
    return Header(specs=specs, channels=channels, **data), version


def of_result(result: Result) -> dict[str, str]:
    """Metadata of a result."""
    return sealed(asdict(result))


def result_of(strings: Mapping[str, str], version: int) -> Result:
    """The result that `of_result` wrote, or an earlier version."""
    old = {key: json.loads(value) for key, value in strings.items()} if version < FORMAT_VERSION else {}
    return Result(**(old or unsealed(strings)))


def of_label(label: Label) -> dict[str, str]:
    """Metadata of a label."""
    return sealed(asdict(label))


def label_of(strings: Mapping[str, str]) -> Label:
    """The label that `of_label` wrote."""
    return Label(**unsealed(strings))


def labelled(result: Result, labels: tuple[Label, ...]) -> Result:
    """The result as the last label that says anything about success has it."""
    said = [label.success for label in labels if label.success is not None]
    return replace(result, success_final=said[-1], success_sticky=said[-1]) if said else result
