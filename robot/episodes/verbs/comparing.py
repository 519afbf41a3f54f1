"""How far what was measured in a replay is from what was recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from robot.episodes.verbs.panels import names, units
from robot.specs import ArraySpec


@dataclass(frozen=True)
class Largest:
    """The largest difference among elements of one unit.

    Attributes:
        value: In that unit.
        unit: `m`, `rad`, ...; empty where none is said.
        element: Key and name of the element.
        t_s: When, after the first action [s].
    """

    value: float
    unit: str
    element: str
    t_s: float

    def words(self) -> str:
        """`0.0123 m (observation.state ee_z at 1.25 s)`."""
        unit = f" {self.unit}" if self.unit not in ("", "1") else ""
        return f"{self.value:.3g}{unit} ({self.element} at {self.t_s:.2f} s)"


@dataclass
class Outcome:
    """How a replay went.

    Attributes:
        actions: How many were played.
        differences: The largest, by unit.
        success: Whether the task is fulfilled at the end; None where nobody can tell.
    """

    actions: int
    differences: list[Largest] = field(default_factory=list)
    success: bool | None = None


def largest(
    specs: Mapping[str, ArraySpec], pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], t_s: np.ndarray
) -> list[Largest]:
    """Of every unit the element that is farthest from what was recorded.

    Args:
        specs: Of the vectors, by key.
        pairs: Recorded and replayed values by key, each (T, ...).
        t_s: Times of the rows (T,).
    """
    found: dict[str, Largest] = {}
    for key, (recorded, replayed) in pairs.items():
        if not len(t_s):
            continue
        flat = [values.reshape(len(t_s), -1).astype(np.float64) for values in (recorded, replayed)]
        apart = np.abs(flat[0] - flat[1])
        for at, (name, unit) in enumerate(zip(names(specs[key]), units(specs[key]), strict=True)):
            row = int(np.argmax(apart[:, at]))
            value = float(apart[row, at])
            if unit not in found or not value <= found[unit].value:
                found[unit] = Largest(value, unit, f"{key} {name}", float(t_s[row]))
    return list(found.values())


def resampled(times: np.ndarray, values: np.ndarray, at: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values (T, ...) at other times, linearly between; those outside are the first or the last."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    columns = [np.interp(at, times, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(len(at), *values.shape[1:])
