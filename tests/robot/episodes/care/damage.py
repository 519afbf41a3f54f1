"""Ways to damage a dataset, each as something in the world does it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robot.episodes.formats import video
from robot.episodes.formats.video import Encoding
from tests.robot.episodes.care.whole import FPS, FRONT

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"


def as_foreign(root: Path) -> None:
    """Take away all that Armature adds."""
    (root / "meta/armature.json").unlink()
    shutil.rmtree(root / "meta/armature")


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_column(path: Path, name: str, change: Callable[[list], None]) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    rows = table[name].to_pylist()
    change(rows)
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(rows, table.schema.field(at).type)), path)


def put(row: int, value, element: int | None = None) -> Callable[[list], None]:
    def change(rows: list) -> None:
        if element is None:
            rows[row] = value
        else:
            rows[row] = [value if i == element else old for i, old in enumerate(rows[row])]

    return change


def drop_rows(path: Path, first: int, count: int) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(0, first), table.slice(first + count)]), path)


def truncate(path: Path, share: float = 0.6) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def flip_byte(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    path.write_bytes(bytes(data))


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def reencode(path: Path, change: Callable[[list], list], fps: int = FPS) -> None:
    """What an encoder makes that was given other frames than rows: it counts what it gets."""
    frames = change(decoded(path))
    path.unlink()
    video.encode(frames, path, fps, Encoding(gop=1))


def shift_from(frame: int, by: int = 1) -> Callable[[list], list]:
    """An encoder's queue was full at `frame`; the last frame was repeated to make the numbers fit."""
    return lambda frames: frames[:frame] + frames[frame + by :] + [frames[-1]] * by


def remux(path: Path, keep: Callable[[int], bool] = lambda k: True, late_s: Callable[[int], float] = lambda k: 0.0):
    """Copy packets, all of them keyframes: leave some out, and move others in time."""
    reencode(path, list)
    part = path.with_name("part.mp4")
    with av.open(str(path)) as old, av.open(str(part), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.pts is None:
                continue
            number = round(packet.pts * packet.time_base * FPS)
            if keep(number):
                packet.stream = stream
                moved = round(late_s(number) / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                new.mux(packet)
    part.rename(path)


def swap_videos(root: Path, first: int, second: int) -> None:
    """Two episodes get each other's pictures, and their lengths fit."""
    for name in ("from_timestamp", "to_timestamp"):

        def change(rows: list) -> None:
            rows[first], rows[second] = rows[second], rows[first]

        edit_column(root / EPISODES, f"videos/{FRONT}/{name}", change)
