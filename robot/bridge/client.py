"""The client of a bridge: what a policy node, a device or a test drives an arm with. It never waits for ever."""

import secrets
import time
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from robot.bridge.schema import INDEX, BridgeSchema, Mode
from robot.bridge.wire import MAX_FRAME, Frame, FrameType, chunk_payload, decode, encode, pack, public_id
from robot.contract import ActionChunk, Observation
from robot.errors import BridgeError, LeaseError, WireError

ATTEMPT_S = 0.5
"""How long one attempt of a request waits before it is made again on a new socket (ZMQ guide, "lazy pirate")."""
CLOCK_SAMPLES = 8


class BridgeState:
    """One state frame.

    Attributes:
        values: Arrays by key: `status`, `target`, and what the driver measured.
        t_ns: When the arm was read, the bridge's CLOCK_MONOTONIC [ns].
    """

    def __init__(self, schema: BridgeSchema, flat: np.ndarray) -> None:
        self.values = schema.layout.views(flat)
        self._observation = schema.arm.environment.observation
        self.t_ns = int(self.status("t_ns"))

    def status(self, name: str) -> float:
        """One element of `status`, by its name in `robot.bridge.schema.STATUS`."""
        return float(self.values["status"][INDEX[name]])

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
        return {key: self.values[key].astype(spec.dtype) for key, spec in self._observation.items()}


