"""RLDS without TensorFlow: a real shard, and one with everything that descriptions use."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot.episodes.formats import tf_example
from robot.episodes.formats.given import Given
from robot.episodes.formats.rlds import RldsSource
from robot.episodes.formats.tfrecord import RecordFile
from robot.errors import DatasetError, UnknownNameError
from tests.robot.episodes.formats.rlds_files import RT1, group, rt1_episode, steps, tensor, text, write

DATA = Path(os.environ.get("ARMATURE_TEST_DATA", Path(__file__).parents[5] / "shared/data"))
BRIDGE = DATA / "bridge"
needs_bridge = pytest.mark.skipif(not BRIDGE.is_dir(), reason=f"the Bridge shard is not in {DATA} (ARMATURE_TEST_DATA)")


@needs_bridge
def test_all_bridge_episodes_come_with_pictures_states_actions_and_language():
    source = RldsSource(BRIDGE)
    assert len(source) == 25
    specs = source.schema.specs
    assert [key for key in specs.observation if "image" in key] == [f"observation.images.image_{i}" for i in range(4)]
    assert specs.dt_s == 0.2
    assert any("5 Hz is assumed" in remark for remark in source.remarks)
    assert any("'val' 0 of 1" in remark for remark in source.remarks)
    records = RecordFile(BRIDGE / "bridge_dataset-train.tfrecord-00000-of-00001")
    seen = set()
    for number in range(25):
        rows = source.read(number)
        example = tf_example.parse(records.read(number), "x")
        assert len(rows) == 10
        np.testing.assert_array_equal(rows.columns["action"].ravel(), example["steps/action"])
        np.testing.assert_array_equal(rows.columns["observation.state"].ravel(), example["steps/observation/state"])
        assert rows.task.encode() == example["steps/language_instruction"][0]
        np.testing.assert_array_equal(rows.columns["next.done"], example["steps/is_last"])
        assert rows.subsets == ("train",)
        for i in range(4):
            pictures = list(rows.pictures[f"observation.images.image_{i}"])
            assert {picture.shape for picture in pictures} == {(64, 64, 3)}
            stored = np.frombuffer(example[f"steps/observation/image_{i}"][7], np.uint8)
            np.testing.assert_array_equal(pictures[7], cv2.cvtColor(cv2.imdecode(stored, 1), cv2.COLOR_BGR2RGB))
        seen.add(rows.task)
    assert len(seen) == 4
    assert len({source.identity(number) for number in range(25)}) == 25


@needs_bridge
def test_bridge_colours_are_those_of_the_scene():
    """A carrot lies in the sink: it is orange, not blue."""
    picture = next(iter(RldsSource(BRIDGE).read(9).pictures["observation.images.image_0"])).astype(int)
    redder = picture[..., 0] - picture[..., 2]
    assert (redder > 100).sum() > 20 > (redder < -100).sum()


@needs_bridge
def test_what_the_user_says_takes_the_place_of_what_is_assumed():
    source = RldsSource(BRIDGE, Given(fps=10, robot="WidowX", action_space="ee_delta", task="tidy up"))
    specs = source.schema.specs
    assert (specs.dt_s, specs.robot, specs.action_space, specs.task) == (0.1, "WidowX", "ee_delta", "tidy up")
    assert specs.action.names[0] == "dx"
    assert source.read(3).task == "tidy up"
    assert not any("Hz is assumed" in remark for remark in source.remarks)


def made(tmp_path, **changes):
    """Two splits in three shards, and what the first episode means."""
    episodes = [rt1_episode(length, seed) for seed, length in enumerate((4, 1, 6, 3))]
    for name, values in changes.items():
        episodes[1][0][name.replace("__", "/")] = values
    examples = [episode for episode, _ in episodes]
    folder = write(tmp_path / "1.0.0", RT1, {"train": [examples[:1], examples[1:3]], "test": [examples[3:]]})
    return folder, [truth for _, truth in episodes]


def test_everything_that_descriptions_use(tmp_path):
    folder, truths = made(tmp_path)
    source = RldsSource(folder.parent, Given(fps=3))
    specs = source.schema.specs
    assert len(source) == 4
    assert specs.observation["observation.state"].names == (
        *(f"base_pose.{i}" for i in range(3)),
        "gripper",
        "half.0",
        "half.1",
    )
    assert specs.action.names == ("open", "world_vector.0", "world_vector.1", "world_vector.2")
    assert specs.observation["observation.images.image"].shape == (8, 6, 3)
    assert any("steps/observation/points" in remark for remark in source.remarks)
    for number in (3, 0, 2, 1):
        rows, truth = source.read(number), truths[number]
        columns = rows.columns
        np.testing.assert_array_equal(list(rows.pictures["observation.images.image"]), truth["rgb"])
        np.testing.assert_array_equal(columns["rlds.observation.depth"], truth["depth"])
        np.testing.assert_array_equal(columns["rlds.observation.distance"], truth["distance"])
        np.testing.assert_array_equal(columns["rlds.observation.raw"], truth["raw"])
        np.testing.assert_array_equal(columns["rlds.observation.code"], truth["code"])
        np.testing.assert_array_equal(columns["rlds.big"], truth["big"])
        np.testing.assert_array_equal(columns["action"][:, 1:], truth["world_vector"])
        np.testing.assert_array_equal(columns["observation.state"][:, 3], truth["gripper"])
        np.testing.assert_array_equal(columns["observation.state"][:, 4:], [[1.5, -2.0]] * len(rows))
        np.testing.assert_array_equal(columns["next.reward"], truth["reward"])
        assert columns["next.terminated"][-1]
        assert rows.task == "pick the can"
        assert rows.origin["metadata"] == {"file_path": "/data/x.npy", "numbers": [1, 2, 3], "good": True}
        assert rows.origin["texts"]["steps/observation/remark"][0] == "step 0"
        assert rows.subsets == (("test",) if number == 3 else ("train",))
        for key, spec in source.schema.columns.items():
            assert columns[key].dtype == np.dtype(spec.dtype), key
            assert columns[key].shape == (len(rows), *spec.shape), key


def test_tasks_that_change_within_an_episode(tmp_path):
    folder, _ = made(tmp_path)
    example, _ = rt1_episode(3, 9)
    example["steps/observation/natural_language_instruction"] = [b"a", b"a", b"b"]
    write(folder, RT1, {"train": [[example]]})
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    (folder / "rt1_small-test.tfrecord-00000-of-00001").unlink()
    for path in folder.glob("*-of-00002"):
        path.unlink()
    assert RldsSource(folder, Given(fps=3)).read(0).task == ("a", "a", "b")


def test_names_chosen_for_the_state(tmp_path):
    folder, _ = made(tmp_path)
    source = RldsSource(folder, Given(fps=3, state=("gripper", "code")))
    assert source.schema.specs.observation["observation.state"].shape == (5,)
    assert "rlds.observation.base_pose" in source.schema.extras
    with pytest.raises(UnknownNameError, match=r"gripperr.*gripper"):
        RldsSource(folder, Given(fps=3, state=("gripperr",)))


def test_the_rate_has_to_be_said(tmp_path):
    folder, _ = made(tmp_path)
    with pytest.raises(DatasetError, match="fps="):
        RldsSource(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps__reward": np.zeros(2, np.float32)}, "different numbers of steps.*steps/reward 2"),
        ({"steps__observation__base_pose": np.zeros(5, np.float32)}, "different numbers of steps.*base_pose -1"),
        ({"steps__observation__raw": [b"no zlib"]}, "'steps/observation/raw' does not fit"),
        ({"steps__observation__depth": [b"no png"]}, "depth' does not fit features.json: 6 bytes that are no picture"),
        ({"steps__action__open": np.array([np.nan], np.float32)}, "'steps/action/open' is nan in step 0"),
    ],
)
def test_records_that_do_not_hold_what_they_should(tmp_path, changes, message):
    folder, _ = made(tmp_path, **changes)
    source = RldsSource(folder, Given(fps=3))
    source.read(0)
    with pytest.raises(DatasetError, match=f"record 0.*{message}"):
        source.read(1)


def test_pictures_that_are_none(tmp_path):
    folder, _ = made(tmp_path, steps__observation__image=[b""])
    rows = RldsSource(folder, Given(fps=3)).read(1)
    with pytest.raises(DatasetError, match="image' holds 0 bytes that are no picture"):
        list(rows.pictures["observation.images.image"])


def test_an_episode_without_steps(tmp_path):
    folder = write(tmp_path, group(steps=steps(action=tensor((2,)), text=text())), {"train": [[{}]]})
    with pytest.raises(DatasetError, match="record 0 has no steps"):
        RldsSource(folder, Given(fps=3)).read(0)


def test_missing_and_shortened_shards(tmp_path):
    folder, _ = made(tmp_path)
    (folder / "rt1_small-train.tfrecord-00000-of-00002").unlink()
    source = RldsSource(folder, Given(fps=3))
    assert "Of the split 'train' 1 of 2 files are there." in source.remarks
    assert len(source) == 3
    path = folder / "rt1_small-train.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes()[: 16 + len(RecordFile(path).read(0))])  # ends between two records
    with pytest.raises(DatasetError, match=r"holds 1 records, dataset_info.json says 2"):
        RldsSource(folder, Given(fps=3))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no features.json"):
        RldsSource(tmp_path)
    folder, _ = made(tmp_path)
    shutil.copytree(folder, tmp_path / "2.0.0")
    with pytest.raises(DatasetError, match=r"several versions: 1.0.0, 2.0.0"):
        RldsSource(tmp_path)
    for path in folder.glob("*tfrecord*"):
        path.unlink()
    with pytest.raises(DatasetError, match="holds no episodes"):
        RldsSource(folder, Given(fps=3))
    (folder / "rt1_small-train.array_record-00000-of-00001").write_bytes(b"")
    with pytest.raises(DatasetError, match="array_record"):
        RldsSource(folder, Given(fps=3))
    folder, _ = made(tmp_path / "other")
    (folder / "features.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"features\.json is no description"):
        RldsSource(folder, Given(fps=3))


def test_descriptions_of_older_versions(tmp_path):
    """TFDS before 4.4 wrote `type` and `content`; between, JSON inside of JSON."""
    old = {
        "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "content": {
            "steps": {
                "type": "tensorflow_datasets.core.features.dataset_feature.Dataset",
                "content": {
                    "feature": {
                        "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
                        "content": {
                            "action": {
                                "type": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                                "content": {"shape": [2], "dtype": "float32", "encoding": "none"},
                            },
                            "reward": {
                                "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                                "jsonFeature": {"json": json.dumps({"shape": [], "dtype": "float32"})},
                            },
                        },
                    }
                },
            }
        },
    }
    example = {"steps/action": np.arange(6, dtype=np.float32), "steps/reward": np.ones(3, np.float32)}
    source = RldsSource(write(tmp_path, old, {"train": [[example]]}), Given(fps=3))
    rows = source.read(0)
    np.testing.assert_array_equal(rows.columns["action"], np.arange(6).reshape(3, 2))
    np.testing.assert_array_equal(rows.columns["next.reward"], [1, 1, 1])
    assert source.schema.specs.observation == {}
    assert rows.task == ""
