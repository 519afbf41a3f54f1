"""Simulated episodes as robosuite's demonstrations: its own script plays them."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest

from robot.contract import EnvironmentSpecs
from robot.episodes.formats import robomimic_writer, robosuite_replay
from robot.episodes.formats.robomimic_reader import RobomimicSource
from robot.episodes.formats.robosuite_replay import AS_ROBOSUITE, ReplayedSource
from robot.episodes.rows import Held, Rows, Schema
from robot.errors import DatasetError
from robot.specs import ArraySpec

pytest.importorskip("robosuite", reason="the simulated world is not installed")

PLAYBACK = Path(__file__).with_name("playback.py")


@cache
def recorded(task: str = "lift") -> Held:
    """Two demonstrations, as they are read from a log."""
    from robot import sim
    from robot.loop import rollout
    from robot.sim.config import EnvConfig

    environment = sim.make(EnvConfig(task=task))
    expert = sim.expert(task, environment.specs)
    episodes = []
    for seed in (3, 4):
        steps = []
        rollout(environment, expert, seed, None, steps.append)
        columns = {key: np.stack([step.observation[key] for step in steps]) for key in environment.specs.observation}
        columns["action"] = np.stack([step.commanded for step in steps])
        columns["next.reward"] = np.array([step.reward for step in steps], np.float32)
        columns["next.success"] = np.array([step.success for step in steps])
        assert columns["next.success"][-1]
        episodes.append(Rows(columns, {}, environment.specs.task, {"seed": seed}))
    extras = {key: ArraySpec(key, (), str(episodes[0].columns[key].dtype)) for key in ("next.reward", "next.success")}
    return Held(Schema(environment.specs, extras), episodes)


def played(folder: Path, *options: str) -> tuple[int, list[float]]:
    """Demonstrations that robosuite's script has played from `folder/demo.hdf5`, and the divergences it warned of."""
    command = [sys.executable, str(PLAYBACK), "--folder", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    divergences = re.findall(r"playback diverged by ([\d.]+)", done.stdout)
    return done.stdout.count("demonstration demo_"), [float(number) for number in divergences]


def test_states_are_those_of_the_episode(tmp_path):
    source = ReplayedSource(recorded())
    robomimic_writer.write(source, tmp_path / "demo.hdf5")
    assert source.worst == 0.0
    with h5py.File(tmp_path / "demo.hdf5") as file:
        assert file["data"].attrs["env"] == "Lift"
        demo = file["data/demo_0"]
        np.testing.assert_array_equal(demo["actions"], recorded().read(0).columns["action"].astype(np.float64))
        assert demo.attrs["model_file"].startswith("<mujoco")
        times = demo["states"][:, 0]
        np.testing.assert_allclose(np.diff(times), 0.05, atol=1e-9)
        import mujoco

        with_model = mujoco.MjModel.from_xml_string(demo.attrs["model_file"])
        assert demo["states"].shape == (len(times), 1 + with_model.nq + with_model.nv)
        data = mujoco.MjData(with_model)
        data.qpos[:] = demo["states"][-1, 1 : 1 + with_model.nq]
        mujoco.mj_kinematics(with_model, data)
        np.testing.assert_allclose(demo["obs/object"][-1, :3], data.body("cube_main").xpos, atol=1e-3)
    back = RobomimicSource(tmp_path / "demo.hdf5").read(1)
    for key, column in recorded().read(1).columns.items():
        np.testing.assert_array_equal(back.columns[key], column, err_msg=key)


@pytest.mark.slow
def test_robosuites_script_shows_the_states(tmp_path):
    robomimic_writer.write(ReplayedSource(recorded()), tmp_path / "demo.hdf5")
    assert played(tmp_path) == (2, [])


@pytest.mark.slow
def test_robosuites_script_plays_the_actions(tmp_path):
    """Played as the script plays, states are equal to the bit; those of the recording are near."""
    robomimic_writer.write(ReplayedSource(recorded(), AS_ROBOSUITE), tmp_path / "demo.hdf5")
    count, divergences = played(tmp_path, "--use-actions")
    assert (count, divergences) == (2, [])  # it compares bit by bit
    with h5py.File(tmp_path / "demo.hdf5") as file:
        assert file["data/demo_0/rewards"][-1] == 1.0
    robomimic_writer.write(ReplayedSource(recorded()), tmp_path / "demo.hdf5")
    count, divergences = played(tmp_path, "--use-actions")
    assert count == 2
    assert max(divergences) < 1.0


def test_episodes_that_go_another_way_are_told_of():
    source = recorded()
    rows = source.read(0)
    other = Rows({**rows.columns, "action": rows.columns["action"] * 0.9}, {}, rows.task, rows.origin)
    seedless = Rows(rows.columns, {}, rows.task, {})
    replayed = ReplayedSource(Held(source.schema, [other, seedless]))
    with pytest.raises(DatasetError, match=r"does not go again.*'observation.state' is off by .* in row 1"):
        replayed.read(0)
    with pytest.raises(DatasetError, match="does not say its seed"):
        replayed.read(1)


def test_randomised_worlds_go_again_as_their_headers_note():
    """Friction and mass are drawn from the seed; without the note the episode goes another way."""
    from robot import sim
    from robot.loop import rollout
    from robot.sim.config import EnvConfig, RandomisationConfig

    config = EnvConfig(randomisation=RandomisationConfig(enabled=True))
    environment = sim.make(config)
    steps = []
    rollout(environment, sim.expert("lift", environment.specs), 3, None, steps.append)
    columns = {key: np.stack([step.observation[key] for step in steps]) for key in environment.specs.observation}
    columns["action"] = np.stack([step.commanded for step in steps])
    origin = {"seed": 3, "notes": {"env": json.loads(json.dumps(asdict(config)))}}
    schema = Schema(environment.specs)
    source = ReplayedSource(Held(schema, [Rows(columns, {}, environment.specs.task, origin)]))
    rows = source.read(0)
    assert source.worst == 0.0
    plain = ReplayedSource(recorded()).read(0).origin["model_file"]
    assert len(rows.origin["model_file"]) > 0.9 * len(plain)
    assert rows.origin["model_file"] != plain
    with pytest.raises(DatasetError, match="does not go again"):
        ReplayedSource(Held(schema, [Rows(columns, {}, environment.specs.task, {"seed": 3})])).read(0)


def test_what_is_of_no_simulated_world_is_refused():
    specs = recorded().schema.specs
    real = EnvironmentSpecs(specs.observation, specs.action, "ee_delta", 0.05, "Panda", "fold the shirt")
    with pytest.raises(DatasetError, match="fold the shirt"):
        robosuite_replay.world_of(real)
