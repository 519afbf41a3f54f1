"""Writes LeRobotDataset v3.0 folders, vectors and pictures, without LeRobot.

Beside what LeRobot knows, a folder holds what it has no place for; LeRobot ignores it:

- `meta/armature.json`: `format` ("armature-dataset"), `version` (2), `environment` (`EnvironmentSpecs.to_json`),
  `extras` (specs of further columns), `notes` (JSON of the source), `encoding` (of pictures), `settings` (a digest:
  only a build with the same one reuses what is there), `build` (what the caller says: label, clock, ...). Version 1 had
  `environment`, `label` and `episodes` (the origins) only, and vectors only.
- `meta/armature/episodes.parquet`: a row for each episode: `episode_index`, `identity` (digest of what it was made
  of), `origin` (JSON text: file, seed, source, quality, labels, skews), `subsets` (list of names), `data_bytes`, and
  for each camera `bytes/<key>`, `sampled/<key>` (frames counted) and `histogram/<key>` (3 x 256 counts, colour after
  colour).
- `meta/armature/fingerprints/chunk-000/file-000.parquet`: a row for each frame, in the file of the same number as its
  row in `data/`: `episode_index`, `frame_index`, and for each camera the 64 numbers of `fingerprint.fingerprint`.
- `meta/armature/files.json`: size and SHA-256 of every file in `data`, `videos` and the fingerprints.

Memory holds the vectors of one episode for each worker and a few more, never all of them.
"""

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from robot.episodes import atomic
from robot.episodes.dataset import frames_per_second
from robot.episodes.formats import lerobot_layout as layout
from robot.episodes.formats import lerobot_previous, lerobot_tables
from robot.episodes.formats.encoding_pool import Job, encoded
from robot.episodes.formats.file_series import Limits
from robot.episodes.formats.lerobot_episodes import EpisodeFiles
from robot.episodes.formats.lerobot_layout import ARMATURE, ARMATURE_FORMAT, CHUNK_FILES, DATA_FILE_MB, VIDEO_FILE_MB
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import RowSource
from robot.errors import DatasetError, WorkerError

__all__ = ["ARMATURE", "ARMATURE_FORMAT", "Settings", "WorkerError", "Written", "write"]

_REVISION = 1
"""Grows when the same settings begin to give other bytes."""
_SCRATCH = ".encoding"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to write.

    Attributes:
        encoding: Of pictures.
        workers: Processes that encode, if there is enough to do; 1 encodes in this one. What is written is the same.
        data_file_mb: Rows go to the next file beyond this size, uncompressed.
        video_file_mb: Episodes go to the next video beyond this size.
        chunk_files: Files in a folder.
        progress: Whether to show a bar on stderr.
    """

    encoding: Encoding = field(default_factory=Encoding)
    workers: int = 1
    data_file_mb: float = DATA_FILE_MB
    video_file_mb: float = VIDEO_FILE_MB
    chunk_files: int = CHUNK_FILES
    progress: bool = False

    def digest(self, source: RowSource) -> str:
        """SHA-256 of all that decides what is written for an episode with a given identity."""
        schema = source.schema
        known = {
            "revision": _REVISION,
            "encoding": [self.encoding.resolved(), self.encoding.options()],
            "files": [self.data_file_mb, self.video_file_mb, self.chunk_files],
            "specs": schema.specs.to_json(),
            "extras": {key: spec.to_json() for key, spec in schema.extras.items()},
            "libraries": [pa.__version__, av.library_versions, cv2.__version__, np.__version__],
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        episodes: Number of episodes in the dataset.
        frames: Number of rows.
        fps: Rows per second.
        kept: Episodes that an older build had made.
        linked: Files that are hard links to those of an older build.
        megabytes: Size of the dataset.
    """

    episodes: int
    frames: int
    fps: int
    kept: int
    linked: tuple[str, ...]
    megabytes: float


def write(
    source: RowSource, path: str | Path, settings: Settings | None = None, about: dict[str, Any] | None = None
) -> Written:
    """Write a dataset; equal sources and settings give equal bytes (with the same libraries).

    A dataset that is already there and was made with equal settings lends the episodes whose identities are unchanged.
    What comes out is the same, byte for byte, as without it.

    Args:
        source: Episodes. With several workers it is sent to other processes, so it must be picklable and small.
        path: Folder to make. A dataset that is already there is replaced when the new one is complete.
        settings: How to write.
        about: What `meta/armature.json` should say under `build`, e.g. which recorded channel the actions are.

    Raises:
        DatasetError: There is no episode, the folder holds something else than a dataset of ours, another process is
            writing it, rows do not fit the schema, or the disk is full or not writable. What was there stays.
        ArmatureError: An episode cannot be read. What was there stays.
    """
    path, settings = Path(path), settings or Settings()
    path = path.resolve() if path.is_symlink() else path  # what it points to is replaced, not the link
    layout.check_schema(source.schema, settings.encoding)
    if len(source) == 0:
        raise DatasetError(f"There is no episode to write to {path}; a dataset needs at least one.")
    _refuse_foreign(path)
    busy = DatasetError(f"Another process is writing {path}. Wait for it, or stop it.")
    try:
        with atomic.locked(path, busy), atomic.replaced_folder(path) as part:
            return _Writing(source, settings, part, path).run(about or {})
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # libraries write essays
        raise DatasetError(
            f"{path} cannot be written: {reason}. What was there before is unchanged; make room or "
            "choose another folder."
        ) from error


