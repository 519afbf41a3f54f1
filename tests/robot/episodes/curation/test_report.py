import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from robot.bridge.schema import STATUS
from robot.cli import main as cli
from robot.episodes import bridge_log, labelling
from robot.episodes.curation import plots, report, sources
from robot.episodes.curation.assessment import assess
from robot.episodes.curation.demonstrations import of_dataset
from robot.episodes.episode import Channel, Episode, Event, Header, Result
from robot.episodes.folder import episode_path
from robot.episodes.formats import lerobot_writer
from robot.episodes.log import EpisodeWriter, LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.rows import Held, Rows, Schema
from robot.errors import EpisodeError
from robot.loop import Step
from robot.specs import ArraySpec
from tests.robot.episodes.curation.worlds import SPECS, STATE, dataset, drive

KINDS = [{}] * 7 + [{"idle": 30}, {"frames": 12}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Seven good episodes, one that waits, one that fails."""
    path, rng = tmp_path_factory.mktemp("episodes"), np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        columns = drive(rng, **kind)
        with EpisodeWriter(episode_path(path, number), Header(SPECS, "expert")) as writer:
            for row, action in enumerate(columns["action"]):
                is_last = row == len(columns["action"]) - 1
                success = bool(columns["next.success"][row])
                observation = {STATE: columns[STATE][row]}
                sent = np.clip(action * 0.5, -1, 1)
                writer.write(Step(row, row + 1, observation, action, sent, 0.0, success, is_last, success))
            writer.finish()
    return path


def test_the_verb_says_which_and_why(folder, tmp_path, capsys):
    assert cli(["episodes", "quality", f"episodes={folder}", f"out={tmp_path}/report", f"json={tmp_path}/q.json"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].split()[:4] == ["episode", "frames", "ok", "score"]
    assert [line.split()[0] for line in lines[1:10]] == [str(number) for number in range(9)]
    assert lines[10] == ""
    assert "  8: failed" in text
    assert "stands still" in next(line for line in lines if line.startswith("  7: "))
    assert "9 episodes" in text
    assert "Starts vary in" in text
    assert "drops" not in lines[0]
    for path in (tmp_path / "q.json", tmp_path / "report/quality.json"):
        data = json.loads(path.read_text())
        assert data["ranking"][0] == "8"
        assert data["episodes"][8]["success"] == 0
        assert data["totals"]["success_rate"] == pytest.approx(8 / 9)
    for name in ("distributions", "divergence", "coverage"):
        pixels = image.imread(tmp_path / f"report/{name}.png")
        assert pixels.shape[0] > 300
        assert pixels.std() > 0.02


def test_the_label_chooses_the_action(folder):
    asked, sent = (sources.of_folder(folder, label) for label in ("device", "commanded"))
    np.testing.assert_allclose(sent.actions[0], 0.5 * asked.actions[0], rtol=1e-6)
    assert asked.names[:2] == ("0", "1")
    np.testing.assert_array_equal(asked.success, [1] * 8 + [0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either"),
        (["episodes=a", "dataset=b"], "Give either"),
        (["episodes=/nowhere"], "no finished episodes"),
        (["dataset=/nowhere"], "/nowhere"),
        (["episodes=a", "label=devise"], "device"),
        (["episodes=a", "k=0"], "at least 1"),
        (["episodes=a", "duplicate=-1"], "not negative"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert cli(["episodes", "quality", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_action_that_was_not_recorded_is_said(folder, capsys):
    assert cli(["episodes", "quality", f"episodes={folder}", "label=applied"]) == 1
    assert "no /action/applied" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli(["episodes", "quality", f"episodes={folder}", f"out={tmp_path}/file/report"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_few_good_episodes_have_nothing_to_look_at():
    found = assess(of_dataset(dataset(2)))
    assert "Nothing stands out" in report.ranking(found, 10)
    assert "Action divergence" in report.totals(found)
    assert "nothing to be compared with" in report.totals(assess(of_dataset(dataset(1))))


@pytest.mark.parametrize("count", [1, 3])
def test_plots_of_little(tmp_path, count):
    assert len(plots.save_all(assess(of_dataset(dataset(count, frames=3))), tmp_path, 3.5)) == 3


def test_starts_are_drawn_in_places_if_there_are():
    starts = np.array([[0.0, 1.0, 5.0, 0.0], [1.0, 2.0, 7.0, 0.0]])
    assert plots.two_dimensions(starts, ["k:a_x", "k:a_y", "k:b_x", "k:b_y"]) == (0, 1)
    assert plots.two_dimensions(starts, ["k:p", "k:q", "k:r", "k:s"]) != (3, 3)


def test_progress_by_hand():
    found = assess(of_dataset(dataset(2)))
    length = int(found.demonstrations.lengths[0])
    values = np.concatenate([np.arange(length), np.full(found.demonstrations.lengths[1], np.nan)])
    parts = plots.progress(found, values.astype(float))
    assert np.isnan(parts[1]).all()
    known = parts[0][~np.isnan(parts[0])]
    assert (known[0], known[-1]) == (0, length - 1)
    assert (np.diff(known) > 0).all()


def timed_episode(events=()) -> Episode:
    times = {"/observation/state": np.arange(100) * 10_000_000, "/action/device": np.arange(5, 95, 5) * 10_000_000}
    times["/observation/state"][52] += 5_000_000
    times["/action/device"] += 4_000_000
    spec = ArraySpec("any", (1,))
    channels = {topic: Channel(spec, t_ns, np.zeros((len(t_ns), 1))) for topic, t_ns in times.items()}
    return Episode(
        Header(SPECS, "bridge", clock="time"), Result(0, True, True, True, False), channels, {}, tuple(events)
    )


def test_jitter_and_skew_of_channels_by_hand():
    facts = sources.facts_of(timed_episode(), "device")
    assert facts["skew_ms"] == pytest.approx(4.0)
    # Intervals of 10 ms but one of 15 and one of 5: two in 99 are 5 ms off.
    assert facts["jitter_ms"] == pytest.approx(5.0)
    assert sources.age_ms(np.array([10, 20]) * 1_000_000, np.array([5, 12, 21]) * 1_000_000) == pytest.approx(1.95)
    assert math.isnan(sources.age_ms(np.array([10]), np.array([5])))


def test_events_are_counted():
    events = [
        Event(1, "dropped", data={"count": 3}),
        Event(2, "dropped"),
        Event(3, "intervention"),
        Event(4, "note", "hello"),
        Event(5, "fault", "OVERRUN"),
    ]
    facts = sources.facts_of(timed_episode(events), "device")
    assert (facts["drops"], facts["interventions"], facts["faults"]) == (4, 1, 1)
    assert math.isnan(facts["clamps"])


def test_clamps_and_refusals_are_the_growth_of_the_bridges_counters():
    assert sources.STATUS_TOPIC == bridge_log.STATUS_TOPIC
    values = np.zeros((4, len(STATUS)))
    values[:, STATUS.index("clamped")] = [100, 103, 103, 105]
    values[:, STATUS.index("rejected")] = [7, 8, 0, 1]  # the bridge was started again
    values[:, STATUS.index("stale_rows")] = [0, 0, 2, 2]
    status = Channel(ArraySpec("status", (len(STATUS),), "float64", names=STATUS), np.arange(4), values)
    episode = timed_episode()
    episode.channels[sources.STATUS_TOPIC] = status
    facts = sources.facts_of(episode, "device")
    assert (facts["clamps"], facts["refusals"]) == (5, 4)


def test_a_simulated_clock_has_no_jitter(folder):
    facts = sources.facts_of(EpisodeReader(episode_path(folder, 0)).read(), "device")
    assert math.isnan(facts["jitter_ms"])
    assert facts["drops"] == 0


def test_episodes_that_run_on_time_are_put_on_a_clock(tmp_path):
    """State at 100 Hz, actions at 20 Hz: rows at the rate of the specs, labelled afterwards as failed."""
    rng = np.random.default_rng(0)
    for number in range(6):
        with LogWriter(episode_path(tmp_path, number), Header(SPECS, "bridge", clock="time")) as log:
            for tick in range(200):
                t_ns = tick * 10_000_000
                log.vector("/observation/state", t_ns, (rng.normal(size=4) * 0.01 + tick / 200).astype(np.float32))
                if tick % 5 == 0:
                    log.vector("/action/device", t_ns + 1, rng.uniform(-1, 1, 3).astype(np.float32))
            log.finish(Result(0, True, True, True, False))
    labelling.amended(episode_path(tmp_path, 3), success=False)
    found = sources.of_folder(tmp_path, "device")
    assert set(found.lengths) <= {39, 40, 41}
    np.testing.assert_array_equal(found.success, [1, 1, 1, 0, 1, 1])
    assert found.facts["jitter_ms"].max() == pytest.approx(0)
    assert found.facts["skew_ms"].max() < 1e-3
    assert assess(found).reasons[3][0] == "failed"


def short_episode(path, specs, seed=0):
    columns = drive(np.random.default_rng(seed), frames=8)
    with EpisodeWriter(path, Header(specs, "expert")) as writer:
        for row, action in enumerate(columns["action"]):
            writer.write(Step(row, row + 1, {STATE: columns[STATE][row]}, action, action, 0.0, row == 7, False, False))
        writer.finish()


def test_tasks_may_differ_and_robots_may_not(tmp_path):
    for number, task in enumerate(["left", "left", "right"]):
        short_episode(episode_path(tmp_path, number), replace(SPECS, task=task), number)
    found = sources.of_folder(tmp_path, "device")
    assert found.tasks == ("left", "left", "right")
    assert "2 tasks, compared within each; 67%" in " ".join(report.totals(assess(found)).split())
    short_episode(episode_path(tmp_path, 3), replace(SPECS, robot="Panda"))
    with pytest.raises(EpisodeError, match="robot is Panda, expected Point"):
        sources.of_folder(tmp_path, "device")


def test_a_dataset_and_the_episodes_that_it_was_built_of_are_measured_alike(folder, tmp_path):
    assert cli(["build", f"episodes={folder}", f"out={tmp_path}/dataset", "workers=1"]) == 0
    ours, theirs = sources.of_folder(folder, "device"), sources.of_dataset_folder(tmp_path / "dataset")
    np.testing.assert_array_equal(theirs.lengths, ours.lengths)
    np.testing.assert_array_equal(theirs.success, ours.success)
    assert set(theirs.tasks) == {SPECS.task}
    for first, second in zip(ours.actions + ours.states, theirs.actions + theirs.states, strict=True):
        np.testing.assert_array_equal(first, second)


def test_success_is_known_from_the_origin_where_no_column_says_it(tmp_path):
    columns = {key: drive(np.random.default_rng(0), frames=6)[key] for key in (STATE, "action")}
    origins = [{"success": True}, {"success": False}, {}]
    source = Held(Schema(SPECS), [Rows(columns, {}, "go", origin) for origin in origins])
    lerobot_writer.write(source, tmp_path / "dataset")
    np.testing.assert_array_equal(sources.of_dataset_folder(tmp_path / "dataset").success, [1, 0, np.nan])
