import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import Writer

from robot.contract import EnvironmentSpecs
from robot.episodes import foxglove, mcap_records, metadata
from robot.episodes.episode import Episode, Event, Header, Result
from robot.episodes.log import EpisodeWriter, LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.pictures import Encoding
from robot.episodes.recover import recover
from robot.errors import ConfigError, EpisodeError, SpecError, UnknownNameError
from robot.loop import Step
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import ENVIRONMENT_STATE, STATE, point_specs

FRONT = "observation.images.front"
STATE_TOPIC, FRONT_TOPIC = "/observation/state", "/observation/images/front"
OLD = Path(__file__).parent / "old_logs"


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


def picture_specs(shape=(48, 64, 3)) -> EnvironmentSpecs:
    state = ArraySpec(STATE, (2,), names=("x", "v"))
    front = ArraySpec(FRONT, shape, "uint8")
    return EnvironmentSpecs({STATE: state, FRONT: front}, ArraySpec("action", (1,)), "ee_delta", 0.05, "point", "see")


def smooth_picture(shift: int, shape=(48, 64, 3)) -> np.ndarray:
    """Broad waves, which every codec keeps well, and red is told from blue."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    wave = 100 + 60 * np.sin((columns + 3 * shift) / 9) + 30 * np.cos(rows / 7)
    return np.stack([wave, wave / 2, np.full_like(wave, 20 + 5 * shift)], axis=-1).astype(np.uint8)


def timed_header(**changes) -> Header:
    values = {"specs": picture_specs(), "source": "leader", "clock": "time", **changes}
    return Header(**values)


def write_timed(path: Path, count: int = 20, **header) -> None:
    """An episode of three rates: states, pictures at a fifth of them, and two events."""
    with LogWriter(path, timed_header(**header)) as log:
        for at in range(count):
            log.vector(STATE_TOPIC, 1000 + 2_000_000 * at, np.array([at, -at]))
            if at % 5 == 0:
                log.picture(FRONT_TOPIC, 500 + 2_000_000 * at, smooth_picture(at // 5))
        log.event(Event(1_500_000, "intervention", "the operator took over"))
        log.event(Event(2_500_000, "dropped", data={"topic": FRONT_TOPIC, "count": 2}))
        log.finish(Result(0, True, True, True, False))


def read(path: Path) -> Episode:
    return EpisodeReader(path).read()


def values(episode: Episode, topic: str) -> np.ndarray:
    return episode.channels[topic].values


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    steps = write_episode(path, quality="clean")
    episode = read(path)
    assert list(tmp_path.iterdir()) == [path]
    header = episode.header
    assert (header.specs, header.quality, header.clock) == (point_specs(), "clean", "steps")
    assert (header.seed, header.attempt, header.source) == (7, 3, "expert")
    assert header.versions["numpy"] == np.__version__
    assert episode.result == Result(5, False, True, True, False)
    for key in (STATE, ENVIRONMENT_STATE):
        channel = episode.channels["/" + key.replace(".", "/")]
        assert channel.values.dtype == np.float32
        assert channel.t_ns.tolist() == [step.t_ns for step in steps]
        np.testing.assert_array_equal(channel.values, [step.observation[key] for step in steps])
    np.testing.assert_array_equal(values(episode, "/action/device"), [step.device for step in steps])
    np.testing.assert_array_equal(values(episode, "/action/commanded"), [step.commanded for step in steps])
    assert "/action/applied" not in episode.channels
    ends = [[step.reward, step.success, step.terminated, step.truncated] for step in steps]
    np.testing.assert_array_equal(values(episode, "/step"), ends)
    assert (np.diff(episode.channels["/step"].t_ns) > 0).all()


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(floats, floats), min_size=1, max_size=6))
def test_every_float32_survives_to_the_bit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("bits") / "episode.mcap"
    rng = np.random.default_rng(0)
    columns = np.array(rows, np.float32)
    with EpisodeWriter(path, Header(point_specs(), "expert")) as writer:
        for index, row in enumerate(columns):
            observation = {STATE: row, ENVIRONMENT_STATE: row[:1]}
            writer.write(make_step(index, rng, observation=observation))
        writer.finish()
    assert values(read(path), STATE_TOPIC).tobytes() == columns.tobytes()


def test_what_the_robot_applied_is_its_own_channel(tmp_path):
    path, rng = tmp_path / "episode.mcap", np.random.default_rng(0)
    with EpisodeWriter(path, Header(point_specs(), "expert")) as writer:
        writer.write(make_step(0, rng), applied=np.array([0.1, 0.2, 0.3]))
        writer.finish()
    assert values(read(path), "/action/applied").tolist() == np.array([[0.1, 0.2, 0.3]], np.float32).tolist()


def test_every_channel_has_its_own_times(tmp_path):
    path = tmp_path / "episode.mcap"
    torque = ArraySpec("tau", (7,), "float64", unit="N m")
    with LogWriter(path, timed_header(channels={"/measured/tau": torque}, notes={"arm": "twin"})) as log:
        for at in range(50):
            log.vector("/measured/tau", 2_000_000 * at, np.arange(7) / (at + 3))
            if at % 7 == 0:
                log.vector(STATE_TOPIC, 2_000_000 * at + 11, np.array([at, 0.5]))
            if at % 10 == 0:
                log.picture(FRONT_TOPIC, 2_000_000 * at + 5, smooth_picture(at // 10))
        log.event(Event(7, "note", "two\nlines", {"a": [1, None]}))
        log.event(Event(9, "success"))
        log.finish(Result(0, True, True, False, False))
    reader = EpisodeReader(path)
    assert reader.header.channels == {"/measured/tau": torque}
    assert reader.header.notes == {"arm": "twin"}
    assert reader.counts == {"/measured/tau": 50, STATE_TOPIC: 8, FRONT_TOPIC: 5, "/events": 2}
    assert reader.duration_s == pytest.approx(0.098)
    episode = reader.read()
    assert episode.channels["/measured/tau"].t_ns.tolist() == [2_000_000 * at for at in range(50)]
    np.testing.assert_array_equal(values(episode, "/measured/tau"), [np.arange(7) / (at + 3) for at in range(50)])
    assert values(episode, "/measured/tau").dtype == np.float64
    assert episode.channels[STATE_TOPIC].t_ns.tolist() == [2_000_000 * at + 11 for at in range(0, 50, 7)]
    assert episode.pictures[FRONT_TOPIC].t_ns.tolist() == [2_000_000 * at + 5 for at in range(0, 50, 10)]
    assert reader.events() == episode.events
    assert episode.events == (Event(7, "note", "two\nlines", {"a": [1, None]}), Event(9, "success"))


@pytest.mark.parametrize(("codec", "worst"), [("png", 0), ("jpeg", 6), ("h264", 12)])
def test_pictures_come_back(tmp_path, codec, worst):
    path = tmp_path / "episode.mcap"
    shown = [smooth_picture(at) for at in range(33)]
    with LogWriter(path, timed_header(), Encoding(codec, 95, 10)) as log:
        for at, picture in enumerate(shown):
            log.picture(FRONT_TOPIC, at + 1, picture)
        log.finish(Result(0, False, False, False, True))
    pictures = read(path).pictures[FRONT_TOPIC].pictures
    assert len(pictures) == 33
    for _ in range(2):
        differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, shown, strict=True)]
        assert max(differences) <= worst / 3 or worst == max(differences) == 0
    some = list(pictures.picked([0, 7, 32]))
    assert max(np.abs(a.astype(int) - shown[at]).max() for a, at in zip(some, (0, 7, 32), strict=True)) <= 4 * worst
    kinds = [kind for _, kind in pictures.encoded()]
    assert kinds == [codec] * 33


def test_a_cameras_jpeg_stays_as_it_is(tmp_path):
    data = cv2.imencode(".jpg", smooth_picture(1)[:, :, ::-1])[1].tobytes()
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header()) as log:
        log.picture(FRONT_TOPIC, 1, data)
        with pytest.raises(SpecError, match=r"expected a JPEG of \(48, 64\), got one of \(24, 64\)"):
            log.picture(FRONT_TOPIC, 2, cv2.imencode(".jpg", smooth_picture(1)[::2])[1].tobytes())
        with pytest.raises(SpecError, match="got one that is cut short"):
            log.picture(FRONT_TOPIC, 2, data[:-20])
        with pytest.raises(SpecError, match="got no JPEG"):
            log.picture(FRONT_TOPIC, 2, b"\xff\xd8 and then nothing")
        with pytest.raises(SpecError, match=r"expected uint8 \(48, 64, 3\), got float64"):
            log.picture(FRONT_TOPIC, 2, smooth_picture(1) / 1.0)
        log.finish(Result(0, False, False, False, True))
    pictures = read(path).pictures[FRONT_TOPIC].pictures
    assert list(pictures.encoded()) == [(data, "jpeg")]


def test_a_damaged_picture_is_named_when_it_is_asked_for(tmp_path):
    data = cv2.imencode(".jpg", smooth_picture(1)[:, :, ::-1])[1].tobytes()
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header()) as log:
        log.picture(FRONT_TOPIC, 1, data)
        log.picture(FRONT_TOPIC, 2, data[:170] + data[-2:])
        log.finish(Result(0, False, False, False, True))
    pictures = iter(read(path).pictures[FRONT_TOPIC].pictures)
    next(pictures)
    with pytest.raises(EpisodeError, match=r"episode\.mcap: observation\.images\.front is damaged behind picture 0"):
        next(pictures)


def test_steps_may_have_pictures(tmp_path):
    path = tmp_path / "episode.mcap"
    with EpisodeWriter(path, Header(picture_specs(), "expert"), Encoding("png")) as writer:
        for at in range(4):
            observation = {STATE: np.zeros(2), FRONT: smooth_picture(at)}
            changes = {"device": np.zeros(1), "commanded": np.zeros(1), "observation": observation}
            writer.write(make_step(at, np.random.default_rng(0), **changes))
        writer.finish()
    episode = read(path)
    np.testing.assert_array_equal(list(episode.pictures[FRONT_TOPIC].pictures), [smooth_picture(at) for at in range(4)])
    assert episode.channels.keys() == {STATE_TOPIC, "/action/device", "/action/commanded", "/step"}


def message_class(schema):
    """The class of a schema's messages, made of nothing but what the file holds."""
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(schema.data).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))


