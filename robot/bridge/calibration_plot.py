"""A picture of delays: the two signals of each as they came, and shifted onto each other."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from robot.control.alignment import Delay

Signal = tuple[np.ndarray, np.ndarray]
"""Times (T,) [s] and values, (T,) or (T, K)."""


def plot(path: Path, rows: Sequence[tuple[str, Delay, Signal, Signal]]) -> None:
    """Write a PNG with a row for each delay.

    Args:
        path: Of the file.
        rows: Name, delay, reference (T,) and observation (T, K); of several columns, what they tell of the reference
            is shown.
    """
    figure, axes = plt.subplots(len(rows), 2, figsize=(11, 2.6 * len(rows)), squeeze=False, sharex="col")
    for (before, after), (name, found, (t, reference), (t_observed, observed)) in zip(axes, rows, strict=True):
        shifted = np.interp(t_observed - found.delay_s, t, reference)
        design = np.column_stack([observed, np.ones(len(t_observed)), t_observed])
        told = design @ np.linalg.lstsq(design, shifted, rcond=None)[0]
        for panel, shift, title in ((before, 0.0, "as it came"), (after, found.delay_s, "shifted")):
            panel.plot(t, 1000 * reference, label="reference")
            panel.plot(t_observed - shift, 1000 * told, label=name)
            panel.set_title(f"{name}, {title}: {1000 * shift:.1f} ms, R = {found.score:.3f}", fontsize=9)
            panel.set_ylabel("mm")
        before.legend(fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("s")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
