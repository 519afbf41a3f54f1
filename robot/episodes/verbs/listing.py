"""`armature episodes list`: what a folder of episodes holds, a line each."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robot.config import load
from robot.episodes import folder, recover
from robot.episodes.episode import STEPS, Event
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.verbs.choosing import ranges, require_folder, size
from robot.errors import EpisodeError

COLUMNS = ("number", "time", "steps", "source", "quality", "success", "size", "events")
ORDINARY = ("mode", "driver", "end", "success", "failure")
"""Events that nearly every episode has, or that another column tells."""


@dataclass(kw_only=True)
class ListConfig:
    """See `configs/episodes_list.yaml`."""

    episodes: str


@dataclass(frozen=True)
class Line:
    """One episode.

    Attributes:
        number: As in its name.
        duration_s: Of its control steps, or from its first message to its last.
        steps: Control steps; 0 where there are none.
        source: Who acted.
        quality: As it was asked for.
        task: In words.
        success: Whether it succeeded.
        is_labelled: Whether somebody said so afterwards.
        bytes: Of its file.
        events: What happened, in words.
    """

    number: int
    duration_s: float
    steps: int
    source: str
    quality: str
    task: str
    success: bool
    is_labelled: bool
    bytes: int
    events: str

    def cells(self) -> tuple[str, ...]:
        """Its columns, in the order of `COLUMNS`."""
        return (
            f"{self.number:06d}",
            f"{self.duration_s:.1f} s",
            str(self.steps or "-"),
            self.source,
            self.quality or "-",
            ("yes" if self.success else "no") + ("*" if self.is_labelled else ""),
            size(self.bytes),
            self.events or "-",
        )


def main(overrides: list[str]) -> int:
    """Run the verb; 1 where an episode cannot be read."""
    config = load("episodes_list", ListConfig, overrides)
    where = require_folder(config.episodes)
    lines, unreadable = [], []
    for path in folder.finished(where):
        try:
            lines.append(line_of(path))
        except EpisodeError as error:
            unreadable.append(str(error))
    print("\n".join(_table(lines)))
    for text in [*_totals(lines), *unreadable, *_aside(where)]:
        print(text)
    return 1 if unreadable else 0


def line_of(path: Path) -> Line:
    """What is told of one episode, without reading more than its events.

    Raises:
        EpisodeError: It is damaged.
    """
    reader = EpisodeReader(path)
    header = reader.header
    return Line(
        number=folder.episode_number(path),
        duration_s=reader.duration_s,
        steps=reader.result.steps if header.clock == STEPS else 0,
        source=header.source,
        quality=header.quality,
        task=header.specs.task,
        success=reader.result.success_final,
        is_labelled=any(label.success is not None for label in reader.labels),
        bytes=path.stat().st_size,
        events=told(reader.events()),
    )


def told(events: Iterable[Event]) -> str:
    """Events in words: `2 intervention, 14 dropped`, those that say nothing new left out."""
    counts: Counter[str] = Counter()
    for event in events:
        if event.name not in ORDINARY:
            count = event.data.get("count", 1) if event.name == "dropped" else 1
            counts[event.name] += count if isinstance(count, int) else 1
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _table(lines: Sequence[Line]) -> list[str]:
    rows = [COLUMNS, *(line.cells() for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = ("number", "time", "steps", "size")
    shown = []
    tasks = {line.task for line in lines}
    for row, task in zip(rows, ["task", *(line.task for line in lines)], strict=True):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(COLUMNS, row, widths, strict=True)
        ]
        shown.append("  ".join([*cells, *([task] if len(tasks) > 1 else [])]).rstrip())
    return shown


def _totals(lines: Sequence[Line]) -> list[str]:
    if not lines:
        return ["No finished episodes."]
    successes, total_s = sum(line.success for line in lines), sum(line.duration_s for line in lines)
    tasks = {line.task for line in lines}
    duration = f"{total_s / 60:.1f} min" if total_s >= 60 else f"{total_s:.1f} s"
    count = f"{len(lines)} episode{'s' if len(lines) > 1 else ''}"
    text = f"{count}, {duration}, {successes} succeeded ({successes / len(lines):.0%}), "
    text += (
        size(sum(line.bytes for line in lines))
        + (f"; task: {tasks.pop().rstrip('.')}" if len(tasks) == 1 else "")
        + "."
    )
    starred = [f"* {sum(line.is_labelled for line in lines)} labelled afterwards."] * any(
        line.is_labelled for line in lines
    )
    return ["", text, *starred]


def _aside(where: Path) -> list[str]:
    """What is not among the finished ones."""
    found = []
    for path in folder.interrupted(where):
        try:
            count = sum(recover.survey(path).counts.values())
            words = f"{count} messages can be recovered (`armature episodes recover`)"
            found.append(f"{path.name} was interrupted; {words}.")
        except EpisodeError as error:
            found.append(str(error))
    if discarded := folder.discarded(where):
        numbers = ranges([folder.episode_number(path) for path in discarded])
        found.append(f"Discarded: {numbers} (`armature episodes discard undo=true` brings them back).")
    return found
