"""Episodes of several sources as one, and some episodes of a source: what merging and splitting write."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.rows import Rows, RowSource, Schema
from robot.errors import DatasetError


class Chosen:
    """Some episodes of a source, in the order in which they are named."""

    def __init__(self, source: RowSource, numbers: Sequence[int]) -> None:
        """Choose.

        Raises:
            DatasetError: An episode does not exist or is named twice.
        """
        outside = [number for number in numbers if not 0 <= number < len(source)]
        if outside:
            raise DatasetError(f"There are episodes 0 to {len(source) - 1}, there is no episode {outside[0]}.")
        twice = sorted({number for number in numbers if list(numbers).count(number) > 1}) if _has_twins(numbers) else []
        if twice:
            raise DatasetError(f"Episode {twice[0]} is named twice; name each once.")
        self.schema = source.schema
        self._source, self._numbers = source, tuple(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def identity(self, number: int) -> str:
        """That of the source."""
        return self._source.identity(self._numbers[number])

    def read(self, number: int) -> Rows:
        """That of the source."""
        return self._source.read(self._numbers[number])


def _has_twins(numbers: Sequence[int]) -> bool:
    return len(set(numbers)) != len(numbers)


class Joined:
    """Episodes of several sources, one source after the other.

    Tasks may differ: an episode keeps its own. Ranges of specs become those that all fit into. Of extra columns those
    stay that every source has, which `dropped` tells.

    Attributes:
        schema: Of all.
        dropped: Names of extra columns that some sources lack.
    """

    def __init__(self, sources: Sequence[RowSource], names: Sequence[str]) -> None:
        """Join.

        Args:
            sources: At least one.
            names: What to call each in an error.

        Raises:
            DatasetError: They do not belong together; says what differs.
        """
        if not sources:
            raise DatasetError("There is nothing to join.")
        first = sources[0].schema
        for source, name in zip(sources[1:], names[1:], strict=True):
            lines = first.specs.difference(source.schema.specs) + _extras_difference(first, source.schema)
            if lines:
                raise DatasetError(
                    f"{name} does not fit {names[0]}: {'; '.join(lines)}. Only datasets of the same robot with equal "
                    "observations and actions can be merged."
                )
        extras = {
            key: spec for key, spec in first.extras.items() if all(key in source.schema.extras for source in sources)
        }
        everything = {key for source in sources for key in source.schema.extras}
        self.dropped = tuple(sorted(everything - extras.keys()))
        tasks = {source.schema.specs.task for source in sources}
        specs = _widened([source.schema.specs for source in sources], next(iter(tasks)) if len(tasks) == 1 else "")
        notes = {key: value for source in reversed(sources) for key, value in source.schema.notes.items()}
        self.schema = Schema(specs, extras, notes)
        self._sources = tuple(sources)
        self._stops = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._stops[-1])

    def identity(self, number: int) -> str:
        """That of the episode's source."""
        source, within = self._at(number)
        return source.identity(within)

    def read(self, number: int) -> Rows:
        """The episode without the columns that other sources lack."""
        source, within = self._at(number)
        rows = source.read(within)
        return replace(rows, columns={key: rows.columns[key] for key in self.schema.columns})

    def _at(self, number: int) -> tuple[RowSource, int]:
        if not 0 <= number < len(self):
            raise DatasetError(f"There are episodes 0 to {len(self) - 1}, there is no episode {number}.")
        at = int(np.searchsorted(self._stops, number, side="right"))
        return self._sources[at], number - (int(self._stops[at - 1]) if at else 0)


def _extras_difference(first: Schema, got: Schema) -> list[str]:
    """What separates extra columns that both have."""
    lines = []
    for key in first.extras.keys() & got.extras.keys():
        for field in ("shape", "dtype"):
            want, have = getattr(first.extras[key], field), getattr(got.extras[key], field)
            if want != have:
                lines.append(f"{key}: {field} is {have}, expected {want}")
    return sorted(lines)


def _widened(all_specs: Sequence[EnvironmentSpecs], task: str) -> EnvironmentSpecs:
    """The first specs with ranges that all fit into."""
    first = all_specs[0]
    observation = {}
    for key, spec in {**first.observation, "": first.action}.items():
        found = [(specs.observation[key] if key else specs.action) for specs in all_specs]
        if all(other.low == spec.low and other.high == spec.high for other in found):
            observation[key] = spec
            continue
        low = np.min([other.bounds()[0] for other in found], axis=0).ravel()
        high = np.max([other.bounds()[1] for other in found], axis=0).ravel()
        observation[key] = replace(spec, low=tuple(low.tolist()), high=tuple(high.tolist()))
    action = observation.pop("")
    return replace(first, observation=observation, action=action, task=task)
