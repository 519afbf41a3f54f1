"""A Franka Research 3 or Panda over its control interface, by way of franky. The robot beats time.

While the arm is open and sound, franky's joint impedance controller is in command in a C++ thread at 1 kHz: it holds
the last reference, and `write` only replaces that reference. So neither reading nor writing waits for the network, and
a late cycle of ours is never a late command of the robot's.
"""

import contextlib
import hashlib
import time
from dataclasses import asdict, replace

import franky
import numpy as np

from hardware.arms import ArmConfig, model_path
from hardware.franka_hand import Hand
from hardware.franka_link import FAULTS, FrankaConfig, Link, prioritised
from hardware.measuring import Views, measured, observed
from robot.contract import Arm, ArmSpecs
from robot.control.action_spaces import joint_reference
from robot.control.braking import Braking
from robot.control.kinematics import ArmModel
from robot.control.limits import JointLimits
from robot.control.rotations import angle_between
from robot.errors import ConfigError, DeviceError
from robot.sim.config import EnvConfig

SILENT_S = 0.05
"""Without a new state for that long the robot counts as lost; it gives up on us after 20 ms itself."""
POLL_S, EARLY_S = 0.00005, 0.00015
"""`read` sleeps until shortly before a state is due, and from then on looks for it at short intervals."""
LONGEST_LOOK_S = 0.002
START_S = 1.0
"""Until then the controller has taken over."""
STILL_RADPS = 0.02
STILL_S = 0.025
"""For how long joints have to be slower than that: at a turning point they are for a moment, too."""
STOP_HARDER = 1.4
"""Motion is limited to about 0.7 of what the data sheets allow; a stop uses the rest."""
STOP_S = 3.0
"""Longest way to rest."""
TOOL_M, TOOL_RAD = 0.002, 0.01
"""How far the robot's tool may be from our model's."""
NEAR_RAD = 0.02
NEAR_RADPS = 0.2
"""Braking begins at the reference where the joints are about there, else that near to them: never far ahead."""


def _specs(config: ArmConfig, device: FrankaConfig, env: EnvConfig) -> ArmSpecs:
    environment = observed(device.robot, env.task, config.action_space, env.control_hz)
    state = measured(*environment.observation.values())
    target = joint_reference(7)
    identity = hashlib.sha256(repr(sorted(config.limits.items())).encode()).hexdigest()
    return ArmSpecs(
        device.robot, environment, state, target, "joint_reference", config.rate_hz, identity, False, "robot"
    )


