import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.gateway import Listen
from hardware.shared_memory import Command, Kind
from robot import cli
from robot.bridge.client import BridgeClient
from robot.bridge.schema import INDEX, Mode
from robot.episodes import folder
from robot.episodes.episode import Header, Result, topic_of
from robot.episodes.log import EpisodeWriter, LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.verbs import replay_sim
from robot.episodes.verbs.comparing import largest, resampled
from robot.episodes.verbs.replay_bridge import PIECE_S, Replay, pieces
from robot.errors import BridgeError, EpisodeError, SafetyError
from robot.loop import rollout
from robot.sim.config import EnvConfig
from robot.specs import ArraySpec
from tests.hardware.gateways import StandIn
from tests.robot.episodes.fakes import PointPusher, PointWorld, seeded_noise
from tests.robot.episodes.test_log import timed_header, write_timed

ROOT = Path(__file__).parents[4]


def run(capsys, *arguments: str, code: int | None = 0) -> str:
    assert cli.main(["episodes", "replay", *arguments]) in ((0, 1) if code is None else (code,))
    shown = capsys.readouterr()
    return shown.out + shown.err


@pytest.fixture
def pushed(tmp_path, monkeypatch) -> Path:
    """An episode of a world that is quick to make: one that takes some steps and succeeds."""
    world = PointWorld()
    steps = []
    for seed in range(100):
        steps = []
        noise = seeded_noise(seed)
        outcome = rollout(world, PointPusher(world.specs), seed, noise, steps.append)
        if outcome.steps > 2 and outcome.success_final:
            break
    assert len(steps) > 2
    with EpisodeWriter(folder.episode_path(tmp_path, 0), Header(world.specs, "expert", seed=seed)) as writer:
        for step in steps:
            writer.write(step)
        writer.finish()
    monkeypatch.setattr(replay_sim, "world_of", lambda header: None)
    monkeypatch.setattr("robot.sim.make", lambda config: PointWorld(horizon=10**6))
    return tmp_path


def test_the_world_goes_again_as_it_was_recorded(pushed, capsys):
    text = run(capsys, f"episodes={pushed}")
    assert "What was observed is what was recorded, to the bit." in text
    assert "Ended with success, recorded was success." in text


def test_other_actions_are_told_apart(pushed, capsys):
    text = run(capsys, f"episodes={pushed}", "action=device", code=None)
    assert "to the bit" not in text
    assert "Largest difference from what was recorded: " in text
    assert " m (observation.state x at " in text


def test_a_task_that_ends_otherwise_is_told(pushed, capsys, monkeypatch):
    monkeypatch.setattr("robot.sim.make", lambda config: PointWorld(horizon=10**6, hard=0.0))
    text = run(capsys, f"episodes={pushed}", code=1)
    assert "Ended with no success, recorded was success: not the same." in text


def test_a_world_that_differs_is_refused(pushed, capsys, monkeypatch):
    def other(config):
        world = PointWorld()
        world.specs = replace(world.specs, dt_s=0.1)
        return world

    monkeypatch.setattr("robot.sim.make", other)
    assert "The world is not as it was recorded: dt_s is 0.1, expected 0.05" in run(
        capsys, f"episodes={pushed}", code=1
    )


def test_mistakes_are_one_line(tmp_path, capsys):
    write_timed(folder.episode_path(tmp_path, 0))
    here = f"episodes={tmp_path}"
    assert "has no actions of stage 'commanded'. It has none." in run(capsys, here, code=1)
    assert "Unknown stage of actions 'applied'" in run(capsys, here, "action=applied", code=2)
    with pytest.raises(EpisodeError, match=r"recorded from 'leader', not in a simulated world\. Replay it through a b"):
        replay_sim.world_of(timed_header())


