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

from robot.episodes import build, folder
from robot.episodes.collecting import Demonstration
from robot.episodes.dataset import Dataset
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.record import RecordConfig, main, record
from robot.errors import ConfigError, EpisodeError, UnknownNameError
from robot.loop import rollout
from robot.sim import make
from robot.sim.config import EnvConfig
from tests.robot.episodes.fakes import (
    STATE,
    BrokenPusher,
    DiskFiller,
    KilledPusher,
    PointPusher,
    PointWorld,
    point_specs,
    seeded_noise,
)
from tests.robot.episodes.test_log import write_episode


def demonstration(policy=PointPusher, **world) -> Demonstration:
    environment = PointWorld(**world)
    return Demonstration(environment, policy(environment.specs), seeded_noise)


def config(out: Path, **changes) -> RecordConfig:
    values = {"source": "expert", "quality": "noisy", "episodes": 5, "seed": 0, "workers": 1, "keep": "success"}
    return RecordConfig(**{**values, "codec": "jpeg", "out": str(out), **changes})


def content(out: Path) -> list[tuple]:
    """What the files of a folder say, but for times."""
    found = []
    for path in folder.finished(out):
        episode = EpisodeReader(path).read()
        values = {topic: channel.values.tolist() for topic, channel in episode.channels.items()}
        found.append((path.name, episode.header.attempt, episode.header.seed, episode.result, values))
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "episodes"
    record(config(out), demonstration)
    return out


def outcomes(attempts: int) -> list[bool]:
    """Whether each attempt succeeds, by running them here."""
    world = PointWorld()
    noise = [seeded_noise(seed) for seed in range(attempts)]
    return [rollout(world, PointPusher(world.specs), seed, noise[seed]).success_final for seed in range(attempts)]


def test_only_successes_are_kept_in_the_order_of_their_seeds(recorded):
    expected = [number for number, success in enumerate(outcomes(30)) if success][:5]
    assert [item[1] for item in content(recorded)] == expected
    assert expected != list(range(5)), "this test needs a failure among the first attempts"
    assert [item[0] for item in content(recorded)] == [f"episode-{i:06d}.mcap" for i in range(5)]
    assert {path.name for path in recorded.iterdir()} == {item[0] for item in content(recorded)} | {"summary.json"}


def test_the_summary_counts(recorded):
    summary = json.loads((recorded / "summary.json").read_text())
    last = content(recorded)[-1][1]
    assert summary["episodes"] == 5
    assert summary["attempts"] == last + 1
    assert summary["success_rate"] == pytest.approx(5 / (last + 1))
    assert 0 < summary["wall_s"] < 60


def test_an_episode_is_what_the_loop_does(recorded):
    episode = EpisodeReader(folder.finished(recorded)[0]).read()
    steps, world, seed = [], PointWorld(), episode.header.seed
    rollout(world, PointPusher(world.specs), seed, seeded_noise(seed), steps.append)
    values = {topic: channel.values for topic, channel in episode.channels.items()}
    np.testing.assert_array_equal(values["/observation/state"], [step.observation[STATE] for step in steps])
    np.testing.assert_array_equal(values["/action/device"], [step.device for step in steps])
    np.testing.assert_array_equal(values["/action/commanded"], [step.commanded for step in steps])
    assert not np.array_equal(values["/action/device"], values["/action/commanded"])


def test_neither_workers_nor_interruptions_change_the_result(recorded, tmp_path):
    record(config(tmp_path / "two", workers=2), demonstration)
    assert content(tmp_path / "two") == content(recorded)
    record(config(tmp_path / "resumed", episodes=2), demonstration)
    record(config(tmp_path / "resumed", episodes=5, workers=2), demonstration)
    assert content(tmp_path / "resumed") == content(recorded)
    one, two = (json.loads((out / "summary.json").read_text()) for out in (recorded, tmp_path / "resumed"))
    assert one["attempts"] == two["attempts"]


def test_keep_all_keeps_failures_too(tmp_path):
    summary = record(config(tmp_path, keep="all", episodes=8), demonstration)
    assert [item[3].success_final for item in content(tmp_path)] == outcomes(8)
    assert summary.success_rate == pytest.approx(np.mean(outcomes(8)))


