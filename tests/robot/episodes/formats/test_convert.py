"""`armature convert`: from each format into each, without loss where the pictures are kept without loss."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from robot import cli
from robot.config import load
from robot.episodes.formats import opening
from robot.episodes.formats.convert import ConvertConfig
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.rlds import RldsSource
from robot.episodes.formats.robomimic_reader import RobomimicSource
from tests.robot.episodes.formats.hdf5_files import differences, processed, raw
from tests.robot.episodes.formats.rlds_files import RT1, rt1_episode, write
from tests.robot.episodes.formats.test_robomimic import check_equal, own_source


def convert(source: Path, out: Path, *options: str) -> int:
    return cli.main(["convert", f"source={source}", f"out={out}", "workers=1", *options])


def rlds(folder: Path) -> Path:
    examples = [rt1_episode(length, seed)[0] for seed, length in enumerate((4, 2))]
    return write(folder, RT1, {"train": [examples[:1]], "test": [examples[1:]]})


@pytest.mark.parametrize("make", [processed, raw])
def test_hdf5_by_way_of_lerobot_is_lossless(tmp_path, make):
    path = make(tmp_path / "there.hdf5")
    assert convert(path, tmp_path / "dataset", "codec=png") == 0
    assert convert(tmp_path / "dataset", tmp_path / "back.hdf5") == 0
    assert differences(path, tmp_path / "back.hdf5") == []


def test_videos_change_pictures_only(tmp_path):
    path = processed(tmp_path / "there.hdf5", side=32)
    assert convert(path, tmp_path / "dataset") == 0
    assert convert(tmp_path / "dataset", tmp_path / "back.hdf5") == 0
    lines = differences(path, tmp_path / "back.hdf5")
    assert lines
    assert all("_image: values differ" in line for line in lines)


def test_our_episodes_by_way_of_hdf5(tmp_path, monkeypatch):
    source = own_source()
    monkeypatch.setattr(
        opening, "_OPENERS", {**opening._OPENERS, "episodes": lambda *_: opening.Opened(source, "", [], {})}
    )
    (tmp_path / "in").mkdir()
    assert convert(tmp_path / "in", tmp_path / "in/a.hdf5", "source_format=episodes") == 2
    assert convert(tmp_path / "in", tmp_path / "a.hdf5", "source_format=episodes") == 0
    assert convert(tmp_path / "a.hdf5", tmp_path / "dataset", "codec=png") == 0
    assert convert(tmp_path / "dataset", tmp_path / "b.hdf5") == 0
    assert differences(tmp_path / "a.hdf5", tmp_path / "b.hdf5") == []
    back = LeRobotSource(tmp_path / "dataset")
    assert back.schema.specs == source.schema.specs
    for number in range(3):
        check_equal(source.read(number), back.read(number))


def test_rlds_becomes_either(tmp_path, capsys):
    folder = rlds(tmp_path / "rt1" / "1.0.0")
    assert convert(folder.parent, tmp_path / "dataset", "codec=png", "fps=3", "robot=Everyday") == 0
    told = capsys.readouterr()
    assert "2 episodes, 6 frames at 3 Hz" in told.out
    assert "steps/observation/points" in told.err
    assert convert(folder, tmp_path / "a.hdf5", "fps=3", "robot=Everyday") == 0
    from robot.episodes.formats.given import Given

    source = RldsSource(folder, Given(fps=3, robot="Everyday"))
    for back in (LeRobotSource(tmp_path / "dataset"), RobomimicSource(tmp_path / "a.hdf5")):
        assert back.schema.specs == source.schema.specs
        for number in range(2):
            check_equal(source.read(number), back.read(number))


def test_some_episodes_only(tmp_path):
    path = processed(tmp_path / "a.hdf5")
    assert convert(path, tmp_path / "one.hdf5", "episodes=[2,0]") == 0
    assert RobomimicSource(tmp_path / "one.hdf5").names == ["demo_0", "demo_6"]
    assert convert(path, tmp_path / "two.hdf5", "subset=train") == 0
    assert RobomimicSource(tmp_path / "two.hdf5").names == ["demo_3", "demo_6"]
    assert convert(path, tmp_path / "three", "subset=valid", "codec=png") == 0
    assert len(LeRobotSource(tmp_path / "three")) == 1


def test_validation_episodes_are_drawn_once_and_for_all(tmp_path):
    path = raw(tmp_path / "a.hdf5", (2,) * 10)
    for name in ("b.hdf5", "c.hdf5"):
        assert convert(path, tmp_path / name, "valid=0.3") == 0
    with h5py.File(tmp_path / "b.hdf5") as file:
        train, valid = ([name.decode() for name in file["mask"][mask]] for mask in ("train", "valid"))
        assert file["mask/valid"].dtype.kind == "S"
    assert len(valid) == 3
    assert sorted(train + valid) == sorted(f"demo_{i}" for i in range(1, 11))
    assert differences(tmp_path / "b.hdf5", tmp_path / "c.hdf5") == []


def test_what_is_given_takes_the_place_of_what_is_said(tmp_path):
    path = processed(tmp_path / "a.hdf5")
    assert (
        convert(path, tmp_path / "b", "codec=png", "robot=mine", "task=stir", "action_space=joint_delta", "fps=7") == 0
    )
    back = LeRobotSource(tmp_path / "b")
    specs = back.schema.specs
    assert (specs.robot, specs.action_space, specs.task, round(1 / specs.dt_s)) == ("mine", "joint_delta", "stir", 7)
    assert back.read(0).task == "stir"


def test_damaged_demonstrations_can_be_left_out(tmp_path, capsys):
    path = processed(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_3/actions"]
    out = tmp_path / "b"
    assert convert(path, out) == 1
    assert "demo_3 has no dataset 'actions'" in capsys.readouterr().err
    assert not out.exists()
    assert convert(path, out, "episodes=[0,2]", "codec=png") == 0


def test_an_error_leaves_what_was_there(tmp_path):
    path = processed(tmp_path / "a.hdf5")
    assert convert(path, tmp_path / "b.hdf5") == 0
    before = (tmp_path / "b.hdf5").read_bytes()
    with h5py.File(path, "r+") as file:
        file["data/demo_6/actions"][1, 1] = np.nan
    assert convert(path, tmp_path / "b.hdf5") == 1
    assert (tmp_path / "b.hdf5").read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.hdf5", "b.hdf5"]


def test_formats_are_told_by_what_is_there(tmp_path):
    renamed = processed(tmp_path / "a.hdf5").rename(tmp_path / "without-suffix")
    assert opening.detect(renamed) == "robomimic"
    assert opening.detect(rlds(tmp_path / "r" / "1.0.0")) == "rlds"
    assert opening.detect(tmp_path / "r") == "rlds"
    (tmp_path / "l/meta").mkdir(parents=True)
    (tmp_path / "l/meta/info.json").write_text("{}")
    assert opening.detect(tmp_path / "l") == "lerobot"
    (tmp_path / "e").mkdir()
    (tmp_path / "e/episode-000000.mcap").write_bytes(b"")
    assert opening.detect(tmp_path / "e") == "episodes"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["source=absent", "out=b"], 1, "There is no file or folder absent"),
        (["source=empty", "out=b"], 1, "none of the formats.*lerobot: .*robomimic: .*rlds: .*episodes: "),
        (["source=beside", "out=b"], 1, "It holds demo.hdf5: name that"),
        (["source=text.txt", "out=b"], 1, "name its folder"),
        (["source=broken.hdf5", "out=b"], 1, "broken.hdf5 cannot be opened as HDF5"),
        (["out=b"], 2, "Say what to read"),
        (["source=a.hdf5", "out=a.hdf5"], 2, "in the way"),
        (["source=a.hdf5", "out=b", "source_format=robomimik"], 2, "Did you mean 'robomimic'"),
        (["source=a.hdf5", "out=b", "out_format=rlds"], 2, "Available: auto, lerobot, robomimic"),
        (["source=a.hdf5", "out=b", "states=all"], 2, "none, replay, robosuite"),
        (["source=a.hdf5", "out=b", "states=replay"], 2, "choose out=<name>.hdf5"),
        (["source=a.hdf5", "out=b.hdf5", "label=device"], 2, "label is for episodes"),
        (["source=a.hdf5", "out=b.hdf5", "subset=trian"], 2, "Did you mean 'train'"),
        (["source=a.hdf5", "out=b.hdf5", "episodes=[7]"], 2, "no episode 7; the source has episodes 0 to 2"),
        (["source=a.hdf5", "out=b.hdf5", "valid=1.5"], 2, "valid < 1"),
        (["source=a.hdf5", "out=b.hdf5", "compression=zip"], 2, "gzip, lzf, none"),
        (["source=a.hdf5", "out=b", "codec=theora"], 2, "theora"),
        (["source=a.hdf5", "out=b.hdf5", "observations=low_dim"], 2, "no observations"),
        (["source=a.hdf5", "out=b.hdf5", "observations=all"], 2, "low_dim, none, render"),
        (["source=a.hdf5", "out=b.hdf5", "pixels=0"], 2, "expected 1 to"),
        (["source=a.hdf5", "out=b", "fps=-1"], 2, "fps is -1"),
        (["source=a.hdf5", "out=b", "fps=7.5"], 1, "whole number of frames per second"),
        (["source=a.hdf5", "out=foreign"], 1, "not a dataset that Armature wrote"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, options, code, words):
    monkeypatch.chdir(tmp_path)
    processed(Path("a.hdf5"), (2, 2, 3))
    Path("empty").mkdir()
    Path("beside").mkdir()
    shutil.copy("a.hdf5", "beside/demo.hdf5")
    Path("text.txt").write_text("hello")
    Path("broken.hdf5").write_text("hello")
    Path("foreign").mkdir()
    Path("foreign/photo.jpg").write_text("")
    assert cli.main(["convert", *options]) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("armature convert: ")
    import re

    assert re.search(words, error), error
    assert not Path("b").exists()
    assert not Path("b.hdf5").exists()


def test_every_key_of_the_yaml_is_read():
    config = load("convert", ConvertConfig, ["source=a", "out=b"])
    assert config.target == "lerobot"
    assert load("convert", ConvertConfig, ["source=a", "out=b.h5"]).target == "robomimic"
    assert load("convert", ConvertConfig, ["source=a", "out=b.h5", "out_format=lerobot"]).target == "lerobot"


@pytest.mark.slow
def test_recorded_episodes_become_demonstrations_that_robosuite_plays(tmp_path, capsys):
    """record -> convert -> robosuite's own script, as a user runs them."""
    from tests.robot.episodes.formats.test_robosuite_replay import played

    episodes = tmp_path / "episodes"
    assert cli.main(["record", "env=lift", "episodes=2", "workers=1", f"out={episodes}"]) == 0
    assert convert(episodes, tmp_path / "demo.hdf5", "states=replay", "valid=0.5") == 0
    assert played(tmp_path) == (2, [])
    source = RobomimicSource(tmp_path / "demo.hdf5")
    assert "robomimic.obs.robot0_eef_pos" in source.schema.extras
    capsys.readouterr()
    assert convert(episodes, tmp_path / "demo.hdf5", "states=robosuite") == 0
    assert "none of them ends without success" in capsys.readouterr().out
    assert played(tmp_path, "--use-actions") == (2, [])


