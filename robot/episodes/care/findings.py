"""What is wrong with a dataset, a line each."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        level: `error` where training on it, or reading it with LeRobot, would go wrong; `warning` where a person
            should look.
        kind: What is wrong, in a word or two: `missing frame`.
        where: File, episode and frame.
        text: What was found and what was expected.
        todo: What to do about it.
    """

    level: str
    kind: str
    where: str
    text: str
    todo: str

    def __str__(self) -> str:
        return f"{self.level}: {self.kind}: {self.where}: {self.text}. {self.todo}"


@dataclass
class Report:
    """Findings in the order in which they were made; file names are relative to `root`."""

    root: Path
    findings: list[Finding] = field(default_factory=list)

    def error(self, kind: str, where: str, text: str, todo: str) -> None:
        """Note an error."""
        self.findings.append(Finding(ERROR, kind, where, text.rstrip("."), todo))

    def warning(self, kind: str, where: str, text: str, todo: str) -> None:
        """Note a warning."""
        self.findings.append(Finding(WARNING, kind, where, text.rstrip("."), todo))

    def name(self, path: Path) -> str:
        """A file's name below the root."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    @property
    def errors(self) -> list[Finding]:
        """Those that are errors."""
        return [finding for finding in self.findings if finding.level == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """Those that are warnings."""
        return [finding for finding in self.findings if finding.level == WARNING]


def at(path: str, episode: int | None = None, frame: int | None = None) -> str:
    """`data/chunk-000/file-000.parquet episode 3 frame 17`."""
    parts = [path]
    if episode is not None:
        parts.append(f"episode {episode}")
    if frame is not None:
        parts.append(f"frame {frame}")
    return " ".join(parts)


def counted(frames: Iterable[int] | np.ndarray, noun: str = "frame") -> str:
    """`frame 17`, or `frames 17 to 20 and 25 (5 in all)`."""
    numbers = np.asarray(list(frames), np.int64)
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    shown = texts[:4] + (["..."] if len(texts) > 4 else [])
    return f"{noun}s {', '.join(shown)} ({len(numbers)} in all)"


def shortened(error: Exception, path: Path | None = None) -> str:
    """A message without the name of the file and without what it says to do: a finding says both itself."""
    text = str(error)
    for prefix in (f"{path}: ", f"{path} ") if path else ():
        text = text.replace(prefix, "")
    return text.split(" Build it again")[0].split(" Fetch or record")[0]
