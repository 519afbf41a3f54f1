"""The way to a Franka and back: connecting with a time limit, what the robot says is wrong, and what to do about it."""

import contextlib
import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import franky

from robot.errors import ConfigError, DeviceError

T = TypeVar("T")
logger = logging.getLogger(__name__)

ARM_PORT, HAND_PORT = 1337, 1338
CONNECT_S = 3.0
"""Longest wait for an answer. libfranka by itself waits for a minute, and for a robot that is taken for ever."""
PRIORITY = 90
"""SCHED_FIFO priority of franky's 1 kHz thread, above our loop's: it has less time."""
REALTIME = Path("/sys/kernel/realtime")
"""Only kernels with PREEMPT_RT have this file."""
FAULTS = (
    franky.ControlException,
    franky.CommandException,
    franky.NetworkException,
    franky.ProtocolException,
    franky.InvalidOperationException,
    franky.IncompatibleVersionException,
    franky.RealtimeException,
    RuntimeError,  # how franky passes on what Poco says of a lost connection
)
"""What franky raises where the robot or the network is at fault."""
ADVICE = {
    franky.RobotMode.Reflex: "it has stopped itself. Clear its way, then recover",
    franky.RobotMode.UserStopped: "its user stop is pressed. Release it, then recover",
    franky.RobotMode.Guiding: "it is guided by hand. Let go of it, then recover",
    franky.RobotMode.AutomaticErrorRecovery: "it is busy with clearing an error. Wait, then recover",
    franky.RobotMode.Other: "its brakes are locked, or it is in programming mode. Unlock the joints in Desk, activate "
    "FCI there, then recover",
}
"""Why a robot that is not idle takes no commands, and what to do."""


@dataclass(frozen=True, kw_only=True)
class FrankaConfig:
    """What is particular to one Franka.

    Attributes:
        robot: Name that data sets and policies of this robot carry.
        address: Of its control unit, on the network of its own that it has to have.
        stiffness_nmprad: Of the joints towards their reference.
        damping_nmsprad: Of their speed towards that of the reference.
        collision_torque_nm: External torque at a joint that it stops at by itself.
        collision_force_n: External force at the tool that it stops at by itself.
        hand_speed_mps: Of the fingers.
        hand_force_n: With which they hold.
    """

    robot: str
    address: str
    stiffness_nmprad: tuple[float, ...]
    damping_nmsprad: tuple[float, ...]
    collision_torque_nm: float
    collision_force_n: float
    hand_speed_mps: float
    hand_force_n: float

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> "FrankaConfig":
        """The settings in `arm.device`.

        Raises:
            ConfigError: One is missing, unknown, or not a positive number.
        """
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            wrong = [f"{name} is missing" for name in sorted(names - set(data))]
            wrong += [f"{name} is unknown" for name in sorted(set(data) - names)]
            raise ConfigError(f"arm.device of a franka: {', '.join(wrong)}. Keys: {', '.join(sorted(names))}.")
        gains = {name: tuple(data[name]) for name in ("stiffness_nmprad", "damping_nmsprad")}
        for name in names - {"robot", "address"}:
            values = gains.get(name, (data[name],))
            if len(values) != (7 if name in gains else 1) or not all(0 < x < math.inf for x in values):
                what = "7 numbers" if name in gains else "a number"
                raise ConfigError(f"arm.device.{name} is {data[name]}, expected {what} above 0.")
        for name in ("robot", "address"):
            if not (isinstance(data[name], str) and data[name]):
                raise ConfigError(f"arm.device.{name} is {data[name]!r}, expected a name.")
        return cls(**{**data, **gains})