def test_any_tool_can_read_it(tmp_path):
    """Foxglove needs for each channel a schema that its messages fit, well-known names, and a summary."""
    path = tmp_path / "episode.mcap"
    write_timed(path, cameras={FRONT: {"intrinsics": [[50, 0, 32], [0, 51, 24], [0, 0, 1]]}})
    found, schemas = {}, {}
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        for schema, channel, message in reader.iter_messages():
            assert (schema.encoding, channel.message_encoding) == ("protobuf", "protobuf")
            schemas[channel.topic] = schema.name
            found.setdefault(channel.topic, []).append(message_class(schema).FromString(message.data))
        summary = reader.get_summary()
    calibration = FRONT_TOPIC + "/calibration"
    assert schemas == {
        STATE_TOPIC: "armature.ObservationState",
        FRONT_TOPIC: "foxglove.CompressedImage",
        calibration: "foxglove.CameraCalibration",
        "/events": "foxglove.Log",
    }
    assert [(message.x, message.v) for message in found[STATE_TOPIC]] == [(at, -at) for at in range(20)]
    picture = found[FRONT_TOPIC][1]
    assert (picture.frame_id, picture.format, picture.data[:2]) == ("front", "jpeg", b"\xff\xd8")
    assert picture.timestamp.seconds * 10**9 + picture.timestamp.nanos == 500 + 10_000_000
    assert list(found[calibration][0].K) == [50, 0, 32, 0, 51, 24, 0, 0, 1]
    assert list(found[calibration][0].P) == [50, 0, 32, 0, 0, 51, 24, 0, 0, 0, 1, 0]
    assert (found[calibration][0].width, found[calibration][0].height) == (64, 48)
    assert [message.name for message in found["/events"]] == ["intervention", "dropped"]
    assert found["/events"][0].message == "the operator took over"
    assert summary.statistics.message_count == 20 + 4 + 1 + 2


