"""Affine normalisation of vectors, fixed from a dataset's statistics and kept in the checkpoint.

The scale and the offset are buffers of the head: whoever loads a checkpoint gets them with the weights, and nobody can
run a policy with the statistics of another dataset.
"""

from collections.abc import Mapping
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

from robot.errors import DatasetError
from robot.specs import ArraySpec

Statistics = Mapping[str, Mapping[str, np.ndarray]]
"""Per key: `min`, `max`, `mean`, `std`, each of the key's shape."""

_SMALLEST_SPREAD = 1e-4
"""A dimension that spreads less than this is taken as constant: dividing by its spread would amplify noise only."""


class Normalisation(Enum):
    """How a vector is mapped."""

    MIN_MAX = "min_max"
    """[min, max] of the dataset to [-1, 1]."""
    Z_SCORE = "z_score"
    """Mean 0, standard deviation 1."""


class Normaliser(nn.Module):
    """`(x - centre) / spread` over the last axis, and back. Constant dimensions are only shifted."""

    centre: Tensor  # (D,)
    spread: Tensor  # (D,)

    def __init__(self, spec: ArraySpec, mode: Normalisation, statistics: Statistics | None) -> None:
        """Take centre and spread from `statistics`; without any they are NaN until a checkpoint is loaded.

        Raises:
            DatasetError: The statistics lack this key or one of its values, or do not fit its shape.
        """
        super().__init__()
        if statistics is None:
            centre = spread = np.full(spec.shape, np.nan)
        else:
            centre, spread = _centre_and_spread(spec, mode, statistics)
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(spread, dtype=torch.float32))

    def forward(self, value: Tensor) -> Tensor:
        """Physical units to network units; (..., D) to (..., D)."""
        return (value - self.centre) / self.spread

    def restore(self, value: Tensor) -> Tensor:
        """Network units to physical units; (..., D) to (..., D)."""
        return value * self.spread + self.centre


def _centre_and_spread(spec: ArraySpec, mode: Normalisation, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    if mode is Normalisation.MIN_MAX:
        low, high = (_statistic(spec, name, statistics) for name in ("min", "max"))
        centre, spread, constant = (low + high) / 2, (high - low) / 2, high - low < _SMALLEST_SPREAD
    else:
        centre, spread = (_statistic(spec, name, statistics) for name in ("mean", "std"))
        constant = spread < _SMALLEST_SPREAD
    return centre, np.where(constant, 1.0, spread)


def _statistic(spec: ArraySpec, name: str, statistics: Statistics) -> np.ndarray:
    if spec.key not in statistics or name not in statistics[spec.key]:
        raise DatasetError(
            f"The dataset has no statistic {name!r} of {spec.key!r}, which normalisation needs. "
            f"It has statistics of: {', '.join(sorted(statistics)) or 'nothing'}. Build it again: `armature build`."
        )
    value = np.asarray(statistics[spec.key][name], np.float64)
    if value.shape != spec.shape or not np.isfinite(value).all():
        raise DatasetError(
            f"The statistic {name!r} of {spec.key!r} has shape {value.shape}, expected {spec.shape} and finite. "
            "Build the dataset again: `armature build`."
        )
    return value
