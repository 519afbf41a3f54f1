"""The gateway: ZMQ on one side, shared memory on the other. It wakes when a state, a command or a request is there."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from hardware.estop import EstopThread
from hardware.front import Front
from hardware.journal import Journal
from hardware.keys import BridgeKeys
from hardware.requests import RequestDesk
from hardware.shared_memory import Command, Kind, SharedMemory, Word
from hardware.sockets import QUEUE, addresses, authenticator, bound, require_safe
from robot.bridge.journal import CHANNEL
from robot.bridge.journal import QUEUE as JOURNAL_QUEUE
from robot.bridge.schema import INDEX, BridgeSchema
from robot.bridge.wire import Frame, FrameType, Reason, chunk_rows, decode, seal
from robot.contract import ArmSpecs
from robot.control.limits import Limits
from robot.control.plan import Reject
from robot.errors import BridgeError, WireError

CHANNELS = {
    "control": zmq.ROUTER,
    "command": zmq.ROUTER,
    "state": zmq.PUB,
    "estop": zmq.ROUTER,
    CHANNEL: zmq.XPUB,
}
_QUEUES = {"state": 0, CHANNEL: JOURNAL_QUEUE}
"""Frames that wait at a channel, where it is another number than at the rest."""
TICK_MS = 10
"""How often the gateway looks round when nothing wakes it."""
REVOKED_S = 0.5
"""How often it looks for clients that were revoked."""
_DRAIN = 32
_AS_REJECT = {
    Reason.NO_LEASE: Reject.NO_LEASE,
    Reason.FULL: Reject.FULL,
    Reason.NOT_FINITE: Reject.NOT_FINITE,
    Reason.REPLAY: Reject.SEQUENCE,
    Reason.SEQUENCE: Reject.SEQUENCE,
    Reason.CLOCK: Reject.TOO_LATE,
}


@dataclass(frozen=True)
class Listen:
    """Where a gateway listens, and for whom.

    Attributes:
        host: Loopback address; any other with keys; or `ipc://` and a folder.
        port: First of five ports, or 0 for any five.
        keys: Of the bridge and its clients.
    """

    host: str
    port: int = 0
    keys: BridgeKeys | None = None


class Gateway:
    """Five sockets in front of one arm."""

    def __init__(self, arm: ArmSpecs, limits: Limits, memory: SharedMemory, listen: Listen, ttl_s: float) -> None:
        """Listen, so that the endpoints are known.

        Args:
            arm: Specs of the arm behind the shared memory.
            limits: What the real-time process enforces.
            memory: Shared with it.
            listen: Where.
            ttl_s: Life of a lease that asks for none [s].

        Raises:
            BridgeError: The host is open to others without keys, or a port is in use.
        """
        require_safe(listen.host, listen.keys)
        self._memory, self._boot_id = memory, int.from_bytes(np.random.default_rng().bytes(8), "little") or 1
        self._context: zmq.Context[Any] = zmq.Context()
        self._authenticator = authenticator(self._context, listen.keys)
        self._sockets: dict[str, zmq.Socket[Any]] = {}
        endpoints = {}
        try:
            for name, address in addresses(listen.host, listen.port, CHANNELS).items():
                queue = _QUEUES.get(name, QUEUE)
                self._sockets[name], endpoints[name] = bound(self._context, CHANNELS[name], address, listen.keys, queue)
        except BridgeError:
            self._close_sockets()
            raise
        self.schema = BridgeSchema(self._boot_id, arm, limits, endpoints, ttl_s)
        self.front = Front(self.schema, memory, listen.keys)
        self._requests = RequestDesk(self._sockets["control"], self.front, self._refuse)
        self._journal = Journal(self._sockets[CHANNEL], self.front)
        self._published = self._refused = self._next_check_ns = 0
        self._refusal, self._ahead_ns = Reject.NONE, int(limits.max_ahead_s * 1e9)
        self.cameras_down = 0
        """Bits of the cameras that give no pictures, for the state."""
        self._estop = EstopThread(self._sockets["estop"], self.front)

    @property
    def newest(self) -> dict[str, float]:
        """Status as it was published last, by name."""
        return {name: float(self.front.state[index]) for name, index in INDEX.items()}

    def serve(self, state_hz: float, is_over: Callable[[], bool]) -> None:
        """Pass frames on until `is_over`, which is asked every 10 ms or less often."""
        self._estop.start()
        every = max(1, round(self.schema.arm.rate_hz / state_hz))
        poller, wake_fd = zmq.Poller(), self._memory.states.wake_fd
        takers = {"command": self._drain_commands, "control": self._drain_requests, CHANNEL: self._journal.heed}
        by_socket = {self._sockets[name]: take for name, take in takers.items()}
        for socket in by_socket:
            poller.register(socket, zmq.POLLIN)
        if wake_fd >= 0:
            poller.register(wake_fd, zmq.POLLIN)
        wait_ms = TICK_MS if wake_fd >= 0 else 1
        next_ns = 0
        while True:
            ready = dict(poller.poll(wait_ms))
            now_ns = time.monotonic_ns()
            self._memory.words[Word.GATEWAY_ALIVE_NS] = now_ns
            if wake_fd in ready:
                # States that came while we were busy are skipped: the newest is what counts.
                os.eventfd_read(wake_fd)
            if wake_fd in ready or wake_fd < 0:
                self._publish(every, now_ns)
                self._requests.settle(now_ns)
            for socket, take in by_socket.items():
                if socket in ready:
                    take()
            if now_ns >= next_ns:
                if is_over():
                    return
                self._look_round(now_ns)
                next_ns = now_ns + TICK_MS * 1_000_000

    def close(self) -> None:
        """Stop listening."""
        if self._estop.is_alive():
            self._estop.end()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()

    def _look_round(self, now_ns: int) -> None:
        self._requests.settle(now_ns)
        if now_ns >= self._next_check_ns:
            self.front.forget_revoked()
            self._next_check_ns = now_ns + int(REVOKED_S * 1e9)

    def _publish(self, every: int, now_ns: int) -> None:
        """Send the newest state if it is `every` cycles or more after the last one sent, and then the journal."""
        front = self.front
        front.refresh()
        front.state[INDEX["refused"]], front.state[INDEX["refusal"]] = self._refused, self._refusal
        front.state[INDEX["cameras_down"]] = self.cameras_down
        if front.count - self._published >= every:
            self._published = front.count
            self._send_state()
        self._journal.publish(every, now_ns)

    def _send_state(self) -> None:
        front = self.front
        seal(front.frame, Frame(FrameType.STATE, b"", self._boot_id, 0, front.count, time.monotonic_ns()))
        self._sockets["state"].send(front.frame, zmq.DONTWAIT)

    def _drain_commands(self) -> None:
        for _ in range(_DRAIN):
            try:
                _, *parts = self._sockets["command"].recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self.take_command(parts)

    def _drain_requests(self) -> None:
        for _ in range(_DRAIN):
            try:
                identity, *parts = self._sockets["control"].recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            user = str(identity.get("User-Id")) if self.front.keys is not None else ""
            self.take_request(identity.bytes, [part.bytes for part in parts], user)

    def take_command(self, parts: list[bytes]) -> None:
        """Pass a message of the command channel on, or count why not."""
        try:
            self._pass_on(_whole(parts))
        except WireError as error:
            self._refuse(error.reason)

    def take_request(self, identity: bytes, parts: list[bytes], user: str = "") -> None:
        """Answer a message of the control channel, or count why not."""
        try:
            self._requests.take(identity, _whole(parts), user)
        except WireError as error:
            self._refuse(error.reason)

    def _pass_on(self, data: bytes) -> None:
        now_ns, front = time.monotonic_ns(), self.front
        frame = decode(data)
        is_alive = frame.type == FrameType.HEARTBEAT
        if not is_alive and frame.type not in (FrameType.CHUNK, FrameType.DEVICE):
            raise WireError(f"The command channel takes chunks and heartbeats, got {frame.type.name}.", Reason.CHANNEL)
        if frame.boot_id != self._boot_id:
            raise WireError("The command is meant for another start of the bridge.", Reason.BOOT)
        alive_ns = front.sessions.get(frame.session).fresh(frame, now_ns)
        if not front.lease.renew(frame.session, alive_ns, now_ns):
            if not is_alive:
                raise WireError("The session does not hold the lease.", Reason.NO_LEASE)
            # A client sends some before it learns that it has lost the lease; they are no commands.
            front.tally.refuse(Reason.NO_LEASE)
            return
        if frame.type == FrameType.CHUNK:
            self._push(frame)
        elif frame.type == FrameType.DEVICE:
            self._journal.tell_device(frame)

    def _push(self, frame: Frame) -> None:
        rows, dt_s = chunk_rows(frame)
        if frame.sequence >= 2**53:
            raise WireError(f"Sequence number {frame.sequence} is not exact as a float64.", Reason.SEQUENCE)
        if not np.isfinite(rows).all():
            raise WireError("The rows are not finite.", Reason.NOT_FINITE)
        dt_ns = round(dt_s * 1e9)
        command = Command(Kind.CHUNK, frame.session, frame.sequence, frame.t_exec_ns, dt_ns, rows=rows)
        if not self._memory.commands.push(command):
            raise WireError("The real-time process has not taken the commands before this one.", Reason.FULL)
        self._journal.passed_on(command)
        # What is too far ahead is rejected, and must not look like a plan that nobody may interrupt.
        if frame.t_exec_ns <= time.monotonic_ns() + self._ahead_ns:
            self.front.planned_until_ns = frame.t_exec_ns + len(rows) * dt_ns

    def _refuse(self, reason: str) -> None:
        self.front.tally.refuse(reason)
        self._refused += 1
        self._refusal = _AS_REJECT.get(Reason(reason), Reject.BAD_FRAME)


def _whole(parts: list[bytes]) -> bytes:
    if len(parts) != 1:
        raise WireError(f"A message of the bridge has one part, got {len(parts)}.", Reason.LENGTH)
    return parts[0]
