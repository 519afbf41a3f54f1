"""`armature dataset split`: divide a dataset by episodes, e.g. into training and validation."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot.config import load
from robot.episodes.care import writing
from robot.episodes.care.selection import Chosen
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import Written
from robot.errors import ConfigError, DatasetError, unknown_name

PARTS = {"train": 0.9, "valid": 0.1}
"""Parts where none are named."""


@dataclass(kw_only=True)
class SplitConfig:
    """See `configs/dataset_split.yaml`."""

    dataset: str
    out: str
    parts: Any
    seed: int
    codec: str
    workers: int

    def __post_init__(self) -> None:
        if not isinstance(self.parts, dict | None) or self.parts == {}:
            raise ConfigError(f"Splitting wants parts, e.g. parts={{train:0.9,valid:0.1}}, got {self.parts!r}.")
        for name in self.parts or {}:
            if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
                raise ConfigError(f"The name of a part becomes that of a folder, {name!r} cannot be one.")
        if self.workers < 0 or self.seed < 0:
            raise ConfigError(f"Expected workers and seed of at least 0, got {self.workers} and {self.seed}.")


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("dataset_split", SplitConfig, overrides)
    for name, written in split(config).items():
        print(f"{Path(config.out) / name}: {written.episodes} episodes, {written.frames} frames.")
    return 0


def split(config: SplitConfig) -> dict[str, Written]:
    """Write each part into a folder of its name below `out`; each appears when it is complete.

    Raises:
        DatasetError: The dataset is damaged, a part would be empty, an episode is in two parts, or a folder exists.
    """
    source = LeRobotSource(config.dataset)
    numbers = divided(len(source), config.parts or PARTS, source.subsets, config.seed)
    for name in numbers:
        writing.check_free(Path(config.out) / name, [Path(config.dataset)])
    settings = writing.settings([source], config.codec, config.workers)
    note = writing.note_on_pictures([source], settings.encoding)
    if note:
        print(note, file=sys.stderr)
    left = len(source) - sum(map(len, numbers.values()))
    if left:
        print(f"{left} of {len(source)} episodes are in no part.", file=sys.stderr)
    written = {}
    for name, chosen in numbers.items():
        about = {"split": {"of": config.dataset, "part": name, "episodes": list(chosen), "seed": config.seed}}
        written[name] = lerobot_writer.write(Chosen(source, chosen), Path(config.out) / name, settings, about)
    return written


def divided(
    count: int, parts: Mapping[str, Any], subsets: Mapping[str, Sequence[int]], seed: int
) -> dict[str, tuple[int, ...]]:
    """Which episodes are in which part, each in the order of its numbers.

    A part is a share of the episodes that no other part names (0.9; drawn at random; shares that sum to one leave
    none out, and no count is off by more than rounding), a list of episodes, or the name of a subset.

    Args:
        count: Episodes there are.
        parts: By name.
        subsets: Episodes of each subset of the dataset.
        seed: Of the drawing; equal seeds give equal parts.

    Raises:
        DatasetError: A part is empty, an episode is in two, or does not exist.
        ConfigError: A part is none of these, or shares sum to more than one.
    """
    chosen = {name: _named(name, part, count, subsets) for name, part in parts.items() if not _is_share(part)}
    owner: dict[int, str] = {}
    for name, numbers in chosen.items():
        for number in numbers:
            if owner.setdefault(number, name) != name:
                raise DatasetError(
                    f"Episode {number} is in the parts {owner[number]!r} and {name!r}; parts are disjoint."
                )
    shares = {name: float(part) for name, part in parts.items() if _is_share(part)}
    if shares:
        rest = np.array([number for number in range(count) if number not in owner], np.int64)
        chosen |= _drawn(rest, shares, seed)
    empty = [name for name in parts if not chosen[name]]
    if empty:
        raise DatasetError(f"Part {empty[0]!r} would have none of the {count} episodes. Give it a larger share.")
    return {name: chosen[name] for name in parts}


def _is_share(part: Any) -> bool:
    return isinstance(part, float) or (isinstance(part, int) and not isinstance(part, bool) and part in (0, 1))


def _named(name: str, part: Any, count: int, subsets: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    if isinstance(part, str):
        if part not in subsets:
            raise unknown_name("subset", part, subsets, "A part is a share, a list of episodes or a subset's name.")
        return tuple(sorted(subsets[part]))
    if isinstance(part, list) and all(isinstance(number, int) and not isinstance(number, bool) for number in part):
        outside = [number for number in part if not 0 <= number < count]
        if outside:
            raise DatasetError(f"Part {name!r} names episode {outside[0]}, there are episodes 0 to {count - 1}.")
        return tuple(sorted(set(part)))
    raise ConfigError(f"Part {name!r} is {part!r}; expected a share (0.9), episodes ([0,3,4]) or a subset's name.")


def _drawn(rest: np.ndarray, shares: dict[str, float], seed: int) -> dict[str, tuple[int, ...]]:
    """Largest remainders: counts are exact where they can be, and sum up."""
    total = sum(shares.values())
    if not all(0 < share <= 1 for share in shares.values()) or total > 1 + 1e-9:
        raise ConfigError(f"Shares are above 0 and sum to at most 1, got {shares}.")
    wanted = {name: share * len(rest) for name, share in shares.items()}
    counts = {name: math.floor(value + 1e-9) for name, value in wanted.items()}
    spare = round(min(total, 1.0) * len(rest)) - sum(counts.values())
    for name in sorted(wanted, key=lambda name: counts[name] - wanted[name])[: max(spare, 0)]:
        counts[name] += 1
    order = np.random.default_rng(seed).permutation(rest)
    found, begin = {}, 0
    for name, number in counts.items():
        found[name] = tuple(sorted(order[begin : begin + number].tolist()))
        begin += number
    return found
