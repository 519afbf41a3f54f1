"""Exact statistics of the columns of a dataset, under the names that LeRobot gives them.

LeRobot estimates quantiles from histograms and merges them over episodes, which yields bounds rather than quantiles.
State columns are small, so these are computed from every frame.
"""

from collections.abc import Mapping

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)

Statistics = dict[str, np.ndarray]
"""Statistic by name; float64 of the shape of one row (scalars as shape (1,)), `count` int64 of shape (1,)."""


def of_column(values: np.ndarray) -> Statistics:
    """Statistics of one column over its frames.

    Args:
        values: Shape (N, ...) with N >= 1, any real or boolean type. Scalars count as rows of one element.

    Returns:
        Each name of `NAMES`. `std` is that of the population (divided by N); quantiles interpolate linearly. Values
        that are not finite are left out; an element that has no others gets zeros. `count` counts all rows.
    """
    rows = np.asarray(values, np.float64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if not np.isfinite(rows).all():
        return _of_finite(rows)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)], np.int64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def _of_finite(rows: np.ndarray) -> Statistics:
    """Statistics of what is finite, element by element."""
    shape, flat = rows.shape[1:], rows.reshape(len(rows), -1)
    found = []
    for element in flat.T:
        finite = element[np.isfinite(element)]
        found.append(of_column(finite if len(finite) else np.zeros(1)))
    names = [name for name in NAMES if name != "count"]
    stats = {name: np.concatenate([stat[name] for stat in found]).reshape(shape) for name in names}
    return {**stats, "count": np.array([len(rows)], np.int64)}


def of_columns(columns: Mapping[str, np.ndarray]) -> dict[str, Statistics]:
    """Statistics of each column by its key."""
    return {key: of_column(values) for key, values in columns.items()}
