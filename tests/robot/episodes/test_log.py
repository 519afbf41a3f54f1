import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from mcap.writer import Writer

from robot.episodes.log import EpisodeWriter, Header
from robot.episodes.log_reader import Episode, EpisodeReader
from robot.errors import EpisodeError, SpecError
from robot.loop import Step
from tests.robot.episodes.fakes import ENVIRONMENT_STATE, STATE, point_specs


def make_step(index: int, rng: np.random.Generator, **changes) -> Step:
    values = {
        "index": index,
        "t_ns": 1_000_000 * (index + 1),
        "observation": {
            STATE: rng.normal(size=2).astype(np.float32),
            ENVIRONMENT_STATE: rng.normal(size=1).astype(np.float32),
        },
        "device": rng.uniform(-1, 1, 3).astype(np.float32),
        "commanded": rng.uniform(-1, 1, 3).astype(np.float32),
        "reward": float(rng.uniform()),
        "terminated": False,
        "truncated": False,
        "success": index == 1,
    }
    return Step(**{**values, **changes})


def write_episode(path: Path, steps: int = 5, **header) -> list[Step]:
    rng = np.random.default_rng(steps)
    taken = [make_step(i, rng, terminated=i == steps - 1) for i in range(steps)]
    values = {"specs": point_specs(), "seed": 7, "attempt": 3, "source": "expert", **header}
    with EpisodeWriter(path, Header(**values)) as writer:
        for step in taken:
            writer.write(step)
        writer.finish()
    return taken


def read(path: Path) -> Episode:
    return EpisodeReader(path).read()


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    steps = write_episode(path, quality="clean")
    episode = read(path)
    assert episode.header.quality == "clean"
    assert list(tmp_path.iterdir()) == [path]
    assert episode.header.specs == point_specs()
    assert (episode.header.seed, episode.header.attempt, episode.header.source) == (7, 3, "expert")
    assert episode.header.versions["numpy"] == np.__version__
    assert episode.result.steps == 5
    assert (episode.result.success_final, episode.result.success_sticky, episode.result.terminated) == (
        False,
        True,
        True,
    )
    assert episode.t_ns.tolist() == [step.t_ns for step in steps]
    for key, column in episode.observation.items():
        assert column.dtype == np.float32
        np.testing.assert_array_equal(column, [step.observation[key] for step in steps])
    np.testing.assert_array_equal(episode.actions["device"], [step.device for step in steps])
    np.testing.assert_array_equal(episode.actions["commanded"], [step.commanded for step in steps])
    assert "applied" not in episode.actions
    assert episode.events["success"].tolist() == [False, True, False, False, False]
    assert episode.events["terminated"].tolist() == [False, False, False, False, True]
    np.testing.assert_array_equal(episode.reward, np.array([step.reward for step in steps], np.float32))


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.tuples(floats, floats), min_size=1, max_size=6))
def test_every_float32_survives_to_the_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("bits") / "episode.mcap"
    rng = np.random.default_rng(0)
    columns = np.array(values, np.float32)
    with EpisodeWriter(path, Header(point_specs(), 0, 0, "expert")) as writer:
        for index, row in enumerate(columns):
            observation = {STATE: row, ENVIRONMENT_STATE: row[:1]}
            writer.write(make_step(index, rng, observation=observation))
        writer.finish()
    assert read(path).observation[STATE].tobytes() == columns.tobytes()


def test_what_the_robot_applied_is_its_own_channel(tmp_path):
    path, rng = tmp_path / "episode.mcap", np.random.default_rng(0)
    with EpisodeWriter(path, Header(point_specs(), 0, 0, "expert")) as writer:
        writer.write(make_step(0, rng), applied=np.array([0.1, 0.2, 0.3]))
        writer.finish()
    assert read(path).actions["applied"].tolist() == np.array([[0.1, 0.2, 0.3]], np.float32).tolist()


def test_any_mcap_tool_can_read_it(tmp_path):
    """Foxglove needs a schema for each channel, JSON that fits it, and a summary with statistics."""
    path = tmp_path / "episode.mcap"
    write_episode(path)
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        topics = {}
        for schema, channel, message in reader.iter_messages():
            assert schema.encoding == "jsonschema"
            assert channel.message_encoding == "json"
            fields = json.loads(message.data)
            assert set(fields) == set(json.loads(schema.data)["properties"])
            topics.setdefault(channel.topic, []).append(message.log_time)
        summary = reader.get_summary()
    actions = {"/action/device", "/action/commanded"}
    assert set(topics) == {"/observation/state", "/observation/environment_state", "/reward", "/events", *actions}
    assert summary.statistics.message_count == 5 * len(topics)
    assert all(times == sorted(times) for times in topics.values())


