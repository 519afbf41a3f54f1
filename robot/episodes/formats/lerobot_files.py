"""What the `meta/` folder of a LeRobotDataset v3 says: where each episode's rows and frames lie.

Layouts of LeRobot 0.4 to 0.6 (`lerobot/datasets/utils.py`); reading them needs neither LeRobot nor pandas. Only
`meta/` is touched here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robot.errors import DatasetError

INFO, STATS, TASKS, ARMATURE = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/armature.json"
EPISODES = "meta/episodes"
ORIGINS = "meta/armature/episodes.parquet"
VERSION = "v3.0"
INDEX_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that every LeRobotDataset has; whoever writes one makes them anew."""
_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_OLDER = {
    "v2.1": "Convert it with LeRobot 0.4: `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30`.",
    "": "Convert it to v2.1 with LeRobot 0.3, then to v3.0 with LeRobot 0.4.",
}


@dataclass(frozen=True)
class VideoPlace:
    """An episode's frames in a video file that it shares with others: from `start_s` up to `stop_s` [s]."""

    path: Path
    start_s: float
    stop_s: float


@dataclass(frozen=True)
class EpisodePlace:
    """Where one episode lies.

    Attributes:
        number: From 0.
        length: Frames.
        first: Index of its first frame among those of the dataset.
        tasks: Texts of its tasks.
        data: Its Parquet file.
        videos: By key of the feature.
    """

    number: int
    length: int
    first: int
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, VideoPlace]


@dataclass(frozen=True)
class Files:
    """A folder, and what its `meta/` says.

    Attributes:
        root: The folder.
        info: `meta/info.json`.
        armature: `meta/armature.json`; empty where LeRobot wrote the dataset.
        tasks: Text of each task by its `task_index`.
        episodes: In the order of their numbers.
    """

    root: Path
    info: dict[str, Any]
    armature: dict[str, Any]
    tasks: dict[int, str]
    episodes: tuple[EpisodePlace, ...]

    @classmethod
    def read(cls, root: str | Path) -> "Files":
        """Read `meta/`.

        Raises:
            DatasetError: The folder is missing, is no LeRobotDataset v3.0, or its `meta/` is damaged.
        """
        root = Path(root)
        info = read_info(root)
        armature = read_json(root / ARMATURE) if (root / ARMATURE).exists() else {}
        return cls(root, info, armature, read_tasks(root), read_episodes(root, info))

    @property
    def is_ours(self) -> bool:
        """Whether Armature wrote it."""
        return bool(self.armature)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.info["fps"])

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """What the columns and pictures are, by key."""
        return self.info["features"]

    @cached_property
    def data_files(self) -> tuple[Path, ...]:
        """Every Parquet file of rows, in the order of the rows."""
        return tuple(dict.fromkeys(place.data for place in self.episodes))

    @cached_property
    def video_files(self) -> tuple[Path, ...]:
        """Every video file."""
        return tuple(dict.fromkeys(video.path for place in self.episodes for video in place.videos.values()))

    @cached_property
    def subsets(self) -> dict[str, tuple[int, ...]]:
        """Episodes of each split that `info.json` names; a single one that holds everything says nothing."""
        splits = {}
        for name, span in (self.info.get("splits") or {}).items():
            first, _, last = str(span).partition(":")
            if first.isdigit() and last.isdigit():
                splits[name] = tuple(range(int(first), min(int(last), len(self.episodes))))
        is_trivial = len(splits) == 1 and len(next(iter(splits.values()))) == len(self.episodes)
        return {} if is_trivial else splits

    def check_counters(self) -> None:
        """Raise where `info.json` counts other episodes or frames than there are."""
        for line in counter_differences(self):
            if "total_tasks" not in line:  # tools that edit datasets leave tasks behind; rows name those they mean
                raise DatasetError(f"{self.root}: {line}. {again(self.root)}")


def counter_differences(files: Files) -> list[str]:
    """What `info.json` counts wrongly, a line each."""
    wanted = {
        "total_episodes": len(files.episodes),
        "total_frames": sum(place.length for place in files.episodes),
        "total_tasks": len(files.tasks),
    }
    return [
        f"info.json says {name} {files.info[name]}, the {what} say {wanted[name]}"
        for name, what in (("total_episodes", "episodes"), ("total_frames", "episodes"), ("total_tasks", "tasks"))
        if name in files.info and files.info[name] != wanted[name]
    ]


def again(root: Path) -> str:
    """How to get an undamaged copy."""
    if (root / ARMATURE).exists():
        return "Build it again with `armature build`; `armature dataset validate` tells all that is wrong with it."
    return "Fetch or record it again; `armature dataset validate` tells all that is wrong with it."


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file of a dataset.

    Raises:
        DatasetError: It is missing or damaged.
    """
    root = path.parent.parent
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). {again(root)}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is damaged: {error}. {again(root)}") from error
    if not isinstance(data, dict):
        raise DatasetError(f"{path} is damaged: expected an object, got {type(data).__name__}. {again(root)}")
    return data


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json` of a version that this Armature reads.

    Raises:
        DatasetError: There is none, it is damaged, or of another version.
    """
    if not root.is_dir():
        raise DatasetError(f"There is no dataset folder {root}. Make one with `armature build out={root}`.")
    if not (root / INFO).exists():
        raise DatasetError(_no_dataset(root))
    info = read_json(root / INFO)
    _check_version(root, info.get("codebase_version"))
    fps, features = info.get("fps"), info.get("features")
    if not isinstance(fps, int | float) or not 0 < fps < 1e6:
        raise DatasetError(f"{root / INFO} says fps {fps!r}, expected frames per second. {again(root)}")
    if not isinstance(features, dict) or not all(
        isinstance(feature, dict) and "dtype" in feature and isinstance(feature.get("shape"), list)
        for feature in features.values()
    ):
        raise DatasetError(f"{root / INFO} does not say dtype and shape of every feature. {again(root)}")
    return info


