"""LeRobot itself opens what we write. It cannot share our environment (it pins torch and an old pyarrow), so it gets
one of its own under .cache/, which takes some gigabytes and a minute or two the first time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robot.episodes.formats import lerobot_writer
from robot.episodes.loading.windows import Windows
from tests.robot.episodes.fakes import STATE, random_dataset

LEROBOT = "lerobot==0.4.4"
ROOT = Path(__file__).parents[4]
PYTHON = ROOT / ".cache/lerobot/bin/python"
PROBE = Path(__file__).with_name("lerobot_probe.py")
LENGTHS = (5, 1, 9)


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


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    install()
    folder = tmp_path_factory.mktemp("lerobot")
    lerobot_writer.write(random_dataset(LENGTHS), folder / "dataset")
    offsets = {STATE: [-0.05, 0.0], "action": [0.0, 0.05, 0.1, 0.15]}
    keys = list(random_dataset(LENGTHS).columns)
    command = [PYTHON, PROBE, folder / "dataset", json.dumps(keys), json.dumps(offsets)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def test_lerobot_sees_equal_rows(report):
    for key, column in random_dataset(LENGTHS).columns.items():
        got = np.asarray(report["rows"][key], column.dtype).reshape(column.shape)
        np.testing.assert_array_equal(got, column, key)


def test_lerobot_sees_equal_statistics(report):
    for key, stat in random_dataset(LENGTHS).stats.items():
        assert report["stats"][key].keys() == stat.keys()
        for name, value in stat.items():
            np.testing.assert_allclose(report["stats"][key][name], value, rtol=1e-6, err_msg=f"{key} {name}")


def test_lerobot_sees_task_robot_rate_and_episodes(report):
    assert report["tasks"] == ["reach the goal"]
    assert (report["robot"], report["fps"], report["episodes"]) == ("point", 20, 3)
    assert report["length_of_episodes"] == list(LENGTHS)
    assert report["one_episode"] == LENGTHS[1]
    np.testing.assert_allclose(report["timestamps"], [i / 20 for length in LENGTHS for i in range(length)], atol=1e-6)


def test_lerobots_windows_are_ours(report):
    dataset = random_dataset(LENGTHS)
    ours = Windows(dataset, n_obs_steps=2, horizon=4).batch(np.arange(len(dataset)))
    theirs = report["windows"]
    np.testing.assert_array_equal(np.asarray(theirs[STATE], np.float32), ours[STATE])
    np.testing.assert_array_equal(np.asarray(theirs["action"], np.float32), ours["action"])
    np.testing.assert_array_equal(theirs["action_is_pad"], ours["action_is_pad"])
