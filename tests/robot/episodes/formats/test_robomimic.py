"""robomimic HDF5 in and out: nothing is lost, and what is broken is told of in one sentence."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from robot.contract import EnvironmentSpecs
from robot.episodes import atomic
from robot.episodes.formats import encoding_pool, lerobot_writer, robomimic_writer
from robot.episodes.formats.given import Given
from robot.episodes.formats.robomimic_reader import RobomimicSource
from robot.episodes.formats.robomimic_writer import RobomimicSettings
from robot.episodes.rows import Held, Rows, Schema
from robot.errors import DatasetError, UnknownNameError
from robot.specs import ArraySpec
from tests.robot.episodes.formats.hdf5_files import ENV_ARGS, OSC, XML, differences, processed, raw


def held(source) -> Held:
    return Held(source.schema, [source.read(number) for number in range(len(source))])


def own_source(tasks=("push", "pull")) -> Held:
    rng = np.random.default_rng(3)
    state = ArraySpec("observation.state", (3,), names=("x", "y", "z"), unit="m m m", frame="base")
    camera = ArraySpec("observation.images.front", (6, 8, 3), "uint8", 0.0, 255.0)
    observation = {state.key: state, camera.key: camera}
    specs = EnvironmentSpecs(observation, ArraySpec("action", (2,)), "unknown", 0.1, "pusher", "")
    extras = {
        "next.reward": ArraySpec("next.reward", (), "float32"),
        "next.success": ArraySpec("next.success", (), "bool"),
        "skew": ArraySpec("skew", (2, 2), "float64"),
        "remark": ArraySpec("remark", (), "str"),
    }
    episodes = []
    for number, length in enumerate((4, 1, 6)):
        columns = {
            "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
            "action": rng.normal(size=(length, 2)).astype(np.float32),
            "next.reward": rng.uniform(size=length).astype(np.float32),
            "next.success": np.arange(length) == length - 1,
            "skew": rng.normal(size=(length, 2, 2)),
            "remark": np.array([f"row {k}, é" for k in range(length)], object),
        }
        pictures = {camera.key: rng.integers(0, 256, (length, 6, 8, 3), np.uint8)}
        task = tuple(tasks[k % len(tasks)] for k in range(length)) if number == 2 else tasks[0]
        origin = {"seed": number, "labels": {"good": True}}
        episodes.append(Rows(columns, pictures, task, origin, ("train",) if number else ("train", "valid")))
    return Held(Schema(specs, extras, {"site": "lab"}), episodes)


def check_equal(one: Rows, two: Rows) -> None:
    assert one.task == two.task
    assert {k: v for k, v in one.origin.items() if k != "robomimic"} == {
        k: v for k, v in two.origin.items() if k != "robomimic"
    }
    assert set(one.subsets) == set(two.subsets)
    assert one.columns.keys() == two.columns.keys()
    for key, column in one.columns.items():
        kinds = {column.dtype.kind, two.columns[key].dtype.kind}
        assert column.dtype == two.columns[key].dtype or kinds == {"O", "U"}, key  # texts, either way
        np.testing.assert_array_equal(column, two.columns[key], err_msg=key)
    assert one.pictures.keys() == two.pictures.keys()
    for key, pictures in one.pictures.items():
        np.testing.assert_array_equal(np.stack(list(pictures)), np.stack(list(two.pictures[key])), err_msg=key)


@pytest.mark.parametrize("make", [processed, raw])
def test_nothing_is_lost_on_the_way_there_and_back(tmp_path, make):
    path = make(tmp_path / "there.hdf5")
    source = RobomimicSource(path)
    robomimic_writer.write(source, tmp_path / "back.hdf5")
    assert differences(path, tmp_path / "back.hdf5") == []
    assert RobomimicSource(tmp_path / "back.hdf5").identity(1) == source.identity(1) != source.identity(0)


def test_json_of_an_episode_survives_being_text(tmp_path):
    path = processed(tmp_path / "there.hdf5")
    source = held(RobomimicSource(path))
    episodes = [
        Rows(rows.columns, rows.pictures, rows.task, json.loads(json.dumps(rows.origin, allow_nan=False)), rows.subsets)
        for rows in (source.read(number) for number in range(3))
    ]
    schema = Schema(source.schema.specs, source.schema.extras, json.loads(json.dumps(source.schema.notes)))
    robomimic_writer.write(Held(schema, episodes), tmp_path / "back.hdf5")
    assert differences(path, tmp_path / "back.hdf5") == []


def test_the_comparison_sees_what_differs(tmp_path):
    one, two = processed(tmp_path / "one.hdf5"), processed(tmp_path / "two.hdf5")
    assert differences(one, two) == []
    with h5py.File(two, "r+") as file:
        file["data/demo_0/obs/object"][2, 1] = np.nextafter(file["data/demo_0/obs/object"][2, 1], np.float32(9))
        file["data"].attrs["total"] = np.int32(file["data"].attrs["total"])
        del file["mask/valid"]
        file["data/demo_3"].attrs["model_file"] = "<mujoco/>"
        states = file["data/demo_3/states"][()]
        del file["data/demo_3/states"]
        file["data/demo_3/states"] = states.astype(np.float32)
    assert len(differences(one, two)) == 5


def test_what_the_columns_hold(tmp_path):
    path = processed(tmp_path / "a.hdf5")
    source = RobomimicSource(path)
    specs = source.schema.specs
    assert (specs.robot, specs.action_space, specs.dt_s, specs.task) == (
        "Panda",
        "ee_delta",
        0.05,
        "Lift the cube from the table.",
    )
    assert specs.action.names[:3] == ("dx", "dy", "dz")
    state = specs.observation["observation.state"]
    assert state.names == (
        *("robot0_eef_pos.x", "robot0_eef_pos.y", "robot0_eef_pos.z"),
        *("robot0_eef_quat.x", "robot0_eef_quat.y", "robot0_eef_quat.z", "robot0_eef_quat.w"),
        *("robot0_gripper_qpos.0", "robot0_gripper_qpos.1"),
    )
    assert state.unit.split() == ["m"] * 3 + ["1"] * 4 + ["m"] * 2
    assert source.names == ["demo_0", "demo_3", "demo_6"]
    assert source.remarks == []
    rows = source.read(1)
    with h5py.File(path) as file:
        demo = file["data/demo_3"]
        wanted = np.concatenate(
            [demo["obs/robot0_eef_pos"], demo["obs/robot0_eef_quat"], demo["obs/robot0_gripper_qpos"]], axis=1
        )
        np.testing.assert_array_equal(rows.columns["observation.state"], wanted.astype(np.float32))
        np.testing.assert_array_equal(rows.columns["robomimic.states"], demo["states"])
        np.testing.assert_array_equal(rows.columns["next.done"], [False, False, True])
        np.testing.assert_array_equal(list(rows.pictures["observation.images.agentview"]), demo["obs/agentview_image"])
    assert rows.task == "lift the cube"
    assert rows.subsets == ("20_percent", "train")
    pictures = rows.pictures["observation.images.agentview"]
    assert len(pictures) == len(list(pictures)) == len(list(pictures)) == 3


def test_names_chosen_for_the_state(tmp_path):
    path = processed(tmp_path / "a.hdf5")
    source = RobomimicSource(path, Given(state=("robot0_gripper_qpos", "object")))
    assert source.schema.specs.observation["observation.state"].shape == (12,)
    robomimic_writer.write(source, tmp_path / "b.hdf5")
    assert differences(path, tmp_path / "b.hdf5") == []
    with pytest.raises(UnknownNameError, match=r"robot0_eef_poss.*robot0_eef_pos"):
        RobomimicSource(path, Given(state=("robot0_eef_poss",)))


def test_raw_files_have_states_and_actions_and_say_what_is_missing(tmp_path):
    source = RobomimicSource(raw(tmp_path / "a.hdf5"))
    rows = source.read(0)
    assert rows.columns["action"].shape == (5, 7)
    assert rows.columns["robomimic.states"].dtype == np.float64
    assert "20 Hz is assumed" in source.remarks[0]
    assert "no observations" in source.remarks[1]
    given = RobomimicSource(tmp_path / "a.hdf5", Given(fps=10, robot="mine", action_space="joint_delta", task="go"))
    specs = given.schema.specs
    assert (specs.dt_s, specs.robot, specs.action_space, specs.task) == (0.1, "mine", "joint_delta", "go")


ABSOLUTE = {"type": "OSC_POSE", "control_delta": False}
SLOW = {"type": "OSC_POSE", "control_delta": True, "output_max": [0.01] * 3 + [0.1] * 3}


@pytest.mark.parametrize(
    ("config", "space"),
    [
        (OSC, "ee_delta"),
        ([OSC, OSC], "ee_delta"),
        ({"type": "OSC_POSE", "control_delta": True}, "ee_delta"),
        (ABSOLUTE, "ee_pose_rotvec"),
        (SLOW, "unknown"),
        ({"type": "JOINT_POSITION", "input_type": "absolute"}, "joint_position"),
        ({"type": "JOINT_VELOCITY"}, "joint_velocity"),
        ([OSC, {"type": "JOINT_VELOCITY"}], "unknown"),
        (None, "unknown"),
    ],
)
def test_action_space_comes_from_the_controller(tmp_path, config, space):
    info = {"env_name": "Lift", "robots": "Panda", "controller_configs": config}
    source = RobomimicSource(raw(tmp_path / "a.hdf5", env_info=info))
    assert source.schema.specs.action_space == space
    assert any("action means" in remark for remark in source.remarks) == (space == "unknown")


def test_changed_columns_win_over_what_the_file_said(tmp_path):
    source = RobomimicSource(processed(tmp_path / "a.hdf5"))
    rows = source.read(0)
    actions = rows.columns["action"].copy()
    actions[2] = 0.25
    episode = Rows({**rows.columns, "action": actions}, rows.pictures, "something else", rows.origin, rows.subsets)
    robomimic_writer.write(Held(source.schema, [episode, source.read(1), source.read(2)]), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_0/actions"], actions.astype(np.float64))
        assert json.loads(file["data/demo_0"].attrs["ep_meta"])["lang"] == "something else"
    changed = {line.split(":")[0] for line in differences(tmp_path / "a.hdf5", tmp_path / "b.hdf5")}
    assert changed == {"/data/demo_0/actions", "/data/demo_0@ep_meta"}


def test_some_of_the_episodes_keep_their_names_and_masks(tmp_path):
    source = RobomimicSource(processed(tmp_path / "a.hdf5"))
    robomimic_writer.write(Held(source.schema, [source.read(2), source.read(1)]), tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert sorted(file["data"]) == ["demo_3", "demo_6"]
        assert file["data"].attrs["total"] == 15
        assert file["mask/train"][()].tolist() == [b"demo_6", b"demo_3"]  # as they were
        assert "valid" not in file["mask"]
    assert RobomimicSource(tmp_path / "b.hdf5").names == ["demo_3", "demo_6"]


def test_masks_may_name_what_is_not_there(tmp_path):
    path = processed(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["mask/odd"] = np.array([b"demo_0", b"demo_99"])
    source = RobomimicSource(path)
    assert "demo_99" in source.remarks[0]
    assert "odd" in source.read(0).subsets
    robomimic_writer.write(source, tmp_path / "b.hdf5")
    assert differences(path, tmp_path / "b.hdf5") == []


def test_merged_files_get_names_of_their_own(tmp_path):
    source = RobomimicSource(processed(tmp_path / "a.hdf5"))
    robomimic_writer.write(Held(source.schema, [source.read(0), source.read(2), source.read(0)]), tmp_path / "b.hdf5")
    assert RobomimicSource(tmp_path / "b.hdf5").names == ["demo_0", "demo_6", "demo_7"]


def test_our_own_episodes_come_back_whole(tmp_path):
    source = own_source()
    robomimic_writer.write(source, tmp_path / "a.hdf5", RobomimicSettings(compression="lzf"))
    back = RobomimicSource(tmp_path / "a.hdf5")
    assert back.schema.specs == source.schema.specs
    assert back.schema.extras == source.schema.extras
    assert back.schema.notes["site"] == "lab"
    for number in range(3):
        check_equal(source.read(number), back.read(number))
    robomimic_writer.write(back, tmp_path / "b.hdf5")
    assert differences(tmp_path / "a.hdf5", tmp_path / "b.hdf5") == []


def test_what_robomimics_readers_want(tmp_path):
    """The places that `SequenceDataset` and `FileUtils` of robomimic read, by name and type."""
    robomimic_writer.write(own_source(), tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r", swmr=True, libver="latest") as file:
        arguments = json.loads(file["data"].attrs["env_args"])
        assert set(arguments) == {"env_name", "env_version", "type", "env_kwargs"}
        assert file["data"].attrs["total"] == 11
        demos = [name.decode() for name in np.array(file["mask/train"][:])]
        assert sorted(demos, key=lambda name: int(name[5:])) == ["demo_0", "demo_1", "demo_2"]
        for name, length in zip(demos, (4, 1, 6), strict=True):
            demo = file["data"][name]
            assert demo.attrs["num_samples"] == length
            for key in ("actions", "rewards", "dones", "obs/state", "obs/front_image"):
                assert len(demo[key]) == length
            assert demo["obs/front_image"].dtype == np.uint8
            assert demo["obs/front_image"].chunks == (1, 6, 8, 3)
            assert demo["obs/front_image"].compression == "gzip"
            assert demo["actions"].dtype == np.float64


def test_other_processes_open_the_file_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding_pool, "WORTH_S", 0)  # else so few episodes would be encoded here
    source = RobomimicSource(processed(tmp_path / "a.hdf5"))
    source.read(0)
    lerobot_writer.write(source, tmp_path / "by_two", lerobot_writer.Settings(workers=2))
    lerobot_writer.write(source, tmp_path / "by_one", lerobot_writer.Settings(workers=1))
    written = [
        {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (tmp_path / "by_two", tmp_path / "by_one")
    ]
    assert written[0] == written[1]


def broken(path, damage):
    processed(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    return path


def replaced(file, name, values):
    del file[name]
    file[name] = values


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda file: replaced(file, "data/demo_0/obs/object", np.zeros((4, 10))),
            "demo_0 has 5 actions, but obs/object",
        ),
        (
            lambda file: file["data/demo_0"].attrs.modify("num_samples", 6),
            "demo_0 has 5 actions, but .* num_samples is 6",
        ),
        (lambda file: replaced(file, "data/demo_0/actions", np.zeros((0, 7))), "demo_0 has no steps"),
        (lambda file: file["data/demo_0"].__delitem__("actions"), "demo_0 has no dataset 'actions'"),
        (lambda file: replaced(file, "data/demo_0/actions", np.zeros(5)), r"actions of type float64 and shape \(5,\)"),
        (lambda file: file["data/demo_0/actions"].__setitem__((3, 2), np.nan), "demo_0/actions is nan in row 3"),
        (lambda file: file["data/demo_0/obs/robot0_eef_pos"].__setitem__((1, 0), np.inf), "is inf in row 1"),
    ],
)
def test_damaged_demonstrations_are_told_of_and_the_others_read(tmp_path, damage, message):
    source = RobomimicSource(broken(tmp_path / "a.hdf5", damage))
    with pytest.raises(DatasetError, match=message):
        source.read(0)
    assert len(source.read(1)) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.move("data", "date"), "no group 'data'.*date, mask"),
        (lambda file: file.move("data/demo_3", "data/episode3"), "episode3 in 'data' is not a demonstration"),
        (lambda file: [file["data"].__delitem__(name) for name in list(file["data"])], "holds no demonstrations"),
        (lambda file: file["data"].attrs.modify("env_args", "{"), "'env_args' of 'data' is no JSON"),
        (lambda file: replaced(file, "data/demo_3/actions", np.zeros((3, 8))), "differ in width or type"),
        (lambda file: file["data/demo_0"].__setitem__("x", h5py.ExternalLink("b.hdf5", "/x")), "lives in another file"),
        (lambda file: file["data/demo_0"].__setitem__("x", h5py.SoftLink("/nowhere")), "x cannot be read"),
        (lambda file: file["data/demo_0"].__setitem__("x", file["data"]), "nested beyond"),
    ],
)
def test_damaged_files_are_refused(tmp_path, damage, message):
    path = broken(tmp_path / "a.hdf5", damage)
    with pytest.raises(DatasetError, match=message):
        RobomimicSource(path)


def test_files_that_are_no_hdf5(tmp_path):
    with pytest.raises(DatasetError, match="There is no file"):
        RobomimicSource(tmp_path / "absent.hdf5")
    path = processed(tmp_path / "a.hdf5")
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(DatasetError, match="file signature not found"):
        RobomimicSource(tmp_path / "text.hdf5")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DatasetError, match=r"a\.hdf5 cannot be opened.*truncated"):
        RobomimicSource(path)


def test_datasets_that_not_all_demonstrations_have_are_kept_aside(tmp_path):
    def damage(file):
        replaced(file, "data/demo_3/obs/object", np.zeros((3, 12)))
        replaced(file, "data/demo_6/states", np.zeros((12, 40)))

    path = broken(tmp_path / "a.hdf5", damage)
    source = RobomimicSource(path)
    assert "obs/object" in source.remarks[0]
    assert "observation.environment_state" not in source.schema.specs.observation
    robomimic_writer.write(source, tmp_path / "b.hdf5")
    assert differences(path, tmp_path / "b.hdf5") == []


def test_types_that_nobody_uses_are_refused(tmp_path):
    def damage(file):
        file["data/demo_0/odd"] = np.zeros(2, [("a", float), ("b", int)])

    source = RobomimicSource(broken(tmp_path / "a.hdf5", damage))
    with pytest.raises(DatasetError, match="demo_0/odd is of the type"):
        source.read(0)


def test_a_failing_source_leaves_what_was_there(tmp_path):
    source = RobomimicSource(
        broken(tmp_path / "a.hdf5", lambda file: file["data/demo_6/actions"].__setitem__(0, np.nan))
    )
    target = raw(tmp_path / "b.hdf5")
    before = target.read_bytes()
    with pytest.raises(DatasetError, match="is nan"):
        robomimic_writer.write(source, target)
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "b.hdf5"]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from robot.episodes.formats import robomimic_writer
from robot.episodes.formats.robomimic_reader import RobomimicSource
from robot.errors import DatasetError
source = RobomimicSource(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    robomimic_writer.write(source, sys.argv[2])
except DatasetError as error:
    print(error)
"""


