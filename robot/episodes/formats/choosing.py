"""Some episodes of a source, and what a user says of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from robot.episodes.formats.given import Given
from robot.episodes.rows import Rows, RowSource, Schema
from robot.errors import ConfigError

TRAIN, VALID = "train", "valid"
_SEED = 0


class Chosen:
    """Episodes of another source, in the order of their numbers there.

    Attributes:
        schema: That of the source, with what was given.
    """

    def __init__(self, source: RowSource, numbers: Sequence[int], given: Given, valid: float = 0.0) -> None:
        """Choose.

        Args:
            source: Where the episodes come from.
            numbers: Which.
            given: `robot`, `action_space` and `task` take the place of what the source says.
            valid: Share of the episodes that are drawn into a subset `valid`, the others into `train`; 0 draws none.
        """
        self._source, self._numbers, self._given = source, list(numbers), given
        self._split = _split(len(self._numbers), valid)
        specs = source.schema.specs
        changed = {name: value for name in ("robot", "action_space", "task") if (value := getattr(given, name))}
        self.schema = Schema(dataclasses.replace(specs, **changed), source.schema.extras, source.schema.notes)

    def __len__(self) -> int:
        return len(self._numbers)

    def identity(self, number: int) -> str:
        """That of the source, and what is said here."""
        own = [*self._subsets(number), self._given.task]
        return " ".join([self._source.identity(self._numbers[number]), *filter(None, own)])

    def read(self, number: int) -> Rows:
        """Episode `number` of the chosen ones."""
        rows = self._source.read(self._numbers[number])
        subsets = tuple(dict.fromkeys([*rows.subsets, *self._subsets(number)]))
        return dataclasses.replace(rows, subsets=subsets, task=self._given.task or rows.task)

    def _subsets(self, number: int) -> tuple[str, ...]:
        return (self._split[number],) if self._split else ()


def chosen_numbers(count: int, episodes: Sequence[int] | None) -> list[int]:
    """Numbers of episodes, without repetition.

    Raises:
        ConfigError: One does not exist.
    """
    numbers = sorted(set(episodes or range(count)))
    absent = [number for number in numbers if not 0 <= number < count]
    if absent:
        raise ConfigError(f"There is no episode {absent[0]}; the source has episodes 0 to {count - 1}.")
    return numbers


def _split(count: int, valid: float) -> list[str]:
    """A subset for each episode; the same ones whenever it is asked."""
    if not valid:
        return []
    held_out = min(max(1, round(valid * count)), count - 1)
    if held_out < 1:
        raise ConfigError(f"valid={valid:g} needs at least 2 episodes, got {count}.")
    drawn = set(np.random.default_rng(_SEED).permutation(count)[:held_out].tolist())
    return [VALID if number in drawn else TRAIN for number in range(count)]
