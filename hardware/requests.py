"""The control channel: requests with answers. It never waits for the arm.

Requests that change the mode go to the real-time process as numbered operations; their answers are sent when the state
says how the operation ended. A repeated request is answered, not repeated.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from hardware.front import Front
from hardware.lease import Claim
from hardware.sessions import Session
from hardware.shared_memory import COMMAND_SLOTS, Command, Kind
from robot.bridge.schema import INDEX, WORDS, Outcome, Priority
from robot.bridge.wire import Frame, FrameType, Reason, decode, encode, pack
from robot.errors import BridgeError, LeaseError, WireError

OPERATIONS = {"arm": Kind.ARM, "disarm": Kind.DISARM, "home": Kind.HOME, "stop": Kind.STOP, "reset": Kind.RESET}
QUESTIONS = ("clock", "counters", "holder")
"""Requests that change nothing, so that their answers need not be remembered."""
OPERATION_S = 30.0
"""Longest operation: a homing."""


@dataclass
class _Operation:
    """A request that the arm has to answer. One at a time, so that no outcome is overwritten before it is seen."""

    identity: bytes
    session: int
    number: int
    command: Command
    until_ns: int
    is_sent: bool = False


class RequestDesk:
    """Answers requests."""

    def __init__(self, socket: zmq.Socket[Any], front: Front, refuse: Callable[[str], None]) -> None:
        self._socket, self._front, self._refuse = socket, front, refuse
        self._boot_id = front.schema.boot_id
        self._operations = 0
        self._waiting: deque[_Operation] = deque()

    def take(self, identity: bytes, data: bytes, user: str) -> None:
        """Answer a request, now or when the arm has.

        Args:
            identity: Of the connection that it came by.
            data: A frame, or anything else.
            user: Public key that the connection proved itself with; empty without keys.

        Raises:
            WireError: It is no request of a client that is known, or a replay.
        """
        received_ns = time.monotonic_ns()
        frame = decode(data)
        if frame.type != FrameType.REQUEST:
            raise WireError(f"The control channel takes requests, got {frame.type.name}.", Reason.CHANNEL)
        message = frame.message()
        try:
            answer = self._answer(identity, frame, message, user)
        except LeaseError as error:
            answer = {"ok": False, "code": "LEASE", "error": str(error)}
        except WireError as error:
            if error.reason not in (Reason.SESSION, Reason.BOOT):
                raise
            self._refuse(error.reason)  # before the client hears of it, and asks for the counters
            self._reply(identity, frame, {"ok": False, "error": f"{error} Connect anew."})
            return
        except (BridgeError, TypeError, ValueError, OverflowError) as error:
            self._front.tally.refuse(Reason.REQUEST)
            answer = {"ok": False, "error": f"{message.get('op')!r} was refused: {error}"}
        if answer is not None:
            self._reply(identity, frame, {"t_received_ns": received_ns, **answer})

    def settle(self, now_ns: int) -> None:
        """Pass the oldest operation on, and answer it once the state says how it ended."""
        if not self._waiting:
            return
        operation = self._waiting[0]
        if not operation.is_sent:
            operation.is_sent = self._front.memory.commands.push(operation.command)
        state = self._front.state
        if operation.is_sent and state[INDEX["operation"]] == operation.command.number:
            outcome = Outcome(int(state[INDEX["outcome"]]))
            answer: dict[str, Any] = {"ok": outcome == Outcome.DONE, "error": WORDS[outcome]}
            if outcome == Outcome.NO_LEASE:
                answer["code"] = "LEASE"
        elif now_ns > operation.until_ns:
            answer = {"ok": False, "error": WORDS[Outcome.PENDING]}
        else:
            return
        self._waiting.popleft()
        frame = Frame(FrameType.REQUEST, b"", self._boot_id, operation.session, operation.number)
        self._reply(operation.identity, frame, answer)

    def _answer(self, identity: bytes, frame: Frame, message: dict[str, Any], user: str) -> dict[str, Any] | None:
        """The answer to a request, or None if it has been given, or has to wait for the arm."""
        op = message.get("op")
        if op == "hello":
            return self._hello(frame, message, user)
        if frame.boot_id != self._boot_id:
            raise WireError("The bridge was restarted since hello.", Reason.BOOT)
        session = self._front.sessions.get(frame.session)
        if session.user != user:
            raise WireError("The session belongs to another key.", Reason.KEY)
        if op in QUESTIONS:
            return self._inform(str(op), session)
        if op not in OPERATIONS and op not in ("lease", "release"):
            names = ", ".join(["hello", *QUESTIONS, "lease", "release", *OPERATIONS])
            raise BridgeError(f"unknown request. Available: {names}.")
        if not session.begin(frame.sequence, time.monotonic_ns()):
            self._repeat(identity, session, frame)
            return None
        if op in OPERATIONS:
            self._begin(identity, frame, OPERATIONS[op], message.get("seed"))
            return None
        return self._lease(str(op), frame, message, session)

    def _hello(self, frame: Frame, message: dict[str, Any], user: str) -> dict[str, Any]:
        if not 0 < frame.session < 2**62:
            raise WireError("A session is a number between 1 and 2^62.", Reason.SESSION)
        name = self._front.name_of(user, str(message.get("name")))
        self._front.sessions.open(frame.session, name, user, time.monotonic_ns())
        return {"ok": True, "schema": self._front.schema.to_json()}

    def _inform(self, op: str, session: Session) -> dict[str, Any]:
        now_ns = session.seen_ns = time.monotonic_ns()
        if op == "counters":
            return {"ok": True, "counters": self._front.counters()}
        if op == "holder":
            return {"ok": True, "holder": self._front.lease.holder(now_ns)}
        return {"ok": True}

    def _lease(self, op: str, frame: Frame, message: dict[str, Any], session: Session) -> dict[str, Any]:
        now_ns = time.monotonic_ns()
        if op == "release":
            self._front.lease.release(frame.session, now_ns)
            return {"ok": True}
        claim = Claim(
            frame.session,
            session.name,
            float(message.get("ttl_s") or self._front.schema.lease_ttl_s),
            Priority(message.get("priority", Priority.POLICY)),
            message.get("blend") is True,
        )
        self._front.lease.acquire(claim, now_ns, self._front.is_moving(now_ns))
        return {"ok": True}

    def _begin(self, identity: bytes, frame: Frame, kind: Kind, seed: Any) -> None:
        now_ns = time.monotonic_ns()
        seed = -1 if seed is None else int(seed)
        if not -1 <= seed < 2**62:
            raise BridgeError(f"seed is {seed}, expected 0 to 2^62.")
        if len(self._waiting) >= COMMAND_SLOTS:
            raise BridgeError("too many requests wait for the arm; try again.")
        self._front.lease.renew(frame.session, now_ns, now_ns)
        self._operations += 1
        command = Command(kind, frame.session, self._operations, seed=seed)
        until_ns = now_ns + int(OPERATION_S * 1e9)
        self._waiting.append(_Operation(identity, frame.session, frame.sequence, command, until_ns))
        self.settle(now_ns)

    def _repeat(self, identity: bytes, session: Session, frame: Frame) -> None:
        """A client asks again: send the old answer again, or send it to its new socket once there is one."""
        data = session.answers[frame.sequence]
        if data is not None:
            self._send(identity, data)
            return
        for operation in self._waiting:
            if (operation.session, operation.number) == (frame.session, frame.sequence):
                operation.identity = identity

    def _reply(self, identity: bytes, frame: Frame, answer: dict[str, Any]) -> None:
        data = encode(Frame(FrameType.REPLY, pack(answer), self._boot_id, 0, frame.sequence, time.monotonic_ns()))
        self._front.sessions.remember(frame.session, frame.sequence, data)
        self._send(identity, data)

    def _send(self, identity: bytes, data: bytes) -> None:
        # A ROUTER drops what is meant for a peer that has gone; one that does not read its answers loses them.
        self._socket.send_multipart([identity, data], zmq.DONTWAIT)
