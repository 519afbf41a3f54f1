"""LeRobotDatasets as LeRobot 0.4 to 0.6 and its users leave them, written without any writer of ours."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 5
LENGTHS = (4, 6, 3)
STATE, ACTION, CAMERA = "observation.state", "action", "observation.images.top"


def picture(episode: int, frame: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Flat areas, which survive any codec."""
    image = np.full((height, width, 3), (60 * episode, 40, 200), np.uint8)
    image[:, : 2 + 4 * frame] = (250, 20 * frame, 30)
    return image


def columns(episode: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(episode)
    length = LENGTHS[episode]
    return {
        STATE: rng.normal(size=(length, 3)).astype(np.float32),
        ACTION: rng.normal(size=(length, 2)).astype(np.float32),
        "effort": rng.normal(size=(length, 1)),
        "next.done": np.arange(length) == length - 1,
        "grid": rng.integers(0, 9, (length, 2, 2)),
        "language": np.array([f"say {episode} {k}" for k in range(length)]),
    }


FEATURES: dict[str, dict[str, Any]] = {
    STATE: {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
    ACTION: {"dtype": "float32", "shape": [2], "names": ["u", "v"]},
    "effort": {"dtype": "float64", "shape": [1], "names": None},
    "next.done": {"dtype": "bool", "shape": [1], "names": None},
    "grid": {"dtype": "int64", "shape": [2, 2], "names": None},
    "language": {"dtype": "string", "shape": [1], "names": None},
}
_INDEX = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def write(
    root: Path,
    *,
    video: str = "libx264",
    is_named: bool = True,
    is_many_files: bool = False,
    is_scalar: bool = True,
    camera: str = CAMERA,
    is_channels_first: bool = False,
    has_stats: bool = False,
    extra_info: dict[str, Any] | None = None,
) -> Path:
    """A dataset of three episodes and two tasks; the second task begins in the middle of episode 1.

    Args:
        root: Folder to make.
        video: Codec; empty: PNG in the tables.
        is_named: Whether pandas named the index of the tasks (0.5), or not (0.4).
        is_many_files: Whether every episode has files of its own, in two chunks.
        is_scalar: Whether columns of one element are scalars, or lists of one.
        camera: What the camera is called.
        is_channels_first: Whether its shape is said as (3, H, W).
        has_stats: Whether there is `meta/stats.json`.
        extra_info: What else `info.json` says.
    """
    shape, names = ([3, 24, 32], ["channels", "height", "width"]) if is_channels_first else (
        [24, 32, 3], ["height", "width", "channels"]
    )  # fmt: skip
    features = {**FEATURES, camera: {"dtype": "video" if video else "image", "shape": shape, "names": names}}
    features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in _INDEX.items()}
    info = {
        "codebase_version": "v3.0", "robot_type": "so101", "total_episodes": 3, "total_frames": sum(LENGTHS),
        "total_tasks": 2, "chunks_size": 2 if is_many_files else 1000, "fps": FPS, "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if video else None,
        "features": features, **(extra_info or {}),
    }  # fmt: skip
    _put(root / "meta/info.json").write_text(json.dumps(info))
    if has_stats:
        _put(root / "meta/stats.json").write_text(json.dumps({}))
    text = "task" if is_named else "__index_level_0__"
    pq.write_table(pa.table({"task_index": [0, 1], text: ["lift", "place"]}), _put(root / "meta/tasks.parquet"))
    places = [divmod(episode, 2) if is_many_files else (0, 0) for episode in range(3)]
    _write_rows(root, places, camera if not video else "", is_scalar)
    spans = _write_videos(root, places, camera, video) if video else {}
    _write_episodes(root, places, camera, spans)
    return root


def tasks(episode: int) -> list[str]:
    numbers = [1 if (episode, k) >= (1, 3) else 0 for k in range(LENGTHS[episode])]
    return [("lift", "place")[number] for number in numbers]


def _put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _table(episode: int, camera: str, is_scalar: bool) -> pa.Table:
    found = columns(episode)
    length, first = LENGTHS[episode], sum(LENGTHS[:episode])
    table = {
        STATE: pa.FixedSizeListArray.from_arrays(pa.array(found[STATE].ravel()), 3),
        ACTION: pa.array(found[ACTION].tolist(), pa.list_(pa.float32())),
        "effort": pa.array(found["effort"][:, 0]),
        "next.done": pa.array(found["next.done"]),
        "grid": pa.array(found["grid"].tolist()),
        "language": pa.array(found["language"].tolist()),
        "timestamp": pa.array((np.arange(length) / FPS).astype(np.float32)),
        "frame_index": pa.array(np.arange(length)),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(first + np.arange(length)),
        "task_index": pa.array([("lift", "place").index(task) for task in tasks(episode)]),
    }
    if not is_scalar:
        for key in ("effort", "next.done"):
            table[key] = pa.FixedSizeListArray.from_arrays(table[key], 1)
    if camera:
        encoded = [cv2.imencode(".png", picture(episode, k)[..., ::-1])[1].tobytes() for k in range(length)]
        table[camera] = pa.array([{"bytes": data, "path": None} for data in encoded])
    return pa.table(table)


def _write_rows(root: Path, places: list[tuple[int, int]], camera: str, is_scalar: bool) -> None:
    for place in dict.fromkeys(places):
        tables = [_table(episode, camera, is_scalar) for episode in range(3) if places[episode] == place]
        path = _put(root / f"data/chunk-{place[0]:03d}/file-{place[1]:03d}.parquet")
        pq.write_table(pa.concat_tables(tables), path)  # one row group holds all, as after `push_to_hub`


def _write_videos(root: Path, places: list[tuple[int, int]], camera: str, codec: str) -> dict[int, tuple[float, float]]:
    spans = {}
    for place in dict.fromkeys(places):
        path = _put(root / f"videos/{camera}/chunk-{place[0]:03d}/file-{place[1]:03d}.mp4")
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=FPS, options={"g": "20", "crf": "12", "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
            stream.codec_context.time_base = Fraction(1, FPS)
            count = 0
            for episode in (episode for episode in range(3) if places[episode] == place):
                spans[episode] = (count / FPS, (count + LENGTHS[episode]) / FPS)
                for k in range(LENGTHS[episode]):
                    frame = av.VideoFrame.from_ndarray(picture(episode, k), format="rgb24").reformat(format="yuv420p")
                    frame.pts, frame.time_base = count, Fraction(1, FPS)
                    container.mux(stream.encode(frame))
                    count += 1
            container.mux(stream.encode(None))
    return spans


def _write_episodes(
    root: Path, places: list[tuple[int, int]], camera: str, spans: dict[int, tuple[float, float]]
) -> None:
    rows = []
    for episode in range(3):
        row = {
            "episode_index": episode, "tasks": sorted(set(tasks(episode))), "length": LENGTHS[episode],
            "data/chunk_index": places[episode][0], "data/file_index": places[episode][1],
            "dataset_from_index": sum(LENGTHS[:episode]), "dataset_to_index": sum(LENGTHS[: episode + 1]),
        }  # fmt: skip
        if episode in spans:
            prefix = f"videos/{camera}"
            row |= {f"{prefix}/chunk_index": places[episode][0], f"{prefix}/file_index": places[episode][1]}
            row |= {f"{prefix}/from_timestamp": spans[episode][0], f"{prefix}/to_timestamp": spans[episode][1]}
        rows.append(row)
    for number, part in enumerate((rows[2:], rows[:2])):  # two files; the order of rows is not that of the files
        path = _put(root / f"meta/episodes/chunk-000/file-{number:03d}.parquet")
        pq.write_table(pa.Table.from_pylist(part), path)
