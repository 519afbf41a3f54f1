"""Whether the files of a dataset are those that were written, and nothing else lies among them."""

import hashlib
import json
from pathlib import Path

from tqdm import tqdm

from robot.episodes.care.findings import Report, shortened
from robot.episodes.formats.lerobot_files import ARMATURE, ORIGINS, Files, episode_files, read_origins, read_table
from robot.errors import DatasetError

WRITTEN = "meta/armature/files.json"
_FOLDERS = ("data", "videos", "images", "meta/episodes")
_AGAIN = "Build or fetch the dataset again."


def check_leftovers(files: Files, report: Report) -> None:
    """Files among rows, videos and episodes that nothing refers to, and half-written ones."""
    known = {*files.data_files, *files.video_files, *episode_files(files.root)}
    for folder in _FOLDERS:
        for path in sorted((files.root / folder).rglob("*")):
            if path.is_file() and path not in known:
                text = f"nothing refers to this file of {path.stat().st_size / 1e6:.2f} MB"
                report.warning("leftover file", report.name(path), text, "Remove it if you do not know what it is for.")


def check_missing(files: Files, report: Report) -> None:
    """Files that `meta/` refers to and that are not there."""
    for path in files.data_files:
        if not path.exists():
            report.error("missing file", report.name(path), "meta/episodes says that rows are in it", _AGAIN)


def written(files: Files) -> dict[str, dict[str, object]]:
    """Size and digest of every file as our writer noted them; empty for foreign datasets."""
    path = files.root / WRITTEN
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is damaged: {error}.") from error
    return {name: known for name, known in found.items() if isinstance(known, dict)}


def check_written(files: Files, report: Report, is_fast: bool) -> None:
    """Size, and unless it should go fast the digest, of every file that our writer noted."""
    if not files.is_ours and (files.root / WRITTEN).parent.is_dir():
        report.error("missing file", ARMATURE, "without it nothing says what the columns mean", _AGAIN)
    for name in (WRITTEN, ORIGINS) if files.armature.get("version", 1) >= 2 else ():
        if not (files.root / name).exists():
            report.error("missing file", name, "datasets of version 2 have it", _AGAIN)
    try:
        noted = written(files)
    except DatasetError as error:
        report.error("unreadable file", WRITTEN, str(error), _AGAIN)
        return
    for name, known in tqdm(noted.items(), desc="files", unit="file", leave=False, disable=is_fast):
        path, size = files.root / name, known.get("bytes")
        if not path.is_file():
            report.error("missing file", name, "it was written with the dataset", _AGAIN)
        elif path.stat().st_size != size:
            text = f"it has {path.stat().st_size} bytes, it was written with {size}"
            report.error("changed file", name, text, _AGAIN)
        elif not is_fast and known.get("sha256") and digest(path) != known["sha256"]:
            report.error("changed file", name, "its bytes are not those that were written", _AGAIN)


def check_origins(files: Files, report: Report) -> None:
    """Whether our own table of episodes has a readable row for each."""
    if not (files.root / ORIGINS).exists():
        return  # told with the files
    try:
        found = len(read_origins(files.root, files.armature))
        read_table(files.root / ORIGINS)
    except DatasetError as error:
        report.error("unreadable file", ORIGINS, shortened(error, files.root / ORIGINS), _AGAIN)
        return
    if found != len(files.episodes):
        report.error("origins", ORIGINS, f"{found} rows for {len(files.episodes)} episodes", _AGAIN)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
