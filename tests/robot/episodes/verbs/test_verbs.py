"""list, label, discard and recover, as a user types them."""

from pathlib import Path

import numpy as np
import pytest

from robot import cli
from robot.episodes import folder
from robot.episodes.episode import Event, Result
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.verbs.choosing import ranges, size
from tests.robot.episodes.fakes import point_specs
from tests.robot.episodes.test_log import FRONT_TOPIC, STATE_TOPIC, timed_header, write_episode, write_timed
from tests.robot.episodes.test_recover import interrupted_steps


@pytest.fixture
def episodes(tmp_path: Path) -> Path:
    for number in range(3):
        name = tmp_path / f"episode-{number:06d}.mcap"
        write_episode(name, steps=number + 4, quality="noisy", seed=number, attempt=number)
    return tmp_path


def run(capsys, *arguments: str, code: int = 0) -> str:
    assert cli.main(["episodes", *arguments]) == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return shown.out + shown.err


def test_list_has_a_line_for_each_and_totals(episodes, capsys):
    cli.main(["episodes", "label", f"episodes={episodes}", "numbers=[1]", "success=true"])
    (episodes / "episode-000007.mcap.part").write_bytes(b"half")
    capsys.readouterr()
    lines = run(capsys, "list", f"episodes={episodes}").splitlines()
    assert lines[0].split() == ["number", "time", "steps", "source", "quality", "success", "size", "events"]
    rows = [line.split() for line in lines[1:4]]
    assert [row[0] for row in rows] == ["000000", "000001", "000002"]
    assert [row[3] for row in rows] == ["4", "5", "6"]
    assert [row[6] for row in rows] == ["no", "yes*", "no"]
    assert {row[4] for row in rows} == {"expert"}
    text = "\n".join(lines)
    assert "3 episodes, " in text
    assert "1 succeeded (33%)" in text
    assert "task: reach the goal." in text
    assert "* 1 labelled afterwards." in text
    assert "episode-000007.mcap.part is not an MCAP file" in text


def test_list_counts_what_happened_and_what_was_dropped(tmp_path, capsys):
    write_timed(tmp_path / "episode-000000.mcap")
    with LogWriter(tmp_path / "episode-000001.mcap", timed_header(source="bridge")) as log:
        log.vector(STATE_TOPIC, 1, np.zeros(2))
        for at, count in ((2, 3), (3, 4)):
            log.event(Event(at, "dropped", data={"topic": FRONT_TOPIC, "count": count}))
        log.event(Event(4, "mode", "ARMED to DISARMED"))
        log.finish(Result(0, False, False, False, True))
    lines = run(capsys, "list", f"episodes={tmp_path}").splitlines()
    assert lines[1].endswith("1 intervention, 2 dropped")
    assert lines[2].endswith("7 dropped")
    assert lines[2].split()[3] == "-"


def test_list_goes_on_after_a_damaged_episode(episodes, capsys):
    path = episodes / "episode-000001.mcap"
    path.write_bytes(path.read_bytes()[:-40])
    text = run(capsys, "list", f"episodes={episodes}", code=1)
    assert "000002" in text
    assert "episode-000001.mcap was cut short" in text
    assert "No finished episodes." in run(capsys, "list", f"episodes={episodes.parent}")


def test_tasks_that_differ_have_a_column(tmp_path, capsys):
    for number, task in enumerate(("reach the goal", "go home")):
        specs = point_specs()
        specs = type(specs)(**{**specs.__dict__, "task": task})
        write_episode(tmp_path / f"episode-{number:06d}.mcap", specs=specs)
    lines = run(capsys, "list", f"episodes={tmp_path}").splitlines()
    assert lines[0].endswith("task")
    assert [line.endswith(task) for line, task in zip(lines[1:3], ("reach the goal", "go home"), strict=True)]


