import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot import cli
from robot.episodes import folder
from robot.episodes.episode import Event, Header, Result
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.verbs.panels import panels, seconds, thinned
from robot.episodes.verbs.show import sheet
from robot.episodes.verbs.timing import timing
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import STATE
from tests.robot.episodes.test_log import (
    FRONT_TOPIC,
    STATE_TOPIC,
    picture_specs,
    smooth_picture,
    timed_header,
    write_episode,
    write_timed,
)


def run(capsys, *arguments: str, code: int = 0) -> str:
    assert cli.main(["episodes", "show", *arguments]) == code
    shown = capsys.readouterr()
    return shown.out + shown.err


def test_show_draws_and_tells(tmp_path, capsys):
    write_timed(folder.episode_path(tmp_path, 3))
    text = run(capsys, f"episodes={tmp_path}", "number=3")
    assert "task      see" in text
    assert "success   yes" in text
    assert "events    1 intervention, 2 dropped" in text
    assert "/observation/state" in text
    assert "500 Hz" in text
    for name, colours in (("channels", 3), ("pictures", 3)):
        path = tmp_path / "shown" / f"episode-000003-{name}.png"
        assert str(path) in text
        picture = cv2.imread(str(path))
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > colours, "something is drawn"
    assert [path.name for path in folder.finished(tmp_path)] == ["episode-000003.mcap"]


def test_steps_labels_and_an_old_episode_are_shown(tmp_path, capsys):
    write_episode(folder.episode_path(tmp_path, 0), quality="clean")
    cli.main(["episodes", "label", f"episodes={tmp_path}", "numbers=[0]", "success=true", "note=seen"])
    capsys.readouterr()
    text = run(capsys, f"episodes={tmp_path}", f"out={tmp_path / 'out'}")
    assert "5 steps, 0.25 s, seed 7, quality clean" in text
    assert "success   yes, recorded as no" in text
    assert "yes: seen" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"episode-000000-channels.png"}
    old = Path(__file__).parents[1] / "old_logs/version-1.mcap"
    folder.episode_path(tmp_path, 1).write_bytes(old.read_bytes())
    assert "5 steps" in run(capsys, f"episodes={tmp_path}", "number=1")


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    write_timed(folder.episode_path(tmp_path, 0))
    here = f"episodes={tmp_path}"
    assert "has no episode 2. It has 0." in run(capsys, here, "number=2", code=1)
    assert "Unknown channel '/status'" in run(capsys, here, "channels=[/status]", code=2)
    assert "Unknown viewer 'gif'" in run(capsys, here, "viewer=gif", code=2)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in run(capsys, here, f"out={tmp_path / 'file'}", code=1)
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "`pip install rerun-sdk`" in run(capsys, here, "viewer=rerun", code=2)


def test_actions_are_overlaid_by_element_with_what_was_measured(tmp_path):
    state = ArraySpec(STATE, (2,), names=("a", "x"), unit="m rad")
    action = ArraySpec("action", (2,), names=("a", "b"), unit="m")
    specs = type(picture_specs())({STATE: state}, action, "joint_position", 0.05, "point", "see")
    path = tmp_path / "episode.mcap"
    with LogWriter(path, Header(specs, "leader", clock="time")) as log:
        for at in range(10):
            log.vector("/action/device", 100_000_000 * at + 7, np.array([at, 0]))
            log.vector("/action/applied", 50_000_000 * at + 9, np.array([at, 1]))
            log.vector(STATE_TOPIC, 10_000_000 * at + 5, np.array([at / 2, 3]))
        log.event(Event(5, "note", "x"))
        log.finish(Result(0, False, False, False, True))
    episode = EpisodeReader(path).read()
    shown = panels(episode)
    assert [(panel.title, panel.unit) for panel in shown] == [
        ("action: a", "m"),
        ("action: b", "m"),
        (STATE_TOPIC, "m"),
        (STATE_TOPIC, "rad"),
    ]
    assert [line.name for line in shown[0].lines] == ["device", "applied", "measured"]
    assert [line.name for line in shown[1].lines] == ["device", "applied"]
    np.testing.assert_allclose(shown[0].lines[1].t_s, 4e-9 + 0.05 * np.arange(10))
    np.testing.assert_array_equal(shown[0].lines[2].values, np.arange(10) / 2)


def test_steps_have_the_worlds_time(tmp_path):
    write_episode(tmp_path / "episode.mcap", steps=4)
    episode = EpisodeReader(tmp_path / "episode.mcap").read()
    np.testing.assert_allclose(seconds(episode, episode.channels[STATE_TOPIC].t_ns), [0, 0.05, 0.1, 0.15])


def test_the_contact_sheet_is_evenly_spaced_and_says_when(tmp_path):
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header()) as log:
        for at in range(21):
            log.picture(FRONT_TOPIC, 100_000_000 * at + 3, smooth_picture(at % 20))
        log.finish(Result(0, False, False, False, True))
    episode = EpisodeReader(path).read()
    title, pictures, captions = sheet(episode, FRONT_TOPIC, episode.pictures[FRONT_TOPIC], 5)
    assert title.endswith("21 pictures, 64 x 48")
    assert captions == ["0.00 s   #0", "0.50 s   #5", "1.00 s   #10", "1.50 s   #15", "2.00 s   #20"]
    for picture, at in zip(pictures, (0, 5, 10, 15, 0), strict=True):
        assert np.abs(picture.astype(int) - smooth_picture(at)).mean() < 2
    assert len(sheet(episode, FRONT_TOPIC, episode.pictures[FRONT_TOPIC], 100)[1]) == 21


def test_timing_finds_gaps():
    t_ns = np.array([0, 10, 20, 30, 80, 90, 100]) * 1_000_000
    found = timing(t_ns, 0)
    assert found.rate_hz == pytest.approx(6 / 0.1)
    assert (found.median_s, found.longest_s) == (pytest.approx(0.01), pytest.approx(0.05))
    np.testing.assert_allclose(found.gaps_s, [[0.03, 0.08]])
    assert found.words() == "60 Hz, p99 48.0 ms, longest 50.0 ms, 1 gap"
    assert timing(t_ns[:1], 0).words() == "1 message"


def test_thinning_keeps_extremes():
    values = np.sin(np.linspace(0, 50, 100_000))
    values[54_321], values[77_777] = 9.0, -9.0
    t_s, kept = thinned(np.arange(100_000.0), values, 1000)
    assert len(kept) <= 1002
    assert (kept.max(), kept.min()) == (9.0, -9.0)
    assert t_s[np.argmax(kept)] == 54_321
    assert (np.diff(t_s) > 0).all()


def test_large_arrays_are_shown_only_when_they_are_asked_for(tmp_path):
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header(channels={"/depth": ArraySpec("depth", (20, 30))})) as log:
        for at in range(3):
            log.vector("/depth", at + 1, np.zeros((20, 30)))
            log.vector(STATE_TOPIC, at + 1, np.zeros(2))
        log.finish(Result(0, False, False, False, True))
    episode = EpisodeReader(path).read()
    assert [panel.title for panel in panels(episode)] == [STATE_TOPIC]
    assert sum(len(panel.lines) for panel in panels(episode, ["/depth"])) == 48
