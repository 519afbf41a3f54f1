"""The client of a bridge: what a policy node, a device or a test drives an arm with. It never waits for ever."""

import secrets
import time
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from robot.bridge.clock import ClockSync
from robot.bridge.connection import Connection
from robot.bridge.schema import INDEX, BridgeSchema, Mode, Priority
from robot.bridge.wire import Frame, FrameType, chunk_payload, decode, encode, pack, public_id
from robot.contract import ActionChunk, Observation
from robot.errors import BridgeError, LeaseError, WireError

ATTEMPT_S = 0.5
"""How long one attempt of a request waits before it is made again on a new socket (ZMQ guide, "lazy pirate")."""
HOMING_S = 30.0
"""Longest way home."""
CLOCK_SAMPLES = 8
CLOCK_EVERY_S = 1.0
"""How often the clocks are compared while states are read."""
LIFE_S = 0.02
"""How often a client that holds the lease shows a sign of life, as long as it calls us."""
_BACK_NS = 50_000_000


class BridgeState:
    """One state frame.

    Attributes:
        t_ns: When the arm was read, the bridge's CLOCK_MONOTONIC [ns].
    """

    def __init__(self, schema: BridgeSchema, flat: np.ndarray) -> None:
        self._schema, self._flat = schema, flat
        self.t_ns = int(self.status("t_ns"))

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Arrays by key: `status`, `target`, and what the driver measured."""
        return self._schema.layout.views(self._flat)

    def status(self, name: str) -> float:
        """One element of `status`, by its name in `robot.bridge.schema.STATUS`."""
        return float(self._flat[INDEX[name]])

    @property
    def mode(self) -> Mode:
        """What the real-time process does with the arm."""
        return Mode(int(self.status("mode")))

    @property
    def success(self) -> bool:
        """Whether the task is fulfilled now; False where the arm cannot know."""
        return bool(self.values["success"][0] > 0.5) if "success" in self.values else False

    def observation(self) -> Observation:
        """What a policy sees, in the types of its specs."""
        specs = self._schema.arm.environment.observation
        return {key: self.values[key].astype(spec.dtype) for key, spec in specs.items()}


class BridgeClient:
    """One session with a bridge, as a context manager: hello on entry; release and close on exit.

    While a lease is held every call shows a sign of life, so that a client that stops calling loses the arm.
    """

    schema: BridgeSchema

    def __init__(
        self,
        endpoint: str,
        name: str = "client",
        timeout_s: float = 2.0,
        *,
        priority: Priority = Priority.POLICY,
        keys: str | Path = "",
    ) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: Address of the control channel, as the bridge prints it.
            name: Shown to other clients while this one holds the lease; a bridge with keys shows the key's name.
            timeout_s: Longest wait for any answer or state [s].
            priority: With which the lease is asked for; a higher one takes over from a lower one.
            keys: This client's secret file, made with `armature keys`, with `bridge.key` beside it; empty for none.

        Raises:
            BridgeError: A key file is missing or not private.
        """
        self.endpoint, self.name, self.timeout_s, self.priority = endpoint, name, timeout_s, priority
        self._connection = Connection(endpoint, keys)
        self._session = secrets.randbelow(2**62 - 1) + 1
        self.public_id = public_id(self._session)
        """This session as others see it in the state."""
        self._requests = self._sequence = self._boot_id = self._sent_ns = 0
        self._has_lease = self._is_seen_driving = False
        self._alive_s = self._synced_s = 0.0
        self._clock_request: tuple[int, int] | None = None
        self._clock = ClockSync()

    @property
    def offset_ns(self) -> int:
        """What to add to this machine's CLOCK_MONOTONIC to have the bridge's [ns]."""
        return self._clock.offset_ns

    @property
    def uncertainty_ns(self) -> int:
        """How far off `offset_ns` may be [ns]."""
        return self._clock.uncertainty_ns

    @property
    def clock_steps(self) -> int:
        """How many times one of the two clocks has jumped."""
        return self._clock.steps

    def __enter__(self) -> "BridgeClient":
        try:
            self._hello()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the arm if this client drives it, let go of the lease, and disconnect; may be called twice."""
        try:
            if self._has_lease:
                self.disarm()
                self.release()
        except BridgeError:
            # Whoever cannot be reached takes silence for the end of the lease and stops the arm.
            self._has_lease = False
        finally:
            self._connection.close()

    def acquire(self, ttl_s: float | None = None, blend: bool = False) -> None:
        """Become the one who drives.

        Args:
            ttl_s: How long the lease lasts without a sign of life [s]; by default as the bridge has it.
            blend: Whether to take over from a client of lower priority in mid-motion: the arm stays armed, drops that
                client's plan, and goes on from where it is. Otherwise it has to stand still.

        Raises:
            LeaseError: Somebody else drives and is not outranked, or is in motion; names the holder.
        """
        self._request("lease", name=self.name, ttl_s=ttl_s, priority=int(self.priority), blend=blend)
        self._has_lease, self._is_seen_driving = True, False

    def release(self) -> None:
        """Let others drive."""
        self._has_lease = False
        self._request("release")

    def arm(self) -> None:
        """Let the arm follow chunks from now on."""
        self._request("arm")

    def disarm(self) -> None:
        """Come to rest and follow nothing."""
        self._request("disarm")

    def stop(self) -> None:
        """Come to rest and disarm, whoever drives."""
        self._request("stop")

    def home(self, seed: int | None = None) -> None:
        """Go to the start pose; a simulated arm begins the scene of `seed`. Needs standstill, and arming afterwards.

        Returns when the arm is there. Raises `BridgeError` if something stopped it on its way.
        """
        before = self.state().status("scene")
        self._request("home", seed=seed, timeout_s=max(self.timeout_s, HOMING_S))
        begun_ns, until = self.now_ns(), time.monotonic() + HOMING_S
        while (state := self.state()).status("scene") <= before:
            if state.mode != Mode.HOMING and state.t_ns > begun_ns:
                raise BridgeError(f"The arm was stopped on its way home: {state.mode.name}.")
            if time.monotonic() > until:
                self.stop()
                raise BridgeError(f"The arm has not come home in {HOMING_S:.0f} s and was stopped.")

    def estop(self) -> None:
        """Latch the e-stop. Returns when the driver has confirmed that the arm stands."""
        self._request("stop", channel="estop")

    def reset(self) -> None:
        """Release the e-stop and any latched fault; the arm stays disarmed."""
        self._request("reset", channel="estop")
        self._request("reset")

    def holder(self) -> str:
        """Name of whoever drives; empty for nobody."""
        return str(self._request("holder")["holder"])

    def counters(self) -> dict[str, int]:
        """Frames that the gateway has refused since its start, by `robot.bridge.wire.Reason`."""
        return {str(reason): int(count) for reason, count in self._request("counters")["counters"].items()}

    def state(self) -> BridgeState:
        """The newest state; waits for the next if it was taken before.

        Raises:
            BridgeError: The bridge is silent, or was restarted.
            LeaseError: This client drove, and does not any more; says who took over. Raised once.
        """
        self._show_life()
        self._compare_clocks()
        data = self._await_state()
        frame = decode(data)
        self._require_boot(frame)
        flat = frame.floats()
        if frame.type != FrameType.STATE or len(flat) != self.schema.layout.size:
            raise WireError(f"The state channel sent {frame.type.name} of {len(flat)} numbers.")
        state = BridgeState(self.schema, flat)
        if self._has_lease:
            self._require_lease(state)
        return state

    def send_chunk(self, chunk: ActionChunk, t0_ns: int) -> int:
        """Send rows that begin at `t0_ns` of the bridge's clock; returns the chunk's sequence number. Does not wait."""
        if not np.isfinite(chunk.actions).all():
            raise BridgeError("The chunk is not finite; nothing was sent.")
        self._sequence += 1
        self._send(FrameType.CHUNK, chunk_payload(chunk.actions, chunk.dt_s), t0_ns)
        return self._sequence

    def tell_device(self, action: np.ndarray) -> None:
        """Tell whoever records what a device asks for now, before anything is made of it; moves nothing.

        Args:
            action: In the arm's action space, (A,).
        """
        if "journal" in self.schema.endpoints:
            payload = chunk_payload(np.asarray(action)[None], self.schema.arm.environment.dt_s)
            self._send(FrameType.DEVICE, payload, self.now_ns())

    def join(self, socket: zmq.Socket[Any], endpoint: str) -> None:
        """Connect a subscriber of another thread to a stream that hello named, with this client's keys."""
        self._connection.join(socket, endpoint)

    def now_ns(self) -> int:
        """The bridge's clock now [ns]."""
        return time.monotonic_ns() + self._clock.offset_ns

    def _hello(self) -> None:
        answer = self._request("hello", name=self.name)
        self.schema = BridgeSchema.from_json(answer["schema"])
        self._connection.endpoints = self.schema.endpoints
        self._boot_id = self.schema.boot_id
        for _ in range(CLOCK_SAMPLES):
            self._request("clock")
        self._synced_s = time.monotonic()
        self._connection.socket("state")
        self._connection.socket("command")

    def _compare_clocks(self) -> None:
        """Ask for the bridge's time now and then; the answer is taken while states are waited for."""
        if time.monotonic() - self._synced_s < CLOCK_EVERY_S:
            return
        self._synced_s = time.monotonic()
        self._requests += 1
        self._clock_request = self._requests, time.monotonic_ns()
        self._post("control", self._requests, pack({"op": "clock"}))

    def _await_state(self) -> bytes:
        """The next state; clocks are compared meanwhile."""
        states = self._connection.socket("state")
        until = time.monotonic() + self.timeout_s
        while self._clock_request is not None and (left_s := until - time.monotonic()) > 0:
            control = self._connection.socket("control")
            ready = zmq.select([states, control], [], [], left_s)[0]
            if control in ready:
                self._take_time(decode(control.recv()))
            if states in ready:
                return states.recv()
        states.setsockopt(zmq.RCVTIMEO, max(0, round(1000 * (until - time.monotonic()))))
        try:
            return states.recv()
        except zmq.Again:
            raise BridgeError(
                f"The bridge at {self.endpoint} has sent no state for {self.timeout_s} s: it has ended or hangs."
            ) from None

    def _take_time(self, frame: Frame) -> None:
        received_ns = time.monotonic_ns()
        if self._clock_request is None or frame.type != FrameType.REPLY or frame.sequence != self._clock_request[0]:
            return
        answer, sent_ns = frame.message(), self._clock_request[1]
        self._clock_request = None
        if "t_received_ns" in answer:
            self._clock.add(sent_ns, int(answer["t_received_ns"]), frame.t_send_ns, received_ns)

    def _require_lease(self, state: BridgeState) -> None:
        """Notice that somebody else drives now. States from before we did say nothing."""
        holder = int(state.status("lease"))
        if holder == self.public_id:
            self._is_seen_driving = True
        elif self._is_seen_driving:
            self._has_lease = False
            name = self.holder()
            raise LeaseError(
                f"{name!r} has taken the arm over; nothing that this client sends moves it."
                if name
                else "The lease has ended: the bridge heard no sign of life in time. Acquire it and arm again."
            )

    def _request(
        self, op: str, channel: str = "control", timeout_s: float | None = None, **content: Any
    ) -> dict[str, Any]:
        self._requests += 1
        payload, number = pack({"op": op, **content}), self._requests
        self._connection.forget()
        until = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while time.monotonic() < until:
            self._clock_request = (number, time.monotonic_ns()) if op == "clock" else None
            self._post(channel, number, payload)
            answer = self._await(channel, number, min(until, time.monotonic() + ATTEMPT_S))
            if answer is not None:
                return _accepted(op, answer)
            self._connection.drop(channel)
        raise BridgeError(self._connection.why_silent(op))

    def _await(self, channel: str, number: int, until: float) -> dict[str, Any] | None:
        socket = self._connection.socket(channel)
        while (left_s := until - time.monotonic()) > 0:
            self._show_life()
            if not socket.poll(min(round(1000 * LIFE_S), max(1, round(1000 * left_s)))):
                continue
            frame = decode(socket.recv())
            if self._boot_id:
                self._require_boot(frame)
            if frame.type == FrameType.REPLY and frame.sequence == number:
                self._take_time(frame)
                return frame.message()
        return None

    def _show_life(self) -> None:
        if self._has_lease and time.monotonic() - self._alive_s > LIFE_S:
            self._send(FrameType.HEARTBEAT, b"", 0)

    def _post(self, channel: str, number: int, payload: bytes) -> None:
        kind = FrameType.ESTOP if channel == "estop" else FrameType.REQUEST
        frame = Frame(kind, payload, self._boot_id, self._session, number, self.now_ns())
        try:
            self._connection.socket(channel).send(encode(frame), zmq.DONTWAIT)
        except zmq.Again as error:
            raise BridgeError(self._connection.why_silent("a request")) from error

    def _send(self, kind: FrameType, payload: bytes, t_exec_ns: int) -> None:
        frame = Frame(kind, payload, self._boot_id, self._session, self._sequence, self._stamp(), t_exec_ns)
        try:
            self._connection.socket("command").send(encode(frame), zmq.DONTWAIT)
        except zmq.Again as error:
            raise BridgeError(f"The bridge at {self.endpoint} takes no commands: it has ended or hangs.") from error
        self._alive_s = time.monotonic()

    def _stamp(self) -> int:
        """The bridge's time now, later than the stamp before: the bridge takes what is not for a replay.

        After a jump of a clock it may be earlier; the bridge did not accept what was stamped with the wrong time.
        """
        now_ns = self.now_ns()
        is_corrected = 0 <= self._sent_ns - now_ns < _BACK_NS
        self._sent_ns = self._sent_ns + 1 if is_corrected else now_ns
        return self._sent_ns

    def _require_boot(self, frame: Frame) -> None:
        if frame.boot_id != self._boot_id:
            raise BridgeError(
                f"The bridge at {self.endpoint} was restarted: its lease and times are void. Connect anew."
            )


def _accepted(op: str, answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("ok") is True:
        return answer
    kind = LeaseError if answer.get("code") in ("LEASE", "NO_LEASE") else BridgeError
    raise kind(f"The bridge refused {op!r}: {answer.get('error', 'without a reason.')}")
