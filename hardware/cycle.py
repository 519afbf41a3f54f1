"""What happens in every cycle of the real-time process: read, decide, check, write, publish. No clock, no sleep."""

import contextlib
import gc
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hardware.guidance import guidance
from hardware.pacing import Pacer
from hardware.shared_memory import Command, Kind, SharedMemory, Word
from robot.bridge.schema import INDEX, STANDSTILL_RADPS, Mode, Outcome, state_layout
from robot.bridge.wire import public_id
from robot.contract import Arm
from robot.control.limits import Limits
from robot.control.plan import Plan, Reject
from robot.control.safety import Clamp, Fault, Situation, Workspace
from robot.errors import DeviceError

SHORTEST_COLUMN = 0.01
"""Columns of a rotation may have any length, but not nearly none: what they point to would be noise."""
COMMANDS_A_CYCLE = 4
"""A flood of commands waits; it does not delay the loop."""
EXACT = 2**53
"""Integers below are exact as float64."""
_STATISTICS_EVERY = 128


class Cycle:
    """The state machine of one arm. It moves only while armed, under a valid lease, towards a checked target."""

    def __init__(
        self, arm: Arm, limits: Limits, memory: SharedMemory, pacer: Pacer, model_path: Path | None = None
    ) -> None:
        """Nothing moves yet.

        Args:
            arm: Open; only this loop calls it from now on.
            limits: Of its target space.
            memory: Shared with the gateway.
            pacer: Beats the loop.
            model_path: Kinematics of an arm that follows joints.
        """
        self._arm, self._memory, self._pacer = arm, memory, pacer
        self._action = arm.specs.environment.action
        self._low, self._high = self._action.bounds()
        self._dt_ns = round(arm.specs.environment.dt_s * 1e9)
        self._is_delta = arm.specs.environment.action_space == "ee_delta"
        self._clip = Clamp.NONE
        layout = state_layout(arm.specs)
        self._flat = np.zeros(layout.size)
        views = layout.views(self._flat)
        self._status, self._target = views["status"], views["target"]
        self._measured = self._flat[self._status.size + self._target.size :]
        self._written = np.zeros(self._target.size)
        wanted = np.zeros(views["q"].size)
        self._situation = Situation(self._written, views["q"], views["dq"], views["ee_pos"], views["ee_rot6d"], wanted)
        self._workspace = Workspace(limits)
        self._plan = Plan(limits, self._action.shape[0])
        self._follower, self._checks, self._clearance = guidance(arm.specs, limits, model_path, self._plan)
        self._silence_ns = int(limits.silence_s * 1e9)
        self.mode, self.fault, self.complaint = Mode.DISARMED, Fault.NONE, ""
        self._session = self._public_id = self._received_ns = 0
        self._had_row = False
        self._status[INDEX["seed"]] = -1

    def run(self, now_ns: int) -> None:
        """One cycle, at `now_ns` [CLOCK_MONOTONIC ns]."""
        self._status[INDEX["clamp_mask"]] = Clamp.NONE
        now_ns = self._read(now_ns)
        self._status[INDEX["t_ns"]] = now_ns
        self._guard(now_ns)
        for _ in range(COMMANDS_A_CYCLE):
            if (command := self._memory.commands.pop()) is None:
                break
            self._obey(command, now_ns)
        if self.mode in (Mode.ARMED, Mode.BRAKING, Mode.HOMING):
            self._move(now_ns)
        if self.mode == Mode.STOPPING:
            self._confirm_stop()
        self._publish(now_ns)

    def come_to_rest(self, now_ns: int) -> None:
        """Brake if anything moves: nobody is there to lead any more."""
        if self.mode in (Mode.ARMED, Mode.HOMING):
            self._brake(now_ns)

    @property
    def is_at_rest(self) -> bool:
        """Whether the loop may end: nothing is led anywhere."""
        return self.mode in (Mode.DISARMED, Mode.FAULT)

    def halt(self, fault: Fault) -> None:
        """Latch a stop. The mode says FAULT only after the driver has confirmed it."""
        if self.mode not in (Mode.STOPPING, Mode.FAULT):
            self.fault, self.mode = fault, Mode.STOPPING
            self._plan.clear()

    def _fail(self, error: DeviceError) -> None:
        if self.mode not in (Mode.STOPPING, Mode.FAULT):
            self.complaint = str(error)
        self.halt(Fault.DEVICE)

    def _read(self, now_ns: int) -> int:
        """Measure; the time at which the cycle began."""
        try:
            self._arm.read(self._measured)
        except DeviceError as error:
            self._fail(error)
            if self._arm.specs.clock == "robot":
                # A robot that has stopped beats no time.
                time.sleep(self._pacer.period_ns / 1e9)
            return now_ns
        if not np.isfinite(self._measured).all():
            self.halt(Fault.MEASUREMENT)
        return self._pacer.arrived(now_ns)

    def _guard(self, now_ns: int) -> None:
        """What stops the arm without being asked: the e-stop, the end of the lease, silence, a loop that was away."""
        words = self._memory.words
        if words[Word.ESTOP]:
            self.halt(Fault.ESTOP)
        session = int(words[Word.LEASE_SESSION]) if now_ns < words[Word.LEASE_UNTIL_NS] else 0
        is_moving = self.mode in (Mode.ARMED, Mode.HOMING)
        if session != self._session:
            self._session, self._public_id = session, public_id(session) if session else 0
            self._plan.begin_session()
            is_agreed = session != 0 and session == words[Word.LEASE_BLEND_SESSION] and self.mode == Mode.ARMED
            if is_agreed:
                # The arm slows down from where it is, armed, until its new holder's first chunk leads it on.
                self._follower.brake(now_ns)
            elif is_moving:
                self._brake(now_ns)
        silence_ns = now_ns - int(words[Word.LEASE_ALIVE_NS]) if session else 0
        self._status[INDEX["silence_s"]] = max(0.0, silence_ns / 1e9)
        if is_moving and (silence_ns > self._silence_ns or self._pacer.gap_ns > self._silence_ns):
            self._brake(now_ns)

    def _brake(self, now_ns: int) -> None:
        self._follower.brake(now_ns)
        self.mode = Mode.BRAKING

    def _obey(self, command: Command, now_ns: int) -> None:
        if command.kind == Kind.CHUNK:
            reject = self._take(command, now_ns)
            self._status[INDEX["reject"]] = reject
            self._status[INDEX["rejected"]] += reject != Reject.NONE
            self._memory.commands.judge(reject, now_ns)
            return
        operations: dict[Kind, Callable[[Command, int], Outcome]] = {
            Kind.ARM: self._to_arms,
            Kind.DISARM: self._disarm,
            Kind.STOP: self._disarm,
            Kind.HOME: self._home,
            Kind.RESET: self._reset,
        }
        is_holder = self._session != 0 and command.session == self._session
        if command.kind == Kind.STOP or is_holder:
            outcome = operations[command.kind](command, now_ns)
        else:
            outcome = Outcome.NO_LEASE
        self._status[INDEX["operation"]], self._status[INDEX["outcome"]] = command.number, outcome

    def _take(self, command: Command, now_ns: int) -> Reject:
        if self._session == 0 or command.session != self._session:
            return Reject.NO_LEASE
        if self.mode != Mode.ARMED:
            return Reject.NOT_ARMED
        if command.rows is None or command.rows.shape[1:] != self._action.shape:
            return Reject.SHAPE
        if self._is_delta and abs(command.dt_ns - self._dt_ns) > self._dt_ns // 100:
            return Reject.PERIOD
        if not np.isfinite(command.rows).all():
            return Reject.NOT_FINITE
        rows = np.clip(command.rows, self._low, self._high)
        if self._action.shape == (10,) and not _are_rotations(rows[:, 3:9]):
            return Reject.ROTATION
        reject = self._plan.add(command.number, command.t0_ns, command.dt_ns, rows, now_ns)
        if reject == Reject.NONE:
            self._follower.replan(now_ns, self._situation)
            self._received_ns = now_ns
            self._clip = Clamp.NONE if np.array_equal(rows, command.rows) else Clamp.ACTION
            self._status[INDEX["last_sequence"]] = command.number
        return reject

    def _to_arms(self, command: Command, now_ns: int) -> Outcome:
        if self.mode == Mode.ARMED:
            return Outcome.DONE
        if self.mode != Mode.DISARMED:
            return Outcome.MOVING if self.mode in (Mode.BRAKING, Mode.HOMING) else self._why_not()
        if not self._workspace.contains(self._situation.ee_pos):
            return Outcome.OUTSIDE
        self._begin(now_ns)
        self.mode = Mode.ARMED
        return Outcome.DONE

    def _begin(self, now_ns: int) -> None:
        """From rest: the target is where the arm is."""
        self._plan.clear()
        self._follower.rest(self._situation, gripper=0.0)
        self._follower.fill(now_ns, self._situation, self._written)
        for check in self._checks:
            check.reset()
        self._had_row = False

    def _disarm(self, command: Command, now_ns: int) -> Outcome:
        if self.mode in (Mode.ARMED, Mode.HOMING):
            self._brake(now_ns)
        return Outcome.DONE

    def _home(self, command: Command, now_ns: int) -> Outcome:
        if self.mode in (Mode.STOPPING, Mode.FAULT):
            return self._why_not()
        is_still = (np.abs(self._situation.dq) <= STANDSTILL_RADPS).all()
        if self.mode in (Mode.BRAKING, Mode.HOMING) or not (self._follower.is_resting and is_still):
            return Outcome.MOVING
        if not self._recover(None if command.seed < 0 else command.seed):
            return Outcome.DEVICE
        self._begin(now_ns)
        if self._arm.specs.is_simulated:
            self._status[INDEX["seed"]] = command.seed if command.seed < EXACT else -1
        if self._arm.specs.is_simulated or not self._follower.lead_home(now_ns, self._situation):
            self.mode = Mode.DISARMED
            self._status[INDEX["scene"]] += 1
        return Outcome.DONE

    def _recover(self, seed: int | None) -> bool:
        """Let the device clear its faults, which may take long; whether it could."""
        self.mode = Mode.HOMING
        self._publish(time.monotonic_ns())
        try:
            self._arm.recover(seed)
        except DeviceError as error:
            self._fail(error)
            return False
        self._status[INDEX["t_ns"]] = self._read(time.monotonic_ns())
        # The collector is off while the loop runs; what a recovery leaves behind is collected here.
        gc.collect()
        self._pacer.restart()
        return self.mode == Mode.HOMING

    def _reset(self, command: Command, now_ns: int) -> Outcome:
        if self._memory.words[Word.ESTOP]:
            return Outcome.ESTOPPED
        if self.mode == Mode.STOPPING:
            # A device that was unplugged cannot confirm that it stands before it is there again.
            if self.fault == Fault.DEVICE and self._recover(None):
                self.mode = Mode.STOPPING
            return Outcome.MOVING
        if self.mode == Mode.FAULT:
            if self.fault == Fault.DEVICE and not self._recover(None):
                return Outcome.DEVICE
            self.mode, self.fault = Mode.DISARMED, Fault.NONE
        return Outcome.DONE

    def _why_not(self) -> Outcome:
        return Outcome.ESTOPPED if self.fault == Fault.ESTOP else Outcome.FAULTED

    def _move(self, now_ns: int) -> None:
        """Follow the plan, or come to rest; whatever the source, the target passes every check."""
        self._follower.fill(now_ns, self._situation, self._target)
        clamp = self._follower.clamp | (self._clip if self._follower.row_index >= 0 else Clamp.NONE)
        for check in self._checks:
            verdict = check.apply(self._target, self._situation)
            if isinstance(verdict, Fault):
                self.halt(verdict)
                self._target[:] = self._written
                return
            if verdict:
                clamp |= verdict
        self._written[:] = self._target
        try:
            self._arm.write(self._target)
        except DeviceError as error:
            self._fail(error)
            return
        self._status[INDEX["clamp_mask"]] = clamp
        self._status[INDEX["clamped"]] += clamp != Clamp.NONE
        self._had_row |= self._follower.row_index >= 0
        is_starved = self._had_row and self._follower.row_index < 0 and self.mode == Mode.ARMED
        self._status[INDEX["starved"]] += is_starved
        if self.mode == Mode.BRAKING and self._follower.is_resting:
            self._finish_brake()
        elif self.mode == Mode.HOMING and self._follower.is_resting:
            self.mode = Mode.DISARMED
            self._status[INDEX["scene"]] += 1

    def _finish_brake(self) -> None:
        try:
            self._arm.stop()
        except DeviceError as error:
            self._fail(error)
            return
        self.mode = Mode.DISARMED

    def _confirm_stop(self) -> None:
        """Ask the driver in every cycle until it confirms; only then the stop counts."""
        with contextlib.suppress(DeviceError):
            self._arm.stop()
            self._follower.rest(self._situation)
            self.mode = Mode.FAULT

    def _publish(self, now_ns: int) -> None:
        status, pacer = self._status, self._pacer
        status[INDEX["cycle"]] += 1
        status[INDEX["mode"]], status[INDEX["fault"]] = self.mode, self.fault
        status[INDEX["lease"]] = self._public_id
        left_ns = int(self._memory.words[Word.LEASE_UNTIL_NS]) - now_ns
        status[INDEX["lease_left_s"]] = max(0.0, left_ns / 1e9) if self._session else 0.0
        status[INDEX["lease_priority"]] = self._memory.words[Word.LEASE_PRIORITY] if self._session else 0
        status[INDEX["clearance_m"]] = self._clearance.clearance_m if self._clearance is not None else -1.0
        status[INDEX["applied_sequence"]] = self._follower.applied_sequence
        status[INDEX["command_age_s"]] = (now_ns - self._received_ns) / 1e9 if self._received_ns else -1.0
        status[INDEX["stale_rows"]] = self._plan.stale_rows
        status[INDEX["overruns"]], status[INDEX["skipped_periods"]] = pacer.overruns, pacer.skipped
        if int(status[INDEX["cycle"]]) % _STATISTICS_EVERY == 1:
            status[INDEX["late_p50_us"]] = pacer.lateness.percentile_us(50)
            status[INDEX["late_p99_us"]] = pacer.lateness.percentile_us(99)
            status[INDEX["late_max_us"]] = pacer.lateness.max_us
            status[INDEX["busy_p99_us"]] = pacer.busy.percentile_us(99)
        self._memory.states.write(self._flat)


def _are_rotations(rot6d: np.ndarray) -> bool:
    """Whether all rows (N, 6) are two vectors that have a length and are apart."""
    a, b = rot6d[:, :3], rot6d[:, 3:]
    aa, bb, ab = (a * a).sum(axis=1), (b * b).sum(axis=1), (a * b).sum(axis=1)
    # |a × b|² = |a|² |b|² - (a · b)² (Lagrange); a thousandth of a radian apart.
    return bool((np.minimum(aa, bb) > SHORTEST_COLUMN**2).all() and (aa * bb - ab * ab > 1e-6 * aa * bb).all())