@pytest.mark.slow
def test_observations_of_a_collectors_file(tmp_path):
    """robosuite's own collector and its gathering, then our observations of its states."""
    pytest.importorskip("robosuite")
    import robosuite
    from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
    from robosuite.wrappers import DataCollectionWrapper

    from robot.sim.config import EnvConfig
    from robot.sim.controllers import robosuite_config

    info = {"env_name": "Lift", "robots": ["Panda"], "controller_configs": [robosuite_config("Panda", EnvConfig())]}
    world = robosuite.make(
        **info,
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        ignore_done=True,
        control_freq=20,
    )
    world._check_success = lambda: True  # the gathering keeps what succeeded
    collector = DataCollectionWrapper(world, str(tmp_path / "raw"))
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(2):
        observation = collector.reset()
        for _ in range(6):
            action = rng.uniform(-1, 1, 7)
            seen.append(np.concatenate([world.sim.data.site_xpos[world.robots[0].eef_site_id["right"]]]))
            observation, *_ = collector.step(action)
        assert "robot0_eef_pos" in observation
    collector.close()
    gather_demonstrations_as_hdf5(str(tmp_path / "raw"), str(tmp_path), json.dumps(info))
    path = tmp_path / "demo.hdf5"
    assert convert(path, tmp_path / "plain", "codec=png") == 0
    assert convert(tmp_path / "plain", tmp_path / "back.hdf5") == 0
    assert differences(path, tmp_path / "back.hdf5") == []
    assert convert(path, tmp_path / "observed", "observations=low_dim") == 0
    rows = [LeRobotSource(tmp_path / "observed").read(number) for number in range(2)]
    tool = np.concatenate([episode.columns["observation.state"][:, :3] for episode in rows])
    assert tool.shape == (12, 3)
    names = LeRobotSource(tmp_path / "observed").schema.specs.observation["observation.state"].names
    assert names[:3] == ("ee_x", "ee_y", "ee_z")
    # The base stands at a fixed place in the world, so that the tool's ways agree, whatever the frames.
    by_episode = sorted(np.array(seen).reshape(2, 6, 3).tolist())
    ways = sorted((episode.columns["observation.state"][:, :3].astype(float)).tolist() for episode in rows)
    for one, two in zip(by_episode, ways, strict=True):
        np.testing.assert_allclose(np.diff(one, axis=0), np.diff(two, axis=0), atol=2e-3)


