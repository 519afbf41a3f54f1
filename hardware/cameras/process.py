"""The process of one camera: driver, ring, socket, and nothing else, so that it can hang or die alone.

It talks to the bridge over standard output at three moments: when the camera is open, when it fails, and at its end.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from hardware.cameras.config import Sight, build, from_json
from hardware.cameras.ring import FrameRing
from hardware.keys import BridgeKeys
from hardware.shared_memory import SharedMemory
from hardware.sockets import authenticator, bound
from robot.bridge.images import SEND_QUEUE, Stamp, encode_image
from robot.contract import Camera
from robot.errors import ArmatureError
from robot.processes import tell

_PR_SET_PDEATHSIG = 1


@dataclass
class Tally:
    """What a camera's process has done.

    Attributes:
        pictures: Sent.
        encode_s: Time spent on encoding, in all.
        encode_max_s: The longest of them.
    """

    pictures: int = 0
    encode_s: float = 0.0
    encode_max_s: float = 0.0

    def add(self, duration_s: float) -> None:
        """Count one picture."""
        self.pictures += 1
        self.encode_s += duration_s
        self.encode_max_s = max(self.encode_max_s, duration_s)


def main(arguments: list[str]) -> int:
    """Send pictures until the bridge says so (SIGTERM) or is gone.

    Args:
        arguments: JSON with `camera`, `ring` (file descriptor), `address`, `keys` (folder, or empty), `boot_id`,
            `parent` (process), and `sight` with `fd`, `size` and `at`, or null.
    """
    asked: list[int] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    # A driver may hang in the kernel, so it cannot be left to this process to see that its parent has died.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    settings = json.loads(arguments[0])
    try:
        tally = _serve(settings, lambda: bool(asked) or os.getppid() != settings["parent"])
    except ArmatureError as error:
        tell({"error": str(error), "kind": type(error).__name__})
        return 1
    usage = os.times()
    tell(
        {
            "pictures": tally.pictures,
            "cpu_s": usage.user + usage.system,
            "encode_ms": 1000 * tally.encode_s / max(1, tally.pictures),
            "encode_max_ms": 1000 * tally.encode_max_s,
        }
    )
    return 0


def _serve(settings: dict[str, Any], is_over: Callable[[], bool]) -> Tally:
    config, ring = from_json(settings["camera"]), FrameRing(settings["ring"])
    camera = build(config, _sight(settings["sight"]))
    context: zmq.Context[Any] = zmq.Context()
    keys = BridgeKeys(settings["keys"]) if settings["keys"] else None
    guard = authenticator(context, keys)
    socket = None
    try:
        socket, endpoint = bound(context, zmq.PUB, settings["address"], keys, SEND_QUEUE)
        camera.open()
        # The first encoding loads the library; a camera is ready when a picture could leave.
        encode_image(camera.read().image, Stamp(0, 0, 0, 0, 0), config.encoding, config.quality)
        tell({"endpoint": endpoint})
        return _stream(camera, ring, socket, settings, is_over)
    finally:
        camera.close()
        if socket is not None:
            socket.close()
        if guard is not None:
            guard.stop()
        context.term()


def _stream(
    camera: Camera, ring: FrameRing, socket: zmq.Socket[Any], settings: dict[str, Any], is_over: Callable[[], bool]
) -> Tally:
    boot_id, start = settings["boot_id"], time.monotonic_ns()
    encoding, quality = settings["camera"]["encoding"], settings["camera"]["quality"]
    tally = Tally()
    while not is_over():
        frame = camera.read()
        number = ring.write(frame)
        begin_ns = time.monotonic_ns()
        data = encode_image(frame.image, Stamp(boot_id, start, number, frame.t_ns, begin_ns), encoding, quality)
        tally.add((time.monotonic_ns() - begin_ns) / 1e9)
        # A full queue drops the picture for that subscriber: nobody is waited for.
        socket.send(data, zmq.DONTWAIT)
    return tally


def _sight(settings: dict[str, Any] | None) -> Sight | None:
    """The tool of the arm, from the state that the real-time process publishes in shared memory."""
    if settings is None:
        return None
    memory, state, at = SharedMemory(settings["fd"]), np.zeros(settings["size"]), settings["at"]

    def look() -> tuple[int, np.ndarray]:
        memory.states.read(state)
        return int(state[0]), state[at : at + 3].copy()

    return look


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
