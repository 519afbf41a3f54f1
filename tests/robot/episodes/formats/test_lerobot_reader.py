import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes import statistics
from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_pictures import EncodedPictures
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.video import Encoding
from robot.errors import DatasetError
from robot.specs import ArraySpec
from tests.robot.episodes.care import whole
from tests.robot.episodes.fakes import STATE, random_dataset
from tests.robot.episodes.formats import foreign

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("written") / "dataset"
    lerobot_writer.write(random_dataset().rows(), path)
    return path


@pytest.fixture
def folder(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "dataset"))


@settings(max_examples=8, deadline=None)
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


LAYOUTS = {
    "0.4": {"is_named": False},
    "0.6": {"is_named": True, "is_many_files": True, "extra_info": {"tools": ["edit"], "hub": {"a": 1}}},
    "lists of one": {"is_scalar": False},
    "png": {"video": ""},
    "png in many files": {"video": "", "is_many_files": True},
    "av1": {"video": "libsvtav1"},
    "channels first": {"is_channels_first": True},
    "one camera by another name": {"camera": "observation.image"},
    "empty statistics": {"has_stats": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_foreign_layouts_are_read_without_loss(tmp_path, layout):
    source = LeRobotSource(foreign.write(tmp_path / "foreign", **LAYOUTS[layout]))
    assert not source.left_out
    (key,) = source.schema.pictures
    assert source.schema.pictures[key] == ArraySpec(key, (24, 32, 3), "uint8", 0, 255)
    for number in (2, 0, 1):  # any order
        rows, expected = source.read(number), foreign.columns(number)
        assert len(rows) == foreign.LENGTHS[number]
        for name, column in expected.items():
            got = rows.columns[name]
            if column.dtype.kind != "U":
                assert got.dtype == column.dtype, name
            np.testing.assert_array_equal(got.reshape(column.shape), column, name)
        given = rows.task if isinstance(rows.task, tuple) else (rows.task,) * len(rows)
        assert list(given) == foreign.tasks(number)
        assert len(rows.pictures[key]) == len(rows)
        for frame, picture in enumerate(rows.pictures[key]):
            error = np.abs(picture.astype(int) - foreign.picture(number, frame))
            assert (error.max() if "png" in layout else error.mean()) <= (0 if "png" in layout else 12)
        again = np.stack(list(rows.pictures[key]))
        np.testing.assert_array_equal(again, np.stack(list(source.read(number).pictures[key])))


def test_specs_of_a_foreign_dataset_are_what_its_info_says(tmp_path):
    info = {"tools": ["edit"], "splits": {"train": "0:2", "test": "2:3"}}
    source = LeRobotSource(foreign.write(tmp_path / "foreign", extra_info=info))
    specs = source.schema.specs
    assert (specs.robot, specs.action_space, specs.dt_s, specs.task) == ("so101", "unknown", 0.2, "")
    assert specs.observation[foreign.STATE] == ArraySpec(foreign.STATE, (3,), names=("a", "b", "c"))
    assert specs.action == ArraySpec("action", (2,), names=("u", "v"))
    assert {key: (spec.dtype, spec.shape) for key, spec in source.schema.extras.items()} == {
        "effort": ("float64", ()), "next.done": ("bool", ()), "grid": ("int64", (2, 2)), "language": ("str", ())
    }  # fmt: skip
    assert source.schema.notes == {"lerobot": {"tools": ["edit"]}}
    assert source.subsets == {"train": (0, 1), "test": (2,)}
    assert source.read(2).subsets == ("test",)


def test_ranks_are_those_that_are_stored(tmp_path):
    source = LeRobotSource(foreign.write(tmp_path / "foreign", is_scalar=False))
    assert source.schema.extras["effort"].shape == (1,)
    assert source.read(1).columns["effort"].shape == (6, 1)


def test_opening_reads_no_rows_and_reading_one_episode_no_other(tmp_path):
    root = foreign.write(tmp_path / "foreign", is_many_files=True)
    for path in (root / "data/chunk-000/file-001.parquet", root / "videos" / foreign.CAMERA / "chunk-000/file-001.mp4"):
        path.write_bytes(b"broken")
    source = LeRobotSource(root)
    assert [len(source.read(number)) for number in (0, 2)] == [4, 3]
    assert len(list(source.read(2).pictures[foreign.CAMERA])) == 3
    with pytest.raises(DatasetError, match=r"file-001\.parquet is truncated or damaged"):
        source.read(1)


def renamed(root: Path, changes: dict[str, str]) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    info["features"] = {changes.get(key, key): feature for key, feature in info["features"].items()}
    (root / "meta/info.json").write_text(json.dumps(info))
    for path in (root / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.rename_columns([changes.get(name, name) for name in table.column_names]), path)


def test_other_names_of_state_action_and_cameras_are_known(tmp_path):
    root = foreign.write(tmp_path / "foreign", video="", camera="wrist_image")
    renamed(root, {foreign.STATE: "state", "action": "actions"})
    source = LeRobotSource(root)
    rows = source.read(0)
    np.testing.assert_array_equal(rows.columns[foreign.STATE], foreign.columns(0)[foreign.STATE])
    np.testing.assert_array_equal(rows.columns["action"], foreign.columns(0)["action"])
    assert set(rows.pictures) == {"observation.images.wrist_image"}
    assert source.stored["action"] == "actions"


def test_a_dataset_without_actions_has_actions_of_no_elements(tmp_path):
    root = foreign.write(tmp_path / "foreign")
    renamed(root, {"action": "torque"})
    source = LeRobotSource(root)
    assert source.schema.specs.action.shape == (0,)
    assert source.read(1).columns["action"].shape == (6, 0)
    np.testing.assert_array_equal(source.read(1).columns["torque"], foreign.columns(1)["action"])
    dataset = Dataset.open(root)
    assert dataset.columns["action"].shape == (13, 0)


def test_what_arrays_cannot_hold_is_left_out_and_told(tmp_path):
    root = foreign.write(tmp_path / "foreign", video="")
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["said"] = {"dtype": "language", "shape": [1], "names": None}
    info["features"][foreign.CAMERA]["info"] = {"is_depth_map": True}
    (root / "meta/info.json").write_text(json.dumps(info))
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    words = pa.array([[{"text": "go", "t": 1.0}]] * table.num_rows)
    pq.write_table(table.append_column("said", words).append_column("mystery", words), path)
    source = LeRobotSource(root)
    assert source.left_out.keys() == {"said", "mystery", foreign.CAMERA}
    assert "depth" in source.left_out[foreign.CAMERA]
    assert "no array" in source.left_out["said"]
    assert len(source.read(0)) == 4
    assert not source.schema.pictures


@pytest.mark.parametrize("keep", ["no frame", "a gap"])
def test_a_frame_that_is_missing_never_shifts_the_others(tmp_path, keep):
    root = foreign.write(tmp_path / "foreign")
    path = root / "videos" / foreign.CAMERA / "chunk-000/file-000.mp4"
    lost = 6  # frame 2 of episode 1
    part = path.with_name("part.mp4")
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=foreign.FPS, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        stream.codec_context.time_base = Fraction(1, foreign.FPS)
        every = [foreign.picture(e, k) for e, n in enumerate(foreign.LENGTHS) for k in range(n)]
        for at, image in enumerate(every):
            if at == lost:
                continue
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = at if keep == "a gap" or at < lost else at - 1
            frame.time_base = Fraction(1, foreign.FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.rename(path)
    source = LeRobotSource(root)
    assert len(list(source.read(0).pictures[foreign.CAMERA])) == 4
    number, said = (1, r"no frame at 1\.2000 s, where row 2") if keep == "a gap" else (2, r"the file ends")
    with pytest.raises(DatasetError, match=said):
        list(source.read(number).pictures[foreign.CAMERA])


def test_a_span_of_another_length_is_refused(tmp_path):
    root = foreign.write(tmp_path / "foreign")
    path = root / "meta/episodes/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    at = table.schema.get_field_index(f"videos/{foreign.CAMERA}/to_timestamp")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array([0.8, 1.8])), path)
    with pytest.raises(DatasetError, match=r"file-000\.mp4: episode 1 has 5 frames, .*but 6 rows"):
        LeRobotSource(root).read(1)


def test_identities_are_of_rows_and_frames(tmp_path):
    source = LeRobotSource(foreign.write(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    same = LeRobotSource(tmp_path / "two")
    identities = [source.identity(number) for number in range(3)]
    assert identities == [same.identity(number) for number in range(3)]
    assert len(set(identities)) == 3
    table = pq.read_table(tmp_path / "two/data/chunk-000/file-000.parquet")
    values = table["effort"].to_pylist()
    values[5] += 1e-9
    at = table.schema.get_field_index("effort")
    pq.write_table(table.set_column(at, "effort", pa.array(values)), tmp_path / "two/data/chunk-000/file-000.parquet")
    assert LeRobotSource(tmp_path / "two").identity(1) != identities[1]
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    info = json.loads((tmp_path / "three/meta/info.json").read_text())
    assert info["fps"] == foreign.FPS
    video = tmp_path / "three/videos" / foreign.CAMERA / "chunk-000/file-000.mp4"
    video.unlink()
    foreign.write(tmp_path / "four", video="libx265")
    shutil.copy(tmp_path / "four/videos" / foreign.CAMERA / "chunk-000/file-000.mp4", video)
    assert LeRobotSource(tmp_path / "three").identity(0) != identities[0]


def test_a_source_goes_to_another_process(tmp_path):
    source = LeRobotSource(foreign.write(tmp_path / "foreign"))
    source.read(0)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(source.identity, 1).result(timeout=120) == source.identity(1)


def test_a_path_outside_of_the_dataset_is_not_followed(tmp_path):
    root = foreign.write(tmp_path / "foreign", video="")
    (path,) = (root / "data").rglob("*.parquet")
    (tmp_path / "secret.png").write_bytes(cv2.imencode(".png", foreign.picture(0, 0))[1].tobytes())
    table = pq.read_table(path)
    at = table.schema.get_field_index(foreign.CAMERA)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "../secret.png"}] * table.num_rows, kind)
    pq.write_table(table.set_column(at, foreign.CAMERA, images), path)
    with pytest.raises(DatasetError, match="has a row without a picture"):
        LeRobotSource(root).read(0)


def test_a_foreign_dataset_is_opened_for_training(tmp_path):
    root = foreign.write(tmp_path / "foreign", is_many_files=True)
    dataset = Dataset.open(root)
    assert set(dataset.columns) == {foreign.STATE, "action"}
    state = np.concatenate([foreign.columns(number)[foreign.STATE] for number in range(3)])
    np.testing.assert_array_equal(dataset.columns[foreign.STATE], state)
    np.testing.assert_allclose(dataset.stats[foreign.STATE]["q99"], np.quantile(state, 0.99, axis=0), rtol=1e-6)
    assert dataset.episode_lengths.tolist() == list(foreign.LENGTHS)
    assert dataset.tasks == ("lift", "place")
    assert [dataset.tasks[k] for k in dataset.task_index] == [t for n in range(3) for t in foreign.tasks(n)]
    assert dataset.fps == foreign.FPS
    assert dataset.source is not None
    assert len(list(dataset.source.read(0).pictures[foreign.CAMERA])) == 4
    assert dataset.rows() is dataset.source


def test_pictures_count_for_the_identity_of_a_dataset(tmp_path):
    one = Dataset.open(foreign.write(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert one.identity == Dataset.open(tmp_path / "two").identity
    other = Dataset.open(foreign.write(tmp_path / "three", video="libx265"))
    np.testing.assert_array_equal(other.columns["action"], one.columns["action"])
    assert other.identity != one.identity


def test_the_first_version_of_our_format_is_read(folder):
    """It had vectors only, one task, and origins in `meta/armature.json`; nothing said what outcomes are."""
    now = json.loads((folder / "meta/armature.json").read_text())
    shutil.rmtree(folder / "meta/armature")
    origins = [{"file": f"episode-{k:06d}.mcap", "seed": k, "source": "expert", "quality": ""} for k in range(3)]
    old = {
        "format": "armature-dataset",
        "version": 1,
        "environment": now["environment"],
        "label": "device",
        "episodes": origins,
    }
    (folder / "meta/armature.json").write_text(json.dumps(old))
    assert Dataset.open(folder).identity == random_dataset().identity
    source = LeRobotSource(folder)
    assert source.read(2).origin == origins[2]
    assert source.schema.extras["next.success"] == ArraySpec("next.success", (), "bool")
    assert source.subsets == {}


def test_what_our_writer_was_given_comes_back(tmp_path):
    """Texts, booleans, scalars and arrays; notes, origins and subsets; pictures without loss."""

    given = whole.source((7, 4))
    lerobot_writer.write(given, tmp_path / "d", lerobot_writer.Settings(encoding=Encoding(codec="png")))
    found = LeRobotSource(tmp_path / "d")
    assert found.schema == given.schema
    for number in range(2):
        rows, expected = found.read(number), given.read(number)
        assert (rows.task, rows.origin, rows.subsets) == (expected.task, expected.origin, expected.subsets)
        for key, column in expected.columns.items():
            assert rows.columns[key].dtype.kind == column.dtype.kind
            np.testing.assert_array_equal(rows.columns[key], column, key)
        for key, pictures in expected.pictures.items():
            np.testing.assert_array_equal(np.stack(list(rows.pictures[key])), pictures)
    assert found.subsets == {"train": (0, 1), "first": (0,)}
    np.testing.assert_array_equal(found.columns(1)["action"], given.read(1).columns["action"])


def test_a_png_with_one_wrong_bit_is_damaged():
    whole_png = cv2.imencode(".png", foreign.picture(1, 2)[..., ::-1])[1].tobytes()
    (picture,) = EncodedPictures([whole_png], (24, 32, 3), "here")
    np.testing.assert_array_equal(picture, foreign.picture(1, 2))
    for at in (20, len(whole_png) // 2, len(whole_png) - 2):
        damaged = bytearray(whole_png)
        damaged[at] ^= 1
        with pytest.raises(DatasetError, match="here: picture 1 is damaged"):
            list(EncodedPictures([whole_png, bytes(damaged)], (24, 32, 3), "here"))
    jpeg = cv2.imencode(".jpg", foreign.picture(1, 2)[..., ::-1])[1].tobytes()
    assert next(iter(EncodedPictures([jpeg], (24, 32, 3), "here"))).shape == (24, 32, 3)
    with pytest.raises(DatasetError, match=r"has shape \(24, 32, 3\), expected \(8, 8, 3\)"):
        list(EncodedPictures([jpeg], (8, 8, 3), "here"))


def test_a_codec_that_nobody_knows_is_told(tmp_path):
    root = foreign.write(tmp_path / "foreign")
    (path,) = root.rglob("*.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    source = LeRobotSource(root)
    with pytest.raises(DatasetError, match=r"file-000\.mp4 is of a codec that PyAV cannot decode"):
        list(source.read(0).pictures[foreign.CAMERA])
    with pytest.raises(DatasetError, match="cannot decode"):
        source.identity(0)
