"""The bridge's side of the journal: it costs next to nothing while nobody listens, and never waits for who does."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from hardware.front import Front
from hardware.sessions import STALE_NS
from hardware.shared_memory import COMMAND_SLOTS, LOST, STATE_SLOTS, Command, Word
from robot.bridge.journal import Taken
from robot.bridge.schema import INDEX
from robot.bridge.wire import HEADER, Frame, FrameType, Reason, chunk_rows, encode, public_id, seal
from robot.control.plan import Reject
from robot.errors import WireError

_GUARD = 4
"""Oldest states that are left alone: they are about to be overwritten."""


@dataclass(frozen=True)
class _Passed:
    """A chunk that waits for its verdict: its number in the ring, and the priority it was sent with."""

    number: int
    command: Command
    priority: int


class Journal:
    """Publishes what the real-time process did; see `robot.bridge.journal`."""

    def __init__(self, socket: zmq.Socket[Any], front: Front) -> None:
        """Nothing is sent before somebody subscribes.

        Args:
            socket: XPUB, bounded.
            front: Of the gateway; its schema, memory and newest state.
        """
        self._socket, self._front, self._boot_id = socket, front, front.schema.boot_id
        self._frame = bytearray(HEADER.size + 8 * front.schema.layout.size)
        self._state = np.frombuffer(self._frame, np.float64, offset=HEADER.size)
        self._waiting: deque[_Passed] = deque(maxlen=2 * COMMAND_SLOTS)
        self._width = front.schema.arm.environment.action.shape[0]
        self._next = self._taken = self._told = 0
        self.is_heard = False

    def heed(self) -> None:
        """Learn who comes and goes. Subscribers may send anything; only the two words of ZMQ mean something."""
        while True:
            try:
                said = self._socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            if said in (b"\x00", b"\x01"):
                self.is_heard = said == b"\x01"
                self._next = self._front.count + 1
                self._waiting.clear()

    def passed_on(self, command: Command) -> None:
        """Remember a chunk that was pushed just now, until there is a verdict on it."""
        if self.is_heard:
            memory = self._front.memory
            self._waiting.append(_Passed(memory.commands.pushed, command, int(memory.words[Word.LEASE_PRIORITY])))

    def tell_device(self, frame: Frame) -> None:
        """Pass on what a client says of its device.

        Raises:
            WireError: It is no action of this arm, or not of now.
        """
        rows, _ = chunk_rows(frame)
        if rows.shape != (1, self._width) or not np.isfinite(rows).all():
            raise WireError(f"A device asks for one action of {self._width} finite numbers.", Reason.ROWS)
        if abs(frame.t_exec_ns - frame.t_send_ns) > STALE_NS:
            raise WireError("A device asks for something now.", Reason.CLOCK)
        self._told += 1
        if self.is_heard:
            who = public_id(frame.session)
            told = Frame(
                *(FrameType.DEVICE, frame.payload, self._boot_id, who, self._told, frame.t_send_ns, frame.t_exec_ns)
            )
            self._socket.send(encode(told), zmq.DONTWAIT)

    def publish(self, every: int, now_ns: int) -> None:
        """Send the states that were written since the last call, each `every` cycles, and the chunks in between."""
        newest = self._front.count
        if not self.is_heard:
            self._next = newest + 1
            return
        first = max(self._next, newest - STATE_SLOTS + _GUARD)
        self._next = newest + 1
        for count in range(first + (-first) % every, newest + 1, every):
            if not self._front.memory.states.recall(count, self._state):
                continue
            self._publish_taken(self._state[INDEX["t_ns"]])
            # What the gateway knows is of now: the state that it has just sent holds it already.
            for name in ("refused", "refusal", "cameras_down"):
                self._state[INDEX[name]] = self._front.state[INDEX[name]]
            seal(self._frame, Frame(FrameType.STATE, b"", self._boot_id, 0, count // every, now_ns))
            self._socket.send(self._frame, zmq.DONTWAIT)

    def _publish_taken(self, until_ns: float) -> None:
        """Send the chunks that were judged until then."""
        while self._waiting:
            passed = self._waiting[0]
            judged = self._front.memory.commands.verdict(passed.number)
            if judged is None or judged[1] > until_ns:
                return
            self._waiting.popleft()
            self._taken += 1
            verdict, t_ns = judged
            if verdict != LOST:
                self._send_taken(passed, Reject(verdict), t_ns)

    def _send_taken(self, passed: _Passed, verdict: Reject, t_ns: int) -> None:
        command = passed.command
        assert command.rows is not None
        told = Taken(
            sequence=command.number,
            driver=public_id(command.session),
            priority=passed.priority,
            t_ns=t_ns,
            verdict=verdict,
            t0_ns=command.t0_ns,
            dt_s=command.dt_ns / 1e9,
            rows=command.rows,
        )
        frame = Frame(FrameType.TAKEN, told.payload(), self._boot_id, 0, self._taken, t_ns, command.t0_ns)
        self._socket.send(encode(frame), zmq.DONTWAIT)