def test_a_full_disk_is_told_of_and_nothing_is_left(tmp_path):
    path = processed(tmp_path / "a.hdf5", (40, 40, 40), side=32)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", FULL, str(path), str(tmp_path / "out" / "b.hdf5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


KILLED = """
import os, signal, sys
from robot.episodes.formats import robomimic_writer
from robot.episodes.formats.robomimic_reader import RobomimicSource

class Killing(RobomimicSource):
    def read(self, number):
        if number == 2:
            os.kill(os.getpid(), getattr(signal, sys.argv[3]))
        return super().read(number)

robomimic_writer.write(Killing(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_killed_writer_leaves_what_was_there(tmp_path, name):
    path, target = processed(tmp_path / "a.hdf5"), raw(tmp_path / "b.hdf5")
    before = target.read_bytes()
    command = [sys.executable, "-c", KILLED, str(path), str(target), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert target.read_bytes() == before
    if name == "SIGINT":
        assert sorted(found.name for found in tmp_path.iterdir()) == ["a.hdf5", "b.hdf5"]
    robomimic_writer.write(RobomimicSource(path), target)
    assert differences(path, target) == []
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.hdf5", "b.hdf5"]


def test_two_writers_of_one_file(tmp_path):
    target = tmp_path / "b.hdf5"
    with atomic.locked(target, DatasetError("nobody")), pytest.raises(DatasetError, match="Another process is writing"):
        robomimic_writer.write(own_source(), target)
    assert not target.exists()


def test_files_of_another_kind_are_not_replaced(tmp_path):
    (tmp_path / "photo.h5").write_bytes(b"a photograph")
    (tmp_path / "folder.h5").mkdir()
    for name in ("photo.h5", "folder.h5"):
        with pytest.raises(DatasetError, match="no HDF5 file; it is left as it is"):
            robomimic_writer.write(own_source(), tmp_path / name)
    assert (tmp_path / "photo.h5").read_bytes() == b"a photograph"


def test_an_empty_source_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="there are no episodes"):
        robomimic_writer.write(Held(own_source().schema, []), tmp_path / "a.hdf5")


def test_constants_of_the_test_are_as_long_as_they_should(tmp_path):
    """A model is deflated in an episode's origin; this one has 10 kB."""
    assert len(XML) > 5000
    assert ENV_ARGS["type"] == 1
    rows = RobomimicSource(processed(tmp_path / "a.hdf5")).read(0)
    assert len(json.dumps(rows.origin)) < 20_000
