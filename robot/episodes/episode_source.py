"""Folders of episodes as a source of rows: which files, cut where, what of them is left out and why."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robot.episodes import folder
from robot.episodes.episode import ACTIONS, COMMANDED, DEVICE, STEPS, Header, action_topic
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.resample import AUTO, Resampling, Span, resample, schema, spans
from robot.episodes.rows import Rows, Schema
from robot.errors import EpisodeError

ALL, SUCCESS = "all", "success"
_REVISION = 1
"""Grows when the same episodes and settings begin to give other rows."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What becomes of one file, as JSON can hold it.

    Attributes:
        spans: Stretches that become episodes: start [ns], number of rows, whether the file's end is in it.
        said: Why nothing, or not all, of it is used; empty where it is.
    """

    spans: tuple[tuple[int, int, bool], ...]
    said: str = ""


@dataclass(frozen=True)
class _Piece:
    """One episode of the dataset: a stretch of a file."""

    path: Path
    name: str
    digest: str
    span: Span
    number: int
    count: int


class EpisodeSource:
    """Finished episodes of some folders.

    Attributes:
        schema: Of all of them.
        plans: What became of every file, by a digest of the file and the settings: given to the next source, it spares
            reading files again only to see where they are cut.
        failures: Number of files that ended without success and are part of it.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        how: Resampling | None = None,
        keep: str = ALL,
        min_rows: int = 2,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        """Look at all files; says on stderr what is left out.

        Args:
            folders: Of episodes of one robot and with equal specs; tasks may differ.
            how: How they become rows. The label `auto` is what a device asked for where every episode says it, else
                what was commanded.
            keep: `success` leaves out what ended without it.
            min_rows: Shorter episodes are left out.
            known: `plans` of an older source.

        Raises:
            EpisodeError: There is no episode, none is left, one is damaged, or they do not belong together.
        """
        self._min_rows, self._keep = max(1, min_rows), keep
        paths = [(Path(one), path) for one in folders for path in folder.finished(Path(one))]
        for one in folders:
            _note_what_is_not_used(Path(one))
        if not paths:
            named = " and ".join(map(str, folders))
            raise EpisodeError(
                f"{named} holds no finished episodes. Record some with `armature record out={folders[0]}`."
            )
        readers = [EpisodeReader(path) for _, path in paths]
        headers = [reader.header for reader in readers]
        self._how = _labelled(how or Resampling(), readers)
        _check_alike([path for _, path in paths], headers)
        self.label = self._how.label
        self.schema = self._schema(headers)
        self.plans: dict[str, Any] = {}
        self.failures = 0
        self._pieces: list[_Piece] = []
        bar = tqdm(paths, unit="episode", desc="looking", leave=False, disable=len(paths) < 20)
        for (base, path), reader in zip(bar, readers, strict=True):
            name = path.name if len(folders) == 1 else f"{base.name}/{path.name}"
            self._add(path, name, reader, known or {})
        if not self._pieces:
            raise EpisodeError(f"None of the {len(paths)} episodes can be used; the lines above say why.")

    def __len__(self) -> int:
        return len(self._pieces)

    def identity(self, number: int) -> str:
        """A digest of the file, of its name, of the stretch, and of how it becomes rows."""
        piece = self._pieces[number]
        known = [piece.digest, piece.name, asdict(piece.span), piece.number, piece.count, self._settings()]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def read(self, number: int) -> Rows:
        """Episode `number`.

        Raises:
            EpisodeError: The file is damaged, or a channel is missing.
        """
        piece = self._pieces[number]
        episode = EpisodeReader(piece.path).read()
        try:
            rows = resample(episode, self._how, piece.span)
        except EpisodeError as error:
            raise EpisodeError(f"{piece.path}: {error}") from error
        header, result = episode.header, episode.result
        origin = {
            "file": piece.name,
            "seed": header.seed,
            "attempt": header.attempt,
            "source": header.source,
            "quality": header.quality,
            "clock": header.clock,
            "success": result.success_final,
            **rows.origin,
        }
        origin |= {"part": [piece.number, piece.count]} if piece.count > 1 else {}
        origin |= {"cameras": header.cameras} if header.cameras else {}
        origin |= {"notes": header.notes} if header.notes else {}
        return replace(rows, origin=origin)

    def _schema(self, headers: list[Header]) -> Schema:
        tasks = {header.specs.task for header in headers}
        found = schema(headers[0], self._how)
        return found if len(tasks) == 1 else replace(found, specs=replace(found.specs, task=""))

    def _settings(self) -> dict[str, Any]:
        return {"revision": _REVISION, **asdict(self._how)}

    def _add(self, path: Path, name: str, reader: EpisodeReader, known: Mapping[str, Any]) -> None:
        digest = _digest(path)
        settings = [digest, self._settings(), self._keep, self._min_rows]
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        if key in known:
            plan = Plan(tuple((start, rows, last) for start, rows, last in known[key]["spans"]), known[key]["said"])
        else:
            plan = self._plan(path, reader)
        self.plans[key] = asdict(plan)
        if plan.said:
            print(f"{path} {plan.said}", file=sys.stderr)
        self.failures += bool(plan.spans) and not reader.result.success_final
        for number, (start, rows, last) in enumerate(plan.spans):
            self._pieces.append(_Piece(path, name, digest, Span(start, rows, last), number, len(plan.spans)))

    def _plan(self, path: Path, reader: EpisodeReader) -> Plan:
        stages = [stage for stage in ACTIONS if reader.counts.get(action_topic(stage))]
        if self._how.label not in stages:
            raise EpisodeError(
                f"{path} has no action {self._how.label!r}; it has {', '.join(stages) or 'none'}. Choose another label."
            )
        if self._keep == SUCCESS and not reader.result.success_final:
            return Plan((), "ended without success and is left out, as keep=success says.")
        if reader.header.clock == STEPS:
            found: tuple[Span, ...] = (Span(0, reader.result.steps),)
        else:
            try:
                found = spans(reader.read(), self._how)
            except EpisodeError as error:
                if str(error).startswith(str(path)):
                    raise  # the file itself is damaged
                return Plan((), f"is left out: {error}")
        used = [(span.start_ns, span.rows, span.is_last) for span in found if span.rows >= self._min_rows]
        return Plan(tuple(used), self._remark(found, len(used)))

    def _remark(self, found: tuple[Span, ...], used: int) -> str:
        rows = sum(span.rows for span in found)
        if not used:
            return f"has {rows} rows, fewer than min_rows={self._min_rows}, and is left out."
        if len(found) > 1 or not found[-1].is_last:
            return f"is cut at its gaps into {used} episodes."
        return ""


