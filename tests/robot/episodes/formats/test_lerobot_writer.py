import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.episodes.formats import encoding_pool, lerobot_writer, video
from robot.episodes.formats import lerobot_layout as layout
from robot.episodes.formats.fingerprint import TOLERANCE, distance, fingerprint
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import Settings, write
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import Held, Rows, Schema
from robot.errors import DatasetError, EpisodeError, UnknownNameError, WorkerError
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import STATE, random_dataset
from tests.robot.episodes.formats.sources import EXTRAS, FRONT, SCHEMA, VECTORS, WRIST, episode, files, held, specs

ROOT = Path(__file__).parents[4]
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
SMALL = {"data_file_mb": 0.01, "video_file_mb": 0.013, "chunk_files": 2}
"""Limits that make several files of a few episodes."""
LENGTHS = (20, 7, 30, 1, 44)


@pytest.fixture(autouse=True)
def _workers_at_once(monkeypatch):
    monkeypatch.setattr(encoding_pool, "WORTH_S", 0)


def rows_of(root: Path) -> list[dict]:
    return pq.read_table(root / EPISODES).to_pylist()


def test_vectors_alone_make_the_layout_of_lerobot(tmp_path):
    folder = tmp_path / "dataset"
    lerobot_writer.write(random_dataset().rows(), folder)
    assert {DATA, EPISODES, "meta/info.json", "meta/stats.json", "meta/tasks.parquet"} <= set(files(folder))
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v3.0", 20, "point")
    assert (info["total_episodes"], info["total_frames"], info["splits"]) == (3, 15, {"train": "0:3"})
    assert info["features"][STATE] == {"dtype": "float32", "shape": [2], "names": ["x", "v"]}
    assert info["features"]["index"] == {"dtype": "int64", "shape": [1], "names": None}
    assert info["video_path"] is None
    table = pq.read_table(folder / DATA)
    assert str(table.schema.field(STATE).type) == "fixed_size_list<element: float>[2]"
    assert str(table.schema.field("observation.environment_state").type) == "float"
    assert table["frame_index"].to_pylist() == [*range(5), 0, *range(9)]
    assert table["timestamp"].to_pylist()[:3] == np.array([0, 0.05, 0.1], np.float32).tolist()
    assert pq.ParquetFile(folder / DATA).num_row_groups == 3
    rows = rows_of(folder)
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [(0, 5), (5, 6), (6, 15)]
    state = random_dataset().columns[STATE][6:]
    assert rows[2]["tasks"] == ["reach the goal"]
    np.testing.assert_allclose(rows[2][f"stats/{STATE}/mean"], state.mean(axis=0, dtype=np.float64))
    assert rows[2][f"stats/{STATE}/max"] == state.max(axis=0).tolist()
    assert rows[2][f"stats/{STATE}/count"] == [9]


def test_pandas_finds_the_tasks_in_the_index(tmp_path):
    write(held(), tmp_path / "dataset")
    frame = pytest.importorskip("pandas").read_parquet(tmp_path / "dataset/meta/tasks.parquet")
    assert [frame.iloc[number].name for number in range(2)] == ["task 0", "task 1"]
    assert frame["task_index"].tolist() == [0, 1]


@pytest.fixture(scope="module", params=["h264", "png"])
def written(request, tmp_path_factory) -> tuple[Path, Held, str]:
    """A dataset of every kind of column in several files, what it was made of, and the codec of its pictures."""
    root = tmp_path_factory.mktemp(request.param) / "dataset"
    source = held(LENGTHS)
    write(source, root, Settings(encoding=Encoding(codec=request.param), **SMALL))
    return root, source, request.param


def test_columns_of_every_kind_survive_bit_for_bit(written):
    root, source, _ = written
    for number, place in enumerate(rows_of(root)):
        at = {"chunk_index": place["data/chunk_index"], "file_index": place["data/file_index"]}
        table = pq.read_table(root / layout.DATA_PATH.format(**at))
        mine = np.flatnonzero(np.array(table["episode_index"].to_pylist()) == number)
        rows = source.read(number)
        assert len(mine) == len(rows) == place["length"]
        for key, spec in SCHEMA.columns.items():
            got = layout.column_rows(spec, table.column(key).take(mine))
            assert got.dtype == rows.columns[key].dtype
            assert got.shape == rows.columns[key].shape
            np.testing.assert_array_equal(got, rows.columns[key], key)