def test_label_several_and_the_reader_has_it(episodes, capsys):
    text = run(capsys, "label", f"episodes={episodes}", "numbers=[0,2]", "success=true", "note='seen again'")
    assert "000000: success no -> yes, note: seen again" in text
    results = [EpisodeReader(path).result.success_final for path in folder.finished(episodes)]
    assert results == [True, False, True]
    assert "success yes, as before" in run(capsys, "label", f"episodes={episodes}", "numbers=[0]", "note=x")
    assert "Nothing to say" in run(capsys, "label", f"episodes={episodes}", "numbers=[0]", code=2)
    assert "numbers is [], expected" in run(capsys, "label", f"episodes={episodes}", "success=true", code=2)
    missing = run(capsys, "label", f"episodes={episodes}", "numbers=[1,9]", "success=true", code=1)
    assert "has no episode 9. It has 0-2." in missing
    assert not EpisodeReader(episodes / "episode-000001.mcap").labels, "all or none"
    assert "is no folder" in run(capsys, "label", f"episodes={episodes / 'none'}", "numbers=[0]", "note=x", code=1)


def test_discard_and_bring_back(episodes, capsys):
    before = (episodes / "episode-000001.mcap").read_bytes()
    assert "Put aside: 0-1" in run(capsys, "discard", f"episodes={episodes}", "numbers=[1,0]")
    assert [folder.episode_number(path) for path in folder.finished(episodes)] == [2]
    assert folder.next_number(episodes) == 3
    assert "Discarded: 0-1" in run(capsys, "list", f"episodes={episodes}")
    assert "has no episode 1. It has 2." in run(capsys, "discard", f"episodes={episodes}", "numbers=[1]", code=1)
    assert "Brought back: 1" in run(capsys, "discard", f"episodes={episodes}", "numbers=[1]", "undo=true")
    assert (episodes / "episode-000001.mcap").read_bytes() == before
    again = run(capsys, "discard", f"episodes={episodes}", "numbers=[1]", "undo=true", code=1)
    assert "has no discarded episode 1. It has 0." in again
    write_episode(episodes / "episode-000000.mcap")
    taken = run(capsys, "discard", f"episodes={episodes}", "numbers=[0]", "undo=true", code=1)
    assert "is there already" in taken
    assert "Nothing was moved" in taken


def test_numbers_of_discarded_episodes_are_not_used_again(episodes, capsys):
    run(capsys, "discard", f"episodes={episodes}", "numbers=[2]")
    assert folder.next_number(episodes) == 3


def test_recover_makes_episodes_or_says_why_not(tmp_path, capsys):
    assert "holds nothing that was interrupted" in run(capsys, "recover", f"episodes={tmp_path}")
    interrupted_steps(tmp_path)
    (tmp_path / "episode-000004.mcap.part").write_bytes(b"half")
    text = run(capsys, "recover", f"episodes={tmp_path}", code=1)
    assert "episode-000000.mcap: 12 steps, " in text
    assert "success no. The recorder was interrupted. 0 bytes at the end" in text
    assert "episode-000004.mcap.part is not an MCAP file" in text
    assert {path.name for path in tmp_path.iterdir()} == {"episode-000000.mcap", "episode-000004.mcap.part"}
    assert "is deleted" in run(capsys, "recover", f"episodes={tmp_path}", "delete=true")
    assert [path.name for path in tmp_path.iterdir()] == ["episode-000000.mcap"]


def test_recover_takes_episodes_that_were_cut_short(episodes, capsys):
    path = episodes / "episode-000001.mcap"
    path.write_bytes(path.read_bytes()[:-20])
    assert "was cut short" in run(capsys, "list", f"episodes={episodes}", code=1)
    assert "episode-000001.mcap: 5 steps" in run(capsys, "recover", f"episodes={episodes}")
    assert EpisodeReader(path).result.steps == 5
    path.write_bytes(path.read_bytes()[:40])
    assert "holds no" in run(capsys, "recover", f"episodes={episodes}", code=1)
    assert path.with_name(f"{path.name}.part").stat().st_size == 40


def test_recover_leaves_a_running_recorder_alone(tmp_path, capsys):
    interrupted_steps(tmp_path)
    with folder.locked(tmp_path):
        assert "Another `armature record` is writing" in run(capsys, "recover", f"episodes={tmp_path}", code=1)
    assert folder.interrupted(tmp_path)


def test_words():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert ranges([]) == "none"
    assert [size(count) for count in (3, 4_321, 5_000_000, 6e9)] == ["3 B", "4.3 kB", "5.0 MB", "6.0 GB"]
