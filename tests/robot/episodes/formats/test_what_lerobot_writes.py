"""LeRobot itself writes datasets, and we read what it reads: rows, texts and every pixel of every frame."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from robot.episodes.care.validation import validate
from robot.episodes.dataset import Dataset
from robot.episodes.formats.lerobot_reader import LeRobotSource
from tests.robot.episodes.care import damage
from tests.robot.episodes.formats.test_with_lerobot import PYTHON, install

MAKER = Path(__file__).with_name("lerobot_maker.py")
LENGTHS = [6, 4, 9, 5]
CASES = {
    "av1": {"videos": True, "lengths": LENGTHS},
    "h264 in several files": {"videos": True, "lengths": LENGTHS, "files": True, "codec": "h264"},
    "png in several files": {"videos": False, "lengths": LENGTHS, "files": True},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """A dataset that LeRobot wrote, and what LeRobot returns of it."""
    install()
    folder = tmp_path_factory.mktemp("made")
    command = [PYTHON, MAKER, folder / "dataset", folder / "seen.npz", json.dumps(CASES[request.param])]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "dataset", dict(np.load(folder / "seen.npz"))


def test_rows_and_frames_are_those_that_lerobot_returns(made):
    root, seen = made
    source = LeRobotSource(root)
    assert not source.left_out
    begin = 0
    for number, length in enumerate(LENGTHS):
        rows = source.read(number)
        part = slice(begin, begin + length)
        for key, column in rows.columns.items():
            expected = seen[key][part]
            np.testing.assert_array_equal(column.reshape(expected.shape).astype(expected.dtype), expected, key)
        for key, pictures in rows.pictures.items():
            np.testing.assert_array_equal(np.stack(list(pictures)), seen[key][part], key)
        given = rows.task if isinstance(rows.task, tuple) else (rows.task,) * length
        assert list(given) == seen["task"][part].tolist()
        begin += length
    assert source.read(0).columns["observation.load"].dtype == np.float64  # LeRobot returns it as float32
    assert source.read(0).columns["remark"].tolist() == [f"step {k}" for k in range(6)]


def test_it_is_opened_for_training(made):
    root, seen = made
    dataset = Dataset.open(root)
    assert dataset.episode_lengths.tolist() == LENGTHS
    for key in ("observation.state", "observation.grid", "action", "next.reward", "next.success"):
        np.testing.assert_array_equal(dataset.columns[key], seen[key].reshape(dataset.columns[key].shape), key)
    assert [dataset.tasks[k] for k in dataset.task_index] == seen["task"].tolist()


def test_nothing_is_wrong_with_it_but_what_lerobot_does_wrong(made):
    root, _ = made
    checked = validate(root)
    assert not [str(finding) for finding in checked.report.errors]
    kinds = {(finding.kind, finding.text.split(" of ")[0]) for finding in checked.report.warnings}
    assert kinds <= {("statistics", "std")}  # of pictures: squared as uint8
    assert checked.pictures == 2 * sum(LENGTHS)


def test_damage_of_it_is_found(made, tmp_path):
    import shutil

    root, _ = made
    shutil.copytree(root, tmp_path / "dataset")
    first = sorted((tmp_path / "dataset/data").rglob("*.parquet"))[0]
    damage.edit_column(first, "observation.load", damage.put(2, float("nan")))
    damage.edit_json(tmp_path / "dataset/meta/stats.json", lambda stats: stats["action"]["mean"].__setitem__(1, 0.9))
    lines = [str(finding) for finding in validate(tmp_path / "dataset", is_fast=True).report.errors]
    assert any("observation.load is nan; not finite in frame 2" in line for line in lines)
    assert any("mean of 'action'[1] is 0.9" in line for line in lines)
