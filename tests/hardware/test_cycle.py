"""The state machine on a fake arm with a clock of the test's own: no processes, no sockets, no waiting."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hardware.cycle import Cycle
from hardware.fake import FakeArm
from hardware.pacing import Pacer
from hardware.shared_memory import Command, Kind, SharedMemory, Word
from robot.bridge.schema import INDEX, Mode, Outcome, state_layout
from robot.bridge.wire import public_id
from robot.control.plan import Reject
from robot.control.safety import Clamp, Fault
from robot.errors import BridgeError, DeviceError
from tests.hardware.settings import limits, settings

DT, PERIOD = 50_000_000, 2_000_000
HOLDER, OTHER = 77, 88


class FaultyArm(FakeArm):
    """A fake arm that fails when told to, and remembers what was written."""

    fails: str = ""

    def read(self, state: np.ndarray) -> None:
        if self.fails in ("read", "gone"):
            raise DeviceError("no answer")
        super().read(state)
        if self.fails == "nan":
            state[3] = np.nan
        if self.fails == "fast":
            self.specs.state.views(state)["dq"][0] = 1e3

    def write(self, target: np.ndarray) -> None:
        if self.fails == "write":
            raise DeviceError("no answer")
        super().write(target)
        self.written = getattr(self, "written", [])
        self.written.append(target.copy())

    def stop(self) -> None:
        if self.fails in ("stop", "gone"):
            raise DeviceError("still moving")
        super().stop()
        self.stops = getattr(self, "stops", 0) + 1

    def recover(self, seed: int | None = None) -> None:
        if self.fails == "gone":
            raise DeviceError("still unplugged")
        super().recover(seed)


class Rig:
    def __init__(self, action_space: str = "ee_delta", **changed: Any) -> None:
        chosen = settings("arm=fake", f"arm.action_space={action_space}")
        self.arm = FaultyArm(chosen.arm, chosen.env)
        self.arm.open()
        self.memory = SharedMemory.create()
        self.limits = limits(**changed)
        self.cycle = Cycle(self.arm, self.limits, self.memory, Pacer(500))
        self.layout = state_layout(self.arm.specs)
        self.now = 10**12
        self.sequence = self.operation = 0
        self.is_alive = True
        self.run(1)

    def run(self, cycles: int) -> None:
        for _ in range(cycles):
            if self.is_alive:
                self.memory.words[Word.LEASE_ALIVE_NS] = self.now
            self.cycle.run(self.now)
            self.now += PERIOD

    def lease(self, session: int = HOLDER, for_s: float = 1e3) -> None:
        self.memory.words[Word.LEASE_SESSION] = session
        self.memory.words[Word.LEASE_UNTIL_NS] = self.now + int(for_s * 1e9)

    def send(
        self, rows: Any, session: int = HOLDER, sequence: int | None = None, t0: int | None = None, dt: int = DT
    ) -> Reject:
        self.sequence += 1
        number, t0 = self.sequence if sequence is None else sequence, self.now if t0 is None else t0
        before = self.status("rejected")
        self.memory.commands.push(Command(Kind.CHUNK, session, number, t0, dt, rows=np.atleast_2d(rows).astype(float)))
        self.run(1)
        return Reject(int(self.status("reject"))) if self.status("rejected") > before else Reject.NONE

    def ask(self, kind: Kind, session: int = HOLDER, seed: int = -1) -> Outcome:
        self.operation += 1
        self.memory.commands.push(Command(kind, session, self.operation, seed=seed))
        self.run(1)
        assert self.status("operation") == self.operation
        return Outcome(int(self.status("outcome")))

    def armed(self) -> "Rig":
        self.lease()
        assert self.ask(Kind.ARM) == Outcome.DONE
        return self

    def values(self) -> dict[str, np.ndarray]:
        flat = np.zeros(self.layout.size)
        self.memory.states.read(flat)
        return self.layout.views(flat)

    def status(self, name: str) -> float:
        return float(self.values()["status"][INDEX[name]])

    @property
    def mode(self) -> Mode:
        return Mode(int(self.status("mode")))


UP = [0, 0, 1, 0, 0, 0, 0]


def test_moves_only_when_armed_under_a_lease() -> None:
    rig = Rig()
    assert rig.ask(Kind.ARM) == Outcome.NO_LEASE
    assert rig.send(UP) == Reject.NO_LEASE
    rig.lease()
    assert rig.send(UP) == Reject.NOT_ARMED
    assert rig.ask(Kind.ARM, session=OTHER) == Outcome.NO_LEASE
    assert not hasattr(rig.arm, "written")
    assert rig.ask(Kind.ARM) == Outcome.DONE
    start = rig.values()["ee_pos"].copy()
    assert rig.send([UP] * 4) == Reject.NONE
    rig.run(50)
    assert rig.values()["ee_pos"][2] > start[2] + 0.02
    assert rig.status("lease") == public_id(HOLDER)
    assert rig.status("applied_sequence") == rig.sequence


@pytest.mark.parametrize(
    ("rows", "kind"),
    [([np.nan, *UP[1:]], Reject.NOT_FINITE), ([np.inf, *UP[1:]], Reject.NOT_FINITE), ([0.0] * 6, Reject.SHAPE)],
)
def test_nonsense_is_rejected_and_nothing_moves(rows: list[float], kind: Reject) -> None:
    rig = Rig().armed()
    before = rig.values()["target"].copy()
    assert rig.send(rows) == kind
    rig.run(20)
    np.testing.assert_array_equal(rig.values()["target"], before)


def test_replayed_late_and_early_chunks_are_rejected() -> None:
    rig = Rig().armed()
    assert rig.send(UP, sequence=10) == Reject.NONE
    assert rig.send(UP, sequence=10) == Reject.SEQUENCE
    assert rig.send(UP, sequence=9) == Reject.SEQUENCE
    assert rig.send(UP, sequence=11, t0=rig.now - 2 * DT) == Reject.TOO_LATE
    assert rig.send(UP, sequence=11, t0=rig.now + 2 * 10**9) == Reject.TOO_FAR_AHEAD
    assert rig.send(UP, sequence=11, session=OTHER) == Reject.NO_LEASE
    assert rig.send(UP, sequence=11, dt=DT // 10) == Reject.PERIOD
    assert rig.send(UP, sequence=11) == Reject.NONE


def test_a_flood_of_commands_waits() -> None:
    rig = Rig().armed()
    for number in range(1, 21):
        rig.memory.commands.push(Command(Kind.CHUNK, HOLDER, number, rig.now, DT, rows=np.zeros((1, 7))))
    rig.run(1)
    assert rig.status("last_sequence") == 4
    rig.run(4)
    assert rig.status("last_sequence") == 20


def test_actions_beyond_the_range_are_clamped_and_reported() -> None:
    rig = Rig().armed()
    assert rig.send([0, 0, 9, 0, 0, 0, 0]) == Reject.NONE
    assert int(rig.status("clamp_mask")) & Clamp.ACTION
    assert rig.values()["target"][2] <= rig.values()["ee_pos"][2] + 0.0501
    assert rig.status("clamped") >= 1


def test_full_deltas_of_a_policy_are_never_clamped() -> None:
    rig = Rig().armed()
    signs = np.array([1, -1] * 6)
    for sign in signs:
        assert rig.send([[sign, -sign, sign, 0.5 * sign, 0, 0, 1]]) == Reject.NONE
        rig.run(24)
    assert rig.mode == Mode.ARMED
    assert rig.status("clamped") == 0


def test_the_end_of_commands_is_rest_within_the_bound_and_the_end_of_the_lease_disarms() -> None:
    rig = Rig().armed()
    rig.lease(for_s=0.6)
    rig.send([UP] * 2)
    rig.run(2 * 25)
    heights = []
    for _ in range(140):
        rig.run(1)
        heights.append(rig.values()["target"][2])
    # Held for 1.5 periods (75 ms), then at rest within 100 ms.
    assert heights[-1] == heights[90]
    assert heights[30] > heights[-1]
    assert rig.mode == Mode.ARMED
    rig.run(130)
    assert rig.mode == Mode.DISARMED
    assert rig.send(UP) == Reject.NO_LEASE
    rig.lease()
    assert rig.send(UP) == Reject.NOT_ARMED


def test_a_lost_lease_stops_a_long_plan() -> None:
    rig = Rig().armed()
    rig.lease(for_s=0.1)
    rig.send([UP] * 10)
    rig.run(50)
    assert rig.mode in (Mode.ARMED, Mode.BRAKING)
    rig.run(60)
    assert rig.mode == Mode.DISARMED
    assert np.abs(rig.values()["dq"]).max() < 0.05
    rig.run(5)
    height = rig.values()["ee_pos"][2]
    rig.run(200)
    assert rig.values()["ee_pos"][2] == pytest.approx(height, abs=1e-4)


def test_another_holder_has_to_arm_for_itself() -> None:
    rig = Rig().armed()
    rig.send([UP] * 10)
    rig.lease(OTHER)
    rig.run(60)
    assert rig.mode == Mode.DISARMED
    assert rig.send(UP, session=OTHER) == Reject.NOT_ARMED


def test_estop_latches_and_needs_reset_and_arming() -> None:
    rig = Rig().armed()
    rig.send([UP] * 10)
    rig.memory.words[Word.ESTOP] = 1
    rig.run(1)
    assert rig.mode == Mode.FAULT
    assert rig.status("fault") == Fault.ESTOP
    assert rig.arm.stops == 1
    assert rig.ask(Kind.RESET) == Outcome.ESTOPPED
    rig.memory.words[Word.ESTOP] = 0
    rig.run(5)
    assert rig.mode == Mode.FAULT
    assert rig.ask(Kind.ARM) == Outcome.ESTOPPED
    assert rig.ask(Kind.RESET, session=OTHER) == Outcome.NO_LEASE
    assert rig.ask(Kind.RESET) == Outcome.DONE
    assert rig.send(UP) == Reject.NOT_ARMED
    assert rig.ask(Kind.ARM) == Outcome.DONE


def test_a_stop_counts_only_when_the_driver_confirms() -> None:
    rig = Rig().armed()
    rig.arm.fails = "stop"
    rig.memory.words[Word.ESTOP] = 1
    rig.run(10)
    assert rig.mode == Mode.STOPPING
    rig.arm.fails = ""
    rig.run(1)
    assert rig.mode == Mode.FAULT


@pytest.mark.parametrize(
    ("fails", "fault"),
    [
        ("read", Fault.DEVICE),
        ("write", Fault.DEVICE),
        ("nan", Fault.MEASUREMENT),
        ("fast", Fault.JOINT_VELOCITY),
    ],
)
def test_a_failing_arm_is_stopped(fails: str, fault: Fault) -> None:
    rig = Rig().armed()
    rig.send([UP] * 10)
    rig.arm.fails = fails
    rig.run(1)
    assert rig.mode == Mode.FAULT
    assert rig.status("fault") == fault
    written = len(rig.arm.written)
    rig.arm.fails = ""
    assert rig.send(UP) == Reject.NOT_ARMED
    rig.run(20)
    assert len(rig.arm.written) == written


def test_anybody_may_stop_only_the_holder_may_home_at_standstill() -> None:
    rig = Rig().armed()
    rig.send([UP] * 10)
    rig.run(10)
    assert rig.ask(Kind.HOME) == Outcome.MOVING
    assert rig.ask(Kind.HOME, session=OTHER) == Outcome.NO_LEASE
    assert rig.ask(Kind.STOP, session=OTHER) == Outcome.DONE
    assert rig.mode == Mode.BRAKING
    rig.run(80)
    assert rig.mode == Mode.DISARMED
    assert rig.ask(Kind.HOME) == Outcome.DONE
    assert rig.status("scene") == 1
    assert rig.mode == Mode.DISARMED


def test_the_scene_of_a_simulated_arm_is_told_and_so_is_when_it_was_measured() -> None:
    rig = Rig()
    rig.lease()
    assert rig.status("seed") == -1
    for seed, told in ((17, 17), (2**60, -1), (0, 0), (-1, -1)):
        assert rig.ask(Kind.HOME, seed=seed) == Outcome.DONE
        assert rig.status("seed") == told
    # What is measured after a recovery, which may take long, is not of the time before it.
    assert rig.status("t_ns") != rig.now


def test_every_chunk_gets_its_verdict() -> None:
    rig = Rig().armed()
    first = rig.memory.commands.pushed
    rig.send([UP] * 4)
    taken_ns = rig.status("t_ns")
    rig.send([UP] * 4, sequence=1)
    assert rig.memory.commands.verdict(first + 1) == (Reject.NONE, taken_ns)
    assert rig.memory.commands.verdict(first + 2) == (Reject.SEQUENCE, rig.status("t_ns"))


def test_arming_outside_the_workspace_is_refused() -> None:
    rig = Rig(workspace_low_m=[0.5, -0.5, -0.1])
    rig.lease()
    assert rig.ask(Kind.ARM) == Outcome.OUTSIDE


wild = st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0]) | st.floats(-2, 2)
streams = st.lists(
    st.tuples(
        st.lists(wild, min_size=7, max_size=7),
        st.integers(1, 6),
        st.integers(-120, 120),
        st.sampled_from([HOLDER, HOLDER, HOLDER, OTHER]),
        st.integers(-1, 3),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=25,
)


@hypothesis_settings(max_examples=40, deadline=None)
@given(streams)
def test_whatever_arrives_what_is_written_is_safe(stream: Any) -> None:
    rig = Rig(workspace_low_m=[0.40, -0.05, 0.05], workspace_high_m=[0.50, 0.05, 0.15]).armed()
    low, high = np.array(rig.limits.workspace_low_m), np.array(rig.limits.workspace_high_m)
    for action, count, offset_ms, session, step, cycles in stream:
        with np.errstate(all="ignore"):
            rig.send([action] * count, session, rig.sequence + step, rig.now + offset_ms * 1_000_000)
            rig.run(cycles)
    written = np.array(rig.arm.written)
    assert np.isfinite(written).all()
    assert ((written[:, :3] >= low - 1e-12) & (written[:, :3] <= high + 1e-12)).all()
    assert (np.abs(written[:, 9]) <= 1).all()
    steps = np.linalg.norm(np.diff(written[:, :3], axis=0), axis=1)
    assert (steps <= rig.limits.linear_speed_mps * (rig.limits.speed_window_s + 0.002)).all()


def test_an_unplugged_arm_is_stopping_until_it_is_back_and_has_confirmed() -> None:
    rig = Rig().armed()
    rig.send([UP] * 4)
    rig.arm.fails = "gone"
    rig.run(50)
    assert rig.mode == Mode.STOPPING
    assert rig.cycle.complaint == "no answer"
    assert rig.ask(Kind.RESET) == Outcome.MOVING
    assert rig.mode == Mode.STOPPING
    rig.arm.fails = ""
    assert rig.ask(Kind.RESET) == Outcome.MOVING
    rig.run(1)
    assert rig.mode == Mode.FAULT
    assert Fault(int(rig.status("fault"))) == Fault.DEVICE
    assert rig.ask(Kind.RESET) == Outcome.DONE
    assert rig.mode == Mode.DISARMED
    assert rig.ask(Kind.ARM) == Outcome.DONE


def test_poses_are_followed_as_they_are() -> None:
    rig = Rig("ee_pose").armed()
    here = rig.values()
    row = np.concatenate([here["ee_pos"] + [0, 0, 0.02], 2 * here["ee_rot6d"] / 2, [0.0]])
    assert rig.send(row) == Reject.NONE
    np.testing.assert_allclose(rig.arm.written[-1], row, atol=1e-12)
    row[6:9] = row[3:6]
    assert rig.send(row) == Reject.ROTATION


def test_an_arm_of_poses_takes_no_joints() -> None:
    with pytest.raises(BridgeError, match="ee_delta, ee_pose, not joint_position"):
        Rig("joint_position")
