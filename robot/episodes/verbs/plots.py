"""Pictures of an episode: its channels over time, and a contact sheet of what its cameras saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robot.episodes.episode import APPLIED, COMMANDED, DEVICE, STEPS, Episode
from robot.episodes.verbs.panels import Panel, origin_ns
from robot.episodes.verbs.timing import Timing
from robot.errors import EpisodeError

STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 6.5,
    "axes.prop_cycle": cycler(
        color=[
            "#0072b2",
            "#d55e00",
            "#009e73",
            "#cc79a7",
            "#56b4e9",
            "#e69f00",
            "#6a51a3",
            "#8c6d31",
            "#444444",
            "#74c476",
            "#de9ed6",
            "#9ecae1",
        ]
    ),
}
STAGES: dict[str, Any] = {
    DEVICE: {"color": "#e69f00", "linewidth": 2.4, "alpha": 0.6},
    COMMANDED: {"color": "#0072b2", "linewidth": 1.1},
    APPLIED: {"color": "#009e73", "linewidth": 1.1},
    "measured": {"color": "#444444", "linewidth": 0.9, "linestyle": (0, (3, 1.5))},
}
EVENT_COLOURS = {
    "success": "#009e73",
    "failure": "#d55e00",
    "dropped": "#d55e00",
    "fault": "#d55e00",
    "recovered": "#d55e00",
    "intervention": "#6a51a3",
    "note": "#0072b2",
}
COLUMNS = 3
PANEL_INCHES = (4.9, 1.9)
LANE_INCHES = 0.24
MAX_TICKS = 3000
LEGEND_COLUMNS, SHORT_NAME = 6, 4
SHEET_COLUMNS = 6
PICTURE_INCHES = 2.4


def draw_channels(
    path: Path, episode: Episode, title: str, shown: Sequence[Panel], lanes: Mapping[str, Timing]
) -> None:
    """Write a PNG: the lanes of the channels with their events and gaps, then the panels.

    Args:
        path: Of the file.
        episode: Whose channels these are.
        title: Of the whole.
        shown: See `robot.episodes.verbs.panels`.
        lanes: Timing by topic; empty where times tell nothing, as those of simulated steps.
    """
    rows = max(1, -(-len(shown) // COLUMNS))
    heights = [LANE_INCHES * len(lanes) + 0.7] * bool(lanes) + [PANEL_INCHES[1] * rows]
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(PANEL_INCHES[0] * COLUMNS, sum(heights) + 0.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        if lanes:
            _draw_lanes(parts[0].add_subplot(), episode, lanes)
        grid = parts[-1].subplots(rows, COLUMNS, squeeze=False, sharex=True).ravel()
        end_s = max((line.t_s[-1] for panel in shown for line in panel.lines if len(line.t_s)), default=1.0)
        for axes in grid[len(shown) :]:
            axes.axis("off")
        for axes, panel in zip(grid, shown, strict=False):
            _draw_panel(axes, panel)
            _mark_events(axes, episode)
            axes.set_xlim(0.0, max(end_s, 1e-3))
            axes.tick_params(labelbottom=True)
        for axes in grid[-COLUMNS:]:
            axes.set_xlabel("s")
        _save(figure, path)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        style = STAGES.get(line.name, {"linewidth": 0.9})
        drawn = "steps-post" if panel.is_held and line.name != "measured" else "default"
        axes.plot(line.t_s, line.values, label=line.name, drawstyle=drawn, **style)
    axes.set_ylabel(panel.unit if panel.unit != "1" else "")
    axes.margins(x=0, y=0.12)
    columns = LEGEND_COLUMNS if max(len(line.name) for line in panel.lines) > SHORT_NAME else 2 * LEGEND_COLUMNS
    rows = -(-len(panel.lines) // columns) if len(panel.lines) > 1 else 0
    if rows:
        place = (0.0, 1.0)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=place,
            ncols=columns,
            handlelength=1.1,
            columnspacing=0.9,
            borderpad=0.1,
            borderaxespad=0.1,
            labelspacing=0.2,
            handletextpad=0.4,
        )
    name = "" if rows or panel.lines[0].name == "0" else f", {panel.lines[0].name}"
    axes.set_title(panel.title + name, pad=4 + 10 * rows)


def _draw_lanes(axes: Axes, episode: Episode, lanes: Mapping[str, Timing]) -> None:
    """A tick for each message, a lane for each channel."""
    times = {topic: channel.t_ns for topic, channel in episode.channels.items()}
    times |= {topic: camera.t_ns for topic, camera in episode.pictures.items()}
    begin_ns = origin_ns(episode)
    for lane, (topic, found) in enumerate(lanes.items()):
        t_s = (times[topic] - begin_ns) / 1e9
        t_s = t_s[:: -(-len(t_s) // MAX_TICKS)]
        axes.vlines(t_s, lane - 0.32, lane + 0.32, color="#0072b2", linewidth=0.5, alpha=0.7)
        for begin_s, end_s in found.gaps_s:
            axes.axvspan(begin_s, end_s, *_lane_span(lane, len(lanes)), color="#d55e00", alpha=0.5, linewidth=1.0)
    end_s = max((times[topic][-1] - begin_ns) / 1e9 for topic in lanes)
    axes.set_xlim(0.0, max(end_s, 1e-3))
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_yticks(range(len(lanes)), [f"{topic}   {found.words()}" for topic, found in lanes.items()])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    _mark_events(axes, episode, named=True)


def _lane_span(lane: int, count: int) -> tuple[float, float]:
    """The lane in parts of the height of its axes, which run from -0.6 at the top to count - 0.4."""
    height = count + 0.2
    return 1 - (lane + 0.6 + 0.32) / height, 1 - (lane + 0.6 - 0.32) / height


def _mark_events(axes: Axes, episode: Episode, named: bool = False) -> None:
    if episode.header.clock == STEPS:
        return  # times of events are of this machine's clock, those of steps of the world's
    begin_ns = origin_ns(episode)
    previous_s = -np.inf
    for event in sorted(episode.events, key=lambda event: event.t_ns):
        t_s = (event.t_ns - begin_ns) / 1e9
        if event.data.get("label") or t_s < 0:
            continue
        colour = EVENT_COLOURS.get(event.name, "#999999")
        axes.axvline(t_s, color=colour, linewidth=0.9, alpha=0.8, linestyle=(0, (4, 2)))
        if named and t_s - previous_s > 0.012 * axes.get_xlim()[1]:
            offset: Any = {"xytext": (2, 3), "textcoords": "offset points", "rotation": 20}
            axes.annotate(
                event.name, (t_s, 1.0), xycoords=("data", "axes fraction"), color=colour, fontsize=7, **offset
            )
            previous_s = t_s


@dataclass(frozen=True)
class Sheet:
    """Some pictures of one camera, with what is written above each."""

    title: str
    pictures: list[np.ndarray]
    captions: list[str]


def draw_pictures(path: Path, title: str, sheets: Sequence[Sheet]) -> None:
    """Write a PNG: the pictures of each camera, in rows of `SHEET_COLUMNS`."""
    heights = [_sheet_inches(sheet) for sheet in sheets]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = plt.figure(figsize=(SHEET_COLUMNS * PICTURE_INCHES, sum(heights) + 0.4), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        parts = figure.subfigures(len(sheets), 1, height_ratios=heights, squeeze=False).ravel()
        for part, sheet in zip(parts, sheets, strict=True):
            part.suptitle(sheet.title, x=0.01, ha="left", fontsize=9)
            grid = part.subplots(_sheet_rows(sheet), SHEET_COLUMNS, squeeze=False).ravel()
            for axes in grid:
                axes.axis("off")
            for axes, picture, caption in zip(grid, sheet.pictures, sheet.captions, strict=False):
                axes.imshow(picture, interpolation="antialiased")
                axes.set_title(caption, fontsize=7.5, loc="left", pad=2)
        _save(figure, path)


def _sheet_rows(sheet: Sheet) -> int:
    return max(1, -(-len(sheet.pictures) // SHEET_COLUMNS))


def _sheet_inches(sheet: Sheet) -> float:
    height, width = sheet.pictures[0].shape[:2]
    return _sheet_rows(sheet) * (PICTURE_INCHES * height / width + 0.2) + 0.3


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise EpisodeError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        plt.close(figure)
