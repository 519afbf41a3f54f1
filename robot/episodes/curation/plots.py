"""Pictures of an assessment: where each episode lies, when experts disagree, and what is covered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from robot.episodes.curation import coverage
from robot.episodes.curation.assessment import Assessment
from robot.episodes.curation.measures import HIGH, LOW, MEASURES
from robot.episodes.curation.neighbours import Scale

TITLES = {
    "deviation": "deviation from others' actions",
    "divergence": "action divergence",
    "diversity": "transition diversity",
    "noise": "system noise",
    "novelty": "distance to nearest other [std]",
    "sparc": "spectral arc length",
    "ldlj": "log dimensionless jerk",
    "path_ratio": "path length ratio",
    "idle": "idle share",
    "duration_s": "duration [s]",
    "saturation": "saturated share",
    "toggles": "gripper toggles",
    "jitter_ms": "jitter [ms]",
    "skew_ms": "skew [ms]",
}
_STEPS = 25
_POINTS = 6000
_LABELS = 4
_TYPICAL, _OUTLIER, _FAILED = "tab:blue", "tab:red", "tab:orange"


def save_all(assessment: Assessment, folder: Path, outlier: float) -> list[Path]:
    """Write `distributions.png`, `divergence.png` and `coverage.png` into a folder; returns their paths."""
    figures = {
        "distributions.png": distributions(assessment, outlier),
        "divergence.png": over_the_task(assessment),
        "coverage.png": covered(assessment),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        part = folder / f".{name}.part"
        figure.savefig(part, dpi=110, format="png")
        part.replace(folder / name)
        plt.close(figure)
    return [folder / name for name in figures]


def distributions(assessment: Assessment, outlier: float) -> Any:
    """A histogram of each measure, every episode a point below it; those that stand out bear their names."""
    names = [*assessment.told, "score"]
    columns = 4
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.1 * rows), squeeze=False, layout="constrained")
    for name, axis in zip(names, axes.flat, strict=False):
        values = assessment.score if name == "score" else assessment.values[name]
        is_named = name != "score" and bool(MEASURES[name].text)
        stands_out = assessment.badness[name] > outlier if is_named else np.zeros(len(values), bool)
        _distribution(axis, assessment, values, stands_out)
        axis.set_title(TITLES.get(name, name) + _bad_side(name), fontsize=9)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    failed = int((assessment.demonstrations.success == 0).sum())
    figure.suptitle(f"{len(assessment.score)} episodes; red stands out, orange failed ({failed})", fontsize=10)
    return figure


def _bad_side(name: str) -> str:
    bad = LOW if name == "score" else MEASURES[name].bad
    return {HIGH: " (high is bad)", LOW: " (low is bad)"}.get(bad, "")


def _distribution(axis: Axes, assessment: Assessment, values: np.ndarray, stands_out: np.ndarray) -> None:
    known = ~np.isnan(values)
    axis.hist(values[known], bins=min(30, max(5, int(known.sum()) // 2)), color="0.85")
    axis.axvline(float(np.median(values[known])), color="0.5", linewidth=1)
    low = -0.12 * axis.get_ylim()[1]
    failed = assessment.demonstrations.success == 0
    colours = np.where(stands_out, _OUTLIER, np.where(failed, _FAILED, _TYPICAL))
    axis.scatter(values[known], np.full(int(known.sum()), low), s=12, c=colours[known], alpha=0.7, linewidths=0)
    middle = np.median(values[known])
    chosen = sorted(np.flatnonzero(stands_out & known), key=lambda i: -abs(values[i] - middle))[:_LABELS]
    for height, i in enumerate(chosen):
        name = assessment.demonstrations.names[i]
        axis.annotate(
            name,
            (values[i], low),
            xytext=(0, 7 + 9 * height),
            textcoords="offset points",
            fontsize=7,
            color=_OUTLIER,
            ha="center",
        )
    axis.set_yticks([])
    axis.tick_params(labelsize=7)


def progress(assessment: Assessment, values: np.ndarray) -> np.ndarray:
    """Mean of a measure of frames in each twenty-fifth of each episode, (E, 25); NaN where there is none."""
    found = np.full((len(assessment.demonstrations), _STEPS), np.nan)
    ends = np.cumsum(assessment.demonstrations.lengths)[:-1]
    for number, part in enumerate(np.split(values, ends)):
        at = np.minimum((np.arange(len(part)) / len(part) * _STEPS).astype(int), _STEPS - 1)
        known = ~np.isnan(part)
        counts = np.bincount(at[known], minlength=_STEPS)
        sums = np.bincount(at[known], part[known], _STEPS)
        found[number, counts > 0] = sums[counts > 0] / counts[counts > 0]
    return found


def over_the_task(assessment: Assessment) -> Any:
    """Divergence, diversity and noise against the share of the episode, and the deviation of each episode."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8, 8), height_ratios=[2, 3], layout="constrained", gridspec_kw={"hspace": 0.05}
    )
    at = (np.arange(_STEPS) + 0.5) / _STEPS
    for name, colour in (("divergence", "tab:red"), ("diversity", "tab:blue"), ("noise", "tab:green")):
        parts = progress(assessment, getattr(assessment.spreads, name))
        known = ~np.isnan(parts).all(axis=0)
        if known.any():
            low, middle, high = np.nanquantile(parts[:, known], [0.25, 0.5, 0.75], axis=0)
            above.plot(at[known], middle, color=colour, label=TITLES[name])
            above.fill_between(at[known], low, high, color=colour, alpha=0.15, linewidth=0)
    above.set(ylabel="share of the variance", xlim=(0, 1), ylim=(0, None))
    above.set_title("among similar states of other episodes (median and quartiles over episodes)", fontsize=9)
    if above.lines:
        above.legend(fontsize=8)
    parts = progress(assessment, assessment.spreads.deviation)[assessment.order]
    limit = float(np.nanquantile(parts, 0.98)) if not np.isnan(parts).all() else 1.0
    image = below.imshow(
        parts, aspect="auto", extent=(0, 1, len(parts), 0), vmin=0, vmax=limit or 1.0, cmap="magma", origin="upper"
    )
    below.set(xlabel="share of the episode", ylabel="episodes, from the first to look at")
    shown = np.unique(np.linspace(0, len(parts) - 1, min(30, len(parts))).round().astype(int))
    below.set_yticks(shown + 0.5, [assessment.demonstrations.names[assessment.order[i]] for i in shown], fontsize=6)
    figure.colorbar(image, ax=below, label="deviation of its actions from the others'")
    return figure


