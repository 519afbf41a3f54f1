"""What merging and splitting share: how pictures are kept, and folders that must not exist yet."""

import os
from pathlib import Path

from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import Settings
from robot.episodes.formats.video import CODECS, PNG, Encoding
from robot.errors import DatasetError, unknown_name

SAME = "same"


def encoding(sources: list[LeRobotSource], codec: str) -> Encoding:
    """How to keep pictures: that of the sources where they agree, H.264 where they do not or it is unknown.

    Args:
        sources: At least one.
        codec: `same`, or one of `CODECS`.
    """
    if codec != SAME:
        if codec not in CODECS:
            raise unknown_name("codec", codec, (SAME, *CODECS))
        return Encoding(codec=codec)
    found = [_of(source) for source in sources]
    return found[0] if all(other == found[0] for other in found) else Encoding()


def _of(source: LeRobotSource) -> Encoding:
    known = source.files.armature.get("encoding") or {}
    if known.get("codec") in CODECS:
        return Encoding(**{name: value for name, value in known.items() if name in ("codec", "crf", "gop", "preset")})
    kinds = {source.files.features[source.stored[key]]["dtype"] for key in source.schema.pictures}
    return Encoding(codec=PNG) if kinds == {"image"} else Encoding()


def settings(sources: list[LeRobotSource], codec: str, workers: int) -> Settings:
    """Settings of the writer, with a bar; 0 workers are one for each core."""
    workers = workers or len(os.sched_getaffinity(0))
    return Settings(encoding=encoding(sources, codec), workers=workers, progress=True)


def note_on_pictures(sources: list[LeRobotSource], kept: Encoding) -> str:
    """What happens to pictures, as a sentence; empty where there are none or nothing is lost."""
    changed = [source for source in sources if source.schema.pictures and not _is_kept(source, kept)]
    if not changed or not kept.is_video:
        return ""
    return f"Pictures are decoded and encoded again as {kept.codec}, which loses a little; codec=png loses nothing."


def _is_kept(source: LeRobotSource, kept: Encoding) -> bool:
    """Whether videos are copied packet by packet (see `formats.lerobot_notes`)."""
    return source.files.armature.get("encoding") == kept.resolved()


def check_free(path: Path, sources: list[Path]) -> None:
    """Refuse to write over anything.

    Raises:
        DatasetError: The folder exists and is not empty, or is one of the sources.
    """
    if path.resolve() in {source.resolve() for source in sources}:
        raise DatasetError(f"{path} is one of the datasets to read. Choose another folder.")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DatasetError(f"{path} exists. Choose another folder or remove it.")