def test_qualities_may_share_a_folder_and_each_episode_says_its_own(tmp_path, recorded, capsys):
    record(config(tmp_path, episodes=2), demonstration)
    assert "quality" not in capsys.readouterr().err
    record(config(tmp_path, episodes=5, quality="clean"), demonstration)
    assert "holds 2 of quality noisy; adding clean ones" in capsys.readouterr().err
    headers = [EpisodeReader(path).header for path in folder.finished(tmp_path)]
    assert [header.quality for header in headers] == ["noisy"] * 2 + ["clean"] * 3
    assert [header.seed for header in headers] == [item[2] for item in content(recorded)]


def test_a_full_folder_needs_no_worker(recorded):
    before = content(recorded)
    record(config(recorded), partial(demonstration, policy=BrokenPusher))
    assert content(recorded) == before


def test_unfinished_attempts_are_removed_and_what_can_be_recovered_stays(tmp_path, capsys):
    (tmp_path / ".attempts").mkdir()
    (tmp_path / ".attempts/attempt-000003.mcap.part").write_bytes(b"half")
    (tmp_path / "episode-000004.mcap.part").write_bytes(b"half")
    record(config(tmp_path, episodes=1), demonstration)
    said = capsys.readouterr().err
    assert "Removing 1 unfinished attempt(s)" in said
    assert "episode-000004.mcap.part was interrupted and stays. Make an episode of it with `armature episodes" in said
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"episode-000004.mcap.part", "episode-000005.mcap", "summary.json"}


def test_discarded_episodes_keep_their_numbers_and_count_as_attempts(tmp_path, recorded):
    record(config(tmp_path, episodes=3), demonstration)
    aside = tmp_path / folder.DISCARDED
    aside.mkdir()
    for number in (1, 2):
        folder.episode_path(tmp_path, number).rename(folder.episode_path(aside, number))
    summary = record(config(tmp_path, episodes=3), demonstration)
    numbers = [folder.episode_number(path) for path in folder.finished(tmp_path)]
    assert numbers == [0, 3, 4]
    assert [item[1:] for item in content(tmp_path)] == [content(recorded)[at][1:] for at in (0, 3, 4)]
    assert summary.attempts == content(recorded)[-1][1] + 1
    assert summary.success_rate == pytest.approx(5 / summary.attempts)


def test_a_folder_of_something_else_is_refused(tmp_path):
    write_episode(tmp_path / "episode-000000.mcap", specs=point_specs(robot="other"), seed=0, attempt=0)
    with pytest.raises(EpisodeError, match=r"This recording does not fit .*episode-000000\.mcap: robot is point, expe"):
        record(config(tmp_path), demonstration)
    with pytest.raises(EpisodeError, match=r"recording with seed=0, not 4\. Go on with that seed"):
        record(config(tmp_path, seed=4), demonstration)
    (tmp_path / "episode-000000.mcap").write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(EpisodeError, match=r"episode-000000\.mcap was cut short"):
        record(config(tmp_path), demonstration)


def test_a_worker_that_dies_stops_the_recording_and_says_so(tmp_path):
    with pytest.raises(EpisodeError, match=r"Attempt \d+ ended with its process \(signal SIGKILL\).*run the same"):
        record(config(tmp_path, workers=2, episodes=50), partial(demonstration, policy=KilledPusher))
    kept = folder.finished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in kept}
    for path in kept:
        assert EpisodeReader(path).read().result.success_final