def test_well_known_types_have_foxgloves_numbers(tmp_path):
    """Numbers and types as in the published schemas, by hand."""
    types = {9: "string", 12: "bytes", 11: "Timestamp", 7: "fixed32", 1: "double", 14: "enum"}
    expected = {
        "foxglove.CompressedImage": "timestamp=1:Timestamp data=2:bytes format=3:string frame_id=4:string",
        "foxglove.CompressedVideo": "timestamp=1:Timestamp frame_id=2:string data=3:bytes format=4:string",
        "foxglove.Log": "timestamp=1:Timestamp level=2:enum message=3:string name=4:string file=5:string "
        "line=6:fixed32",
        "foxglove.CameraCalibration": "timestamp=1:Timestamp width=2:fixed32 height=3:fixed32 "
        "distortion_model=4:string D=5:double K=6:double R=7:double P=8:double frame_id=9:string",
    }
    for name, fields in expected.items():
        descriptor = message_class(type("Schema", (), {"name": name, "data": foxglove.schema(name)})).DESCRIPTOR
        shown = sorted((f.number, f"{f.name}={f.number}:{types[f.type]}") for f in descriptor.fields)
        assert " ".join(text for _, text in shown) == fields


def test_a_step_that_does_not_fit_is_refused_and_nothing_stays(tmp_path):
    rng, header = np.random.default_rng(0), Header(point_specs(), "expert")
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


