import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from robot import cli
from robot.episodes import folder
from robot.episodes.log_reader import EpisodeReader
from robot.errors import ConfigError, EpisodeError, UnknownNameError
from robot.sim.augmentation.attempting import NOTES, disturbance
from robot.sim.augmentation.augment import augment, main
from tests.robot.sim.augmentation.fakes import TableWorld, config, record_demonstrations, world


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shown")
    record_demonstrations(out, 4)
    return out


@pytest.fixture(scope="module")
def augmented(shown, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("augmented") / "new"
    augment(config(shown, out), world)
    return out


def content(out: Path) -> list[tuple]:
    """What the files of a folder say, but for times."""
    found = []
    for path in folder.finished(out):
        episode = EpisodeReader(path).read()
        header = episode.header
        values = {topic: channel.values.tolist() for topic, channel in episode.channels.items()}
        found.append((path.name, header.attempt, header.seed, header.notes, episode.result, values))
    return found


def replayed(environment, path: Path) -> tuple[bool, float]:
    """Whether an episode succeeds again from its seed and its actions, and how far its observations are off."""
    episode = EpisodeReader(path).read()
    observation, info = environment.reset(seed=episode.header.seed)
    logged, off = episode.channels["/observation/state"].values, 0.0
    for step, sent in enumerate(episode.channels["/action/commanded"].values):
        off = max(off, float(np.abs(observation["observation.state"] - logged[step]).max()))
        observation, _, _, _, info = environment.step(sent)
    return bool(info["success"]), off


def test_new_episodes_succeed_when_they_are_replayed(augmented):
    paths = folder.finished(augmented)
    assert [path.name for path in paths] == [f"episode-{number:06d}.mcap" for number in range(3)]
    for path in paths:
        assert replayed(TableWorld(), path) == (True, 0.0)


def test_a_new_episode_says_how_it_came_about(augmented, shown):
    known = {EpisodeReader(path).header.seed for path in folder.finished(shown)}
    seeds = set()
    for path in folder.finished(augmented):
        header = EpisodeReader(path).header
        notes = header.notes[NOTES]
        assert (header.source, header.quality) == ("augmented", "clean")
        assert notes["seed"] in known
        assert EpisodeReader(shown / notes["episode"]).header.seed == notes["seed"]
        (segment,) = notes["segments"]
        assert (segment["object"], segment["held"], segment["ends"]) == ("cube", "", "end")
        old, new = TableWorld(), TableWorld()
        old.reset(seed=notes["seed"])
        new.reset(seed=header.seed)
        moved = np.array(segment["T_new_old"]) @ old.cube
        np.testing.assert_allclose(moved[:3, 3], new.cube[:3, 3], atol=1e-4)
        assert notes["recipe"]["guide"] == "coverage"
        seeds.add(header.seed)
    assert len(seeds) == 3
    assert not seeds & known


def test_the_summary_counts_and_coverage_improves(augmented):
    summary = json.loads((augmented / "summary.json").read_text())
    last = EpisodeReader(folder.finished(augmented)[-1]).header.attempt
    assert (summary["episodes"], summary["attempts"]) == (3, last + 1)
    assert summary["success_rate"] == pytest.approx(3 / (last + 1))
    assert summary["after"]["mean_m"] < summary["before"]["mean_m"]
    assert summary["after"]["worst_m"] < summary["before"]["worst_m"]


def test_neither_workers_nor_interruptions_change_the_result(augmented, shown, tmp_path):
    augment(config(shown, tmp_path / "two", workers=2), world)
    assert content(tmp_path / "two") == content(augmented)
    augment(config(shown, tmp_path / "resumed", count=1), world)
    (tmp_path / "resumed/.attempts").mkdir()
    (tmp_path / "resumed/.attempts/attempt-000001.mcap.part").write_bytes(b"half")
    augment(config(shown, tmp_path / "resumed"), world)
    assert content(tmp_path / "resumed") == content(augmented)
    assert not (tmp_path / "resumed/.attempts").exists()


def test_a_full_folder_is_left_as_it_is(augmented, shown):
    before = content(augmented)
    augment(config(shown, augmented), partial(world, slippery=True))
    assert content(augmented) == before


def test_other_choices_work_too(shown, tmp_path):
    changes = {"guide": "uniform", "select": "random", "segments": "automatic", "noise": 0.1, "keep": "all", "count": 4}
    summary = augment(config(shown, tmp_path, **changes), world)
    headers = [EpisodeReader(path).header for path in folder.finished(tmp_path)]
    assert [header.seed for header in headers] == [1000, 1001, 1002, 1003]
    assert summary.attempts == 4
    episode = EpisodeReader(folder.finished(tmp_path)[0]).read()
    asked, sent = (episode.channels[f"/action/{stage}"].values for stage in ("device", "commanded"))
    assert 0.05 < np.std(sent[:, :6] - asked[:, :6]) < 0.2
    np.testing.assert_array_equal(sent[:, 6], asked[:, 6])


def test_nothing_but_failures_ends(shown, tmp_path):
    with pytest.raises(EpisodeError, match=r"The last 50 attempts all failed\. Look at some with keep=all"):
        augment(config(shown, tmp_path), partial(world, slippery=True, horizon=3))
    assert not any(tmp_path.iterdir())


def test_a_folder_of_something_else_is_refused(shown, augmented, tmp_path):
    record_demonstrations(tmp_path, 1)
    with pytest.raises(EpisodeError, match=r"was not made by augmentation \(source expert\).*another with out="):
        augment(config(shown, tmp_path), world)
    with pytest.raises(EpisodeError, match=r"made otherwise: seed was 1000, now 7; guide was coverage, now uniform"):
        augment(config(shown, augmented, seed=7, guide="uniform", count=9), world)
    record_demonstrations(tmp_path, 1, first=1)
    with pytest.raises(EpisodeError, match=r"was made otherwise: sources was .*, now "):
        augment(config(tmp_path, augmented, count=9), world)


def test_two_do_not_share_a_folder(shown, tmp_path):
    with folder.locked(tmp_path), pytest.raises(EpisodeError, match="is writing to"):
        augment(config(shown, tmp_path), world)


def test_wrong_settings_are_refused_in_a_line(tmp_path, capsys):
    with pytest.raises(ConfigError, match="count is 0, expected at least 1"):
        main(["count=0"])
    with pytest.raises(ConfigError, match=r"speed_m is 0\.0, expected more than 0"):
        main(["speed_m=0"])
    with pytest.raises(ConfigError, match=r"noise is 1\.5, expected 0 to 1"):
        main(["noise=1.5"])
    with pytest.raises(ConfigError, match=r"with env\.absolute actions are poses: set noise=0"):
        main(["noise=0.1", "env.absolute=true"])
    with pytest.raises(UnknownNameError, match=r"Unknown choice of guide 'covrage'\. Did you mean 'coverage'"):
        main(["guide=covrage"])
    with pytest.raises(ConfigError, match="new ones go into another folder"):
        main([f"episodes={tmp_path}", f"out={tmp_path}"])
    assert cli.main(["episodes", "augment", "env=wipe", f"out={tmp_path / 'a'}"]) == 2
    assert "Nobody has declared the subtasks of wipe" in capsys.readouterr().err


def test_noise_is_drawn_from_the_seed_and_stays_inside_the_range():
    action = np.array([0.9, -0.9, 0.0, 0.0, 0.0, 0.0, 1.0], np.float32)
    one, twin, other = disturbance(0.3, 1), disturbance(0.3, 1), disturbance(0.3, 2)
    sent = [one(action) for _ in range(50)]
    np.testing.assert_array_equal(sent, [twin(action) for _ in range(50)])
    assert not np.array_equal(sent[0], other(action))
    assert np.abs(sent).max() <= 1.0
    assert disturbance(0.0, 1) is None


AUGMENTER = """
import sys
from functools import partial
from pathlib import Path
from robot import cli
from robot.sim.augmentation.augment import augment
from tests.robot.sim.augmentation.fakes import config, world

def entry(arguments):
    augment(config(Path(sys.argv[1]), Path(sys.argv[2]), count=1000, workers=2), partial(world, step_s=0.005))
    return 0

cli._run = lambda name, arguments: entry(arguments)
sys.exit(cli.main(["episodes", "augment"]))
"""


@pytest.mark.slow
def test_ctrl_c_ends_workers_and_leaves_no_half_file(shown, tmp_path):
    out = tmp_path / "new"
    process = subprocess.Popen(
        [sys.executable, "-c", AUGMENTER, str(shown), str(out)],
        cwd=Path(__file__).parents[4],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 100
    while len(folder.finished(out)) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert {path.name for path in out.iterdir()} == {path.name for path in folder.finished(out)}
    held = len(folder.finished(out))
    augment(config(shown, out, count=held + 1), world)
    assert len(folder.finished(out)) == held + 1


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("lift", 0.9), ("nut_assembly_square", 0.8)])
def test_ten_demonstrations_make_more_which_a_fresh_replay_repeats(tmp_path, task, least, capsys):
    """The verbs as a user types them, and the share of attempts that succeed."""
    from robot import sim
    from robot.config import load
    from robot.episodes.record import RecordConfig
    from robot.sim.config import ENV_SCHEMAS

    old, new = tmp_path / "old", tmp_path / "new"
    assert cli.main(["record", f"env={task}", "quality=clean", "episodes=10", f"out={old}"]) == 0
    assert cli.main(["episodes", "augment", f"env={task}", f"episodes={old}", f"out={new}", "count=20"]) == 0
    assert "20 episodes" in capsys.readouterr().out
    assert json.loads((new / "summary.json").read_text())["success_rate"] >= least
    environment = sim.make(load("record", RecordConfig, [f"env={task}"], {"env": ENV_SCHEMAS}).env)
    for path in folder.finished(new)[:5]:
        success, off = replayed(environment, path)
        assert success
        assert off < 1e-4