def test_a_defect_of_the_demonstrator_is_shown(tmp_path):
    with pytest.raises(EpisodeError, match=r"(?s)Attempt 0 failed: .*ZeroDivisionError: a defect in the demonstrator"):
        record(config(tmp_path), partial(demonstration, policy=BrokenPusher))
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_no_half_file(tmp_path):
    with pytest.raises(EpisodeError, match=r"Attempt \d+ failed: .*mcap\.part cannot be written: File too large"):
        record(config(tmp_path), partial(demonstration, policy=DiskFiller))
    assert not any(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(EpisodeError, match="out cannot be made a folder of episodes: File exists"):
        record(config(tmp_path / "out"), demonstration)


def test_nothing_but_failures_ends(tmp_path):
    with pytest.raises(EpisodeError, match="The last 50 attempts all failed"):
        record(config(tmp_path), partial(demonstration, hard=0.0))
    assert not any(tmp_path.iterdir())


def test_two_recorders_do_not_share_a_folder(tmp_path):
    with folder.locked(tmp_path), pytest.raises(EpisodeError, match="Another `armature record` is writing"):
        record(config(tmp_path), demonstration)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="workers is 0, expected at least 1"):
        main(["workers=0"])
    with pytest.raises(UnknownNameError, match=r"Unknown choice of keep 'sucess'\. Did you mean 'success'"):
        main(["keep=sucess"])
    with pytest.raises(UnknownNameError, match="Unknown source 'human'"):
        main(["source=human"])
    with pytest.raises(UnknownNameError, match=r"Unknown quality 'nosy'\. Did you mean 'noisy'.*clean.*failing"):
        main(["quality=nosy"])
    with pytest.raises(UnknownNameError, match=r"Unknown codec of pictures 'jpg'"):
        main(["codec=jpg"])
    with pytest.raises(ConfigError, match=r"quality=failing mostly fail.* keep=success drops those: add keep=all"):
        main(["quality=failing"])


RECORDER = """
import sys
from functools import partial
from pathlib import Path
from robot import cli
from robot.episodes.record import record
from tests.robot.episodes.test_record import config, demonstration

def entry(arguments):
    record(config(Path(sys.argv[1]), episodes=1000, workers=2), partial(demonstration, step_s=0.005))
    return 0

cli._run = lambda name, arguments: entry(arguments)
sys.exit(cli.main(["record"]))
"""


def start_recorder(out: Path) -> subprocess.Popen:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(out)], cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(folder.finished(out)) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def group_is_gone(group: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_ends_workers_and_leaves_no_half_file(tmp_path):
    out = tmp_path / "episodes"
    process = start_recorder(out)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert group_is_gone(process.pid)
    assert {path.name for path in out.iterdir()} == {path.name for path in folder.finished(out)}


def test_a_killed_recorder_is_resumed(tmp_path, recorded):
    out = tmp_path / "episodes"
    process = start_recorder(out)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert group_is_gone(process.pid), "workers outlived their recorder"
    held = len(folder.finished(out))
    record(config(out, episodes=held + 2), demonstration)
    assert len(folder.finished(out)) == held + 2
    both = min(5, held + 2)
    assert content(out)[:both] == content(recorded)[:both]
    assert not (out / ".attempts").exists()


@pytest.mark.slow
@pytest.mark.gl
def test_pictures_are_recorded_with_every_step(tmp_path):
    """PNG loses nothing: the pictures are those of the world that is played again."""
    cameras = ["env.cameras.names=[agentview]", "env.cameras.height=32", "env.cameras.width=40"]
    arguments = ["env=lift", "quality=clean", "episodes=1", "workers=1", "codec=png", f"out={tmp_path}", *cameras]
    assert main(arguments) == 0
    episode = EpisodeReader(folder.finished(tmp_path)[0]).read()
    env = EnvConfig(**episode.header.notes["env"])
    assert env.cameras.names == ["agentview"]
    world = make(env)
    seen, _ = world.reset(seed=episode.header.seed)
    recorded = episode.pictures["/observation/images/agentview"].pictures
    commanded = episode.channels["/action/commanded"].values
    assert len(recorded) == len(commanded) == episode.result.steps
    for picture, action in zip(recorded, commanded, strict=True):
        np.testing.assert_array_equal(picture, seen["observation.images.agentview"])
        seen, *_ = world.step(action)
    world.close()


@pytest.mark.slow
def test_lift_is_recorded_and_built(tmp_path):
    """The verbs as a user types them; equal episodes whatever the workers."""
    for name, workers in (("one", 1), ("two", 2)):
        assert main(["env=lift", "source=expert", "episodes=3", f"workers={workers}", f"out={tmp_path / name}"]) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert build.main([f"episodes={tmp_path / 'one'}", f"out={tmp_path / 'dataset'}"]) == 0
    dataset = Dataset.open(tmp_path / "dataset")
    assert dataset.columns["observation.state"].shape == (len(dataset), 18)
    assert dataset.columns["observation.environment_state"].shape == (len(dataset), 12)
    assert dataset.columns["next.terminated"].sum() == 3
    assert dataset.specs.robot == "Panda"
