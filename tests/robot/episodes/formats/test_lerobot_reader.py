import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes import statistics
from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_writer
from robot.errors import DatasetError
from tests.robot.episodes.fakes import STATE, random_dataset

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def folder(tmp_path) -> Path:
    lerobot_writer.write(random_dataset().rows(), tmp_path / "dataset")
    return tmp_path / "dataset"


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_what_was_written_is_read(tmp_path_factory, lengths, seed):
    path = tmp_path_factory.mktemp("round") / "dataset"
    dataset = random_dataset(tuple(lengths), seed)
    lerobot_writer.write(dataset.rows(), path)
    found = Dataset.open(path)
    assert found.identity == dataset.identity
    assert found.specs == dataset.specs
    assert found.columns.keys() == dataset.columns.keys()
    for key, column in dataset.columns.items():
        assert found.columns[key].dtype == column.dtype
        assert found.columns[key].tobytes() == column.tobytes()
        for name in statistics.NAMES:
            np.testing.assert_array_equal(found.stats[key][name], dataset.stats[key][name])


def edited_json(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edited_column(folder: Path, key: str, column: pa.Array) -> None:
    table = pq.read_table(folder / DATA)
    at = table.schema.get_field_index(key)
    pq.write_table(table.set_column(at, key, column), folder / DATA)


def nan_at(folder: Path, row: int) -> pa.Array:
    rows = pq.read_table(folder / DATA)[STATE].to_pylist()
    rows[row][0] = float("nan")
    return pa.array(rows, pa.list_(pa.float32(), 2))


DAMAGE = {
    r"There is no dataset folder .*armature build": shutil.rmtree,
    r"is no LeRobotDataset: it has no meta/info\.json": lambda f: (f / "meta/info.json").unlink(),
    r"armature\.json is damaged": lambda f: (f / "meta/armature.json").write_text("{"),
    r"has format 'other', expected 'armature-dataset'": lambda f: edited_json(f / "meta/armature.json", format="other"),
    r"has version 3 of the format, .* reads versions 1 and 2": lambda f: edited_json(
        f / "meta/armature.json", version=3
    ),
    r"holds no environment specs": lambda f: edited_json(f / "meta/armature.json", environment={}),
    r"of version 'v2\.1', .*reads v3\.0.*convert_dataset_v21_to_v30": lambda f: edited_json(
        f / "meta/info.json", codebase_version="v2.1"
    ),
    r"of version 'v2\.0', .*to v2\.1 with LeRobot 0\.3": lambda f: edited_json(
        f / "meta/info.json", codebase_version="v2.0"
    ),
    r"of version 'v4\.0', .*newer": lambda f: edited_json(f / "meta/info.json", codebase_version="v4.0"),
    r"of version 'v3\.1', .*newer": lambda f: edited_json(f / "meta/info.json", codebase_version="v3.1"),
    r"of version None": lambda f: edited_json(f / "meta/info.json", codebase_version=None),
    r"has 30 frames per second": lambda f: edited_json(f / "meta/info.json", fps=30),
    r"says fps 0, expected": lambda f: edited_json(f / "meta/info.json", fps=0),
    r"does not say dtype and shape": lambda f: edited_json(f / "meta/info.json", features={"action": {}}),
    r"info\.json says total_frames 16": lambda f: edited_json(f / "meta/info.json", total_frames=16),
    r"stats\.json has no min, max": lambda f: (f / "meta/stats.json").write_text("{}"),
    r"file-000\.parquet is missing": lambda f: shutil.rmtree(f / "data"),
    r"file-000\.parquet is truncated": lambda f: os.truncate(f / DATA, 2000),
    r"meta/episodes/.*file-000\.parquet is truncated": lambda f: os.truncate(f / EPISODES, 0),
    r"meta/episodes holds no Parquet files": lambda f: (f / EPISODES).unlink(),
    r"tasks\.parquet is missing": lambda f: (f / "meta/tasks.parquet").unlink(),
    r"index of row 3 is 7, expected 3": lambda f: edited_column(f, "index", pa.array([0, 1, 2, 7, *range(4, 15)])),
    r"task_index of row 0 is 5, tasks are \[0\]": lambda f: edited_column(f, "task_index", pa.array([5] * 15)),
    r"'observation.state' is not finite at frame 4": lambda f: edited_column(f, STATE, nan_at(f, 4)),
    r"'observation.state' has rows of float, expected": lambda f: edited_column(
        f, STATE, pa.array([0.0] * 15, pa.float32())
    ),
    r"'action' has 1 empty rows": lambda f: edited_column(
        f, "action", pa.array([None, *[[0.0] * 3] * 14], pa.list_(pa.float32(), 3))
    ),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_damage_is_named(folder, said):
    DAMAGE[said](folder)
    with pytest.raises(DatasetError, match=said):
        Dataset.open(folder)


def test_a_missing_column_is_named(folder):
    table = pq.read_table(folder / DATA)
    pq.write_table(table.drop_columns(["action"]), folder / DATA)
    with pytest.raises(DatasetError, match="has no column 'action'; it has episode_index"):
        Dataset.open(folder)


def test_statistics_of_other_frames_are_refused(folder):
    stats = json.loads((folder / "meta/stats.json").read_text())
    stats["action"]["count"] = [14]
    (folder / "meta/stats.json").write_text(json.dumps(stats))
    with pytest.raises(DatasetError, match=r"made of \[14\] frames of 'action', there are 15"):
        Dataset.open(folder)


def test_lists_of_any_length_are_read_where_the_rows_fit(folder):
    rows = pq.read_table(folder / DATA)[STATE].to_pylist()
    edited_column(folder, STATE, pa.array(rows, pa.list_(pa.float32())))
    assert Dataset.open(folder).identity == random_dataset().identity
    edited_column(folder, STATE, pa.array([rows[0], rows[1][:1], rows[2] + [0.0], *rows[3:]], pa.list_(pa.float32())))
    with pytest.raises(DatasetError, match=r"1 to 3 elements, expected rows of shape \(2,\)"):
        Dataset.open(folder)
