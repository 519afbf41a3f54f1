"""The e-stop channel: its own socket and thread, so that nothing else that the gateway does can delay it."""

import threading
import time
from typing import Any

import numpy as np
import zmq

from hardware.lease import LeaseDesk
from hardware.shared_memory import SharedMemory, Word
from robot.bridge.schema import INDEX, Mode
from robot.bridge.wire import Frame, FrameType, decode, encode, pack
from robot.errors import WireError

CONFIRM_S = 1.0
"""How long a request waits for the driver to confirm the stop [s]."""


class EstopThread(threading.Thread):
    """Latches the e-stop for anybody who asks, releases the latch for the holder of the lease only."""

    def __init__(self, socket: zmq.Socket[Any], memory: SharedMemory, desk: LeaseDesk, boot_id: int, size: int) -> None:
        """Serve `socket` from `start` on; `size` is the length of the state."""
        super().__init__(name="estop", daemon=True)
        self._socket, self._memory, self._desk, self._boot_id = socket, memory, desk, boot_id
        self._state = np.zeros(size)
        self._ended = threading.Event()

    def end(self) -> None:
        """Stop serving and close the socket."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Answer requests until `end`."""
        while not self._ended.is_set():
            if not self._socket.poll(50):
                continue
            identity, *frames = self._socket.recv_multipart()
            try:
                request = decode(b"".join(frames))
                answer = self._answer(request)
            except WireError:
                continue
            reply = Frame(FrameType.REPLY, pack(answer), self._boot_id, 0, request.sequence, time.monotonic_ns())
            self._socket.send_multipart([identity, encode(reply)], zmq.DONTWAIT)
        self._socket.close()

    def _answer(self, request: Frame) -> dict[str, Any]:
        if request.type != FrameType.ESTOP:
            return {"ok": False, "error": f"The e-stop channel takes ESTOP frames, got {request.type.name}."}
        op = request.message().get("op")
        if op == "stop":
            return self._latch()
        if op == "reset":
            return self._unlatch(request.session)
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

    def _unlatch(self, session: int) -> dict[str, Any]:
        if not self._desk.holds(session, time.monotonic_ns()):
            return {"ok": False, "code": "NO_LEASE", "error": "Only the holder of the lease resets the e-stop."}
        self._memory.words[Word.ESTOP] = 0
        return {"ok": True}
