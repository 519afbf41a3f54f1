"""`armature dataset stats`: show the distribution of every column, as a table and plots."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from robot.config import load
from robot.episodes import atomic, statistics
from robot.episodes.care import plots
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.errors import ConfigError, DatasetError
from robot.specs import ArraySpec

SHOWN = ("min", "q01", "q50", "q99", "max", "mean", "std")
_WIDEST = 64
"""Elements of a column beyond this are shown as one."""


@dataclass(kw_only=True)
class StatsConfig:
    """See `configs/dataset_stats.yaml`."""

    dataset: str
    out: str
    pictures: int

    def __post_init__(self) -> None:
        if not 0 <= self.pictures <= 100:
            raise ConfigError(f"pictures is how many of each camera to show, 0 to 100, got {self.pictures}.")


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("dataset_stats", StatsConfig, overrides)
    source = LeRobotSource(config.dataset)
    columns = read_columns(source)
    print("\n".join(table(source, columns)))
    out = Path(config.out) if config.out else Path(config.dataset).with_name(Path(config.dataset).name + "-stats")
    if out.resolve().is_relative_to(Path(config.dataset).resolve()):
        raise ConfigError(f"{out} is inside of the dataset, which is left as it is. Choose another folder.")
    for path in draw(source, columns, out, config.pictures):
        print(path, file=sys.stderr)
    return 0


def read_columns(source: LeRobotSource) -> dict[str, list[np.ndarray]]:
    """Columns of numbers by key, an array for each episode.

    Raises:
        DatasetError: An episode is damaged.
    """
    keys = [key for key, spec in source.schema.columns.items() if spec.dtype != "str" and 0 not in spec.shape]
    columns: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for number in tqdm(range(len(source)), unit="episode", desc="reading", leave=False):
        found = source.columns(number)
        for key in keys:
            columns[key].append(found[key])
    return columns


def element_names(spec: ArraySpec) -> list[str]:
    """What to call each element of a column: its name, or its place, and its unit; one name for very wide columns."""
    size, units = int(np.prod(spec.shape)), spec.unit.split()
    if size > _WIDEST:
        return [f"{spec.key} (all {size})"]
    if size == 1 and not spec.names:
        names = [spec.key]
    else:
        places = [",".join(map(str, at)) for at in np.ndindex(*spec.shape)]
        names = [f"{spec.key} {name}" for name in spec.names] or [f"{spec.key}[{place}]" for place in places]
    each = units * size if len(units) == 1 else units
    return [f"{name} [{unit}]" for name, unit in zip(names, each, strict=True)] if len(each) == size else names


def elements(spec: ArraySpec, column: np.ndarray) -> np.ndarray:
    """Values of each element, shape (N, elements); of very wide columns all in one."""
    flat = column.reshape(len(column), -1)
    return flat.reshape(-1, 1) if flat.shape[1] > _WIDEST else flat


def table(source: LeRobotSource, columns: dict[str, list[np.ndarray]]) -> list[str]:
    """Lines of a table: a row for each element; values that are not finite are counted and left out."""
    rows = []
    for key, episodes in columns.items():
        spec = source.schema.columns[key]
        values = elements(spec, np.concatenate(episodes)).astype(np.float64)
        stats = statistics.of_column(values)
        finite = np.isfinite(values)
        for place, name in enumerate(element_names(spec)):
            bad = int((~finite[:, place]).sum())
            cells = [f"{stats[stat].reshape(-1)[place]:.5g}" for stat in SHOWN]
            rows.append([name, *cells, f"{bad} not finite" if bad else ""])
    widths = [max(len(row[at]) for row in [["", *SHOWN, ""], *rows]) for at in range(len(SHOWN) + 2)]
    head = [" " * widths[0], *(name.rjust(width) for name, width in zip(SHOWN, widths[1:], strict=False))]
    lines = ["  ".join(head)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)), row[-1]]
        lines.append("  ".join(cells).rstrip())
    return lines


def draw(source: LeRobotSource, columns: dict[str, list[np.ndarray]], out: Path, pictures: int) -> list[Path]:
    """Write the plots; returns their paths.

    Args:
        source: The dataset.
        columns: See `read_columns`.
        out: Folder to write into; plots that are there are replaced.
        pictures: How many of each camera; 0: none.

    Raises:
        DatasetError: The folder cannot be written, or a picture is damaged.
    """
    specs = source.schema.columns
    named = {
        name: elements(specs[key], np.concatenate(episodes))[:, place]
        for key, episodes in columns.items()
        for place, name in enumerate(element_names(specs[key]))
    }
    lengths = [place.length for place in source.files.episodes]
    moving = {key: columns[key] for key in columns if key == "action" or key.startswith("observation.")}
    names = {key: element_names(specs[key]) for key in moving}
    figures: dict[str, Callable[[], Figure]] = {
        "histograms.png": partial(plots.histograms, named),
        "lengths.png": partial(plots.lengths, lengths, source.files.fps),
        "trajectories.png": partial(plots.trajectories, moving, names, source.files.fps),
    }
    for key in source.schema.pictures if pictures else ():
        name = key.removeprefix("observation.images.").replace("/", "_")
        figures[f"{name}.png"] = partial(plots.contact_sheet, source, key, pictures)
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, make in tqdm(figures.items(), unit="plot", desc="drawing", leave=False):
            path, part = out / name, out / f".{name}.part"
            plots.save(make(), part)
            atomic.publish(part, path)
            written.append(path)
    except OSError as error:
        raise DatasetError(f"{out} cannot be written: {error.strerror or error}.") from error
    return written