@pytest.mark.gl
@pytest.mark.slow
def test_pictures_of_states_show_the_task(tmp_path):
    """The same states give the pictures that an environment with cameras takes."""
    from robot import sim
    from robot.episodes.formats.robosuite_raw import ObservedSource
    from robot.sim.camera_config import CamerasConfig
    from robot.sim.config import EnvConfig
    from tests.robot.episodes.formats.test_robosuite_replay import recorded

    cameras = CamerasConfig(names=["agentview"], height=32, width=32, quality="robosuite")
    environment = sim.make(EnvConfig(cameras=cameras))
    observation, _ = environment.reset(seed=3)
    state = environment.unwrapped.stored_state().flat
    path = raw(tmp_path / "a.hdf5", (2, 2))
    with h5py.File(path, "r+") as file:
        for name in ("demo_1", "demo_2"):
            file[f"data/{name}/states"][:] = state
    rows = ObservedSource(RobomimicSource(path), cameras).read(0)
    picture = list(rows.pictures["observation.images.agentview"])[1]
    assert np.abs(picture.astype(int) - observation["observation.images.agentview"]).mean() < 1.0
    assert picture.std() > 10
    np.testing.assert_allclose(
        rows.columns["observation.state"][0], recorded().read(0).columns["observation.state"][0], atol=1e-5
    )
    assert convert(path, tmp_path / "b.hdf5", "observations=render", "cameras=[agentview]", "pixels=32") == 0
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["data/demo_1/obs/agentview_image"].shape == (2, 32, 32, 3)
        assert file["data/demo_1/obs/state"].shape == (2, 18)
