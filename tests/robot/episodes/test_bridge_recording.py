"""`armature record source=bridge` as a user runs it, beside a client that drives a fake arm with fake cameras."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hardware.cameras.fake import decode_bands
from robot.bridge.client import BridgeClient
from robot.bridge.schema import INDEX, BridgeSchema, Mode, Priority
from robot.contract import ActionChunk
from robot.episodes import folder, record
from robot.episodes.bridge_log import CHUNK_FIELDS
from robot.episodes.episode import Episode
from robot.episodes.log_reader import EpisodeReader
from robot.errors import ArmatureError
from tests.hardware.cameras.test_bridge import Running, running

SIZE = 128
CAMERAS = (
    "cameras=[front:fake,side:fake]",
    *(f"cameras.{name}.{side}={SIZE}" for name in ("front", "side") for side in ("width", "height")),
    *("cameras.front.fps=30", "cameras.side.fps=15", "cameras.side.encoding=raw", "arm.limits.silence_s=2.0"),
    "lease_ttl_s=2.0",  # a busy machine keeps a test away from its arm for long
)
DT_S = 0.05
PATIENCE_S = 10.0
LEAD_NS = 300_000_000
"""How long before its first row begins a chunk is sent."""
CHUNK = dict(zip(CHUNK_FIELDS, range(len(CHUNK_FIELDS)), strict=True))


@pytest.fixture(scope="module")
def bridge() -> Iterator[Running]:
    with running(*CAMERAS) as up:
        yield up


def settle_down(has_terminal: bool, largest_file: int) -> None:
    """In the new process, before it is the recorder."""
    if has_terminal:  # a new session has no terminal of its own until it opens one
        os.close(os.open(os.ttyname(0), os.O_RDWR))
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


class Recording:
    """A recorder that runs, with what it says."""

    def __init__(
        self, bridge: Running, out: Path, *overrides: str, terminal: int | None = None, largest_file: int = 0
    ) -> None:
        self.out = out
        arguments = ["source=bridge", f"bridge={bridge.endpoint}", f"out={out}", "min_free_gb=0.01", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "robot.cli", "record", *arguments],
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: settle_down(terminal is not None, largest_file),
        )

    def listens(self, bridge: Running) -> None:
        """Return when it does."""
        assert self.process.stderr is not None
        said = ""
        while "recording" not in said:
            letter = self.process.stderr.read(1)
            assert letter, said
            said += letter
        time.sleep(0.3)

    def end(self, timeout_s: float = 20.0) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, errors

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.end()

    def episodes(self) -> list[Episode]:
        return [EpisodeReader(path).read() for path in folder.finished(self.out)]


@dataclass
class Driven:
    """What a client sent and saw."""

    chunks: list[tuple[int, int, np.ndarray]] = field(default_factory=list)
    device: list[np.ndarray] = field(default_factory=list)
    states: dict[int, np.ndarray] = field(default_factory=dict)

    def look(self, client: BridgeClient, until_ns: int) -> None:
        """Read states until then."""
        while client.now_ns() < until_ns:
            state = client.state()
            self.states[state.t_ns] = state._flat.copy()


def armed(client: BridgeClient) -> None:
    client.acquire()
    client.home(0)
    client.arm()
    while client.state().mode != Mode.ARMED:
        pass


def disarmed(client: BridgeClient) -> None:
    client.disarm()
    while client.state().mode != Mode.DISARMED:
        pass


@contextmanager
def alive(client: BridgeClient) -> Iterator[None]:
    """Signs of life while the test waits for something else."""
    is_over = threading.Event()

    def live() -> None:
        while not is_over.is_set():
            client.state()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def drive(client: BridgeClient, count: int, seed: int = 0) -> Driven:
    """Chunks of four rows, two of which are played before the next one replaces the rest."""
    done, rng = Driven(), np.random.default_rng(seed)
    next_ns = client.now_ns() + LEAD_NS
    for _ in range(count):
        rows = rng.uniform(-0.3, 0.3, (4, 7))
        client.tell_device(rows[0])
        done.device.append(rows[0])
        done.chunks.append((client.send_chunk(ActionChunk(rows, DT_S), next_ns), next_ns, rows))
        next_ns += round(2 * DT_S * 1e9)
        done.look(client, next_ns - LEAD_NS)
    done.look(client, next_ns + 20_000_000)
    return done


def dropped(episode: Episode) -> list[dict[str, object]]:
    return [dict(event.data) for event in episode.events if event.name == "dropped"]


@pytest.fixture(scope="module")
def recorded(bridge: Running, tmp_path_factory: pytest.TempPathFactory) -> tuple[Episode, Driven, BridgeClient]:
    """One episode and what was driven in it."""
    out = tmp_path_factory.mktemp("recorded")
    calibration = {
        "front": {"intrinsics": [[100, 0, 64], [0, 100, 64], [0, 0, 1]], "T_tool_camera": np.eye(4).tolist()}
    }
    (out / "calibration.json").write_text(json.dumps(calibration))
    recording = Recording(
        *(bridge, out / "episodes", "episodes=1", "task=Lift the cube."), f"calibration={out / 'calibration.json'}"
    )
    recording.listens(bridge)
    with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
        armed(client)
        driven = drive(client, 12)
        disarmed(client)
        code, said, errors = recording.end()
    assert code == 0, errors
    assert "1 episodes, 1 of them new" in said
    (episode,) = recording.episodes()
    return episode, driven, client


def test_what_was_sent_is_what_was_commanded(recorded: tuple[Episode, Driven, BridgeClient]) -> None:
    episode, driven, client = recorded
    told = episode.channels["/command/chunks"].values
    assert told[:, CHUNK["sequence"]].tolist() == [sequence for sequence, _, _ in driven.chunks]
    assert told[:, CHUNK["t0_ns"]].tolist() == [t0_ns for _, t0_ns, _ in driven.chunks]
    assert set(told[:, CHUNK["verdict"]]) == {0}
    assert set(told[:, CHUNK["driver"]]) == {client.public_id}
    assert set(told[:, CHUNK["priority"]]) == {Priority.POLICY}
    rows = episode.channels["/command/rows"].values
    np.testing.assert_array_equal(rows[:, 3:], np.concatenate([rows for _, _, rows in driven.chunks]))
    # The first two rows of each chunk came into force, each at its time, and of the last one all four.
    played = [(t0_ns + k * 50_000_000, rows[k]) for _, t0_ns, rows in driven.chunks for k in (0, 1)]
    commanded = episode.channels["/action/commanded"]
    count = len(played)
    assert commanded.t_ns[:count].tolist() == [t_ns for t_ns, _ in played]
    np.testing.assert_array_equal(commanded.values[:count], np.array([row for _, row in played], np.float32))
    device = episode.channels["/action/device"].values
    np.testing.assert_array_equal(device, np.array(driven.device, np.float32))


def test_every_state_is_there_as_the_bridge_sent_it(recorded: tuple[Episode, Driven, BridgeClient]) -> None:
    episode, driven, client = recorded
    status = episode.channels["/status"]
    cycles = status.values[:, INDEX["cycle"]]
    assert np.diff(cycles).tolist() == [1] * (len(cycles) - 1)
    assert 400 < len(cycles) / (status.t_ns[-1] - status.t_ns[0]) * 1e9 < 600
    assert dropped(episode) == []
    at = {int(t): k for k, t in enumerate(status.t_ns)}
    seen = {t_ns: flat for t_ns, flat in driven.states.items() if t_ns in at}
    assert len(seen) > 100
    for t_ns, flat in seen.items():
        values, k = client.schema.layout.views(flat), at[t_ns]
        for key in ("q", "dq", "ee_pos", "gripper"):
            np.testing.assert_array_equal(episode.channels[f"/measured/{key}"].values[k], values[key])
        observed = values["observation.state"].astype(np.float32)
        np.testing.assert_array_equal(episode.channels["/observation/state"].values[k], observed)
        np.testing.assert_array_equal(status.values[k][: INDEX["operation"]], values["status"][: INDEX["operation"]])
    for name, channel in episode.channels.items():
        if name.startswith(("/measured", "/observation")):
            np.testing.assert_array_equal(channel.t_ns, status.t_ns)
    target = episode.channels["/target"]
    some = [k for k, t in enumerate(target.t_ns) if int(t) in seen]
    for k in some:
        views = client.schema.layout.views(seen[int(target.t_ns[k])])
        np.testing.assert_array_equal(target.values[k], views["target"])
    assert "/action/applied" not in episode.channels  # a pose is no displacement


def test_it_lasts_from_armed_to_disarmed(recorded: tuple[Episode, Driven, BridgeClient]) -> None:
    episode, driven, _ = recorded
    modes = episode.channels["/status"].values[:, INDEX["mode"]]
    assert set(modes[:-1]) == {Mode.ARMED}
    assert modes[-1] == Mode.BRAKING
    assert episode.channels["/status"].t_ns[0] <= driven.chunks[0][1]
    names = [event.name for event in episode.events]
    assert names[-3:] == ["mode", "unlabelled", "end"]
    assert not episode.result.success_final


def test_every_picture_is_there_and_says_its_time(recorded: tuple[Episode, Driven, BridgeClient]) -> None:
    episode, _, _ = recorded
    begin_ns, end_ns = episode.channels["/status"].t_ns[[0, -1]]
    for camera, fps in (("front", 30), ("side", 15)):
        channel = episode.pictures[f"/observation/images/{camera}"]
        told = [decode_bands(image) for image in channel.pictures]
        assert [t_ns for _, t_ns in told] == channel.t_ns.tolist()
        numbers = [number for number, _ in told]
        assert np.diff(numbers).tolist() == [1] * (len(numbers) - 1)
        # One of just before the beginning, all of the episode, none of after it.
        assert channel.t_ns[0] < begin_ns < channel.t_ns[1]
        assert end_ns - 1e9 / fps - 1 <= channel.t_ns[-1] < end_ns


def test_the_header_says_who_what_and_where(recorded: tuple[Episode, Driven, BridgeClient]) -> None:
    header, schema = recorded[0].header, recorded[2].schema
    assert (header.clock, header.source, header.specs.task) == ("time", "bridge", "Lift the cube.")
    assert header.specs.dt_s == schema.arm.environment.dt_s
    assert header.specs.observation["observation.images.front"].shape == (SIZE, SIZE, 3)
    front = header.cameras["observation.images.front"]
    assert front["intrinsics"][0] == [100, 0, 64]
    assert (front["fps"], front["encoding"]) == (30, "jpeg")
    assert header.notes["bridge"]["arm"]["model_hash"] == schema.arm.model_hash
    assert header.notes["bridge"]["limits"] == json.loads(json.dumps(schema.limits.to_json()))
    told = BridgeSchema.from_json(header.notes["bridge"])
    assert told.layout.digest() == schema.layout.digest()
    assert 0 < header.notes["clock"]["uncertainty_ns"] < 10_000_000


def test_ctrl_c_completes_the_episode(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]", "episodes=5")
    recording.listens(bridge)
    with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
        armed(client)
        drive(client, 3)
        with alive(client):
            code, _, errors = recording.stop()
        disarmed(client)
    assert code == 130, errors
    assert "Traceback" not in errors
    (episode,) = recording.episodes()
    assert [event.text for event in episode.events if event.name == "end"] == ["interrupted"]
    assert episode.result.truncated
    assert not episode.result.success_final
    assert folder.interrupted(tmp_path) == []


@pytest.mark.slow
def test_a_full_disk_ends_the_recording_and_keeps_what_was_written(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]", largest_file=300_000)
    recording.listens(bridge)
    with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
        armed(client)
        drive(client, 30)
        with alive(client):
            code, _, errors = recording.end()
        disarmed(client)
    assert code == 1
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    assert folder.finished(tmp_path) == []
    (part,) = folder.interrupted(tmp_path)
    assert 100_000 < part.stat().st_size <= 300_000


@pytest.mark.slow
def test_two_episodes_then_two_more(bridge: Running, tmp_path: Path) -> None:
    for total in (2, 3):
        recording = Recording(bridge, tmp_path, "cameras=[side]", f"episodes={total}")
        recording.listens(bridge)
        with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
            while len(folder.finished(tmp_path)) < total:
                armed(client)
                drive(client, 2)
                disarmed(client)
        code, _, errors = recording.end()
        assert code == 0, errors
    assert [path.name for path in folder.finished(tmp_path)] == [f"episode-{k:06d}.mcap" for k in range(3)]
    for episode in recording.episodes():
        assert len(episode.pictures["/observation/images/side"].pictures) >= 2


@pytest.mark.slow
def test_a_killed_recorder_leaves_what_it_had(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]")
    recording.listens(bridge)
    with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
        armed(client)
        drive(client, 8)
        with alive(client):
            recording.stop(signal.SIGKILL)
        (part,) = folder.interrupted(tmp_path)
        assert part.stat().st_size > 50_000
        again = Recording(bridge, tmp_path, "cameras=[]", "episodes=1")
        with alive(client):
            again.listens(bridge)
        # An arm that is armed already has begun something else.
        drive(client, 2)
        disarmed(client)
        armed(client)
        drive(client, 2)
        disarmed(client)
        code, _, errors = again.end()
    assert code == 0, errors
    assert [path.name for path in folder.finished(tmp_path)] == ["episode-000001.mcap"]
    assert part.exists()


@pytest.mark.slow
def test_a_bridge_that_is_lost_ends_the_episode_and_it_is_said(tmp_path: Path) -> None:
    with running() as bridge:
        recording = Recording(bridge, tmp_path)
        recording.listens(bridge)
        with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
            armed(client)
            drive(client, 3)
            os.killpg(bridge.process.pid, signal.SIGKILL)
            code, _, errors = recording.end()
    assert code == 1
    assert "has sent no state for" in errors
    assert "Traceback" not in errors
    (episode,) = recording.episodes()
    assert "bridge_lost" in [event.name for event in episode.events]
    assert episode.result.truncated


@pytest.mark.slow
def test_a_hand_that_takes_over_is_an_intervention(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]", "episodes=1")
    recording.listens(bridge)
    with BridgeClient(bridge.endpoint, "policy", PATIENCE_S) as policy:
        armed(policy)
        drive(policy, 3)
        with BridgeClient(bridge.endpoint, "hand", PATIENCE_S, priority=Priority.TELEOP) as hand:
            hand.acquire(blend=True)
            driven = drive(hand, 3)
            disarmed(hand)
    code, _, errors = recording.end()
    assert code == 0, errors
    (episode,) = recording.episodes()
    (event,) = [event for event in episode.events if event.name == "intervention"]
    assert event.data["driver"] == hand.public_id
    told = episode.channels["/command/chunks"].values
    assert [row[CHUNK["priority"]] for row in told] == [1] * 3 + [2] * 3
    assert len(episode.channels["/action/device"].values) == 6
    last = episode.channels["/action/commanded"]
    np.testing.assert_array_equal(last.values[-1], np.float32(driven.chunks[-1][2][2]))


def test_rejected_chunks_are_told_and_not_commanded(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]", "episodes=1")
    recording.listens(bridge)
    rows = np.full((2, 7), 0.1)
    with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
        armed(client)
        client.send_chunk(ActionChunk(rows, DT_S), client.now_ns() + 30 * 10**9)
        client.send_chunk(ActionChunk(rows[:, :6], DT_S), client.now_ns())
        client.send_chunk(ActionChunk(rows, DT_S), client.now_ns() + 20_000_000)
        for _ in range(60):
            client.state()
        disarmed(client)
    code, _, errors = recording.end()
    assert code == 0, errors
    (episode,) = recording.episodes()
    assert episode.channels["/command/chunks"].values[:, CHUNK["verdict"]].tolist() == [7, 3, 0]
    assert len(episode.channels["/command/rows"].values) == 4
    assert len(episode.channels["/action/commanded"].values) == 2


@pytest.mark.slow
def test_keys(bridge: Running, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    recording = Recording(bridge, tmp_path, "cameras=[]", "episodes_by=keys", "episodes=9", terminal=theirs)
    os.close(theirs)
    recording.listens(bridge)

    # All at once, as from an impatient user: every key counts, for the episode that it is typed in.
    os.write(ours, b" nit slipped\nis dndy f")
    time.sleep(0.5)
    os.write(ours, b" ")
    time.sleep(0.5)
    os.write(ours, b"q")
    code, said, errors = recording.end()
    os.close(ours)
    assert code == 0, errors
    assert "3 episodes, 3 of them new; 1 of these succeeded" in said
    first, second, third = recording.episodes()
    assert (first.result.success_final, first.result.terminated) == (True, True)
    assert [(event.name, event.text) for event in first.events[:3]] == [
        *(("note", "it slipped"), ("intervention", ""), ("success", "somebody said so")),
    ]
    assert [event.name for event in second.events] == ["failure", "end"]
    assert not second.result.success_final
    assert third.result.truncated
    assert "discarded" in errors


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_the_episode(bridge: Running, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    recording = Recording(bridge, tmp_path, "cameras=[]", "episodes_by=keys", terminal=theirs)
    os.close(theirs)
    recording.listens(bridge)
    os.write(ours, b" ")
    time.sleep(1.0)
    os.close(ours)
    code, _, errors = recording.end()
    assert code == 130, errors
    (episode,) = recording.episodes()
    assert len(episode.channels["/status"].values) > 50
    assert folder.interrupted(tmp_path) == []


def refusal(*overrides: str) -> str:
    with pytest.raises(ArmatureError) as found:
        record.main(["source=bridge", "min_free_gb=0.01", *overrides])
    return str(found.value)


def test_what_cannot_be_done_is_said_in_a_line(bridge: Running, tmp_path: Path) -> None:
    to = f"bridge={bridge.endpoint}"
    (tmp_path / "bad.json").write_text('{"front": {"intrinsics": [[1, 2], [3, 4]]}}')
    cases = {
        "Unknown camera 'fornt'. Did you mean 'front'?": ("cameras=[fornt]",),
        "Unknown way to begin episodes": ("episodes_by=magic",),
        "expected at least 1": ("episodes=0",),
        "intrinsics of front is no matrix of shape (3, 3)": (f"calibration={tmp_path / 'bad.json'}",),
        "cannot be read": (f"calibration={tmp_path / 'none.json'}",),
        "`armature calibrate latency` writes it": (f"latency={tmp_path / 'none.json'}",),
        "GB of room left, and min_free_gb is": ("min_free_gb=1e9",),
        "needs a terminal to type on": ("episodes_by=keys",),
        "Unknown codec": ("codec=mp3",),
    }
    for text, overrides in cases.items():
        assert text in refusal(to, f"out={tmp_path / 'out'}", *overrides)
    assert "No bridge answers" in refusal("bridge=tcp://127.0.0.1:9", f"out={tmp_path / 'out'}")


@pytest.mark.slow
def test_two_recorders_in_one_folder(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]")
    recording.listens(bridge)
    assert "Another `armature record` is writing to" in refusal(f"bridge={bridge.endpoint}", f"out={tmp_path}")
    recording.stop()


@pytest.mark.slow
def test_a_folder_of_another_task_is_refused(bridge: Running, tmp_path: Path) -> None:
    recording = Recording(bridge, tmp_path, "cameras=[]", "episodes=1", "task=One.")
    recording.listens(bridge)
    with BridgeClient(bridge.endpoint, "driver", PATIENCE_S) as client:
        armed(client)
        disarmed(client)
    assert recording.end()[0] == 0
    to = (f"bridge={bridge.endpoint}", f"out={tmp_path}", "episodes=2")
    assert "task is 'Another.', expected 'One.'" in refusal(*to, "cameras=[]", "task=Another.")
    assert "observation.images.front" in refusal(*to, "cameras=[front]", "task=One.")


@pytest.mark.slow
def test_an_expert_on_the_twin_succeeds_and_that_is_recorded(tmp_path: Path) -> None:
    """The whole way: twin, policy node, recorder, each a process of its own."""
    command = [sys.executable, "-m", "robot.cli", "bridge", "arm=twin", "task=lift", "port=0", "lease_ttl_s=2.0"]
    process = subprocess.Popen(
        [*command, "arm.limits.silence_s=2.0"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        found = re.match(r"Ready: (\S+) holds", process.stdout.readline())
        assert found
        twin = Running(process, found[1])
        recording = Recording(twin, tmp_path / "episodes", "episodes=2")
        recording.listens(twin)
        deploy = [sys.executable, "-m", "robot.cli", "deploy", "checkpoint=expert:lift", f"bridge={twin.endpoint}"]
        done = subprocess.run(
            [*deploy, "episodes=2", f"out={tmp_path}"], capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        code, _, errors = recording.end()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert code == 0, errors
    summary = json.loads((tmp_path / "deployment.json").read_text())
    told = [bool(episode.result.success_final) for episode in recording.episodes()]
    assert sum(told) >= 1, summary
    for episode in recording.episodes():
        commanded, status = episode.channels["/action/commanded"], episode.channels["/status"]
        assert commanded.values.shape[1:] == (7,)
        assert len(commanded.t_ns) >= 0.8 * (status.t_ns[-1] - status.t_ns[0]) / 1e9 / episode.header.specs.dt_s
        assert "observation.environment_state" in episode.header.specs.observation
        assert len(episode.channels["/measured/success"].values) == len(status.values)
