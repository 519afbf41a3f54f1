import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robot.contract import EnvironmentSpecs
from robot.episodes.build import BuildConfig, build, main
from robot.episodes.dataset import Dataset
from robot.episodes.episode import Header, Result, topic_of
from robot.episodes.formats import encoding_pool
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import Written
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.errors import ConfigError, DatasetError, EpisodeError, UnknownNameError
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import ENVIRONMENT_STATE, STATE, point_specs
from tests.robot.episodes.test_log import write_episode

FRONT = "observation.images.front"
ROOT = Path(__file__).parents[3]
MS = 1_000_000


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def origins(root: Path) -> list[dict]:
    return [json.loads(row["origin"]) for row in pq.read_table(root / "meta/armature/episodes.parquet").to_pylist()]


@pytest.fixture
def episodes(tmp_path) -> Path:
    for number, steps in enumerate((4, 2, 7)):
        write_episode(tmp_path / "episodes" / f"episode-{number:06d}.mcap", steps=steps, seed=number, attempt=number)
    return tmp_path / "episodes"


def run(episodes: Path, **changes) -> Written:
    values = {"episodes": str(episodes), "out": str(episodes.parent / "dataset"), "workers": 1}
    return build(BuildConfig(**{**values, **changes}))


def seeing_specs(task: str = "see") -> EnvironmentSpecs:
    observation = {STATE: ArraySpec(STATE, (2,), names=("x", "v")), FRONT: ArraySpec(FRONT, (48, 64, 3), "uint8")}
    return EnvironmentSpecs(observation, ArraySpec("action", (1,)), "ee_delta", 0.1, "point", task)


def picture(number: int) -> np.ndarray:
    """A picture that says its number: a bright column at `number`, the rest dark."""
    frame = np.full((48, 64, 3), 40, np.uint8)
    frame[:, 2 * (number % 32) : 2 * (number % 32) + 2] = 230
    return frame


def number_of(frame: np.ndarray) -> int:
    return int(frame.mean(axis=(0, 2)).reshape(32, 2).mean(axis=1).argmax())


