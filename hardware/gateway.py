"""The gateway: ZMQ on one side, shared memory on the other. It never waits for the arm.

Requests that change the mode go to the real-time process as numbered operations; their answers are sent when the state
says how the operation ended. A repeated request is answered, not repeated.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from hardware.estop import EstopThread
from hardware.lease import LeaseDesk
from hardware.shared_memory import COMMAND_SLOTS, Command, Kind, SharedMemory, Word
from hardware.sockets import bound, require_loopback
from robot.bridge.schema import INDEX, WORDS, BridgeSchema, Outcome
from robot.bridge.wire import Frame, FrameType, chunk_rows, decode, encode, pack
from robot.contract import ArmSpecs
from robot.control.limits import Limits
from robot.control.plan import Reject
from robot.errors import BridgeError, LeaseError, WireError

CHANNELS = {"control": zmq.ROUTER, "command": zmq.ROUTER, "state": zmq.PUB, "estop": zmq.ROUTER}
OPERATIONS = {"arm": Kind.ARM, "disarm": Kind.DISARM, "home": Kind.HOME, "stop": Kind.STOP, "reset": Kind.RESET}
OPERATION_S = 30.0
"""Longest operation: a homing."""
_REMEMBERED = 256
_DRAIN = 32


@dataclass
class _Operation:
    """A request that the arm has to answer. One at a time, so that no outcome is overwritten before it is seen."""

    identity: bytes
    key: tuple[int, int]
    command: Command
    until_ns: int
    is_sent: bool = False


class Gateway:
    """Four sockets in front of one arm."""

    def __init__(
        self, arm: ArmSpecs, limits: Limits, memory: SharedMemory, listen: tuple[str, int], ttl_s: float
    ) -> None:
        """Listen, so that the endpoints are known.

        Args:
            arm: Specs of the arm behind the shared memory.
            limits: What the real-time process enforces.
            memory: Shared with it.
            listen: Loopback host and first of four ports, or port 0 for any four.
            ttl_s: Life of a lease that asks for none [s].

        Raises:
            BridgeError: The host is not a loopback address, or a port is in use.
        """
        host, port = listen
        require_loopback(host)
        self._memory, self._boot_id = memory, int.from_bytes(np.random.default_rng().bytes(8), "little") or 1
        self._context: zmq.Context[Any] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[Any]] = {}
        endpoints = {}
        try:
            for offset, (name, kind) in enumerate(CHANNELS.items()):
                number = port + offset if port else 0
                self._sockets[name], endpoints[name] = bound(self._context, kind, host, number)
        except BridgeError:
            self._close_sockets()
            raise
        self.schema = BridgeSchema(self._boot_id, arm, limits, endpoints, ttl_s)
        self._desk = LeaseDesk(memory.words)
        self._state = np.zeros(self.schema.layout.size)
        self._published = self._operations = self._refused = 0
        self._refusal = Reject.NONE
        self._waiting: deque[_Operation] = deque()
        self._answers: OrderedDict[tuple[int, int], bytes | None] = OrderedDict()
        self._estop = EstopThread(self._sockets["estop"], memory, self._desk, self._boot_id, self._state.size)

    @property
    def newest(self) -> dict[str, float]:
        """Status as it was published last, by name."""
        return {name: float(self._state[index]) for name, index in INDEX.items()}

    def serve(self, state_hz: float, is_over: Callable[[], bool]) -> None:
        """Pass frames on until `is_over`."""
        self._estop.start()
        poller = zmq.Poller()
        for name in ("control", "command"):
            poller.register(self._sockets[name], zmq.POLLIN)
        next_ns, period_ns = time.monotonic_ns(), int(1e9 / state_hz)
        while not is_over():
            now_ns = time.monotonic_ns()
            self._memory.words[Word.GATEWAY_ALIVE_NS] = now_ns
            if now_ns >= next_ns:
                self._publish()
                next_ns = max(next_ns + period_ns, now_ns)
            self._settle(now_ns)
            ready = dict(poller.poll(max(0, -(-(next_ns - time.monotonic_ns()) // 1_000_000))))
            if self._sockets["command"] in ready:
                self._drain("command", self._take_command)
            if self._sockets["control"] in ready:
                self._drain("control", self._take_request)

    def close(self) -> None:
        """Stop listening."""
        if self._estop.is_alive():
            self._estop.end()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        self._context.term()

    def _drain(self, name: str, take: Callable[[bytes, bytes], None]) -> None:
        for _ in range(_DRAIN):
            try:
                identity, *frames = self._sockets[name].recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            take(identity, b"".join(frames))

    def _publish(self) -> None:
        count = self._memory.states.read(self._state)
        self._state[INDEX["refused"]], self._state[INDEX["refusal"]] = self._refused, self._refusal
        if count == self._published:
            return
        self._published = count
        frame = Frame(FrameType.STATE, self._state.tobytes(), self._boot_id, 0, count, time.monotonic_ns())
        self._sockets["state"].send(encode(frame), zmq.DONTWAIT)

    def _take_command(self, identity: bytes, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        try:
            frame = decode(data)
            if frame.boot_id != self._boot_id or frame.type not in (FrameType.CHUNK, FrameType.HEARTBEAT):
                raise WireError(f"The command channel takes chunks and heartbeats of boot {self._boot_id}.")
            if frame.sequence >= 2**53:
                raise WireError(f"Sequence number {frame.sequence} is not exact as a float64.")
            chunk = chunk_rows(frame) if frame.type == FrameType.CHUNK else None
        except WireError:
            self._refuse(Reject.BAD_FRAME)
            return
        if not self._desk.renew(frame.session, now_ns):
            self._refuse(Reject.NO_LEASE if chunk is not None else Reject.NONE)
        elif chunk is not None and not self._push_chunk(frame, *chunk):
            self._refuse(Reject.FULL)

    def _push_chunk(self, frame: Frame, rows: np.ndarray, dt_s: float) -> bool:
        command = Command(Kind.CHUNK, frame.session, frame.sequence, frame.t_exec_ns, round(dt_s * 1e9), rows=rows)
        return self._memory.commands.push(command)

    def _refuse(self, reason: Reject) -> None:
        self._refused += reason != Reject.NONE
        self._refusal = reason if reason != Reject.NONE else self._refusal

    def _take_request(self, identity: bytes, data: bytes) -> None:
        received_ns = time.monotonic_ns()
        try:
            frame = decode(data)
            message = frame.message()
        except WireError:
            self._refuse(Reject.BAD_FRAME)
            return
        key = (frame.session, frame.sequence)
        if key in self._answers:
            self._repeat(identity, key)
            return
        self._answers[key] = None
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)
        try:
            answer = self._answer(identity, frame, message, received_ns)
        except LeaseError as error:
            answer = {"ok": False, "code": "LEASE", "error": str(error)}
        except (BridgeError, TypeError, ValueError) as error:
            answer = {"ok": False, "error": f"{message.get('op')!r} was refused: {error}"}
        if answer is not None:
            self._reply(identity, key, answer)

    def _answer(self, identity: bytes, frame: Frame, message: dict[str, Any], now_ns: int) -> dict[str, Any] | None:
        """The answer to a request, or None if it has to wait for the arm."""
        op, session = message.get("op"), frame.session
        if frame.type != FrameType.REQUEST or not 0 < session < 2**62:
            raise BridgeError("The control channel takes requests of a session between 1 and 2^62.")
        if op == "hello":
            return {"ok": True, "schema": self.schema.to_json()}
        if frame.boot_id != self._boot_id:
            raise BridgeError("The bridge was restarted since hello. Connect anew.")
        if op == "clock":
            return {"ok": True, "t_received_ns": now_ns}
        if op == "lease":
            ttl_s = float(message.get("ttl_s") or self.schema.lease_ttl_s)
            self._desk.acquire(session, str(message.get("name"))[:64], ttl_s, now_ns)
            return {"ok": True}
        if op == "release":
            self._desk.release(session, now_ns)
            return {"ok": True}
        if op in OPERATIONS:
            self._begin(identity, frame, OPERATIONS[op], message)
            return None
        raise BridgeError(
            f"unknown request. Available: {', '.join(['hello', 'clock', 'lease', 'release', *OPERATIONS])}."
        )

    def _begin(self, identity: bytes, frame: Frame, kind: Kind, message: dict[str, Any]) -> None:
        self._desk.renew(frame.session, time.monotonic_ns())
        self._operations += 1
        seed = message.get("seed")
        seed = -1 if seed is None else int(seed)
        if not -1 <= seed < 2**62:
            raise BridgeError(f"seed is {seed}, expected 0 to 2^62.")
        if len(self._waiting) >= COMMAND_SLOTS:
            raise BridgeError("too many requests wait for the arm; try again.")
        command = Command(kind, frame.session, self._operations, seed=seed)
        until_ns = time.monotonic_ns() + int(OPERATION_S * 1e9)
        self._waiting.append(_Operation(identity, (frame.session, frame.sequence), command, until_ns))
        self._settle(time.monotonic_ns())

    def _settle(self, now_ns: int) -> None:
        """Pass the oldest operation on, and answer it once it has ended."""
        if not self._waiting:
            return
        operation = self._waiting[0]
        if not operation.is_sent:
            operation.is_sent = self._memory.commands.push(operation.command)
        self._memory.states.read(self._state)
        if operation.is_sent and self._state[INDEX["operation"]] == operation.command.number:
            outcome = Outcome(int(self._state[INDEX["outcome"]]))
            answer: dict[str, Any] = {"ok": outcome == Outcome.DONE, "error": WORDS[outcome]}
            if outcome == Outcome.NO_LEASE:
                answer["code"] = "LEASE"
        elif now_ns > operation.until_ns:
            answer = {"ok": False, "error": WORDS[Outcome.PENDING]}
        else:
            return
        self._waiting.popleft()
        self._reply(operation.identity, operation.key, answer)

    def _repeat(self, identity: bytes, key: tuple[int, int]) -> None:
        """A client asks again: send the old answer again, or send it to its new socket once there is one."""
        data = self._answers[key]
        if data is not None:
            self._sockets["control"].send_multipart([identity, data], zmq.DONTWAIT)
            return
        for operation in self._waiting:
            if operation.key == key:
                operation.identity = identity

    def _reply(self, identity: bytes, key: tuple[int, int], answer: dict[str, Any]) -> None:
        frame = Frame(FrameType.REPLY, pack(answer), self._boot_id, 0, key[1], time.monotonic_ns())
        data = encode(frame)
        self._answers[key] = data
        self._sockets["control"].send_multipart([identity, data], zmq.DONTWAIT)