def test_messages_that_do_not_fit_are_refused_and_the_rest_goes_on(tmp_path):
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header()) as log:
        log.vector(STATE_TOPIC, 5, np.zeros(2))
        for bad in (np.zeros(3), np.array([0, np.inf]), np.zeros((2, 1))):
            with pytest.raises(SpecError, match=r"/observation/state: expected finite values of shape \(2,\)"):
                log.vector(STATE_TOPIC, 6, bad)
        with pytest.raises(SpecError, match="/other is no channel of vectors of this episode; it has /observation/st"):
            log.vector("/other", 6, np.zeros(2))
        with pytest.raises(SpecError, match=r"is no camera of this episode; it has /observation/images/front"):
            log.picture("/observation/images/back", 6, smooth_picture(0))
        with pytest.raises(EpisodeError, match="comes with 5 ns, not after 5 ns"):
            log.vector(STATE_TOPIC, 5, np.zeros(2))
        log.vector(STATE_TOPIC, 7, np.ones(2))
        log.finish(Result(0, False, False, False, True))
    assert values(read(path), STATE_TOPIC).tolist() == [[0, 0], [1, 1]]


def test_an_episode_needs_messages_and_as_many_as_steps(tmp_path):
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header()) as log:
        log.event(Event(1, "note", "nothing else"))
        with pytest.raises(EpisodeError, match=r"episode\.mcap holds nothing; an episode needs at least one"):
            log.finish(Result(0, False, False, False, True))
        log.abandon()
    with LogWriter(path, Header(picture_specs(), "expert")) as log:
        log.vector(STATE_TOPIC, 1, np.zeros(2))
        with pytest.raises(EpisodeError, match="/action/device has 0 messages for 1 steps"):
            log.finish(Result(1, False, False, False, True))
        log.abandon()
    assert not any(tmp_path.iterdir())


def fail_midway(path: Path) -> None:
    with LogWriter(path, timed_header()) as log:
        log.vector(STATE_TOPIC, 1, np.zeros(2))
        log.vector(STATE_TOPIC, 2, np.zeros(3))


def test_what_is_left_without_an_end_stays_for_recovery(tmp_path):
    path, part = tmp_path / "episode.mcap", tmp_path / "episode.mcap.part"
    with pytest.raises(SpecError):
        fail_midway(path)
    assert list(tmp_path.iterdir()) == [part]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("log of")]
    with pytest.raises(EpisodeError, match=r"part was left by a recorder that was killed\. Make an episode of it with"):
        LogWriter(path, timed_header())
    with pytest.raises(EpisodeError, match=r"was cut short.*armature episodes recover"):
        EpisodeReader(part)
    part.unlink()
    with LogWriter(path, timed_header()):
        pass
    assert not any(tmp_path.iterdir())
    write_timed(path)
    with pytest.raises(EpisodeError, match=r"episode\.mcap is there already"):
        LogWriter(path, timed_header())