def _labelled(how: Resampling, readers: Sequence[EpisodeReader]) -> Resampling:
    if how.label != AUTO:
        return how
    is_told = all(reader.counts.get(action_topic(DEVICE)) for reader in readers)
    if not is_told:
        print(f"Not every episode says what a device asked for: actions are what was {COMMANDED}.", file=sys.stderr)
    return replace(how, label=DEVICE if is_told else COMMANDED)


def _check_alike(paths: list[Path], headers: list[Header]) -> None:
    for path, header in zip(paths, headers, strict=True):
        lines = headers[0].specs.difference(header.specs)
        if header.clock != headers[0].clock:
            lines.append(f"its clock is {header.clock}, expected {headers[0].clock}")
        if lines:
            raise EpisodeError(
                f"{path} does not fit {paths[0]}: {'; '.join(lines)}. Build episodes of different robots or "
                "observations into datasets of their own."
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_what_is_not_used(source: Path) -> None:
    for path in folder.interrupted(source):
        print(f"{path} was interrupted and is not used; `armature episodes recover` mends it.", file=sys.stderr)
    for path in sorted({*source.glob("*.mcap")} - {*folder.finished(source)}):
        print(f"{path} is not named like an episode (episode-000000.mcap) and is not used.", file=sys.stderr)