class BridgeClient:
    """One session with a bridge, as a context manager: hello on entry; release and close on exit.

    While a lease is held every call shows a sign of life, so that a client that stops calling loses the arm.
    """

    schema: BridgeSchema

    def __init__(self, endpoint: str, name: str = "client", timeout_s: float = 2.0) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: Address of the control channel, as the bridge prints it.
            name: Shown to other clients while this one holds the lease.
            timeout_s: Longest wait for any answer or state [s].
        """
        self.endpoint, self.name, self.timeout_s = endpoint, name, timeout_s
        self._session = secrets.randbelow(2**62 - 1) + 1
        self._context: zmq.Context[Any] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[Any]] = {}
        self._requests = self._sequence = 0
        self._boot_id = 0
        self._has_lease = False
        self._alive_s = 0.0
        self.offset_ns, self.uncertainty_ns = 0, 0

    @property
    def public_id(self) -> int:
        """This session as others see it in the state."""
        return public_id(self._session)

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
            for socket in self._sockets.values():
                socket.close()
            self._sockets.clear()
            self._context.term()

    def acquire(self, ttl_s: float | None = None) -> None:
        """Become the one who drives. Raises `LeaseError` that names the holder if there is one."""
        self._request("lease", name=self.name, ttl_s=ttl_s)
        self._has_lease = True

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
        """Go to the start pose; a simulated arm begins the scene of `seed`. Needs standstill, and arming afterwards."""
        self._request("home", seed=seed, timeout_s=max(self.timeout_s, 30.0))

    def estop(self) -> None:
        """Latch the e-stop. Returns when the driver has confirmed that the arm stands."""
        self._request("stop", channel="estop")

    def reset(self) -> None:
        """Release the e-stop and any latched fault; the arm stays disarmed."""
        self._request("reset", channel="estop")
        self._request("reset")

    def state(self) -> BridgeState:
        """The newest state; waits for the next if it was taken before.

        Raises:
            BridgeError: The bridge is silent, or was restarted.
        """
        self._show_life()
        socket = self._socket("state")
        if not socket.poll(round(1000 * self.timeout_s)):
            raise BridgeError(
                f"The bridge at {self.endpoint} has sent no state for {self.timeout_s} s: it has ended or hangs."
            )
        frame = decode(socket.recv())
        self._require_boot(frame)
        flat = frame.floats()
        if frame.type != FrameType.STATE or len(flat) != self.schema.layout.size:
            raise WireError(f"The state channel sent {frame.type.name} of {len(flat)} numbers.")
        return BridgeState(self.schema, flat)

    def send_chunk(self, chunk: ActionChunk, t0_ns: int) -> int:
        """Send rows that begin at `t0_ns` of the bridge's clock; returns the chunk's sequence number. Does not wait."""
        if not np.isfinite(chunk.actions).all():
            raise BridgeError("The chunk is not finite; nothing was sent.")
        self._sequence += 1
        self._send(FrameType.CHUNK, chunk_payload(chunk.actions, chunk.dt_s), t0_ns)
        return self._sequence

    def now_ns(self) -> int:
        """The bridge's clock now [ns]."""
        return time.monotonic_ns() + self.offset_ns

    def _hello(self) -> None:
        answer = self._request("hello", name=self.name)
        self.schema = BridgeSchema.from_json(answer["schema"])
        self._boot_id = self.schema.boot_id
        self._synchronise()
        self._socket("state")
        self._socket("command")

    def _synchronise(self) -> None:
        """Offset of the bridge's clock from four times, by the exchange that took least (RFC 5905, section 8)."""
        best = None
        for _ in range(CLOCK_SAMPLES):
            sent = time.monotonic_ns()
            answer = self._request("clock")
            received = time.monotonic_ns()
            arrived, left = int(answer["t_received_ns"]), int(answer["t_send_ns"])
            trip = (received - sent) - (left - arrived)
            if best is None or trip < best[0]:
                best = (trip, ((arrived - sent) + (left - received)) // 2)
        assert best is not None
        self.uncertainty_ns, self.offset_ns = best[0] // 2, best[1]

    def _request(
        self, op: str, channel: str = "control", timeout_s: float | None = None, **content: Any
    ) -> dict[str, Any]:
        self._requests += 1
        kind = FrameType.ESTOP if channel == "estop" else FrameType.REQUEST
        payload, number = pack({"op": op, **content}), self._requests
        until = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while time.monotonic() < until:
            frame = Frame(kind, payload, self._boot_id, self._session, number, time.monotonic_ns())
            self._socket(channel).send(encode(frame), zmq.DONTWAIT)
            answer = self._await(channel, number, min(until, time.monotonic() + ATTEMPT_S))
            if answer is not None:
                return _accepted(op, answer)
            self._sockets.pop(channel).close()
        raise BridgeError(
            f"No bridge answers {op!r} at {self.endpoint}. "
            "Start one with `armature bridge arm=...`, or give its address."
        )

    def _await(self, channel: str, number: int, until: float) -> dict[str, Any] | None:
        socket = self._socket(channel)
        while (left_s := until - time.monotonic()) > 0:
            self._show_life()
            if not socket.poll(min(50, max(1, round(1000 * left_s)))):
                continue
            frame = decode(socket.recv())
            if self._boot_id:
                self._require_boot(frame)
            if frame.type == FrameType.REPLY and frame.sequence == number:
                return {**frame.message(), "t_send_ns": frame.t_send_ns}
        return None

    def _show_life(self) -> None:
        now = time.monotonic()
        if self._has_lease and now - self._alive_s > self.schema.lease_ttl_s / 5:
            self._send(FrameType.HEARTBEAT, b"", 0)

    def _send(self, kind: FrameType, payload: bytes, t_exec_ns: int) -> None:
        frame = Frame(kind, payload, self._boot_id, self._session, self._sequence, time.monotonic_ns(), t_exec_ns)
        try:
            self._socket("command").send(encode(frame), zmq.DONTWAIT)
        except zmq.Again as error:
            raise BridgeError(f"The bridge at {self.endpoint} takes no commands: it has ended or hangs.") from error
        self._alive_s = time.monotonic()

    def _require_boot(self, frame: Frame) -> None:
        if frame.boot_id != self._boot_id:
            raise BridgeError(
                f"The bridge at {self.endpoint} was restarted: its lease and times are void. Connect anew."
            )

    def _socket(self, channel: str) -> zmq.Socket[Any]:
        if channel in self._sockets:
            return self._sockets[channel]
        socket = self._context.socket(zmq.SUB if channel == "state" else zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        if channel == "state":
            socket.setsockopt(zmq.CONFLATE, 1)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            socket.setsockopt(zmq.RCVHWM, 64)
            socket.setsockopt(zmq.SNDHWM, 64)
        try:
            socket.connect(self.endpoint if channel == "control" else self.schema.endpoints[channel])
        except zmq.ZMQError as error:
            socket.close()
            raise BridgeError(
                f"{self.endpoint!r} is no address of a bridge: {error}. One is tcp://127.0.0.1:5555."
            ) from error
        self._sockets[channel] = socket
        return socket


def _accepted(op: str, answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("ok") is True:
        return answer
    kind = LeaseError if answer.get("code") in ("LEASE", "NO_LEASE") else BridgeError
    raise kind(f"The bridge refused {op!r}: {answer.get('error', 'without a reason.')}")