def next_beat(now_ms: int, due_ms: int, cycle_ms: int) -> int:
    """When a cycle is due after one that was due at `due_ms` and began at `now_ms` [ms].

    A late cycle does not move the beat; those that are over, or nearer than half a period, are left out.
    """
    return due_ms - (-(2 * (now_ms - due_ms) + cycle_ms) // (2 * cycle_ms)) * cycle_ms


def _harder(limits: JointLimits) -> JointLimits:
    return replace(
        limits,
        joint_acceleration_radps2=tuple(STOP_HARDER * x for x in limits.joint_acceleration_radps2),
        joint_jerk_radps3=tuple(STOP_HARDER * x for x in limits.joint_jerk_radps3),
    )


class FrankaArm(Arm):
    """Seven joints that follow references with compliance, and a hand with two fingers."""

    def __init__(self, config: ArmConfig, env: EnvConfig) -> None:
        """Check the settings; touches no network.

        Raises:
            ConfigError: A setting is missing or wrong, or the loop's rate does not divide the robot's 1 kHz.
        """
        self._cycle_ms = round(1000 / config.rate_hz)
        if not np.isclose(self._cycle_ms * config.rate_hz, 1000):
            raise ConfigError(f"arm.rate_hz is {config.rate_hz}, expected 1000, 500, 250 ...: the robot runs at 1 kHz.")
        self._device = FrankaConfig.from_mapping(config.device)
        limits = JointLimits.from_mapping(config.limits)
        self._limits_json = repr(asdict(limits))
        self.specs = _specs(config, self._device, env)
        self._period_s = 1.0 / config.rate_hz
        path = model_path(config)
        if path is None:
            raise ConfigError("arm.model is empty, expected `panda`, which a Research 3 shares.")
        self._braking, self._model = Braking(_harder(limits)), ArmModel.load(path)
        self._reference, self._next = np.zeros((3, 7)), np.zeros((3, 7))
        self._braking.step(self._reference, 0.001, self._next)  # compiles it
        self._link = Link(self._device)
        self._hand: Hand | None = None
        self._fault, self._is_lost = "", False
        self._views = Views(self.specs.state)

    def open(self) -> None:
        """Connect and hold the joints where they are."""
        try:
            self._connect()
            self._hand = Hand(self._device)
        except DeviceError:
            self.close()
            raise
        except FAULTS as error:
            self.close()
            raise DeviceError(f"The Franka does not begin: {error}") from error

    def _connect(self) -> None:
        self._link.connect()
        parts = (self._link.robot.model_urdf, self._limits_json)
        self.specs = replace(self.specs, model_hash=hashlib.sha256(repr(parts).encode()).hexdigest())
        self._check_tool(self._link.robot.state)
        self._link.clear()
        self._hold()

    def _check_tool(self, state: franky.RobotState) -> None:
        """Goals of the tool are turned into joints by our model of it: it has to be the robot's."""
        pos, rot6d, pose = np.zeros(3), np.zeros(6), state.O_T_EE.matrix
        self._model.pose(state.q, pos, rot6d)
        off_m = float(np.linalg.norm(pos - pose[:3, 3]))
        off_rad = angle_between(rot6d, pose[:3, :2].T.ravel())
        if not (off_m < TOOL_M and off_rad < TOOL_RAD):
            raise DeviceError(
                f"The robot's tool is {1e3 * off_m:.1f} mm and {off_rad:.3f} rad off the tip of the Franka hand, which "
                "all goals are about. Choose the Franka hand as the end effector in Desk."
            )

    def _hold(self) -> None:
        """Put the controller in command of an idle robot, the joints where they are."""
        before = self._link.robot.state
        self._reference[:] = 0.0
        self._reference[0] = before.q
        self._motion = franky.JointImpedanceTrackingMotion(
            stiffness=np.array(self._device.stiffness_nmprad), damping=np.array(self._device.damping_nmsprad)
        )
        self._motion.set_reference(franky.JointReference(q=self._reference[0]))
        with prioritised():
            self._link.robot.move(self._motion, asynchronous=True)
        give_up = time.monotonic() + START_S
        while self._link.robot.is_in_control:
            self._state = self._link.robot.state
            self._beat_ms, self._beat_s = self._state.time.to_msec(), time.monotonic()
            self._due_ms = self._beat_ms + self._cycle_ms
            if self._state.robot_mode == franky.RobotMode.Move:
                self._fault, self._is_lost = "", False
                return
            if self._beat_s > give_up:
                break
            time.sleep(0.001)
        raise DeviceError(f"The Franka does not take over the reference. {self._link.reason()[0]}")

    def read(self, state: np.ndarray) -> None:
        """Wait for the state that begins the robot's next cycle of ours, and fill it in.

        A faulty arm lets a period pass, too, so that whoever calls keeps its beat.
        """
        hand = self._require_open()
        if self._fault:
            time.sleep(self._period_s)
            raise DeviceError(self._fault)
        measured = self._await(hand)
        views = self._views.of(state)
        pose = measured.O_T_EE.matrix
        views["q"][:], views["dq"][:] = measured.q, measured.dq
        views["ee_pos"][:] = pose[:3, 3]
        # The robot sends float32: the columns are orthonormal to a few 1e-7.
        views["ee_rot6d"][:3], views["ee_rot6d"][3:] = pose[:3, 0], pose[:3, 1]
        finger = 0.5 * hand.width_m
        views["gripper"][:] = finger, -finger
        observed = views["observation.state"]
        observed[:3], observed[3:9] = views["ee_pos"], views["ee_rot6d"]
        observed[9:11], observed[11:] = views["gripper"], views["q"]

    def _await(self, hand: Hand) -> franky.RobotState:
        """The robot's state of the next cycle; a snapshot that franky keeps, so that looking at it never blocks."""
        time.sleep(max(0.0, self._beat_s + 0.001 * (self._due_ms - self._beat_ms) - EARLY_S - time.monotonic()))
        silent_s, last = 0.0, time.monotonic()
        while self._link.robot.is_in_control and not hand.fault:
            state = self._link.robot.state
            now = time.monotonic()
            if (now_ms := state.time.to_msec()) >= self._due_ms:
                self._state, self._beat_ms, self._beat_s = state, now_ms, now
                self._due_ms = next_beat(now_ms, self._due_ms, self._cycle_ms)
                return state
            # Time in which this process did not run says nothing about the robot.
            silent_s, last = silent_s + min(now - last, LONGEST_LOOK_S), now
            if silent_s > SILENT_S:
                raise self._silent()
            time.sleep(POLL_S)
        if hand.fault:
            raise self._failed(hand.fault)
        text, self._is_lost = self._link.reason()
        raise self._failed(f"{text} Find the cause, then recover.")

    def _silent(self) -> DeviceError:
        self._is_lost = True
        return self._failed(
            f"The Franka is silent: no state for {1e3 * SILENT_S:.0f} ms. It stops itself when it hears nothing. Check "
            "the cable, then recover."
        )

    def _failed(self, text: str) -> DeviceError:
        self._fault = text
        return DeviceError(text)

    def write(self, target: np.ndarray) -> None:
        """Follow a reference, with the torque that its acceleration needs on top of stiffness and damping."""
        hand = self._require_open()
        if self._fault:
            raise DeviceError(self._fault)
        if not np.isfinite(target).all():
            raise DeviceError(f"A target for the Franka is not finite: {target}. It keeps to the last one.")
        self._reference[:] = target[:21].reshape(3, 7)
        self._follow()
        hand.wish(float(target[21]))

    def _follow(self) -> None:
        q, dq, ddq = self._reference
        tau_ff = self._link.robot.model.mass(self._state) @ ddq
        self._motion.set_reference(franky.JointReference(q=q, dq=dq, tau_ff=tau_ff))

    def stop(self) -> None:
        """Brake as hard as the arm can and hold; the fingers end the way that they are on and begin none.

        Raises:
            DeviceError: The arm does not come to rest, or is not there to confirm it.
        """
        if self._hand is None:
            return
        self._hand.forget()
        if self._is_lost and not self._is_back():
            raise DeviceError(f"Nobody confirms that the arm rests. {self._fault}")
        try:
            if self._link.robot.is_in_control:
                self._brake()
            self._confirm_rest()
        except FAULTS as error:
            self._is_lost = True
            raise self._failed(f"Nobody confirms that the arm rests: {error}.") from error

    def _is_back(self) -> bool:
        """Whether a silence has ended by itself, the controller in command as before."""
        if not (self._link.is_open and self._link.robot.is_in_control):
            return False
        if self._link.robot.state.time.to_msec() > self._beat_ms:
            self._is_lost = False
        return not self._is_lost

    def _brake(self) -> None:
        """Lead the reference to rest."""
        state, reference = self._link.robot.state, self._reference
        # An arm that something holds is not to be pushed on by a reference that is far ahead of it.
        np.clip(reference[0], state.q - NEAR_RAD, state.q + NEAR_RAD, out=reference[0])
        np.clip(reference[1], state.dq - NEAR_RADPS, state.dq + NEAR_RADPS, out=reference[1])
        last = time.monotonic()
        while self._link.robot.is_in_control and reference[1:].any():
            now = time.monotonic()
            self._braking.step(reference, now - last, self._next)
            reference[:], last = self._next, now
            self._follow()
            time.sleep(0.001)

    def _confirm_rest(self) -> None:
        began = moved = heard = time.monotonic()
        seen_ms = -1
        while True:
            state, now = self._link.robot.state, time.monotonic()
            if state.time.to_msec() != seen_ms:
                seen_ms, heard = state.time.to_msec(), now
                if np.abs(state.dq).max() > STILL_RADPS:
                    moved = now
                elif now - moved > STILL_S:
                    break
            elif now - heard > SILENT_S:
                raise DeviceError(f"Nobody confirms that the arm rests. {self._silent()}")
            if now - began > STOP_S:
                raise DeviceError(f"The Franka has not come to rest within {STOP_S:.0f} s.")
            time.sleep(0.001)

    def recover(self, seed: int | None = None) -> None:
        """Connect again where the connection was lost, have the robot clear its errors once, and hold the joints.

        Raises:
            DeviceError: A person has to act first; says how.
        """
        hand = self._require_open()
        is_lost = self._is_lost and not self._is_back()
        try:
            if is_lost:
                self._connect()
            elif not self._link.robot.is_in_control:
                self._link.clear()
                self._hold()
            if is_lost or hand.fault:
                hand.close()
                self._hand = Hand(self._device)
        except FAULTS as error:
            self._is_lost = True
            raise self._failed(f"The Franka does not recover: {error}.") from error
        self._fault = ""

    def _require_open(self) -> Hand:
        if self._hand is None:
            raise DeviceError("The Franka is not open. Call open() first.")
        return self._hand

    def close(self) -> None:
        """Stop and disconnect; the robot holds its joints by itself."""
        if self._link.is_open:
            # A robot that is gone or faulty has stopped itself; the end of a motion by `stop` is an error to franky.
            with contextlib.suppress(DeviceError, *FAULTS):
                self.stop()
                self._link.robot.stop()
                self._link.robot.join_motion(START_S)
            self._link.drop()
        if self._hand is not None:
            self._hand.close()
            self._hand = None
