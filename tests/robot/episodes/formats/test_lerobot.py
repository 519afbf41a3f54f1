import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_writer
from robot.errors import DatasetError
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import STATE, point_specs, random_dataset, random_episode
from tests.robot.episodes.test_build import files

ROOT = Path(__file__).parents[4]
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def folder(tmp_path) -> Path:
    lerobot_writer.write(random_dataset(), tmp_path / "dataset")
    return tmp_path / "dataset"


def test_the_layout_is_that_of_lerobot(folder):
    assert set(files(folder)) == {
        DATA, EPISODES, "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/armature.json"
    }  # fmt: skip
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 20, "point")
    assert (info["total_episodes"], info["total_frames"], info["splits"]) == (3, 15, {"train": "0:3"})
    assert info["features"][STATE] == {"dtype": "float32", "shape": [2], "names": ["x", "v"]}
    assert info["features"]["index"] == {"dtype": "int64", "shape": [1], "names": None}
    table = pq.read_table(folder / DATA)
    assert table.schema.field(STATE).type == pa.list_(pa.float32(), 2)
    assert table.schema.field("observation.environment_state").type == pa.float32()
    assert table.schema.field("timestamp").type == pa.float32()
    assert table["frame_index"].to_pylist() == [*range(5), 0, *range(9)]
    assert table["timestamp"].to_pylist()[:3] == np.array([0, 0.05, 0.1], np.float32).tolist()
    assert pq.ParquetFile(folder / DATA).num_row_groups == 3


def test_episode_rows_say_where_frames_are_and_what_they_hold(folder):
    rows = pq.read_table(folder / EPISODES).to_pylist()
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 5), (5, 6), (6, 15)]
    state = random_dataset().columns[STATE][6:]
    assert rows[2]["tasks"] == ["reach the goal"]
    np.testing.assert_allclose(rows[2][f"stats/{STATE}/mean"], state.mean(axis=0, dtype=np.float64))
    assert rows[2][f"stats/{STATE}/max"] == state.max(axis=0).tolist()
    assert rows[2][f"stats/{STATE}/count"] == [9]


def test_pandas_finds_the_task_in_the_index(folder):
    frame = pytest.importorskip("pandas").read_parquet(folder / "meta/tasks.parquet")
    assert frame.iloc[0].name == "reach the goal"
    assert frame["task_index"].tolist() == [0]


def test_many_frames_go_to_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_writer, "DATA_FILE_MB", 0.0005)
    monkeypatch.setattr(lerobot_writer, "CHUNK_FILES", 2)
    dataset = random_dataset((4, 5, 6, 7, 3))
    lerobot_writer.write(dataset, tmp_path / "dataset")
    assert len(list((tmp_path / "dataset/data").rglob("*.parquet"))) > 2
    assert (tmp_path / "dataset/data/chunk-001/file-000.parquet").exists()
    assert Dataset.open(tmp_path / "dataset").identity == dataset.identity
    for row in pq.read_table(tmp_path / "dataset" / EPISODES).to_pylist():
        place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        table = pq.read_table(tmp_path / "dataset" / lerobot_writer.DATA_PATH.format(**place))
        assert table["episode_index"].to_pylist().count(row["episode_index"]) == row["length"]


def test_an_error_while_writing_leaves_the_old_dataset(folder, monkeypatch):
    before = files(folder)

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lerobot_writer, "_write_tasks", full)
    with pytest.raises(DatasetError, match=r"dataset cannot be written: No space left.* unchanged"):
        lerobot_writer.write(random_dataset(seed=1), folder)
    assert files(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


KILLED = """
import os, signal, sys
from robot.episodes.formats import lerobot_writer
from tests.robot.episodes.fakes import random_dataset
lerobot_writer._info = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
lerobot_writer.write(random_dataset(seed=1), sys.argv[1])
"""


def test_a_killed_writer_leaves_the_old_dataset_and_the_next_one_tidies_up(folder):
    before = files(folder)
    process = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, timeout=60, check=False)
    assert process.returncode == -9
    assert files(folder) == before
    lerobot_writer.write(random_dataset(seed=2), folder)
    assert Dataset.open(folder).identity == random_dataset(seed=2).identity
    assert list(folder.parent.iterdir()) == [folder]


def test_folders_can_be_swapped_where_the_system_call_is_missing(folder, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    lerobot_writer.write(random_dataset(seed=1), folder)
    assert Dataset.open(folder).identity == random_dataset(seed=1).identity
    assert list(folder.parent.iterdir()) == [folder]


def test_nothing_foreign_is_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("thesis")
    with pytest.raises(DatasetError, match="is not a dataset that Armature wrote"):
        lerobot_writer.write(random_dataset(), tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "thesis"
    (tmp_path / "precious.txt").unlink()
    lerobot_writer.write(random_dataset(), tmp_path)
    assert len(Dataset.open(tmp_path)) == 15


def test_only_vectors_are_written(tmp_path):
    specs = point_specs()
    specs.observation["observation.grid"] = ArraySpec("observation.grid", (2, 2))
    dataset = Dataset.from_episodes(specs, [random_episode(specs, 3, 0)])
    with pytest.raises(DatasetError, match=r"Only vectors .*'observation.grid' has shape \(2, 2\)"):
        lerobot_writer.write(dataset, tmp_path / "dataset")
