"""Plots of what a dataset holds."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robot.episodes.formats.image_statistics import sampled_frames
from robot.episodes.rows import RowSource

matplotlib.use("Agg")
_COLUMNS, _BINS, _EPISODES, _DIMENSIONS = 4, 60, 40, 8
_INK, _MUTED = "#1f4e79", "#9aa5b1"


def save(figure: Figure, path: Path) -> None:
    """As PNG, whatever the path's suffix."""
    figure.savefig(path, format="png", dpi=110)


def _grid(count: int, width: float = 3.2, height: float = 2.2) -> tuple[Figure, list]:
    columns = min(_COLUMNS, max(count, 1))
    rows = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes


def histograms(values: Mapping[str, np.ndarray]) -> Figure:
    """One histogram for each element, with its 1 % and 99 % quantiles; what is not finite is left out."""
    figure, axes = _grid(len(values))
    for axis, (name, column) in zip(axes, values.items(), strict=False):
        finite = column[np.isfinite(column)].astype(np.float64)
        if len(finite):
            axis.hist(finite, bins=min(_BINS, max(2, len(np.unique(finite[:10000])))), color=_INK)
            for quantile in np.quantile(finite, [0.01, 0.99]):
                axis.axvline(quantile, color="#c0392b", linewidth=0.8, linestyle="--")
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])
    return figure


def lengths(frames: Sequence[int], fps: float) -> Figure:
    """How long episodes are: one bar for each, and their histogram."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    seconds = np.asarray(frames) / fps
    left.bar(np.arange(len(seconds)), seconds, width=1.0, color=_INK)
    left.axhline(float(np.median(seconds)), color="#c0392b", linewidth=0.8, linestyle="--")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_xlabel("episode")
    left.set_ylabel("duration [s]")
    right.hist(seconds, bins=min(40, max(5, len(set(frames)))), color=_INK)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_xlabel("duration [s]")
    right.set_ylabel("episodes")
    return figure


def trajectories(columns: Mapping[str, Sequence[np.ndarray]], names: Mapping[str, Sequence[str]], fps: float) -> Figure:
    """The first elements of actions and observations over time, of evenly spaced episodes."""
    shown = [(key, place) for key in columns for place in range(min(len(names[key]), _DIMENSIONS))]
    figure, axes = _grid(len(shown), height=2.0)
    for axis, (key, place) in zip(axes, shown, strict=False):
        episodes = columns[key]
        picked = np.unique(np.linspace(0, len(episodes) - 1, min(_EPISODES, len(episodes))).astype(int))
        alpha = float(np.clip(4 / len(picked), 0.15, 1.0))
        for number in picked:
            values = episodes[number].reshape(len(episodes[number]), -1)[:, place]
            axis.plot(np.arange(len(values)) / fps, values, color=_INK, linewidth=0.6, alpha=alpha)
        axis.set_title(names[key][place], fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[max(0, len(shown) - _COLUMNS) : len(shown)]:
        axis.set_xlabel("time [s]", fontsize=8)
    return figure


def contact_sheet(source: RowSource, key: str, count: int) -> Figure:
    """The mean of a camera's pictures, and one picture each of evenly spaced episodes, from their beginning to their
    end in turn.
    """
    picked = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)).tolist()
    total, frames, shown = None, 0, []
    for place, number in enumerate(picked):
        pictures = source.read(number).pictures[key]
        wanted = round((len(pictures) - 1) * (place % 3) / 2)
        sampled = sampled_frames(len(pictures))
        for at, picture in enumerate(islice(pictures, max(max(sampled), wanted) + 1)):
            if at in sampled:
                total = picture.astype(np.float64) if total is None else total + picture
                frames += 1
            if at == wanted:
                shown.append((f"episode {number} frame {at}", picture))
    mean = np.zeros((1, 1, 3)) if total is None else total / max(frames, 1)
    shown.insert(0, (f"mean of {frames} frames", np.round(mean).astype(np.uint8)))
    height, width = shown[0][1].shape[:2]
    figure, axes = _grid(len(shown), height=3.2 * height / width + 0.3)
    for axis, (title, picture) in zip(axes, shown, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
    figure.suptitle(key, fontsize=9)
    return figure
