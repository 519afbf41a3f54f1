"""LeRobot itself opens what we write. It cannot share our environment (it pins torch and an old pyarrow), so it gets
one of its own under .cache/, which takes some gigabytes and a minute or two the first time."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_layout as layout
from robot.episodes.formats.lerobot_writer import Settings, write
from robot.episodes.formats.video import Encoding
from robot.episodes.loading.windows import Windows
from robot.episodes.rows import RowSource
from tests.robot.episodes.fakes import STATE, random_dataset
from tests.robot.episodes.formats.sources import EXTRAS, FRONT, SCHEMA, WRIST, held

LEROBOT = "lerobot==0.4.4"
ROOT = Path(__file__).parents[4]
PYTHON = ROOT / ".cache/lerobot/bin/python"
PROBE = Path(__file__).with_name("lerobot_probe.py")
LENGTHS = (5, 1, 9)
PICTURED = (20, 7, 30, 1, 44)
SMALL = {"data_file_mb": 0.01, "video_file_mb": 0.013, "chunk_files": 2}


def install() -> None:
    """Make LeRobot's environment, if it is not there."""
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", "import lerobot"], check=False).returncode == 0:
        return
    folder = PYTHON.parents[1]
    uv = shutil.which("uv")
    if uv:
        commands = [[uv, "venv", "--clear", "--python", sys.executable, folder]]
        commands += [[uv, "pip", "install", "--python", PYTHON, LEROBOT]]
    else:
        commands = [[sys.executable, "-m", "venv", "--clear", folder], [PYTHON, "-m", "pip", "install", LEROBOT]]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
        if done.returncode:
            pytest.skip(f"{LEROBOT} cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")


