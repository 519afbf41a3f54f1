"""The e-stop channel: its own socket and thread, so that nothing else that the gateway does can delay it."""

import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import zmq

from hardware.front import Front
from hardware.shared_memory import Word
from robot.bridge.schema import INDEX, Mode
from robot.bridge.wire import Frame, FrameType, Reason, decode, encode, pack
from robot.errors import WireError

CONFIRM_S = 1.0
"""How long a request waits for the driver to confirm the stop [s]."""
_REMEMBERED = 32


class EstopThread(threading.Thread):
    """Latches the e-stop for anybody who asks, releases the latch for the holder of the lease only."""

    def __init__(self, socket: zmq.Socket[Any], front: Front) -> None:
        """Serve `socket` from `start` on."""
        super().__init__(name="estop", daemon=True)
        self._socket, self._front, self._memory = socket, front, front.memory
        self._state = np.zeros_like(front.state)
        self._resets: OrderedDict[int, tuple[int, dict[str, Any]]] = OrderedDict()
        self._ended = threading.Event()

    def end(self) -> None:
        """Stop serving and close the socket."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Answer requests until `end`."""
        while not self._ended.is_set():
            if self._socket.poll(50):
                identity, *parts = self._socket.recv_multipart()
                self.take(identity, parts)
        self._socket.close()

    def take(self, identity: bytes, parts: list[bytes]) -> None:
        """Answer a message, or count why not."""
        try:
            if len(parts) != 1:
                raise WireError(f"A message of the bridge has one part, got {len(parts)}.", Reason.LENGTH)
            request = decode(parts[0])
            answer = self._answer(request)
        except WireError as error:
            self._front.estops.refuse(error.reason)
            return
        boot_id, now_ns = self._front.schema.boot_id, time.monotonic_ns()
        reply = Frame(FrameType.REPLY, pack(answer), boot_id, 0, request.sequence, now_ns)
        self._socket.send_multipart([identity, encode(reply)], zmq.DONTWAIT)

    def _answer(self, request: Frame) -> dict[str, Any]:
        if request.type != FrameType.ESTOP:
            raise WireError(f"The e-stop channel takes ESTOP frames, got {request.type.name}.", Reason.CHANNEL)
        op = request.message().get("op")
        if op == "stop":
            return self._latch()
        if op == "reset":
            return self._reset(request)
        self._front.estops.refuse(Reason.REQUEST)
        return {"ok": False, "error": f"Unknown e-stop request {op!r}. Available: reset, stop."}

    def _latch(self) -> dict[str, Any]:
        self._memory.words[Word.ESTOP] = 1
        deadline = time.monotonic() + CONFIRM_S
        while time.monotonic() < deadline:
            if self._arm_is_stopped():
                return {"ok": True}
            time.sleep(0.001)
        return {"ok": False, "error": "The e-stop is latched, but the driver has not confirmed that the arm stands."}

    def _arm_is_stopped(self) -> bool:
        count = self._memory.states.read(self._state)
        return count > 0 and self._state[INDEX["mode"]] == Mode.FAULT

    def _reset(self, request: Frame) -> dict[str, Any]:
        """Release the latch once for every request: one that was recorded must not release the next latch."""
        if request.boot_id != self._front.schema.boot_id:
            raise WireError("The request is meant for another start of the bridge.", Reason.BOOT)
        last, answer = self._resets.get(request.session, (0, {}))
        if request.sequence == last:
            return answer
        if request.sequence < last:
            raise WireError("The request is older than one that was answered.", Reason.REPLAY)
        if not self._front.lease.holds(request.session, time.monotonic_ns()):
            return {"ok": False, "code": "NO_LEASE", "error": "Only the holder of the lease resets the e-stop."}
        self._memory.words[Word.ESTOP] = 0
        self._resets[request.session] = (request.sequence, {"ok": True})
        while len(self._resets) > _REMEMBERED:
            self._resets.popitem(last=False)
        return {"ok": True}