def test_a_silent_recorder_has_written_what_it_was_given(tmp_path):
    path = tmp_path / "episode.mcap"
    with LogWriter(path, timed_header()) as log:
        log.vector(STATE_TOPIC, 1, np.zeros(2))
        deadline = time.monotonic() + 20
        while not messages_of(tmp_path / "episode.mcap.part"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        log.abandon()


def messages_of(part: Path) -> list[mcap_records.Logged]:
    """Messages in the whole chunks of an unfinished file."""
    found, chunks = [], mcap_records.Chunks()
    with part.open("rb") as file, contextlib.suppress(EOFError):
        for record in mcap_records.records(file):
            if record.opcode == mcap_records.CHUNK:
                found += chunks.messages(record)
    return found


def test_several_threads_may_write(tmp_path):
    path = tmp_path / "episode.mcap"
    channels = {f"/measured/{name}": ArraySpec(name, (3,)) for name in "abcd"}
    with LogWriter(path, timed_header(channels=channels)) as log:

        def write(topic: str) -> None:
            for at in range(2000):
                log.vector(topic, at, np.full(3, at))

        threads = [threading.Thread(target=write, args=(topic,)) for topic in channels]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.finish(Result(0, False, False, False, True))
    episode = read(path)
    for topic in channels:
        np.testing.assert_array_equal(values(episode, topic), np.arange(2000)[:, None] * np.ones(3))


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from robot.episodes.episode import Result
from robot.episodes.log import LogWriter
from robot.errors import EpisodeError
from tests.robot.episodes.test_log import STATE_TOPIC, timed_header
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
rng, said = np.random.default_rng(0), []
with LogWriter(Path(sys.argv[1]), timed_header()) as log:
    try:
        for at in range(1_000_000):
            log.vector(STATE_TOPIC, at, rng.normal(size=2))
    except EpisodeError as error:
        print(at, error, flush=True)
    for again in (lambda: log.vector(STATE_TOPIC, 2_000_000, np.zeros(2)),
                  lambda: log.finish(Result(0, True, True, True, False))):
        try:
            again()
        except EpisodeError as error:
            print(error, flush=True)
"""


def test_a_full_disk_loses_nothing_that_was_durable(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("mcap.part cannot be written: File too large. Make room or choose another" in line for line in lines)
    part = tmp_path / "episode-000000.mcap.part"
    assert list(tmp_path.iterdir()) == [part]
    times = [message.t_ns for message in messages_of(part)]
    assert times == list(range(len(times)))
    assert 0 < len(times) <= int(lines[0].split()[0]) + 1
    recover(part, path)
    assert read(path).channels[STATE_TOPIC].t_ns.tolist() == times


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
    with monkeypatch.context() as patch:
        patch.setattr(metadata, "FORMAT_VERSION", 4)
        write_episode(tmp_path / "episode.mcap")
    with pytest.raises(EpisodeError, match=r"format version 4, this Armature reads up to 3. Use the Armature that rec"):
        EpisodeReader(tmp_path / "episode.mcap")


@pytest.mark.parametrize(("version", "quality"), [(1, ""), (2, "clean")])
def test_episodes_of_versions_1_and_2_are_read(version, quality):
    """Files that the Armature of that time wrote."""
    episode = read(OLD / f"version-{version}.mcap")
    rng = np.random.default_rng(5)
    steps = [make_step(i, rng, terminated=i == 4) for i in range(5)]
    assert (episode.header.quality, episode.header.source, episode.header.seed) == (quality, "expert", 7)
    assert (episode.header.specs, episode.header.clock) == (point_specs(), "steps")
    assert episode.result == Result(5, False, True, True, False)
    np.testing.assert_array_equal(values(episode, STATE_TOPIC), [step.observation[STATE] for step in steps])
    np.testing.assert_array_equal(values(episode, "/action/commanded"), [step.commanded for step in steps])
    np.testing.assert_array_equal(values(episode, "/step")[:, 0], [step.reward for step in steps])
    np.testing.assert_array_equal(values(episode, "/step")[:, 1], [step.success for step in steps])
    assert episode.channels[STATE_TOPIC].t_ns.tolist() == [step.t_ns for step in steps]
    assert episode.pictures == {}


def test_a_file_without_messages_is_refused(tmp_path):
    path = tmp_path / "episode.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(profile=metadata.PROFILE)
        writer.add_metadata(metadata.HEADER, metadata.of_header(timed_header()))
        writer.add_metadata(metadata.OUTCOME, metadata.of_result(Result(0, False, False, False, True)))
        writer.finish()
    with pytest.raises(EpisodeError, match=r"episode\.mcap holds no steps and no messages\. Discard or delete"):
        EpisodeReader(path)


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path):
    path = tmp_path / "episode.mcap"
    write_episode(path, steps=40)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:size])
        with pytest.raises(EpisodeError, match=r"episode\.mcap (was cut short|is not an MCAP)"):
            EpisodeReader(path)


def fingerprint(path: Path) -> list:
    episode = read(path)
    pictures = [list(channel.pictures.encoded()) for channel in episode.pictures.values()]
    vectors = [(topic, c.t_ns.tolist(), c.values.tobytes()) for topic, c in episode.channels.items()]
    assert EpisodeReader(path).events() == episode.events
    return [episode.header, episode.result, vectors, pictures, episode.events]


def test_a_flipped_byte_is_refused_or_harmless(tmp_path):
    """Everything carries checksums: no damage may change anything silently, or raise anything else."""
    path = tmp_path / "episode.mcap"
    write_timed(path)
    whole, expected = path.read_bytes(), fingerprint(path)
    refusals = []
    places = {*np.linspace(9, len(whole) - 9, 300).astype(int).tolist(), *range(9, 300, 2)}
    places |= {*range(len(whole) - 500, len(whole) - 9, 2)}  # the index
    for at in sorted(places):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            found = fingerprint(path)
        except EpisodeError as error:
            refusals.append(str(error))
            continue
        assert found == expected, f"byte {at}"
    assert all("episode.mcap" in message for message in refusals)
    assert len(refusals) > 200


RECORDER = """
import sys, time
from pathlib import Path
import numpy as np
from robot.episodes.log import LogWriter
from tests.robot.episodes.test_log import STATE_TOPIC, timed_header
begin_ns = time.monotonic_ns()
with LogWriter(Path(sys.argv[1]), timed_header()) as writer:
    for index in range(10_000):
        t_ns = time.monotonic_ns() - begin_ns
        writer.vector(STATE_TOPIC, t_ns, np.zeros(2))
        print(t_ns, flush=True)
        time.sleep(0.002)
"""


def test_a_killed_recorder_loses_at_most_the_last_chunk(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    command = [sys.executable, "-c", RECORDER, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    times = [int(process.stdout.readline()) for _ in range(400)]
    os.kill(process.pid, signal.SIGKILL)
    times += [int(line) for line in process.stdout]
    process.wait(timeout=10)
    process.stdout.close()
    part = tmp_path / "episode-000000.mcap.part"
    assert list(tmp_path.iterdir()) == [part]
    survived = [message.t_ns for message in messages_of(part)]
    assert survived == times[: len(survived)]
    assert len(survived) >= 100, "at least the chunks of the first half"


def test_a_header_tells_time_and_versions():
    header = Header(point_specs(), "expert")
    assert abs(time.mktime(time.strptime(header.wall_time[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60
    assert {"armature", "numpy", "mcap"} <= header.versions.keys()


def test_wrong_encodings_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"Unknown codec of pictures 'jpg'\. Did you mean 'jpeg'"):
        Encoding("jpg")
    with pytest.raises(ConfigError, match="quality of 1 to 100"):
        Encoding("jpeg", 0)
    header = Header(picture_specs((47, 64, 3)), "leader", clock="time")
    with LogWriter(tmp_path / "episode.mcap", header, Encoding("h264")) as log:
        with pytest.raises(EpisodeError, match=r"H.264 wants an even height and width, got 47 x 64; use jpeg"):
            log.picture(FRONT_TOPIC, 1, smooth_picture(0, (47, 64, 3)))
        log.abandon()
    with pytest.raises(EpisodeError, match="clock of an episode is 'steps' or 'time', got 'beats'"):
        LogWriter(tmp_path / "episode.mcap", timed_header(clock="beats"))
