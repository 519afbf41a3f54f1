"""Specs: what every array that crosses a boundary looks like, and flat layouts of several of them.

The idea of a spec with `validate` and `generate_value` is dm_env's. Two things differ: a value is accepted only if it
is *inside* its range, so that NaN never is (`(x < low) | (x > high)` lets NaN through), and a spec carries its unit,
frame and element names, so that datasets and checkpoints can say what their numbers mean.
"""

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot.errors import SpecError

Bound = float | tuple[float, ...]
"""One bound for all elements, or one for each element in C order. Infinite where unbounded."""


@dataclass(frozen=True)
class ArraySpec:
    """Shape, type, range and meaning of one array.

    Attributes:
        key: Its key in an observation or a dataset row, e.g. `observation.state`.
        shape: Shape of one sample, without batch or time.
        dtype: NumPy name of the element type.
        low: Lowest accepted value; `-inf` accepts any finite value.
        high: Highest accepted value.
        unit: SI unit, or one for each element separated by spaces; empty where there is none.
        frame: Frame that the values are expressed in (`base`, `world`); empty where there is none.
        names: One name for each element of a vector, in order; empty for arrays of higher rank.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    low: Bound = -math.inf
    high: Bound = math.inf
    unit: str = ""
    frame: str = ""
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        for label, bound in (("low", self.low), ("high", self.high)):
            if isinstance(bound, tuple) and len(bound) != size:
                raise SpecError(f"Spec {self.key!r}: {label} has {len(bound)} values, expected 1 or {size}.")
        if self.names and len(self.names) != size:
            raise SpecError(f"Spec {self.key!r}: {len(self.names)} names for {size} elements.")
        low, high = self.bounds()
        if not np.all(low <= high):
            raise SpecError(f"Spec {self.key!r}: low {self.low} is not below high {self.high}.")

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Low and high, each of this spec's shape, float64, read-only."""
        return self._bounds

    @functools.cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low = np.broadcast_to(np.asarray(self.low, np.float64), (math.prod(self.shape),)).reshape(self.shape)
        high = np.broadcast_to(np.asarray(self.high, np.float64), (math.prod(self.shape),)).reshape(self.shape)
        low.flags.writeable = high.flags.writeable = False
        return low, high

    def validate(self, value: Any) -> np.ndarray:
        """Return `value` as an array, or raise.

        Raises:
            SpecError: The shape or the dtype kind differs, or a value is outside the range or not finite.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise SpecError(f"{self.key!r} has shape {array.shape}, expected {self.shape}.")
        if not np.can_cast(array.dtype, np.dtype(self.dtype), casting="same_kind"):
            raise SpecError(f"{self.key!r} has dtype {array.dtype}, expected {self.dtype}.")
        low, high = self.bounds()
        inside = (array >= low) & (array <= high) & np.isfinite(array)
        if not inside.all():
            raise SpecError(self._outside(array, low, high, inside))
        return array

    def _outside(self, array: np.ndarray, low: np.ndarray, high: np.ndarray, inside: np.ndarray) -> str:
        at = int(np.flatnonzero(~inside.ravel())[0])
        where = self.names[at] if self.names else f"element {at}"
        got, lo, hi = array.ravel()[at], low.ravel()[at], high.ravel()[at]
        return f"{self.key!r} is out of range: {where} is {got}, accepted is [{lo}, {hi}] and finite."

    def generate_value(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """A valid value: random within the range if `rng` is given, else the accepted value nearest to zero."""
        low, high = self.bounds()
        if rng is None:
            return np.clip(np.zeros(self.shape), low, high).astype(self.dtype)
        low, high = np.where(np.isinf(low), -1.0, low), np.where(np.isinf(high), 1.0, high)
        drawn = rng.uniform(low, np.maximum(low, high))
        return np.asarray(np.clip(drawn, *self.bounds()), dtype=self.dtype)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; infinite bounds become null."""
        return {
            "key": self.key,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "low": _bound_to_json(self.low),
            "high": _bound_to_json(self.high),
            "unit": self.unit,
            "frame": self.frame,
            "names": list(self.names),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ArraySpec":
        """The spec that `to_json` wrote."""
        try:
            return cls(
                key=data["key"],
                shape=tuple(data["shape"]),
                dtype=data["dtype"],
                low=_bound_from_json(data["low"], -math.inf),
                high=_bound_from_json(data["high"], math.inf),
                unit=data["unit"],
                frame=data["frame"],
                names=tuple(data["names"]),
            )
        except (KeyError, TypeError) as error:
            raise SpecError(f"Not a spec: {json.dumps(data, default=str)[:200]} ({error!r}).") from error


Specs = dict[str, ArraySpec]
"""Specs by key, in order."""


def specs_to_json(specs: Mapping[str, ArraySpec]) -> list[dict[str, Any]]:
    """A list, so that the order survives."""
    return [spec.to_json() for spec in specs.values()]


def specs_from_json(data: Sequence[Mapping[str, Any]]) -> Specs:
    """The specs that `specs_to_json` wrote."""
    return {spec.key: spec for spec in map(ArraySpec.from_json, data)}


def difference(expected: Mapping[str, ArraySpec], got: Mapping[str, ArraySpec]) -> list[str]:
    """What separates two sets of specs, a readable line each; empty where they fit.

    Only what makes arrays incompatible counts: keys, shapes, dtypes, names, units and frames. Ranges may differ.
    """
    lines = [f"{key}: missing" for key in expected if key not in got]
    lines += [f"{key}: not expected" for key in got if key not in expected]
    for key in expected.keys() & got.keys():
        for field in ("shape", "dtype", "names", "unit", "frame"):
            want, have = getattr(expected[key], field), getattr(got[key], field)
            if want != have:
                lines.append(f"{key}: {field} is {have}, expected {want}")
    return lines


@dataclass(frozen=True)
class Layout:
    """Several arrays side by side in one flat float64 vector, as on the wire and in shared memory."""

    specs: tuple[ArraySpec, ...]

    @functools.cached_property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(math.prod(spec.shape) for spec in self.specs)

    @functools.cached_property
    def _parts(self) -> tuple[tuple[str, slice, tuple[int, ...]], ...]:
        """Key, place and shape of each array; views are made for every state."""
        stops = list(itertools.accumulate((math.prod(spec.shape) for spec in self.specs), initial=0))
        return tuple(
            (spec.key, slice(start, stop), spec.shape)
            for spec, start, stop in zip(self.specs, stops, stops[1:], strict=False)
        )

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays by key that share memory with `flat`, a float64 vector of `size`."""
        if flat.shape != (self.size,) or flat.dtype != np.float64:
            raise SpecError(f"Layout wants float64 of shape ({self.size},), got {flat.dtype} of shape {flat.shape}.")
        return {key: flat[part].reshape(shape) for key, part, shape in self._parts}

    def to_json(self) -> list[dict[str, Any]]:
        """The specs, in order."""
        return [spec.to_json() for spec in self.specs]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> "Layout":
        """The layout that `to_json` wrote."""
        return cls(tuple(map(ArraySpec.from_json, data)))

    def digest(self) -> str:
        """SHA-256 over the specs: two sides with equal digests read each other's vectors alike."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _bound_to_json(bound: Bound) -> Any:
    if isinstance(bound, tuple):
        return [None if math.isinf(value) else value for value in bound]
    return None if math.isinf(bound) else bound


def _bound_from_json(data: Any, unbounded: float) -> Bound:
    if isinstance(data, list):
        return tuple(unbounded if value is None else float(value) for value in data)
    return unbounded if data is None else float(data)