def covered(assessment: Assessment) -> Any:
    """States and initial states on their principal axes; the states coloured by the share of the episode."""
    demonstrations = assessment.demonstrations
    states = np.concatenate(demonstrations.states)
    points, shares = coverage.principal(Scale.of(states)(states))
    lengths = demonstrations.lengths
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    share = np.concatenate([np.arange(length) / length for length in lengths])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    kept = np.arange(0, len(points), max(1, len(points) // _POINTS))
    points = np.hstack([points, np.zeros((len(points), 1))])  # a state of one dimension is drawn as well
    image = left.scatter(points[kept, 0], points[kept, 1], c=share[kept], s=4, cmap="viridis", linewidths=0)
    left.scatter(points[starts, 0], points[starts, 1], s=22, facecolors="none", edgecolors="black", linewidths=0.8)
    explained = shares[:2].sum() / shares.sum() if shares.sum() > 0 else 0.0
    left.set_title(f"states on two principal axes ({explained:.0%} of the variance); circles: starts", fontsize=9)
    figure.colorbar(image, ax=left, label="share of the episode")
    _starts(right, assessment)
    return figure


def _starts(axis: Axes, assessment: Assessment) -> None:
    """Initial states in two of their dimensions, in their own units."""
    demonstrations = assessment.demonstrations
    starts = np.array([states[0] for states in demonstrations.states])
    first, second = two_dimensions(starts, demonstrations.elements)
    colours = np.where(demonstrations.success == 0, _FAILED, _TYPICAL)
    axis.scatter(starts[:, first], starts[:, second], s=20, c=colours, linewidths=0)
    for i in assessment.order[:8]:
        if assessment.reasons[i]:
            axis.annotate(demonstrations.names[i], (starts[i, first], starts[i, second]), fontsize=7, color=_OUTLIER)
    axis.set(xlabel=demonstrations.elements[first], ylabel=demonstrations.elements[second])
    axis.set_title("initial states (orange failed; names: first to look at)", fontsize=9)


def two_dimensions(starts: np.ndarray, elements: Sequence[str]) -> tuple[int, int]:
    """Two dimensions of (E, S) to draw: x and y of what is placed most differently, else two that are independent."""
    places = [(i, elements.index(name[:-1] + "y")) for i, name in enumerate(elements) if _is_x(name, elements)]
    spread = starts.std(axis=0)
    if places and max(spread[list(place)].min() for place in places) > 0:
        return max(places, key=lambda place: float(spread[list(place)].min()))
    scaled = Scale.of(starts)(starts)
    varies = np.flatnonzero(np.abs(scaled).max(axis=0) > 0)
    if len(varies) < 2:
        first = int(varies[0]) if len(varies) else 0
        return first, (first + 1) % starts.shape[1]
    alike = np.abs(np.corrcoef(scaled[:, varies].T))
    first = int(alike.sum(axis=1).argmax())
    return int(varies[first]), int(varies[alike[first].argmin()])


def _is_x(name: str, elements: Sequence[str]) -> bool:
    return name.endswith((":x", "_x")) and name[:-1] + "y" in elements
