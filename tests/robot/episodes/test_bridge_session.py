"""When episodes begin and end, and what belongs to them, with states and pictures that a test makes up."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from robot.bridge.client import BridgeState
from robot.bridge.images import ImageStream
from robot.bridge.journal import Taken
from robot.bridge.schema import STATUS, BridgeSchema, Mode
from robot.control.action_spaces import joint_reference, spec
from robot.control.latency import Latency
from robot.control.plan import Reject
from robot.control.safety import Fault
from robot.episodes import bridge_take
from robot.episodes.bridge_feed import CHUNKS, STATES
from robot.episodes.bridge_log import Sight, applied_part, channels, environment, header, sight
from robot.episodes.bridge_session import ARMING, KEYS, Rules, Session, changes
from robot.episodes.bridge_take import FRESH_NS, GRACE_S, Take
from robot.episodes.episode import Episode, Event, Header
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.recorder import Recorder
from robot.errors import ConfigError, EpisodeError, UnknownNameError
from robot.specs import ArraySpec, Layout
from tests.robot.bridge import sights

MS = 1_000_000
SIZE = (16, 24)
JPEG = cv2.imencode(".jpg", np.zeros((*SIZE, 3), np.uint8))[1].tobytes()
FRONT = "/observation/images/front"


def schema(knows_success: bool = False) -> BridgeSchema:
    made = sights.schema()
    made.images["front"] = ImageStream("tcp://127.0.0.1:9", *SIZE, "jpeg", 30.0)
    if not knows_success:
        return made
    layout = Layout((*made.arm.state.specs, ArraySpec("success", (1,), "float64")))
    return replace(made, arm=replace(made.arm, state=layout))


class Connected:
    """What the header asks of a client."""

    endpoint, offset_ns, uncertainty_ns = "tcp://127.0.0.1:1", -5, 7

    def __init__(self, schema: BridgeSchema) -> None:
        self.schema = schema


class Rig:
    """A session whose episodes lie in a folder."""

    def __init__(self, folder: Path, by: str = ARMING, count: int = 9, max_s: float = 0.0, **keywords: Any) -> None:
        self.schema = schema(**keywords)
        self.folder, self.opened = folder, 0
        self.open_log: Callable[[Path, Header], Any] = LogWriter
        self.session = Session(self.schema, Rules(by, max_s, count, ("front",)), self._open)
        self.finished: list[Take] = []

    def _open(self, state: BridgeState) -> tuple[int, Recorder]:
        begun = header(Connected(self.schema), state, Sight(["front"], {}, Latency.none()), "Do it.")  # type: ignore
        self.opened += 1
        return self.opened - 1, Recorder(self.path(self.opened - 1), begun, open_log=self.open_log)

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.mcap"

    def state(self, t_ms: int, mode: Mode = Mode.ARMED, success: bool = False, **status: float) -> BridgeState:
        values = (
            {"success": [float(success)]}
            if "success" in self.schema.layout.views(np.zeros(self.schema.layout.size))
            else {}
        )
        return sights.state(self.schema, values, t_ns=t_ms * MS, mode=mode, **status)

    def states(self, begin_ms: int, end_ms: int, mode: Mode = Mode.ARMED, **keywords: Any) -> None:
        for t_ms in range(begin_ms, end_ms, 2):
            self.session.on_state(self.state(t_ms, mode, **keywords))

    def pictures(self, begin_ms: int, end_ms: int) -> None:
        for t_ms in range(begin_ms, end_ms, 10):
            self.session.on_picture("front", t_ms * MS, JPEG)

    def finish(self, is_stopped: bool = True) -> list[Episode]:
        if is_stopped:
            self.session.stop("stopped")
        while self.session.ended:
            take = self.session.ended.popleft()
            take.finish()
            self.finished.append(take)
        return [EpisodeReader(self.path(take.number)).read() for take in self.finished if not take.is_discarded]


def times(episode: Episode, topic: str = "/status") -> list[int]:
    return [int(t) // MS for t in episode.channels[topic].t_ns]


def names(episode: Episode) -> list[str]:
    return [event.name for event in episode.events]


def test_an_episode_lasts_from_armed_to_disarmed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.states(0, 10, Mode.DISARMED)
    rig.states(10, 20)
    rig.states(20, 24, Mode.BRAKING)
    rig.states(24, 30, Mode.DISARMED)
    rig.states(30, 36)
    first, second = rig.finish()
    assert times(first) == [10, 12, 14, 16, 18, 20]
    assert times(second) == [30, 32, 34]
    assert times(first, "/target") == times(first)
    assert [take.why for take in rig.finished] == ["the arm is BRAKING", "stopped"]
    assert (first.result.truncated, first.result.terminated, first.result.success_final) == (True, False, False)


def test_an_arm_that_is_armed_already_has_begun_something_else(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.states(0, 20)
    assert rig.finish() == []


def test_no_more_episodes_than_are_wanted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, count=2)
    for begin in range(0, 400, 100):
        rig.states(begin, begin + 50, Mode.DISARMED)
        rig.states(begin + 50, begin + 100)
    assert len(rig.finish()) == 2


def test_an_episode_that_is_too_long_is_cut_and_not_begun_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_s=0.02)
    rig.states(0, 10, Mode.DISARMED)
    rig.states(10, 100)
    (episode,) = rig.finish()
    assert times(episode)[-1] == 30
    assert episode.result.truncated


def test_success_is_what_the_world_says(tmp_path: Path) -> None:
    rig = Rig(tmp_path, knows_success=True)
    for begin, last in ((0, True), (100, False)):
        rig.states(begin, begin + 10, Mode.DISARMED)
        rig.states(begin + 10, begin + 20)
        rig.states(begin + 20, begin + 30, success=True)
        rig.states(begin + 30, begin + 40, success=last)
        rig.states(begin + 40, begin + 42, Mode.BRAKING, success=last)
    won, lost = rig.finish()
    assert (won.result.success_final, won.result.success_sticky, won.result.terminated) == (True, True, True)
    assert (lost.result.success_final, lost.result.success_sticky, lost.result.truncated) == (False, True, True)
    assert names(won) == ["mode", "success", "mode", "end"]
    np.testing.assert_array_equal(won.channels["/measured/success"].values[:, 0], [0] * 5 + [1] * 11)


def test_keys_begin_end_and_label(tmp_path: Path) -> None:
    rig = Rig(tmp_path, KEYS, knows_success=True)
    session = rig.session
    rig.states(0, 10)
    session.begin()
    rig.states(10, 20)
    assert session.event(Event(15 * MS, "note", "hello"))
    assert session.end(label=True)
    assert not session.end()
    assert not session.event(Event(16 * MS, "note"))
    rig.states(20, 30)
    session.begin()
    rig.states(30, 40, success=True)
    assert session.end(label=False)
    session.begin()
    rig.states(40, 50, Mode.DISARMED)
    session.end()
    first, second, third = rig.finish()
    assert [times(episode) for episode in (first, second, third)] == [
        *(list(range(begin, begin + 10, 2)) for begin in (10, 30, 40)),
    ]
    assert (first.result.success_final, second.result.success_final, second.result.success_sticky) == (
        True,
        False,
        True,
    )
    assert names(first) == ["note", "success", "end"]
    assert names(second) == ["success", "failure", "end"]
    assert "/target" not in third.channels  # nothing is written to an arm that rests


def test_a_discarded_episode_is_gone_and_does_not_count(tmp_path: Path) -> None:
    rig = Rig(tmp_path, KEYS, count=1)
    rig.session.begin()
    rig.states(0, 10)
    assert rig.session.discard()
    assert not rig.session.discard()
    rig.session.begin()
    rig.states(10, 20)
    (episode,) = rig.finish()
    assert times(episode)[0] == 10
    assert [path.name for path in tmp_path.iterdir()] == ["1.mcap"]


def test_pictures_of_the_episode_whenever_they_come(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.states(0, 100, Mode.DISARMED)
    rig.pictures(0, 100)
    rig.states(100, 200)
    rig.pictures(100, 170)
    rig.states(200, 210, Mode.BRAKING)
    rig.session.on_tick()
    assert not rig.session.ended  # pictures of before its end may be on their way
    rig.pictures(170, 230)
    rig.session.on_tick()
    (episode,) = rig.finish(is_stopped=False)
    # The last one of before the beginning, so that the first state has one; none of the end or later.
    assert [int(t) // MS for t in episode.pictures[FRONT].t_ns] == list(range(90, 200, 10))
    assert next(iter(episode.pictures[FRONT].pictures)).shape == (*SIZE, 3)


def test_a_camera_that_is_dead_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(bridge_take, "time", SimpleNamespace(monotonic=lambda: now_s))
    rig = Rig(tmp_path)
    rig.session.on_picture("front", 0, JPEG)
    rig.states(1000, 1010, Mode.DISARMED)
    rig.states(1010, 1020)
    rig.states(1020, 1022, Mode.FAULT)
    rig.session.on_tick()
    assert rig.session.is_busy
    now_s = GRACE_S
    rig.session.on_tick()
    (episode,) = rig.finish(is_stopped=False)
    assert 1010 * MS - FRESH_NS > 0
    assert FRONT not in episode.pictures
    assert not rig.session.is_busy


def test_gaps_are_told_for_all_that_is_missing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.session.on_gap(STATES, 5, 0, 1)
    rig.states(0, 10, Mode.DISARMED)
    rig.session.on_gap("front", 1, 2 * MS, 8 * MS)
    rig.states(10, 20)
    rig.session.on_gap(STATES, 2, 18 * MS, 24 * MS)
    rig.session.on_gap("front", 3, 5 * MS, 20 * MS)
    rig.session.on_gap(CHUNKS, 1, 18 * MS, 24 * MS)
    rig.states(24, 30)
    (episode,) = rig.finish()
    told = {event.data["topic"]: event.data["count"] for event in episode.events if event.name == "dropped"}
    measured = [f"/measured/{key}" for key in ("q", "dq", "ee_pos", "ee_rot6d", "gripper")]
    assert told == dict.fromkeys(["/status", "/observation/state", *measured], 2) | {FRONT: 3, "/command/chunks": 1}


def test_one_measurement_that_is_told_twice_is_logged_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, KEYS)
    rig.session.begin()
    rig.states(0, 4)
    rig.session.on_state(rig.state(2, Mode.HOMING))
    rig.session.on_state(rig.state(2, Mode.DISARMED))
    rig.states(4, 8, Mode.DISARMED)
    (episode,) = rig.finish()
    assert times(episode) == [0, 2, 4, 6]
    assert names(episode) == ["mode", "mode", "unlabelled", "end"]


def chunk(t_ms: int, sequence: int, rows: np.ndarray, verdict: Reject = Reject.NONE) -> Taken:
    return Taken(sequence, 5, 1, t_ms * MS, verdict, t_ms * MS, 0.01, rows)


def test_chunks_of_one_cycle_stay_apart(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.states(0, 10, Mode.DISARMED, lease=5)
    rig.states(10, 20, lease=5)
    rows = np.arange(14.0).reshape(2, 7)
    for number in (1, 2):
        rig.session.on_chunk(chunk(20, number, rows + number))
    rig.session.on_chunk(chunk(20, 3, rows[:, :3], Reject.NOT_ARMED))
    rig.states(20, 50, lease=5)
    (episode,) = rig.finish()
    told = episode.channels["/command/chunks"]
    assert (told.t_ns - 20 * MS).tolist() == [0, 1, 2]
    assert told.values[:, [0, 3, 6]].tolist() == [[1, 0, 2], [2, 0, 2], [3, Reject.NOT_ARMED, 2]]
    planned = episode.channels["/command/rows"]
    assert (planned.t_ns - 20 * MS).tolist() == [0, 1, 2, 3]
    assert (planned.values[:, 2] / MS).tolist() == [20, 30, 20, 30]
    commanded = episode.channels["/action/commanded"]
    assert times(episode, "/action/commanded") == [20, 30]
    np.testing.assert_array_equal(commanded.values, (rows + 2).astype(np.float32))


def test_an_episode_in_mid_motion_begins_with_the_row_in_force(tmp_path: Path) -> None:
    rig = Rig(tmp_path, KEYS)
    rig.states(0, 10, lease=5)
    rig.session.on_chunk(chunk(10, 1, np.arange(14.0).reshape(2, 7)))
    rig.states(10, 24, lease=5)
    rig.session.begin()
    rig.states(24, 40, lease=5)
    (episode,) = rig.finish()
    assert times(episode, "/action/commanded") == [20]
    assert times(episode)[0] == 24


class Full:
    """A log on a full disk."""

    def __init__(self, path: Path, header: Header) -> None:
        self.is_closed = False

    def vector(self, *_: Any) -> None:
        raise EpisodeError("The disk is full.")

    picture = event = vector

    def finish(self, result: Any) -> None:
        raise AssertionError("nothing to finish")

    def close(self) -> None:
        self.is_closed = True


def test_a_full_disk_ends_the_episode_and_not_the_feed(tmp_path: Path) -> None:
    import time

    rig = Rig(tmp_path)
    rig.open_log = Full
    rig.states(0, 10, Mode.DISARMED)
    t_ms = 10
    while not rig.session.ended:
        rig.states(t_ms, t_ms + 10)
        rig.pictures(t_ms, t_ms + 10)
        t_ms += 10
        time.sleep(0.005)
        assert t_ms < 5000
    rig.states(t_ms, t_ms + 10)
    assert rig.session.running is None
    with pytest.raises(EpisodeError, match="disk is full"):
        rig.finish()


def test_what_happened_between_two_states() -> None:
    of = sights.schema()

    def found(before: dict[str, float], after: dict[str, float]) -> list[tuple[str, str]]:
        told = changes(sights.state(of, **before), sights.state(of, **after))
        return [(event.name, event.text) for event in told]

    quiet = {"mode": Mode.ARMED, "lease": 5.0, "lease_priority": 1.0}
    assert found(quiet, quiet) == []
    assert found(quiet, {**quiet, "mode": Mode.BRAKING}) == [("mode", "ARMED to BRAKING")]
    assert found(quiet, {**quiet, "mode": Mode.FAULT, "fault": Fault.ESTOP}) == [
        *(("mode", "ARMED to FAULT"), ("fault", "ESTOP")),
    ]
    assert found(quiet, {**quiet, "lease": 6.0, "lease_priority": 2.0}) == [("intervention", "a teleop client drives")]
    assert found({**quiet, "lease_priority": 2.0}, {**quiet, "lease": 6.0}) == [("driver", "a policy client drives")]
    assert found(quiet, {"mode": Mode.ARMED}) == []


def test_what_is_applied_of_a_target() -> None:
    arm = sights.schema().arm
    assert applied_part(arm) is None
    poses = replace(arm, environment=replace(arm.environment, action=spec("ee_pose"), action_space="ee_pose"))
    assert applied_part(poses).tolist() == list(range(10))  # type: ignore[union-attr]
    joints = replace(arm.environment, action=spec("joint_position"), action_space="joint_position")
    followed = replace(arm, environment=joints, target=joint_reference(7), target_space="joint_reference")
    part = applied_part(followed)
    assert part is not None
    assert [followed.target.names[k] for k in part] == list(joints.action.names)


def test_channels_are_those_of_the_arm() -> None:
    of = schema(knows_success=True)
    found = channels(of)
    assert found["/status"].names == STATUS
    assert set(found) == {
        *("/status", "/target", "/command/chunks", "/command/rows"),
        *(f"/measured/{key}" for key in ("q", "dq", "ee_pos", "ee_rot6d", "gripper", "success")),
    }
    specs = environment(of, ["front"], "")
    assert specs.task == "Do it."
    assert specs.observation["observation.images.front"].shape == (*SIZE, 3)
    with pytest.raises(UnknownNameError, match="Did you mean 'front'"):
        environment(of, ["frnt"], "")


def test_what_is_known_of_cameras_goes_into_the_header(tmp_path: Path) -> None:
    calibration, latency = tmp_path / "c.json", tmp_path / "l.json"
    calibration.write_text(json.dumps({"front": {"intrinsics": np.eye(3).tolist(), "serial": "42"}}))
    Latency({"front": 0.02, "state": 0.001}, 0.03, 0.004).save(latency)
    begins = sights.state(schema(), seed=17)
    made = header(Connected(schema()), begins, sight(["front"], str(calibration), str(latency)), "")  # type: ignore
    assert made.cameras["observation.images.front"] == {
        **{"intrinsics": np.eye(3).tolist(), "serial": "42"},
        **{"fps": 30.0, "encoding": "jpeg", "latency_s": 0.02},
    }
    assert made.notes["latency"]["action_s"] == 0.03
    assert (made.seed, made.notes["seed"]) == (17, 17)
    assert made.notes["clock"] == {"offset_ns": -5, "uncertainty_ns": 7}


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"front": 5}', '{"front": {"T_base_camera": "x"}}', '{"a": {"intrinsics": [[NaN]]}}']
)
def test_a_calibration_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ConfigError, match="calibration="):
        sight([], str(tmp_path / "c.json"), "")