def test_the_reader_gives_back_what_was_written(written):
    root, source, codec = written
    found = LeRobotSource(root)
    assert (found.schema.specs, found.schema.extras) == (SCHEMA.specs, SCHEMA.extras)
    assert len(found) == len(source)
    for number in range(len(source)):
        got, rows = found.read(number), source.read(number)
        for key, column in rows.columns.items():
            np.testing.assert_array_equal(got.columns[key], column, key)
        tasks = (rows.task,) * len(rows) if isinstance(rows.task, str) else rows.task
        assert ((got.task,) * len(rows) if isinstance(got.task, str) else got.task) == tasks
        assert (got.origin["file"], got.subsets) == (rows.origin["file"], rows.subsets)
        for key, pictures in rows.pictures.items():
            frames = np.stack(list(got.pictures[key]))
            assert frames.shape == pictures.shape
            error = np.abs(frames.astype(int) - pictures).mean()
            assert error == 0 if codec == "png" else error < 6


def test_frames_of_a_joined_video_are_those_of_the_episode_alone(written, tmp_path):
    root, source, codec = written
    if codec == "png":
        pytest.skip("no video")
    names = set()
    for number, place in enumerate(rows_of(root)):
        for key in (FRONT, WRIST):
            at = {name: place[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            path = root / layout.VIDEO_PATH.format(video_key=key, **at)
            names.add(path)
            first = round(place[f"videos/{key}/from_timestamp"] * 20)
            assert place[f"videos/{key}/to_timestamp"] == pytest.approx((first + place["length"]) / 20)
            alone = tmp_path / "alone.mp4"
            video.encode(source.read(number).pictures[key], alone, 20, Encoding())
            joined = list(video.decode(path, first, place["length"], 20))
            for one, other in zip(joined, video.decode(alone, 0, place["length"], 20), strict=True):
                np.testing.assert_array_equal(one, other)
    assert 4 <= len(names) < 2 * len(source)


def test_many_frames_go_to_several_files_and_folders(written):
    root, _, codec = written
    names = set(files(root))
    assert {DATA, "data/chunk-000/file-001.parquet", "data/chunk-001/file-000.parquet"} <= names
    if codec != "png":
        assert f"videos/{FRONT}/chunk-001/file-000.mp4" in names


def test_statistics_of_vectors_are_exact(written):
    root, source, _ = written
    stats = json.loads((root / "meta/stats.json").read_text())
    for key in (STATE, "grid", "next.reward", "stamp", "flags", "cube"):
        column = np.concatenate([source.read(number).columns[key] for number in range(len(source))]).astype(np.float64)
        shape = column.shape[1:] or (1,)
        np.testing.assert_allclose(stats[key]["mean"], column.mean(axis=0).reshape(shape), rtol=1e-12)
        np.testing.assert_allclose(stats[key]["std"], column.std(axis=0).reshape(shape), rtol=1e-12)
        np.testing.assert_array_equal(stats[key]["q10"], np.quantile(column, 0.1, axis=0).reshape(shape))
        assert stats[key]["count"] == [sum(LENGTHS)]
    assert "word" not in stats


def test_statistics_of_pictures_are_those_of_the_sampled_frames(written):
    root, source, _ = written
    stats = json.loads((root / "meta/stats.json").read_text())
    frames = np.concatenate([source.read(number).pictures[FRONT] for number in range(len(source))])
    values = frames.reshape(-1, 3) / 255  # fewer than 100 frames an episode and smaller than 300 pixels: all of them
    for name, expected in (
        ("mean", values.mean(axis=0)), ("std", values.std(axis=0)), ("min", values.min(axis=0)),
        ("q01", np.quantile(values, 0.01, axis=0)), ("q99", np.quantile(values, 0.99, axis=0)),
    ):  # fmt: skip
        np.testing.assert_allclose(stats[FRONT][name], expected.reshape(3, 1, 1), rtol=1e-9, err_msg=name)
    assert stats[FRONT]["count"] == [sum(LENGTHS)]
    one = rows_of(root)[2][f"stats/{WRIST}/mean"]
    np.testing.assert_allclose(one, source.read(2).pictures[WRIST].reshape(-1, 3).mean(0).reshape(3, 1, 1) / 255)


def test_fingerprints_know_pictures_again_and_tell_neighbours_apart(written):
    root, source, _ = written
    found = LeRobotSource(root)
    prints = [pq.read_table(path).to_pylist() for path in sorted((root / "meta/armature/fingerprints").rglob("*.par*"))]
    rows = [row for table in prints for row in table]
    assert [row["frame_index"] for row in rows] == [k for length in LENGTHS for k in range(length)]
    kept = np.array([row[FRONT] for row in rows if row["episode_index"] == 4], np.uint8)
    seen = np.stack([fingerprint(frame) for frame in found.read(4).pictures[FRONT]])
    assert distance(kept, seen).max() <= TOLERANCE
    assert np.median(distance(kept[1:], seen[:-1])) > TOLERANCE
    np.testing.assert_array_equal(kept[7], fingerprint(source.read(4).pictures[FRONT][7]))


def test_armature_json_says_what_lerobot_has_no_place_for(tmp_path):
    write(held((3,)), tmp_path / "dataset", about={"label": "device"})
    armature = json.loads((tmp_path / "dataset/meta/armature.json").read_text())
    assert (armature["format"], armature["version"], armature["build"]) == ("armature-dataset", 2, {"label": "device"})
    assert EnvironmentSpecs.from_json(armature["environment"]) == SCHEMA.specs
    assert [spec["key"] for spec in armature["extras"]] == list(EXTRAS)
    assert armature["notes"] == {"env_args": {"name": "fake"}}
    origin = pq.read_table(tmp_path / "dataset/meta/armature/episodes.parquet").to_pylist()[0]
    assert json.loads(origin["origin"]) == {"file": "episode-000000.mcap", "seed": 0}
    assert origin["subsets"] == ["train"]
    known = json.loads((tmp_path / "dataset" / layout.FILES).read_text())
    for name, entry in known.items():
        assert entry["sha256"] == files(tmp_path / "dataset")[name]
    assert set(known) == {name for name in files(tmp_path / "dataset") if "file-" in name and "episodes" not in name}


@settings(max_examples=6, deadline=None)
@given(
    old=st.lists(st.integers(0, 7), max_size=6, unique=True),
    new=st.lists(st.integers(0, 7), min_size=1, max_size=7, unique=True),
    codec=st.sampled_from(["h264", "png"]),
)
def test_a_build_onto_another_gives_the_bytes_of_a_build_alone(tmp_path_factory, old, new, codec):
    folder = tmp_path_factory.mktemp("incremental")
    lengths = (9, 3, 12, 1, 5, 8, 2, 20)
    how = Settings(encoding=Encoding(codec=codec), data_file_mb=0.01, video_file_mb=0.02, chunk_files=2)
    if old:
        write(Held(SCHEMA, [episode(lengths[k], k) for k in old]), folder / "dataset", how)
    wanted = Held(SCHEMA, [episode(lengths[k], k) for k in new])
    done = write(wanted, folder / "dataset", how)
    assert done.kept == len(set(old) & set(new))
    write(wanted, folder / "alone", how)
    assert files(folder / "dataset") == files(folder / "alone")


def test_a_second_build_encodes_only_what_is_new_and_links_whole_files(tmp_path, monkeypatch):
    how = Settings(**SMALL)
    write(held(LENGTHS), tmp_path / "dataset", how)
    before = {path: path.stat().st_ino for path in (tmp_path / "dataset").rglob("*") if path.is_file()}
    encoded = []
    original = video.encode
    monkeypatch.setattr(video, "encode", lambda *given: encoded.append(given[1].name) or original(*given))
    done = write(held((*LENGTHS, 6)), tmp_path / "dataset", how)
    assert encoded == ["000005-0.mp4", "000005-1.mp4"]
    assert (done.episodes, done.kept, done.frames) == (6, 5, sum(LENGTHS) + 6)
    linked = {tmp_path / "dataset" / name for name in done.linked}
    assert linked == {path for path, inode in before.items() if path.exists() and path.stat().st_ino == inode}
    assert len(linked) >= 4


def test_other_settings_build_everything_anew(tmp_path):
    write(held((4, 5)), tmp_path / "dataset")
    assert write(held((4, 5)), tmp_path / "dataset").kept == 2
    assert write(held((4, 5)), tmp_path / "dataset", Settings(encoding=Encoding(crf=30))).kept == 0


@pytest.mark.parametrize(
    "harm",
    [
        lambda root: os.truncate(next(root.rglob("*.mp4")), 500),
        lambda root: next(root.rglob("*.mp4")).unlink(),
        lambda root: os.truncate(root / DATA, 100),
        lambda root: os.truncate(root / EPISODES, 100),
        lambda root: (root / layout.ORIGINS).unlink(),
        lambda root: (root / layout.FILES).write_text("{"),
        lambda root: (root / layout.ARMATURE).write_text("[]"),
    ],
)
def test_a_damaged_old_dataset_lends_nothing_that_is_damaged(tmp_path, harm):
    source = held((6, 5, 9))
    write(source, tmp_path / "alone")
    write(source, tmp_path / "dataset")
    harm(tmp_path / "dataset")
    write(source, tmp_path / "dataset")
    assert files(tmp_path / "dataset") == files(tmp_path / "alone")


def test_little_work_is_done_without_workers_and_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding_pool, "WORTH_S", 60)
    monkeypatch.setattr(encoding_pool, "ProcessPoolExecutor", None)
    write(held((12, 5, 9)), tmp_path / "dataset", Settings(workers=2))
    write(held((12, 5, 9)), tmp_path / "one")
    assert files(tmp_path / "dataset") == files(tmp_path / "one")


def test_workers_write_the_same_bytes(tmp_path):
    write(held((12, 5, 9)), tmp_path / "one")
    write(held((12, 5, 9)), tmp_path / "two", Settings(workers=2))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def wrong(**changes) -> Held:
    rows = episode(4, 1)
    return Held(SCHEMA, [episode(3, 0), Rows(**{**rows.__dict__, **changes})])


NAN = np.full((4, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Held(SCHEMA, []), "There is no episode to write"),
        (wrong(pictures={FRONT: episode(3, 1).pictures[FRONT]}), r"mcap\): '.*front' has 3 pictures for 4 rows"),
        (wrong(pictures={FRONT: episode(5, 1).pictures[FRONT]}), r"'.*front' has more pictures for 4 rows"),
        (wrong(pictures={}), r"no pictures 'observation.images.front'; it has none"),
        (wrong(pictures={FRONT: np.zeros((4, 9, 9, 3), np.uint8)}), r"picture 0 of .* of shape \(9, 9, 3\), expected"),
        (wrong(columns={"action": np.zeros((4, 2), np.float32)}), "Episode 1 .*: no column cube, flags"),
        (wrong(columns={**episode(4, 1).columns, STATE: NAN}), r"'observation.state' is not finite in row 0"),
        (wrong(columns={**episode(4, 1).columns, "grid": np.zeros((4, 4, 5), "f4")}), "is float32 .*expected float64"),
        (wrong(columns=episode(0, 1).columns), "no rows; an episode needs at least one"),
        (wrong(task=("a", "b")), "2 tasks for 4 rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, source, said):
    with pytest.raises(DatasetError, match=said):
        write(source, tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_extras_may_hold_nan_and_the_rest_counts(tmp_path):
    rows = episode(4, 1)
    rows.columns["grid"][2] = np.nan
    rows.columns["grid"][:, 0, 0] = np.inf
    write(Held(SCHEMA, [rows]), tmp_path / "dataset")
    stats = json.loads((tmp_path / "dataset/meta/stats.json").read_text())["grid"]
    assert stats["mean"][0][0] == 0
    np.testing.assert_allclose(stats["mean"][1], rows.columns["grid"][[0, 1, 3], 1].mean(axis=0))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (Schema(VECTORS.specs, {"a/b": ArraySpec("a/b", ())}), "cannot have a column named 'a/b'"),
        (Schema(VECTORS.specs, {"index": ArraySpec("index", ())}), "cannot have a column named 'index'"),
        (Schema(VECTORS.specs, {"x": ArraySpec("x", (1,) * 6)}), "LeRobot knows at most five"),
        (Schema(specs(fps=20), {}), None),
        (Schema(specs(front=(33, 64)), {}), "Pictures of 64 x 33 cannot be kept as av1"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(tmp_path, schema, said):
    source = Held(schema, [episode(2, 1, schema)])
    how = Settings(encoding=Encoding(codec="av1"))
    if said is None:
        assert write(source, tmp_path / "dataset", how).frames == 2
    else:
        with pytest.raises(DatasetError, match=said):
            write(source, tmp_path / "dataset", how)


def test_unknown_codecs_and_wrong_numbers_are_refused():
    with pytest.raises(UnknownNameError, match="codec 'h265'"):
        Encoding(codec="h265")
    with pytest.raises(DatasetError, match="gop of at least 1"):
        Encoding(gop=0)


def test_nothing_foreign_is_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("thesis")
    with pytest.raises(DatasetError, match="is not a dataset that Armature wrote"):
        write(held((3,)), tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "thesis"
    (tmp_path / "precious.txt").unlink()
    write(held((3,)), tmp_path)
    assert len(LeRobotSource(tmp_path)) == 1


def test_a_link_to_a_dataset_stays_a_link(tmp_path):
    write(held((3,)), tmp_path / "disk/dataset")
    (tmp_path / "dataset").symlink_to(tmp_path / "disk/dataset")
    write(held((3, 4)), tmp_path / "dataset")
    assert (tmp_path / "dataset").is_symlink()
    assert len(LeRobotSource(tmp_path / "disk/dataset")) == 2
    assert sorted(os.listdir(tmp_path)) == ["dataset", "disk"]
    assert os.listdir(tmp_path / "disk") == ["dataset"]


def test_a_dataset_may_be_written_over_the_one_it_was_read_from(tmp_path):
    write(random_dataset().rows(), tmp_path / "dataset")
    write(Dataset.open(tmp_path / "dataset").rows(), tmp_path / "dataset")
    assert Dataset.open(tmp_path / "dataset").identity == random_dataset().identity


class Failing:
    """A source whose episode 2 ends as told; takes its time, so that it can be interrupted."""

    def __init__(self, how: str, slow_s: float = 0.0) -> None:
        self.schema, self._how, self._slow_s = SCHEMA, how, slow_s

    def __len__(self) -> int:
        return 4

    def identity(self, number: int) -> str:
        return f"{self._how} {number}"

    def read(self, number: int) -> Rows:
        time.sleep(self._slow_s)
        if number == 2 and self._how == "unreadable":
            raise EpisodeError("episode-000002.mcap is damaged.")
        if number == 2 and self._how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 2 and self._how == "interrupted":
            raise KeyboardInterrupt
        if number == 2 and self._how == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        return episode(8, number + 50)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_episode_that_cannot_be_read_leaves_the_old_dataset(tmp_path, workers):
    write(held((4, 5)), tmp_path / "dataset")
    before = files(tmp_path / "dataset")
    with pytest.raises(EpisodeError, match=r"episode-000002\.mcap is damaged"):
        write(Failing("unreadable"), tmp_path / "dataset", Settings(workers=workers))
    assert files(tmp_path / "dataset") == before
    assert os.listdir(tmp_path) == ["dataset"]


def test_ctrl_c_leaves_the_old_dataset(tmp_path):
    write(held((4, 5)), tmp_path / "dataset")
    before = files(tmp_path / "dataset")
    with pytest.raises(KeyboardInterrupt):
        write(Failing("interrupted"), tmp_path / "dataset")
    assert files(tmp_path / "dataset") == before
    assert os.listdir(tmp_path) == ["dataset"]


def test_a_worker_that_dies_is_named(tmp_path):
    with pytest.raises(WorkerError, match="encoded an episode died"):
        write(Failing("killed"), tmp_path / "dataset", Settings(workers=2))
    assert os.listdir(tmp_path) == []


SCRIPT = """
import sys
from pathlib import Path
from robot.episodes.formats import encoding_pool, lerobot_writer
from robot.episodes.formats.lerobot_writer import Settings, write
from robot.errors import ArmatureError
from tests.robot.episodes.formats.sources import held
from tests.robot.episodes.formats.test_lerobot_writer import Failing
encoding_pool.WORTH_S = 0
{body}
"""


def script(body: str, *arguments: str) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", SCRIPT.format(body=body), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


FULL = """
try:
    write(Failing("full"), sys.argv[1], Settings(workers=int(sys.argv[2])))
except ArmatureError as error:
    print(error)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_the_old_dataset_and_says_so(tmp_path, workers):
    write(held((4, 5)), tmp_path / "dataset")
    before = files(tmp_path / "dataset")
    said, _ = script(FULL, str(tmp_path / "dataset"), str(workers)).communicate(timeout=120)
    assert "dataset cannot be written: File too large. What was there before is unchanged; make room" in said
    assert files(tmp_path / "dataset") == before
    assert os.listdir(tmp_path) == ["dataset"]


@pytest.mark.parametrize("failing", ["tasks_table", "write_json", "check"])
def test_an_error_near_the_end_leaves_the_old_dataset(tmp_path, monkeypatch, failing):
    write(held((4, 5)), tmp_path / "dataset")
    before = files(tmp_path / "dataset")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "check":
        monkeypatch.setattr("robot.episodes.atomic.fsync", full)
    else:
        monkeypatch.setattr(layout, failing, full)
    with pytest.raises(DatasetError, match=r"dataset cannot be written: No space left.* unchanged"):
        write(held((4, 6)), tmp_path / "dataset")
    assert files(tmp_path / "dataset") == before
    assert os.listdir(tmp_path) == ["dataset"]


KILLED = """
import os, signal
from robot.episodes import atomic
from robot.episodes.formats import encoded, lerobot_layout, lerobot_episodes, lerobot_tables, video
phase = sys.argv[2]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if phase == "in two steps":
    import ctypes
    atomic.ctypes.CDLL = lambda *_, **__: object()
    atomic.Path.rename = (lambda rename: lambda path, to: (rename(path, to), die()))(atomic.Path.rename)
elif phase == "after the exchange":
    atomic._exchange = (lambda exchange: lambda *given: (exchange(*given), die()))(atomic._exchange)
else:
    where, name = phase.rsplit(".", 1)
    setattr(eval(where), name, die)
write(held((6, 5, 9)), sys.argv[1], Settings(data_file_mb=0.02))
"""
PHASES = ["atomic._exchange", "after the exchange", "in two steps", "video.Joined.append"]
MORE_PHASES = [
    "atomic.fsync",
    "video.encode",
    "video.Joined.close",
    "lerobot_tables.Tables.write",
    "lerobot_tables.Tables.close",
    "lerobot_tables.BufferedTable.close",
    "lerobot_episodes.EpisodeFiles.finish",
    "lerobot_layout.write_json",
    "lerobot_layout.tasks_table",
]


@pytest.mark.parametrize("phase", [*PHASES, *(pytest.param(phase, marks=pytest.mark.slow) for phase in MORE_PHASES)])
def test_a_writer_killed_in_any_phase_leaves_the_old_dataset_or_the_new_one(tmp_path, phase):
    new = held((6, 5, 9))
    write(new, tmp_path / "alone", Settings(data_file_mb=0.02))
    write(held((4, 5)), tmp_path / "dataset")
    before = files(tmp_path / "dataset")
    process = script(KILLED, str(tmp_path / "dataset"), phase)
    _, said = process.communicate(timeout=120)
    assert process.returncode == -9, said[-2000:]
    if phase == "in two steps":  # without the system call, the old dataset is set aside; the next writer brings it back
        assert not (tmp_path / "dataset").exists()
        assert files(tmp_path / ".dataset.old") == before
    else:
        assert files(tmp_path / "dataset") == (files(tmp_path / "alone") if "after" in phase else before)
    write(new, tmp_path / "dataset", Settings(data_file_mb=0.02))
    assert files(tmp_path / "dataset") == files(tmp_path / "alone")
    assert sorted(os.listdir(tmp_path)) == ["alone", "dataset"]


SLOW = """
print("begun", flush=True)
write(held((60, 50, 90, 40, 70)), sys.argv[1], Settings(workers=int(sys.argv[2]), data_file_mb=0.02))
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_writer_killed_at_random_moments_leaves_the_old_dataset_or_the_new_one(tmp_path, workers):
    rng = random.Random(workers)
    new = held((60, 50, 90, 40, 70))
    began = time.monotonic()
    write(new, tmp_path / "alone", Settings(data_file_mb=0.02))
    takes_s = time.monotonic() - began
    wanted = files(tmp_path / "alone")
    write(held((4, 5)), tmp_path / "dataset")
    before, ends = files(tmp_path / "dataset"), []
    for _ in range(25):
        process = script(SLOW, str(tmp_path / "dataset"), str(workers))
        assert process.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, 1.3 * takes_s + (0.6 if workers > 1 else 0.0)))
        process.kill()
        process.communicate(timeout=60)
        found = files(tmp_path / "dataset")
        assert found in (before, wanted)
        ends.append(found == wanted)
        if found == wanted:
            write(held((4, 5)), tmp_path / "dataset")
    assert False in ends
    write(new, tmp_path / "dataset", Settings(data_file_mb=0.02))
    assert files(tmp_path / "dataset") == wanted
    assert sorted(os.listdir(tmp_path)) == ["alone", "dataset"]


BUSY = """
write(Failing("slow", slow_s=0.3), sys.argv[1])
"""


def test_a_second_writer_is_refused_while_the_first_is_at_it(tmp_path):
    process = script(BUSY, str(tmp_path / "dataset"))
    deadline = time.monotonic() + 60
    while not (tmp_path / ".dataset.part").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(DatasetError, match=r"Another process is writing .*dataset\. Wait for it"):
        write(held((3,)), tmp_path / "dataset")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said[-2000:]
    assert len(LeRobotSource(tmp_path / "dataset")) == 4
    assert os.listdir(tmp_path) == ["dataset"]