def _no_dataset(root: Path) -> str:
    text = f"{root} is no LeRobotDataset: it has no {INFO}."
    if any(root.glob("*.mcap")):
        return f"{text} It holds episodes; make a dataset of them with `armature build episodes={root} out=...`."
    below = sorted(path.parent.parent for path in root.glob("*/" + INFO))
    if below:
        return f"{text} Did you mean {' or '.join(str(path) for path in below[:3])}?"
    return f"{text} Make one with `armature build` or `armature convert`."


def _check_version(root: Path, version: Any) -> None:
    if version == VERSION:
        return
    text = f"{root} is a LeRobotDataset of version {version!r}, this Armature reads {VERSION}."
    if not isinstance(version, str) or not version.startswith("v"):
        raise DatasetError(f"{text} {INFO} is not what LeRobot writes.")
    if version.startswith(("v1.", "v2.")):
        raise DatasetError(f"{text} {_OLDER.get(version, _OLDER[''])}")
    raise DatasetError(f"{text} It is newer: use a newer Armature, or write it with LeRobot 0.4 to 0.6.")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or some of its columns.

    Raises:
        DatasetError: It is missing, truncated or damaged.
    """
    with opened(path) as file:
        try:
            return file.read(columns=None if columns is None else list(columns))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{path} is damaged: {first_line(error)} {again(root_of(path))}") from error


def opened(path: Path) -> pq.ParquetFile:
    """A Parquet file whose footer is whole.

    Raises:
        DatasetError: It is not.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing. {again(root_of(path))}") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is truncated or damaged: {first_line(error)} {again(root_of(path))}") from error


def root_of(path: Path) -> Path:
    """The dataset that a file lies in."""
    return next((parent for parent in path.parents if (parent / INFO).exists()), path.parent)


def first_line(error: Exception) -> str:
    """The first line of a library's message, as a sentence."""
    lines = str(error).strip().splitlines()
    return f"{lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


def read_tasks(root: Path) -> dict[int, str]:
    """Text of each task. pandas leaves the text in an index that is named `task` (LeRobot 0.5) or not at all (0.4)."""
    table = read_table(root / TASKS)
    texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
    texts += [name for name in table.column_names if pa.types.is_large_string(table.schema.field(name).type)]
    if "task_index" not in table.column_names or not texts:
        raise DatasetError(
            f"{root / TASKS} has columns {', '.join(table.column_names) or 'none'}; expected task_index and the text "
            f"of each task. {again(root)}"
        )
    text = "task" if "task" in texts else texts[0]
    return dict(zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True))


def episode_files(root: Path) -> list[Path]:
    """Parquet files of `meta/episodes`, in the order of their numbers."""
    paths = sorted((root / EPISODES).glob("chunk-*/file-*.parquet"), key=lambda path: (len(str(path)), str(path)))
    if not paths:
        raise DatasetError(f"{root / EPISODES} holds no Parquet files. {again(root)}")
    return paths


def read_episodes(root: Path, info: dict[str, Any]) -> tuple[EpisodePlace, ...]:
    """Where each episode lies, without the statistics of each."""
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    rows: list[dict[str, Any]] = []
    for path in episode_files(root):
        wanted = [name for name in opened(path).schema_arrow.names if not name.startswith("stats/")]
        rows += read_table(path, wanted).to_pylist()
    rows.sort(key=lambda row: row.get("episode_index", -1))
    numbers = [row.get("episode_index") for row in rows]
    if numbers != list(range(len(rows))):
        raise DatasetError(f"Episodes of {root} are not numbered 0, 1, 2 ...: {numbers[:8]} ... {again(root)}")
    try:
        return tuple(_place(root, info, row, videos) for row in rows)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DatasetError(
            f"{root / EPISODES} does not say where every episode lies: {error!r}. {again(root)}"
        ) from error


def read_origins(root: Path, armature: dict[str, Any]) -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    """Where each episode of ours comes from, and the subsets that it is in; empty where nothing says so."""
    if not (root / ORIGINS).exists():
        return [(dict(origin), ()) for origin in armature.get("episodes", [])]
    table = read_table(root / ORIGINS, ["episode_index", "origin", "subsets"])
    rows = sorted(table.to_pylist(), key=lambda row: row["episode_index"])
    try:
        return [(json.loads(row["origin"] or "{}"), tuple(row["subsets"] or ())) for row in rows]
    except ValueError as error:
        raise DatasetError(f"{root / ORIGINS} is damaged: {error}. {again(root)}") from error


def _place(root: Path, info: dict[str, Any], row: dict[str, Any], videos: list[str]) -> EpisodePlace:
    data = (info.get("data_path") or _DATA_PATH).format(
        chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
    )
    places = {}
    for key in videos:
        name = info["video_path"].format(
            video_key=key,
            chunk_index=row[f"videos/{key}/chunk_index"],
            file_index=row[f"videos/{key}/file_index"],
        )
        start, stop = row[f"videos/{key}/from_timestamp"], row[f"videos/{key}/to_timestamp"]
        places[key] = VideoPlace(root / name, float(start), float(stop))
    tasks = row.get("tasks") or []
    return EpisodePlace(
        row["episode_index"],
        int(row["length"]),
        int(row["dataset_from_index"]),
        tuple([tasks] if isinstance(tasks, str) else tasks),
        root / data,
        places,
    )