def test_a_step_that_does_not_fit_is_refused_and_nothing_stays(tmp_path):
    rng, header = np.random.default_rng(0), Header(point_specs(), 0, 0, "expert")
    bad = {STATE: np.array([0, np.nan], np.float32), ENVIRONMENT_STATE: np.zeros(1)}
    cases = [
        (SpecError, "/observation/state: expected finite", make_step(0, rng, observation=bad)),
        (SpecError, r"/action/device.* of shape \(3,\)", make_step(0, rng, device=np.zeros(2))),
        (EpisodeError, "step 2 follows, expected step 0", make_step(2, rng)),
    ]
    for kind, match, step in cases:
        with pytest.raises(kind, match=match), EpisodeWriter(tmp_path / "episode.mcap", header) as writer:
            writer.write(step)
        assert not any(tmp_path.iterdir())
    with EpisodeWriter(tmp_path / "episode.mcap", header) as writer:
        writer.write(make_step(0, rng))
        with pytest.raises(EpisodeError, match="CLOCK_MONOTONIC"):
            writer.write(make_step(1, rng, t_ns=5))
    with pytest.raises(EpisodeError, match="no steps"), EpisodeWriter(tmp_path / "episode.mcap", header) as writer:
        writer.finish()
    assert not any(tmp_path.iterdir())


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(EpisodeError, match=r"none\.mcap cannot be read: No such file"):
        EpisodeReader(tmp_path / "none.mcap")
    text = tmp_path / "text.mcap"
    text.write_text("not a log")
    with pytest.raises(EpisodeError, match=r"text\.mcap is not an MCAP file"):
        EpisodeReader(text)
    foreign = tmp_path / "foreign.mcap"
    with foreign.open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2")
        writer.finish()
    with pytest.raises(EpisodeError, match=r"profile 'ros2', not an episode"):
        EpisodeReader(foreign)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("robot.episodes.log.FORMAT_VERSION", 3)
    write_episode(tmp_path / "episode.mcap")
    with pytest.raises(EpisodeError, match="format version 3, this Armature reads 2"):
        EpisodeReader(tmp_path / "episode.mcap")


def test_an_episode_of_version_1_is_read_and_says_no_quality(tmp_path, monkeypatch):
    monkeypatch.setattr("robot.episodes.log.FORMAT_VERSION", 1)
    to_metadata = Header.to_metadata
    monkeypatch.setattr(
        Header, "to_metadata", lambda self: {k: v for k, v in to_metadata(self).items() if k != "quality"}
    )
    write_episode(tmp_path / "episode.mcap", quality="clean")
    header = read(tmp_path / "episode.mcap").header
    assert (header.quality, header.source, header.seed) == ("", "expert", 7)


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path):
    path = tmp_path / "episode.mcap"
    write_episode(path, steps=40)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(EpisodeError, match=r"episode\.mcap (was cut short|is not an MCAP)"):
            EpisodeReader(path)


def test_a_flipped_byte_is_refused_or_harmless(tmp_path):
    """Chunks carry checksums: no damage may change a logged number silently, or raise anything else."""
    path = tmp_path / "episode.mcap"
    write_episode(path, steps=40)
    whole, expected = path.read_bytes(), read(path)
    refusals = []
    for at in np.linspace(9, len(whole) - 9, 150).astype(int):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            episode = read(path)
        except EpisodeError as error:
            refusals.append(str(error))
            continue
        np.testing.assert_array_equal(episode.observation[STATE], expected.observation[STATE])
        np.testing.assert_array_equal(episode.actions["device"], expected.actions["device"])
    assert all("episode.mcap" in message for message in refusals)
    assert len(refusals) > 75


RECORDER = """
import sys, time
from pathlib import Path
import numpy as np
from robot.episodes.log import EpisodeWriter, Header, Result
from tests.robot.episodes.test_log import make_step, point_specs
rng = np.random.default_rng(0)
with EpisodeWriter(Path(sys.argv[1]), Header(point_specs(), 0, 0, "expert")) as writer:
    for index in range(10_000):
        writer.write(make_step(index, rng))
        print(index, flush=True)
        time.sleep(0.0005)
"""


def test_a_killed_recorder_loses_at_most_the_last_chunk(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    command = [sys.executable, "-c", RECORDER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    written = -1
    while written < 200:
        written = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    for line in process.stdout:
        written = int(line)
    process.wait(timeout=10)
    process.stdout.close()
    part = tmp_path / "episode-000000.mcap.part"
    assert list(tmp_path.iterdir()) == [part]
    survived = 0
    with part.open("rb") as file, contextlib.suppress(EndOfFile):
        for _, channel, _ in NonSeekingReader(file).iter_messages(log_time_order=False):
            survived += channel.topic == "/events"
    assert 0 <= written + 1 - survived < 40
    with pytest.raises(EpisodeError, match="was cut short"):
        EpisodeReader(part)


def test_a_header_tells_time_and_versions():
    header = Header(point_specs(), 0, 0, "expert")
    assert abs(time.mktime(time.strptime(header.wall_time[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60
    assert {"armature", "numpy", "mcap"} <= header.versions.keys()