class Seen:
    """What LeRobot saw."""

    def __init__(self, folder: Path, source: RowSource, how: Settings, wanted: dict[str, Any]) -> None:
        install()
        self.root = folder / "dataset"
        write(source, self.root, how)
        command = [PYTHON, PROBE, self.root, json.dumps(wanted), folder / "seen.npz"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(folder / "seen.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)
        self.report = json.loads(str(self.arrays.pop("report")))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Seen:
    offsets = {STATE: [-0.05, 0.0], "action": [0.0, 0.05, 0.1, 0.15]}
    wanted = {"keys": list(random_dataset(LENGTHS).columns), "cameras": [], "offsets": offsets}
    return Seen(tmp_path_factory.mktemp("lerobot"), random_dataset(LENGTHS).rows(), Settings(), wanted)


PICTURE_OFFSETS = {FRONT: [-0.1, -0.05, 0.0], STATE: [0.0, 0.05]}


@pytest.fixture(scope="module", params=["h264", "png", "av1"])
def pictured(request, tmp_path_factory) -> Seen:
    """Two cameras, several episodes in a file, several files and folders, several tasks, every kind of column."""
    keys = [STATE, "action", *(key for key, spec in EXTRAS.items() if spec.dtype != "str")]
    wanted = {"keys": keys, "cameras": [FRONT, WRIST], "offsets": PICTURE_OFFSETS}
    how = Settings(encoding=Encoding(codec=request.param), **SMALL)
    return Seen(tmp_path_factory.mktemp(request.param), held(PICTURED), how, wanted)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_lerobot_sees_equal_rows(vectors):
    for key, column in random_dataset(LENGTHS).columns.items():
        got = np.asarray(vectors.arrays[f"row/{key}"], column.dtype).reshape(column.shape)
        np.testing.assert_array_equal(got, column, key)


def test_lerobot_sees_equal_statistics(vectors):
    for key, stat in random_dataset(LENGTHS).stats.items():
        assert vectors.report["stats"][key].keys() == stat.keys()
        for name, value in stat.items():
            np.testing.assert_allclose(vectors.report["stats"][key][name], value, rtol=1e-6, err_msg=f"{key} {name}")


def test_lerobot_sees_task_robot_rate_and_episodes(vectors):
    report = vectors.report
    assert set(report["tasks"]) == {"reach the goal"}
    assert (report["robot"], report["fps"], report["episodes"]) == ("point", 20, 3)
    assert report["lengths"] == list(LENGTHS)
    assert report["one_episode"] == LENGTHS[1]
    np.testing.assert_allclose(report["timestamps"], [i / 20 for length in LENGTHS for i in range(length)], atol=1e-6)


def test_lerobots_windows_are_ours(vectors):
    dataset = Dataset.open(vectors.root)
    ours = Windows(dataset, n_obs_steps=2, horizon=4).batch(np.arange(len(dataset)))
    theirs = vectors.arrays
    np.testing.assert_array_equal(theirs[f"window/{STATE}"], ours[STATE])
    np.testing.assert_array_equal(theirs["window/action"], ours["action"])
    np.testing.assert_array_equal(theirs["window/action_is_pad"], ours["action_is_pad"])


def test_lerobot_sees_columns_of_every_kind(pictured):
    source = held(PICTURED)
    for key, spec in {**SCHEMA.columns}.items():
        if spec.dtype == "str":
            continue
        column = np.concatenate([source.read(number).columns[key] for number in range(len(source))])
        got = pictured.arrays[f"row/{key}"].reshape(column.shape)
        if spec.dtype == "float64":  # torch.tensor makes float32 of Python's numbers
            column = column.astype(np.float32)
        np.testing.assert_array_equal(got, column, key)


def test_lerobot_sees_the_tasks_of_every_row(pictured):
    source = held(PICTURED)
    expected: list[str] = []
    for number in range(len(source)):
        rows = source.read(number)
        expected += [rows.task] * len(rows) if isinstance(rows.task, str) else rows.task
    assert pictured.report["tasks"] == expected
    assert pictured.report["lengths"] == list(PICTURED)
    assert pictured.report["one_frame"] == [3, 64, 64]


def decoded(root: Path, key: str) -> np.ndarray:
    """Every frame of a camera, file by file, as PyAV decodes it; or every PNG."""
    frames: list[np.ndarray] = []
    for path in sorted((root / "videos" / key).rglob("*.mp4")):
        with av.open(str(path)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)


def test_lerobot_sees_the_frames_that_are_in_our_files(pictured):
    source = held(PICTURED)
    is_png = json.loads((pictured.root / "meta/info.json").read_text())["features"][FRONT]["dtype"] == "image"
    for key in (FRONT, WRIST):
        given = np.concatenate([source.read(number).pictures[key] for number in range(len(source))])
        ours = given if is_png else decoded(pictured.root, key)
        theirs = pictured.arrays[f"frame/{key}"].transpose(0, 2, 3, 1)
        assert len(theirs) == len(ours) == sum(PICTURED)
        np.testing.assert_array_equal(theirs, ours, key)
        assert np.abs(ours.astype(int) - given).mean() < 6
        if not is_png:
            assert len(list((pictured.root / "videos" / key).rglob("*.mp4"))) > 1
    assert len(list((pictured.root / "data").rglob("*.parquet"))) > 2


def test_lerobots_windows_of_pictures_end_at_the_borders_of_episodes(pictured):
    frames, starts = pictured.arrays[f"frame/{FRONT}"], np.cumsum([0, *PICTURED])
    windows, pads = pictured.arrays[f"window/{FRONT}"], pictured.arrays[f"window/{FRONT}_is_pad"]
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        for row in range(start, stop):
            wanted = np.array([row - 2, row - 1, row])
            np.testing.assert_array_equal(pads[row], wanted < start, f"episode {number}")
            np.testing.assert_array_equal(windows[row], frames[np.maximum(wanted, start)], f"episode {number}")


def test_lerobot_reads_our_statistics_of_pictures(pictured):
    stats = pictured.report["stats"][WRIST]
    assert np.shape(stats["mean"]) == (3, 1, 1)
    assert stats["count"] == [sum(PICTURED)]
    places = pq.read_table(pictured.root / layout.EPISODES_PATH.format(chunk_index=0, file_index=0))
    assert np.shape(places[f"stats/{WRIST}/q50"].to_pylist()[0]) == (3, 1, 1)
