"""What was found, and how it is shown: a table that one reads from top to bottom, or JSON."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path


class Level(IntEnum):
    """How much it matters."""

    OK = 0
    WARN = 1
    """Works, but not as well as it could, or not for everything."""
    FAIL = 2
    """Does not work before it is mended."""


COLOURS = {Level.OK: "32", Level.WARN: "33", Level.FAIL: "31"}
_INDENT = 30


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        area: Heading that it stands under.
        name: What was looked at.
        level: How much it matters.
        value: What was found.
        meaning: What follows from it, a sentence; needed where the level is not OK.
        fix: Commands or what else to do, one a line.
        picture: Lines of plain text that belong to it.
    """

    area: str
    name: str
    level: Level
    value: str
    meaning: str = ""
    fix: tuple[str, ...] = ()
    picture: tuple[str, ...] = ()


def text(root: Path, path: str, default: str = "") -> str:
    """Content of a file under `root` without its ends, or `default` where it cannot be read."""
    try:
        return (root / path).read_text(errors="replace").strip("\n \0")
    except OSError:
        return default


def number(root: Path, path: str, default: int = -1) -> int:
    """The whole number in a file under `root`, or `default`."""
    try:
        return int(text(root, path))
    except ValueError:
        return default


def table(findings: Sequence[Finding], width: int = 100, has_colours: bool = False) -> str:
    """All of them under their headings, wrapped to `width` columns, and a summary."""
    lines: list[str] = []
    for area in dict.fromkeys(finding.area for finding in findings):
        lines.append(_painted(area, "1", has_colours))
        for finding in findings:
            if finding.area == area:
                lines += _entry(finding, max(width, 60), has_colours)
        lines.append("")
    counts = [f"{_count(findings, level)} {level.name}" for level in Level]
    return "\n".join([*lines, f"{', '.join(counts)}."])


def as_json(findings: Sequence[Finding]) -> str:
    """The same for programs."""
    rows = [{**asdict(finding), "level": finding.level.name} for finding in findings]
    summary = {level.name: _count(findings, level) for level in Level}
    return json.dumps({"findings": rows, "summary": summary}, indent=1)


def _count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level == level for finding in findings)


def _entry(finding: Finding, width: int, has_colours: bool) -> list[str]:
    mark = _painted(f"{finding.level.name:<4}", COLOURS[finding.level], has_colours)
    first, *more = textwrap.wrap(finding.value, width - _INDENT) or [""]
    lines = [f"  {mark}  {finding.name:<{_INDENT - 9}} {first}", *(" " * _INDENT + line for line in more)]
    lines += [" " * _INDENT + line for line in textwrap.wrap(finding.meaning, width - _INDENT)]
    # A command is copied, so that it is never wrapped.
    lines += [" " * _INDENT + _painted(f"> {line}", "36", has_colours) for line in finding.fix]
    return lines + [f"        {line}" for line in finding.picture]


def _painted(words: str, colour: str, has_colours: bool) -> str:
    return f"\x1b[{colour}m{words}\x1b[0m" if has_colours else words
