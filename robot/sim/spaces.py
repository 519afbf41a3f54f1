"""Gymnasium's spaces from specs."""

import gymnasium
import numpy as np

from robot.specs import ArraySpec


def box(spec: ArraySpec) -> gymnasium.spaces.Box:
    """The space of a spec's arrays, of its element type; integers without a bound get their type's."""
    dtype = np.dtype(spec.dtype)
    low, high = spec.bounds()
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        low, high = np.clip(low, limits.min, limits.max), np.clip(high, limits.min, limits.max)
    return gymnasium.spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