def _refuse_foreign(path: Path) -> None:
    if path.exists() and not (path / ARMATURE).exists() and not (path.is_dir() and not any(path.iterdir())):
        raise DatasetError(
            f"{path} exists and is not a dataset that Armature wrote (it has no {ARMATURE}); it is left as it is. "
            "Choose another folder or remove it."
        )


class _Writing:
    """One dataset that is being written into `part`."""

    def __init__(self, source: RowSource, settings: Settings, part: Path, old: Path) -> None:
        self._source, self._settings, self._part = source, settings, part
        self._fps = frames_per_second(source.schema.specs)
        self._digest = settings.digest(source)
        self._previous = lerobot_previous.opened(old, self._digest, list(source.schema.pictures))

    def run(self, about: dict[str, Any]) -> Written:
        previous = self._previous
        identities = [self._source.identity(number) for number in range(len(self._source))]
        olds = [previous.episode(identity) if previous else None for identity in identities]
        fresh = [number for number, old in enumerate(olds) if old is None]
        scratch = self._part / _SCRATCH
        scratch.mkdir()
        job = Job(self._source, self._settings.encoding, self._fps, scratch)
        bar = tqdm(olds, unit="episode", desc="building", disable=not self._settings.progress)
        with contextlib.closing(encoded(job, fresh, self._settings.workers)) as made, self._files() as files:
            for old, identity in zip(bar, identities, strict=True):
                if old is None:
                    files.add(next(made), identity)
                else:
                    files.keep(old)
            files.finish()
        self._write_meta(files, about, scratch)
        shutil.rmtree(scratch)
        size = sum(path.stat().st_size for path in self._part.rglob("*") if path.is_file())
        kept = len(olds) - len(fresh)
        return Written(len(olds), files.frames, self._fps, kept, tuple(files.linked), size / 1e6)

    def _files(self) -> EpisodeFiles:
        settings = self._settings
        sizes = (settings.data_file_mb, settings.video_file_mb)
        data, videos = (Limits(megabytes * 1e6, settings.chunk_files) for megabytes in sizes)
        return EpisodeFiles(
            self._part, self._source.schema, settings.encoding, (data, videos), self._fps, self._previous
        )

    def _write_meta(self, files: EpisodeFiles, about: dict[str, Any], scratch: Path) -> None:
        part, schema = self._part, self._source.schema
        data = sorted((part / "data").rglob("*.parquet"))
        stats = {**lerobot_tables.of_files(data, schema, scratch), **files.picture_statistics()}
        layout.write_json(part / layout.STATS, {key: lerobot_tables.listed(stat) for key, stat in stats.items()})
        pq.write_table(layout.tasks_table(files.tasks), layout.made(part / layout.TASKS))
        layout.write_json(part / layout.FILES, self._digests(set(files.linked)))
        armature = {
            **ARMATURE_FORMAT,
            "environment": schema.specs.to_json(),
            "extras": [spec.to_json() for spec in schema.extras.values()],
            "notes": schema.notes,
            "encoding": self._settings.encoding.resolved(),
            "settings": self._digest,
            "build": about,
        }
        layout.write_json(part / ARMATURE, armature)
        layout.write_json(part / layout.INFO, self._info(files))

    def _digests(self, linked: set[str]) -> dict[str, Any]:
        """Sizes and SHA-256 of the large files; those of links are known."""
        known = self._previous.files if self._previous else {}
        found = {}
        for folder in ("data", "videos", "meta/armature/fingerprints"):
            for path in sorted((self._part / folder).rglob("file-*")):
                name = str(path.relative_to(self._part))
                found[name] = known[name] if name in linked else _digest(path)
        return found

    def _info(self, files: EpisodeFiles) -> dict[str, Any]:
        settings, schema = self._settings, self._source.schema
        has_videos = settings.encoding.is_video and bool(schema.pictures)
        return {
            "codebase_version": layout.VERSION,
            "robot_type": schema.specs.robot,
            "total_episodes": len(self._source),
            "total_frames": files.frames,
            "total_tasks": len(files.tasks),
            "chunks_size": settings.chunk_files,
            "data_files_size_in_mb": settings.data_file_mb,
            "video_files_size_in_mb": settings.video_file_mb,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._source)}"},
            "data_path": layout.DATA_PATH,
            "video_path": layout.VIDEO_PATH if has_videos else None,
            "features": layout.features(schema, settings.encoding, self._fps),
        }


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
