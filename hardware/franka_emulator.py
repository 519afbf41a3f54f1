"""A Franka on this machine: franky-sim's physics and protocol, on an even beat and with the robot's own refusals.

franky-sim alone never reports an error. This adds what a driver has to cope with: a robot that stops itself where
commands stay away or make it too fast; reflexes, a pressed user stop and locked brakes on request.
`python -m hardware.franka_emulator 127.0.0.10` serves one robot until its standard input ends; a line there is a
request:

    reflex <error>   e.g. joint_reflex; automatic error recovery clears it
    user_stop        until `release`
    lock             brakes closed, until `release`
    release

It prints one JSON line once it serves, and one when it stops itself.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from franky_sim import FrankaRobotServer
from franky_sim.franka_robot_protocol import (
    AutomaticErrorRecoveryCommand,
    AutomaticErrorRecoveryStatus,
    MoveStatus,
    RobotCommand,
    RobotMode,
)
from franky_sim.franka_robot_state import FrankaRobotState
from franky_sim.franka_server import BaseCommand
from franky_sim.mujoco_simulator import MujocoSimulator

PERIOD_NS = 1_000_000
PRIORITY = 85
"""SCHED_FIFO, where that is allowed: a robot's own computer is never late because ours is busy."""
HOME_Q_RAD = (0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4)
MOST_LOST = 20
"""Commands that may stay away in a row until the robot stops (Franka Control Interface, requirements)."""
VELOCITY_RADPS = np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26])
"""Franka Research 3, data sheet."""
ERRORS = {
    "joint_velocity_violation": 3,
    "joint_reflex": 6,
    "cartesian_reflex": 7,
    "communication_constraints_violation": 25,
}
"""Places of the errors that it knows in the 41 flags of a state, as libfranka 0.21 reads them."""


class _Recovery(AutomaticErrorRecoveryCommand):
    """Clears a reflex; a pressed button or a locked brake is beyond it."""

    def handle(self, server: "EmulatedRobot") -> None:
        """Answer `server`'s client."""
        if server.mode in (RobotMode.kIdle, RobotMode.kReflex):
            server.release()
            self.reply(AutomaticErrorRecoveryStatus.kSuccess)
        else:
            self.reply(AutomaticErrorRecoveryStatus.kCommandNotPossibleRejected)


class EmulatedRobot(FrankaRobotServer):
    """One robot and its client."""

    def __init__(self, robot: Any, address: str) -> None:
        self.mode = RobotMode.kIdle
        self._error_at = -1
        self._begin_motion()
        super().__init__(robot, [address])
        # franky-sim has no door for another answer to one command.
        self._FrankaServer__command_class_map[RobotCommand.kAutomaticErrorRecovery] = _Recovery

    def _begin_motion(self) -> None:
        self._is_fresh, self._has_begun, self._lost = False, False, 0
        self._answered: deque[bool] = deque([True] * 100, maxlen=100)

    def start_motion(self, *arguments: Any) -> None:
        """Refused unless the robot is idle."""
        if self.mode != RobotMode.kIdle:
            raise ValueError(f"The robot is in mode {self.mode.name}.")
        self._begin_motion()
        super().start_motion(*arguments)

    def request(self, line: str) -> None:
        """Do what a line of standard input says."""
        name, _, detail = line.strip().partition(" ")
        if name == "release":
            self.release()
        elif name == "reflex" and detail in ERRORS:
            self.halt(RobotMode.kReflex, MoveStatus.kReflexAborted, detail)
        elif name == "user_stop":
            self.halt(RobotMode.kUserStopped, MoveStatus.kEmergencyAborted)
        elif name == "lock":
            self.halt(RobotMode.kOther, MoveStatus.kAborted)
        else:
            print(json.dumps({"unknown": line.strip()}), flush=True)

    def release(self) -> None:
        """No fault and no pressed button any more."""
        self.mode, self._error_at = RobotMode.kIdle, -1

    def halt(self, mode: RobotMode, status: MoveStatus, error: str = "") -> None:
        """End the motion as the robot does by itself, hold the joints, and say why; `error` is one of `ERRORS`."""
        self.mode, self._error_at = mode, ERRORS.get(error, -1)
        motion, self._has_begun = self.current_motion_id, False
        self.stop_motion(send_preemption_signal=False)
        self._FrankaRobotServer__holding_q = tuple(self.robot.inner_state.q)
        if motion:
            # The state with the error leaves before the answer: libfranka reads the reason from it.
            self.send_state()
            BaseCommand.send_response(self._tcp_socket, RobotCommand.kMove, motion, status)
            self.reset_current_motion_id()
        print(json.dumps({"halted": mode.name, "error": error}), flush=True)

    def _handle_udp_command(self, command_data: bytes) -> None:
        self._is_fresh = self._has_begun = True
        super()._handle_udp_command(command_data)

    def _post_process_commands(self) -> None:
        if self.current_motion_id and self._has_begun:
            self._answered.append(self._is_fresh)
            self._lost = 0 if self._is_fresh else self._lost + 1
            if self._lost > MOST_LOST:
                self.halt(RobotMode.kReflex, MoveStatus.kReflexAborted, "communication_constraints_violation")
            elif (np.abs(self.robot.inner_state.dq) > VELOCITY_RADPS).any():
                self.halt(RobotMode.kReflex, MoveStatus.kReflexAborted, "joint_velocity_violation")
        self._is_fresh = False
        super()._post_process_commands()

    @property
    def robot_state(self) -> FrankaRobotState:
        """franky-sim's state with this robot's mode and errors."""
        state = super().robot_state
        if self.mode == RobotMode.kIdle:
            return state.replace(control_command_success_rate=sum(self._answered) / 100)
        flags = tuple(place == self._error_at for place in range(41))
        return state.replace(robot_mode=self.mode, errors=flags, reflex_reason=flags, control_command_success_rate=0.0)


def serve(address: str, requests: deque[str], q: tuple[float, ...] = HOME_Q_RAD) -> None:
    """Emulate one robot until a request says `end`, at 1 kHz on absolute deadlines; late periods are not made up for.

    Args:
        address: Where it listens, on ports 1337 and 1338.
        requests: Lines of standard input, appended by another thread.
        q: Where its joints begin [rad].
    """
    with MujocoSimulator() as simulator:
        body = simulator.add_robot(initial_q=q)
        robot = EmulatedRobot(body, address)
        robot.init()
        simulator.start()
        print(json.dumps({"serves": address}), flush=True)
        deadline = time.monotonic_ns()
        while not (requests and requests[0] == "end"):
            if requests:
                robot.request(requests.popleft())
            robot.process_commands()
            simulator.step()
            robot.send_state()
            deadline = max(deadline + PERIOD_NS, time.monotonic_ns() - PERIOD_NS)
            time.sleep(max(0, deadline - time.monotonic_ns()) / 1e9)
        robot.cleanup()


def main(arguments: list[str]) -> int:
    """Serve at the address in `arguments` until standard input ends."""
    requests: deque[str] = deque()

    def listen() -> None:
        requests.extend(line for line in sys.stdin)
        requests.append("end")

    threading.Thread(target=listen, daemon=True).start()
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    serve(arguments[0], requests)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