def test_the_world_of_an_episode_is_read_off_its_header_or_its_specs():
    env = EnvConfig(task="stack", control_hz=10.0)
    specs = PointWorld().specs
    world = replay_sim.world_of(Header(specs, "expert", notes={"env": asdict(env)}))
    assert world == replace(env, horizon=replay_sim.ENDLESS, success_hold=replay_sim.ENDLESS)
    with pytest.raises(EpisodeError, match="world of the episode cannot be made again"):
        replay_sim.world_of(Header(specs, "expert"))
    with pytest.raises(EpisodeError, match="world of the episode cannot be made again"):
        replay_sim.world_of(Header(specs, "expert", notes={"env": {"tusk": 1}}))


def test_largest_is_by_unit_and_nan_is_larger_than_all():
    specs = {"s": ArraySpec("s", (3,), names=("x", "y", "q"), unit="m m rad")}
    recorded, replayed = np.zeros((4, 3)), np.zeros((4, 3))
    replayed[1, 0], replayed[2, 1], replayed[3, 2] = 0.1, -0.3, 0.2
    found = largest(specs, {"s": (recorded, replayed)}, np.arange(4) / 2)
    assert [one.words() for one in found] == ["0.3 m (s y at 1.00 s)", "0.2 rad (s q at 1.50 s)"]
    replayed[0, 0] = np.nan
    assert largest(specs, {"s": (recorded, replayed)}, np.arange(4) / 2)[0].element in ("s x", "s y")
    np.testing.assert_allclose(resampled(np.array([0.0, 1]), np.array([[0.0], [10]]), [0.25, 2])[:, 0], [2.5, 10])


@given(st.lists(st.floats(0.03, 0.2), min_size=0, max_size=60))
def test_every_row_is_sent_once_and_near_its_time(intervals):
    t_s = np.concatenate([[0.0], np.cumsum(intervals)])
    found = pieces(t_s, 0.05)
    assert [row for piece in found for row in range(piece.first, piece.stop)] == list(range(len(t_s)))
    for piece in found:
        assert (piece.stop - piece.first) * 0.05 <= PIECE_S + 1e-9
        played = piece.begin_s + 0.05 * np.arange(piece.stop - piece.first)
        np.testing.assert_allclose(played, t_s[piece.first : piece.stop], atol=0.005 + 1e-12)
    assert len(pieces(0.05 * np.arange(20), 0.05)) == 4


class Homing(StandIn):
    """A stand-in that comes home, and can be told to stop in the midst of a replay."""

    stops_after = 10**9

    def _obey(self, command: Command, status: np.ndarray) -> None:
        super()._obey(command, status)
        status[INDEX["scene"]] += command.kind == Kind.HOME
        if len(self.chunks) >= self.stops_after:
            self.mode = Mode.DISARMED


@contextmanager
def homing() -> Iterator[Homing]:
    one = Homing(Listen("127.0.0.1"))
    one.begin()
    try:
        yield one
    finally:
        one.end()


def episode_for(bridge: StandIn, path: Path, count: int = 12, offset: float = 0.0, **changes):
    """An episode whose specs are those of the bridge's arm; every element of action k is k / 100."""
    environment = replace(bridge.gateway.schema.arm.environment, **changes)
    rng = np.random.default_rng(0)
    with LogWriter(path, Header(environment, "leader", clock="time")) as log:
        for at in range(count):
            t_ns = 5_000_000_000 + round(at * environment.dt_s * 1e9) + int(rng.integers(2_000_000))
            log.vector("/action/commanded", t_ns, np.full(environment.action.shape, at / 100))
            for key, spec in environment.observation.items():
                log.vector(topic_of(key), t_ns, np.full(spec.shape, offset))
        log.finish(Result(0, False, False, False, True))
    return EpisodeReader(path).read()