class Link:
    """The connection to one robot.

    franky disconnects only when nobody holds its robot any more. So no local variable does here or in the driver: an
    error would keep it for as long as its traceback lives.
    """

    def __init__(self, config: FrankaConfig) -> None:
        self._config = config
        self._robot: franky.Robot | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a robot, lost or not."""
        return self._robot is not None

    @property
    def robot(self) -> franky.Robot:
        """The robot. Raises `DeviceError` before `connect` and after `drop`."""
        if self._robot is None:
            raise DeviceError("The Franka is not open. Call open() first.")
        return self._robot

    def connect(self) -> None:
        """Connect, anew where there was a robot before. Raises `DeviceError` where nobody answers, or no Franka."""
        self.drop()
        if REALTIME.exists():
            with contextlib.suppress(franky.RealtimeException):
                self._robot = patiently(self._config.address, ARM_PORT, lambda: self._build(enforce=True))
                return
        self._robot = patiently(self._config.address, ARM_PORT, lambda: self._build(enforce=False))

    def drop(self) -> None:
        """Disconnect."""
        self._robot = None

    def _build(self, enforce: bool) -> franky.Robot:
        return franky.Robot(
            self._config.address,
            default_torque_threshold=self._config.collision_torque_nm,
            default_force_threshold=self._config.collision_force_n,
            realtime_config=franky.RealtimeConfig.Enforce if enforce else franky.RealtimeConfig.Ignore,
        )

    def reason(self) -> tuple[str, bool]:
        """Why the robot is no longer under control, in words, and whether the connection is gone."""
        try:
            self.robot.poll_motion()
        except franky.NetworkException as error:
            return f"The connection to the Franka is lost: {error}.", True
        except FAULTS as error:
            return f"The Franka has stopped: {str(error).splitlines()[0]}", False
        return "The Franka has ended the motion without saying why.", False

    def clear(self) -> None:
        """Have the robot clear its errors, once, where it has any; it is idle afterwards.

        Raises:
            DeviceError: It is not, and says what a person has to do.
            Exception: One of `FAULTS`, where the connection is gone.
        """
        if self.robot.state.robot_mode == franky.RobotMode.Reflex:
            try:
                self.robot.recover_from_errors()
            except (franky.CommandException, franky.ControlException) as error:
                raise DeviceError(f"The Franka cannot clear its error: {error}") from error
        state = self.robot.state
        if state.robot_mode not in (franky.RobotMode.Idle, franky.RobotMode.Move):
            errors = f" ({state.current_errors})" if self.robot.has_errors else ""
            raise DeviceError(f"The Franka takes no commands{errors}: {ADVICE[state.robot_mode]}.")


@contextlib.contextmanager
def prioritised() -> Iterator[None]:
    """Give the threads that begin meanwhile real-time priority; says what to do where that is not allowed.

    libfranka does so itself, but only on a kernel with PREEMPT_RT. On any other it helps, too.
    """
    before = set(os.listdir("/proc/self/task"))
    yield
    refused = False
    for thread in set(os.listdir("/proc/self/task")) - before:
        try:
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(PRIORITY))
        except ProcessLookupError:
            continue
        except PermissionError:
            refused = True
    if refused:
        logger.warning(
            "franky's 1 kHz thread has no real-time priority. The robot stops itself when 20 of its commands in a row "
            "are late. `armature doctor` says how to allow it."
        )


def patiently(address: str, port: int, build: Callable[[], T]) -> T:
    """What `build` makes of a device that answers in time.

    Raises:
        DeviceError: It does not; says what to do.
    """
    who = "Franka" if port == ARM_PORT else "Franka's hand"
    made: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(build())
        except FAULTS as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if made:
        return made[0]
    if failed and isinstance(failed[0], franky.RealtimeException):
        raise failed[0]
    why = f": {failed[0]}" if failed else f" within {CONNECT_S:.0f} s."
    raise DeviceError(f"No {who} answers at {address}{why} {_diagnosis(address, port)}")


def _diagnosis(address: str, port: int) -> str:
    """What to do about a device that does not answer."""
    try:
        socket.create_connection((address, port), 1.0).close()
    except ConnectionRefusedError:
        return "Activate FCI and unlock the joints in Desk, or mend arm.device.address."
    except OSError:
        return "Check the cable to the control unit, its power, and arm.device.address."
    return "Probably another client holds it: a Franka obeys one at a time. End that one."