def write_timed(
    path: Path, seconds: float = 1.5, dropped: tuple[int, ...] = (), success: bool = True, stage="device", **specs
) -> None:
    """State at 100 Hz, pictures and commands at 10 Hz, the latter 3 ms after the former; values are numbers."""
    cameras = {FRONT: {"intrinsics": [[50, 0, 32], [0, 50, 24], [0, 0, 1]], "latency_s": 0.02}}
    header = Header(seeing_specs(**specs), "leader", "time", cameras=cameras, notes={"arm": "fake"})
    with LogWriter(path, header) as log:
        for number in range(round(seconds * 100)):
            t_ns = 5_000 * MS + number * 10 * MS
            log.vector(topic_of(STATE), t_ns, np.array([number, 0], np.float32))
            if number % 10 == 0:
                if number // 10 not in dropped:
                    log.picture(topic_of(FRONT), t_ns, picture(number // 10))
                log.vector(f"/action/{stage}", t_ns + 3 * MS, np.array([number // 10], np.float32))
        log.finish(Result(0, success, success, success, not success))


def test_rows_are_the_steps_of_the_episodes(episodes):
    done = run(episodes)
    dataset = Dataset.open(episodes.parent / "dataset")
    assert (done.episodes, done.frames, done.fps) == (3, 13, 20)
    assert dataset.episode_lengths.tolist() == [4, 2, 7]
    assert dataset.specs == point_specs()
    for number, start in enumerate(dataset.episode_starts):
        episode = EpisodeReader(episodes / f"episode-{number:06d}.mcap").read()
        rows = slice(start, start + dataset.episode_lengths[number])
        for key in (STATE, ENVIRONMENT_STATE):
            np.testing.assert_array_equal(dataset.columns[key][rows], episode.channels[topic_of(key)].values)
        np.testing.assert_array_equal(dataset.columns["action"][rows], episode.channels["/action/device"].values)
        for column, name in enumerate(("reward", "success", "terminated", "truncated")):
            expected = episode.channels["/step"].values[:, column].astype(np.float32)
            np.testing.assert_array_equal(dataset.columns[f"next.{name}"][rows], expected)


def test_the_label_can_be_what_was_sent(episodes):
    run(episodes)
    device = Dataset.open(episodes.parent / "dataset")
    run(episodes, label="commanded")
    commanded = Dataset.open(episodes.parent / "dataset")
    expected = EpisodeReader(episodes / "episode-000000.mcap").read().channels["/action/commanded"].values
    np.testing.assert_array_equal(commanded.columns["action"][:4], expected)
    assert device.identity != commanded.identity
    with pytest.raises(EpisodeError, match=r"episode-000000\.mcap has no action 'applied'; it has device, commanded\."):
        run(episodes, label="applied")
    with pytest.raises(UnknownNameError, match="Unknown label 'intended'"):
        run(episodes, label="intended")


def test_actions_are_what_was_commanded_where_no_device_asked(tmp_path, capsys):
    write_timed(tmp_path / "a/episode-000000.mcap")
    write_timed(tmp_path / "a/episode-000001.mcap", stage="commanded")
    with pytest.raises(EpisodeError, match=r"episode-000000\.mcap has no action 'commanded'"):
        run(tmp_path / "a")
    assert "Not every episode says what a device asked for" in capsys.readouterr().err
    (tmp_path / "a/episode-000000.mcap").unlink()
    run(tmp_path / "a")
    armature = json.loads((tmp_path / "dataset/meta/armature.json").read_text())
    assert armature["build"]["label"] == "commanded"
    assert Dataset.open(tmp_path / "dataset").columns["action"][:3].ravel().tolist() == [0, 1, 2]


def test_equal_episodes_give_equal_bytes(episodes):
    run(episodes)
    run(episodes, out=str(episodes.parent / "again"))
    assert files(episodes.parent / "dataset") == files(episodes.parent / "again")


def test_the_dataset_says_where_it_comes_from(episodes):
    run(episodes)
    armature = json.loads((episodes.parent / "dataset/meta/armature.json").read_text())
    assert armature["build"]["label"] == "device"
    origin = origins(episodes.parent / "dataset")[2]
    assert origin.pop("skew_s").keys() == {STATE, ENVIRONMENT_STATE, "action"}
    assert origin == {
        "file": "episode-000002.mcap", "seed": 2, "attempt": 2, "source": "expert", "quality": "", "clock": "steps",
        "label": "device", "success": False,
    }  # fmt: skip


def test_the_verb_prints_what_it_wrote_and_what_it_did_not_use(episodes, capsys):
    (episodes / "episode-000003.mcap.part").write_bytes(b"half")
    (episodes / "notes.mcap").write_bytes(b"other")
    out = episodes.parent / "dataset"
    assert main([f"episodes={episodes}", f"out={out}", "workers=1"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{out}: 3 episodes, 13 frames at 20 Hz, ")
    assert "episode-000003.mcap.part was interrupted and is not used" in shown.err
    assert "notes.mcap is not named like an episode" in shown.err
    assert "2 of the episodes ended without success" in shown.err
    assert main([f"episodes={episodes}", f"out={out}", "workers=1", "max_skew_s.pictures=0.2", "keep=success"]) == 0
    shown = capsys.readouterr()
    assert "1 episodes, 2 frames" in shown.out
    assert shown.err.count("ended without success and is left out") == 2


def test_several_folders_make_one_dataset_of_several_tasks(episodes):
    other = episodes.parent / "other"
    write_episode(other / "episode-000000.mcap", steps=3, specs=replace(point_specs(), task="push the goal"))
    assert main([f"episodes=[{episodes},{other}]", f"out={episodes.parent / 'dataset'}", "workers=1"]) == 0
    source = LeRobotSource(episodes.parent / "dataset")
    assert [source.read(number).task for number in range(4)] == ["reach the goal"] * 3 + ["push the goal"]
    names = [origin["file"] for origin in origins(episodes.parent / "dataset")]
    assert names[2:] == ["episodes/episode-000002.mcap", "other/episode-000000.mcap"]


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(EpisodeError, match=r"holds no finished episodes\. Record some"):
        run(tmp_path / "nothing")


def test_a_truncated_episode_is_named_and_the_old_dataset_stays(episodes):
    run(episodes)
    before, path = files(episodes.parent / "dataset"), episodes / "episode-000001.mcap"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EpisodeError, match=r"episode-000001\.mcap was cut short"):
        run(episodes)
    assert files(episodes.parent / "dataset") == before


def test_an_episode_damaged_within_is_named_and_the_old_dataset_stays(episodes):
    run(episodes)
    before, path = files(episodes.parent / "dataset"), episodes / "episode-000001.mcap"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)
    with pytest.raises(EpisodeError, match=r"episode-000001\.mcap"):
        run(episodes)
    assert files(episodes.parent / "dataset") == before


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (point_specs(robot="other"), "robot is other, expected point"),
        (point_specs(names=("x", "w")), "observation.state: names is"),
        (point_specs(dt_s=0.1), "dt_s is 0.1, expected 0.05"),
    ],
)
def test_mixed_episodes_are_refused_by_name(episodes, specs, said):
    write_episode(episodes / "episode-000003.mcap", specs=specs)
    with pytest.raises(EpisodeError, match=rf"episode-000003\.mcap does not fit .*episode-000000\.mcap: {said}"):
        run(episodes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": "some"},
        {"codec": "gif"},
        {"workers": -1},
        {"max_skew_s": {"images": 1.0}},
        {"align": "mean"},
        {"gop": 0},
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(tmp_path, wrong):
    with pytest.raises((ConfigError, DatasetError)):
        BuildConfig(episodes="nowhere", out=str(tmp_path), **wrong)


def test_short_episodes_are_left_out_with_a_line(episodes, capsys):
    assert run(episodes, min_rows=4).episodes == 2
    assert "episode-000001.mcap has 2 rows, fewer than min_rows=4, and is left out." in capsys.readouterr().err
    with pytest.raises(EpisodeError, match="None of the 3 episodes can be used"):
        run(episodes, min_rows=40)


def test_logs_in_time_become_rows_with_the_pictures_that_belong_to_them(tmp_path):
    write_timed(tmp_path / "episodes/episode-000000.mcap")
    run(tmp_path / "episodes", skews=True, channels=["/action/device"])
    source = LeRobotSource(tmp_path / "dataset")
    rows = source.read(0)
    # From 5.003 s, the first command, to 6.4 s, the last picture.
    assert len(rows) == 14
    assert [number_of(frame) for frame in rows.pictures[FRONT]] == list(range(14))
    assert rows.columns["action"][:, 0].tolist() == list(range(14))
    assert rows.columns[STATE][:, 0].tolist() == [10.0 * row for row in range(14)]
    np.testing.assert_allclose(rows.columns[f"skew.{FRONT}"], -0.003, atol=1e-7)
    np.testing.assert_array_equal(rows.columns["action.device"], rows.columns["action"])
    assert rows.columns["next.success"].tolist() == [False] * 13 + [True]
    origin = origins(tmp_path / "dataset")[0]
    assert origin["skew_s"][FRONT]["p99"] == pytest.approx(0.003)
    assert (origin["cameras"][FRONT]["latency_s"], origin["notes"]) == (0.02, {"arm": "fake"})


def test_a_dropped_picture_is_refused_kept_or_cut_and_shifts_nothing(tmp_path, capsys):
    write_timed(tmp_path / "episodes/episode-000000.mcap")
    write_timed(tmp_path / "episodes/episode-000001.mcap", dropped=(6, 7))
    assert run(tmp_path / "episodes").episodes == 1
    said = (
        "episode-000001.mcap is left out: observation.images.front is 0.203 s off its row at 0.70 s, more than 0.150 s"
    )
    assert said in capsys.readouterr().err
    run(tmp_path / "episodes", gaps="keep")
    frames = [number_of(frame) for frame in LeRobotSource(tmp_path / "dataset").read(1).pictures[FRONT]]
    assert frames == [0, 1, 2, 3, 4, 5, 5, 5, 8, 9, 10, 11, 12, 13]
    done = run(tmp_path / "episodes", gaps="split")
    assert "episode-000001.mcap is cut at its gaps into 2 episodes." in capsys.readouterr().err
    assert (done.episodes, done.kept) == (3, 0)
    source = LeRobotSource(tmp_path / "dataset")
    assert [number_of(frame) for frame in source.read(1).pictures[FRONT]] == [0, 1, 2, 3, 4, 5, 5]
    assert source.read(2).columns["action"][:, 0].tolist() == [8, 9, 10, 11, 12, 13]
    assert [origin.get("part") for origin in origins(tmp_path / "dataset")] == [None, [0, 2], [1, 2]]


def test_a_second_build_reads_and_encodes_only_what_is_new(tmp_path, monkeypatch):
    for number in range(3):
        write_timed(tmp_path / f"episodes/episode-{number:06d}.mcap", seconds=1.0 + 0.2 * number, dropped=(3,) * number)
    run(tmp_path / "episodes", gaps="split")
    write_timed(tmp_path / "episodes/episode-000003.mcap")
    opened = []
    original = EpisodeReader.read
    monkeypatch.setattr(EpisodeReader, "read", lambda self: opened.append(self._path.name) or original(self))
    done = run(tmp_path / "episodes", gaps="split")
    assert set(opened) == {"episode-000003.mcap"}
    assert (done.episodes, done.kept) == (4, 3)
    run(tmp_path / "episodes", gaps="split", out=str(tmp_path / "alone"))
    assert files(tmp_path / "dataset") == files(tmp_path / "alone")


def test_a_changed_or_removed_episode_is_noticed(tmp_path):
    for number in range(3):
        write_timed(tmp_path / f"episodes/episode-{number:06d}.mcap", seconds=1.0 + 0.2 * number)
    run(tmp_path / "episodes")
    (tmp_path / "episodes/episode-000000.mcap").unlink()
    (tmp_path / "episodes/episode-000001.mcap").unlink()
    write_timed(tmp_path / "episodes/episode-000001.mcap", success=False)
    done = run(tmp_path / "episodes")
    assert (done.episodes, done.kept) == (2, 1)
    run(tmp_path / "episodes", out=str(tmp_path / "alone"))
    assert files(tmp_path / "dataset") == files(tmp_path / "alone")


def test_worker_processes_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding_pool, "WORTH_S", 0)
    for number in range(3):
        write_timed(tmp_path / f"episodes/episode-{number:06d}.mcap")
    run(tmp_path / "episodes")
    run(tmp_path / "episodes", out=str(tmp_path / "again"), workers=2)
    assert files(tmp_path / "dataset") == files(tmp_path / "again")


def test_ctrl_c_leaves_the_old_dataset_and_one_line(tmp_path):
    for number in range(4):
        write_timed(tmp_path / f"episodes/episode-{number:06d}.mcap", seconds=60)
    command = [sys.executable, "-m", "robot.cli", "build", f"episodes={tmp_path / 'episodes'}"]
    command += [f"out={tmp_path / 'dataset'}", "workers=2"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".dataset.part/.encoding")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert sorted(os.listdir(tmp_path)) == ["episodes"]