def test_actions_go_through_a_bridge_at_their_times(tmp_path):
    with homing() as bridge, bridge.client("replay") as client:
        episode = episode_for(bridge, tmp_path / "episode.mcap")
        outcome = Replay(client, episode, "commanded", 0.02).run(None)
        assert outcome.actions == 12
        assert outcome.success is None or not outcome.success
        assert {found.value for found in outcome.differences} == {0.0}
        assert bridge.mode == Mode.DISARMED
        dt_s = episode.header.specs.dt_s
        rows = np.concatenate([chunk.rows for chunk in bridge.chunks])
        np.testing.assert_allclose(rows[:, 0], np.arange(12) / 100, atol=1e-6)
        begins = np.concatenate([chunk.t0_ns + 1e9 * dt_s * np.arange(len(chunk.rows)) for chunk in bridge.chunks])
        recorded = episode.channels["/action/commanded"].t_ns
        np.testing.assert_allclose(begins - begins[0], recorded - recorded[0], atol=0.1e9 * dt_s)


def test_an_arm_that_begins_elsewhere_is_not_driven(tmp_path):
    with homing() as bridge, bridge.client("replay") as client:
        episode = episode_for(bridge, tmp_path / "episode.mcap", offset=0.5)
        with pytest.raises(BridgeError, match=r"does not begin where the episode began: 0\.5.*near=0\.02 is accepted"):
            Replay(client, episode, "commanded", 0.02).run(None)
        assert not bridge.chunks
        assert bridge.mode == Mode.DISARMED
        assert Replay(client, episode, "commanded", -1).run(None).actions == 12


def test_an_arm_that_is_another_is_refused(tmp_path):
    with homing() as bridge, bridge.client("replay") as client:
        for changes, words in (({"robot": "other"}, "robot is"), ({"dt_s": 0.1}, "dt_s is")):
            episode = episode_for(bridge, tmp_path / f"{words}.mcap", **changes)
            with pytest.raises(BridgeError, match=f"The bridge does not fit the episode: {words}"):
                Replay(client, episode, "commanded", 0.02)


def test_a_stop_in_the_midst_ends_the_replay(tmp_path):
    with homing() as bridge, bridge.client("replay") as client:
        episode = episode_for(bridge, tmp_path / "episode.mcap", count=40)
        bridge.stops_after = 2
        with pytest.raises(SafetyError, match="came to rest and was disarmed during the replay"):
            Replay(client, episode, "commanded", 0.02).run(None)
        assert len(bridge.chunks) < 8


@pytest.mark.slow
def test_the_twin_plays_what_a_simulated_world_recorded_and_ctrl_c_stops_it(tmp_path, capsys):
    assert cli.main(["record", "env=lift", "quality=clean", "episodes=1", "workers=1", f"out={tmp_path}"]) == 0
    command = [sys.executable, "-m", "robot.cli", "bridge", "arm=twin", "port=0", "arm.limits.silence_s=1.0"]
    bridge = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        endpoint = bridge.stdout.readline().split()[1]
        arguments = [f"episodes={tmp_path}", f"bridge={endpoint}"]
        capsys.readouterr()
        assert "Ended with success, recorded was success." in run(capsys, *arguments)
        replaying = [sys.executable, "-m", "robot.cli", "episodes", "replay", *arguments]
        process = subprocess.Popen(replaying, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        with BridgeClient(endpoint, "witness", 10.0) as witness:
            until = time.monotonic() + 60
            while witness.state().mode != Mode.ARMED and time.monotonic() < until:
                pass
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
            assert process.returncode == 130
            assert "Traceback" not in errors
            state = witness.state()
            assert state.status("lease") == 0
            assert state.mode in (Mode.BRAKING, Mode.DISARMED)
    finally:
        bridge.send_signal(signal.SIGINT)
        bridge.communicate(timeout=20)


@pytest.mark.slow
def test_lift_goes_again_to_the_bit(tmp_path, capsys):
    assert cli.main(["record", "env=lift", "episodes=1", "workers=1", f"out={tmp_path}"]) == 0
    assert "What was observed is what was recorded, to the bit." in run(capsys, f"episodes={tmp_path}")
