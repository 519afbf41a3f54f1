"""The cameras behind a bridge: a process each, watched, and started again a few times where one dies.

No camera moves the arm, so a new start needs nobody's leave; but one that keeps failing stays down, for somebody has to
look at it. Clients see a missing camera by the age of its pictures, and in `cameras_down` of the state.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hardware.cameras.config import CameraConfig, to_json
from hardware.cameras.ring import FrameRing
from hardware.shared_memory import SharedMemory
from robot import errors
from robot.bridge.images import ImageStream
from robot.bridge.schema import BridgeSchema, state_layout
from robot.errors import DeviceError

START_S = 20.0
"""Longest start of a camera."""
STALE_S = 0.5
"""A camera without a picture for this long, and for `STALE_PERIODS`, counts as down."""
STALE_PERIODS = 5
FROZEN_S = 5.0
"""A process that gives no picture for this long is killed."""
TRIES = 5
"""How often a camera is started again, after 1, 2, 4 ... s; the count begins anew once it has run for `SOUND_S`."""
SOUND_S = 60.0
RATE_S = 5.0
"""How long pictures are counted for their rate."""
SLOW_PART = 0.75
"""A camera that gives less than this part of what was asked for is slow; that is said."""
STOP_S = 3.0
_WATCH_S = 0.05
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Surroundings:
    """What all cameras of a bridge share.

    Attributes:
        boot_id: Of the bridge; on every picture.
        addresses: Where each camera listens, by name.
        keys: Folder of the bridge's keys; empty for none.
        sight: Memory of the arm's state for simulated cameras: `fd`, `size` and `at` of `ee_pos`; None without an arm.
    """

    boot_id: int
    addresses: Mapping[str, str]
    keys: str = ""
    sight: dict[str, int] | None = None


def surroundings(schema: BridgeSchema, memory: SharedMemory, addresses: Mapping[str, str], keys: str) -> Surroundings:
    """What the cameras of a bridge share.

    Args:
        schema: Of the bridge.
        memory: Shared with the real-time process.
        addresses: Where each camera listens, by name.
        keys: Folder of the bridge's keys; empty for none.
    """
    layout = state_layout(schema.arm)
    at = int(layout.views(np.arange(layout.size, dtype=np.float64))["ee_pos"][0])
    return Surroundings(schema.boot_id, addresses, keys, {"fd": memory.fd, "size": layout.size, "at": at})


@dataclass
class _Keeper:
    """One camera: its process if it lives, its ring always."""

    name: str
    config: CameraConfig
    around: Surroundings
    ring: FrameRing
    address: str
    process: subprocess.Popen[bytes] | None = None
    is_open: bool = False
    tries: int = 0
    retry_s: float = 0.0
    started_s: float = 0.0
    alive_s: float = 0.0
    number: int = 0
    is_stale: bool = False
    counted: tuple[float, int] = (0.0, 0)
    is_slow: bool = False
    report: dict[str, Any] = field(default_factory=dict)

    def start(self, now_s: float) -> None:
        """Start the process; it says on its standard output when the camera is open."""
        content = {
            "camera": to_json(self.config),
            "ring": self.ring.fd,
            "address": self.address,
            "keys": self.around.keys,
            "boot_id": self.around.boot_id,
            "parent": os.getpid(),
            "sight": self.around.sight,
        }
        passed = [self.ring.fd, *([self.around.sight["fd"]] if self.around.sight else [])]
        # One thread each: the control loop needs the cores. OpenCV waits 10 s for a picture unless told otherwise.
        variables = {**dict.fromkeys(_THREADS, "1"), "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hardware.cameras.process", json.dumps(content)],
            stdout=subprocess.PIPE,
            pass_fds=passed,
            env={"OPENCV_LOG_LEVEL": "ERROR", **os.environ, **variables},
        )
        self.is_open, self.started_s, self.alive_s = False, now_s, now_s

    def heard(self, timeout_s: float = 0.0) -> dict[str, Any]:
        """What the process says next, empty if nothing yet or no more."""
        assert self.process is not None
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            return {}
        try:
            message = json.loads(self.process.stdout.readline() or b"{}")
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}

    def ended(self) -> str:
        """Why the process, which has ended, did so."""
        assert self.process is not None
        code = self.process.poll()
        message = self.heard()
        self.process = None
        if "error" in message:
            return str(message["error"])
        return f"signal {-code}" if code is not None and code < 0 else f"status {code}"


class Fleet:
    """All cameras of a bridge.

    Attributes:
        streams: What hello says of each, in the order of the bits of `down`.
        down: Bits of the cameras that give no pictures now.
    """

    def __init__(self, configs: Mapping[str, CameraConfig], around: Surroundings) -> None:
        """Start every camera; `wait` for them."""
        self.streams: dict[str, ImageStream] = {}
        self.down = 0
        self._watched_s = 0.0
        self._keepers = [
            _Keeper(name, config, around, FrameRing.create(config.height, config.width), around.addresses[name])
            for name, config in configs.items()
        ]
        for keeper in self._keepers:
            keeper.start(time.monotonic())

    def wait(self, on_wait: Callable[[], bool]) -> bool:
        """Wait until all cameras are open; False if `on_wait`, which is called every 20 ms, says that it is over.

        Raises:
            ArmatureError: A camera did not open; as its process said.
        """
        until = time.monotonic() + START_S
        while waiting := [keeper for keeper in self._keepers if not keeper.is_open]:
            if on_wait():
                return False
            if time.monotonic() > until:
                raise DeviceError(f"Camera {waiting[0].name!r} does not open within {START_S:.0f} s. Plug it in again.")
            if message := waiting[0].heard(0.02):
                self._opened(waiting[0], message)
            elif waiting[0].process is not None and waiting[0].process.poll() is not None:
                raise DeviceError(f"The process of camera {waiting[0].name!r} crashed while it started: see above.")
        # In the order of the configuration, whichever opened first.
        self.streams = {keeper.name: self.streams[keeper.name] for keeper in self._keepers}
        return True

    def ring(self, name: str) -> FrameRing:
        """The pictures of a camera in shared memory, for whoever reads them on this machine."""
        return next(keeper.ring for keeper in self._keepers if keeper.name == name)

    def pids(self) -> dict[str, int]:
        """Process of each camera that has one."""
        return {keeper.name: keeper.process.pid for keeper in self._keepers if keeper.process is not None}

    def watch(self) -> int:
        """Look after the cameras, at most every 50 ms however often it is called, without waiting; returns `down`."""
        now_s = time.monotonic()
        if now_s - self._watched_s >= _WATCH_S:
            self._watched_s = now_s
            for keeper in self._keepers:
                self._watch(keeper, now_s)
            self.down = sum(keeper.is_stale << index for index, keeper in enumerate(self._keepers))
        return self.down

    def end(self) -> dict[str, dict[str, Any]]:
        """End all processes; what each reports by name, empty for one that died. May be called twice."""
        for keeper in self._keepers:
            if keeper.process is not None:
                keeper.process.terminate()
        for keeper in self._keepers:
            if keeper.process is not None:
                keeper.report = _last_words(keeper.process)
                keeper.process = None
            keeper.ring.close()
        return {keeper.name: keeper.report for keeper in self._keepers}

    def _opened(self, keeper: _Keeper, message: dict[str, Any]) -> None:
        if "error" in message:
            kind = getattr(errors, message["kind"], DeviceError)
            raise kind(f"Camera {keeper.name!r}: {message['error']}")
        config, keeper.is_open, keeper.alive_s = keeper.config, True, time.monotonic()
        # The next start listens where clients look for it.
        keeper.address = message["endpoint"]
        self.streams[keeper.name] = ImageStream(
            keeper.address, config.height, config.width, config.encoding, config.fps
        )

    def _watch(self, keeper: _Keeper, now_s: float) -> None:
        if keeper.process is None:
            if keeper.tries < TRIES and now_s >= keeper.retry_s:
                keeper.tries += 1
                keeper.start(now_s)
            return
        if not keeper.is_open and "endpoint" in keeper.heard():
            keeper.is_open, keeper.alive_s = True, now_s
        number, _ = keeper.ring.newest()
        if number != keeper.number:
            keeper.number, keeper.alive_s = number, now_s
        if keeper.process.poll() is not None:
            self._lost(keeper, now_s)
        elif keeper.is_open:
            self._judge(keeper, now_s)
        elif now_s - keeper.started_s > START_S:
            keeper.process.kill()

    def _judge(self, keeper: _Keeper, now_s: float) -> None:
        """Whether an open camera gives pictures."""
        silent_s = now_s - keeper.alive_s
        is_stale = silent_s > max(STALE_S, STALE_PERIODS / keeper.config.fps)
        if is_stale and not keeper.is_stale:
            _say(f"Camera {keeper.name!r} gives no pictures.")
        if keeper.is_stale and not is_stale:
            _say(f"Camera {keeper.name!r} gives pictures again.")
        keeper.is_stale = is_stale
        self._compare_rate(keeper, now_s)
        if silent_s > FROZEN_S:
            assert keeper.process is not None
            keeper.process.kill()
        elif now_s - keeper.started_s > SOUND_S:
            keeper.tries = 0

    def _compare_rate(self, keeper: _Keeper, now_s: float) -> None:
        """What a driver announces is not what it does: a camera that exposes for longer gives fewer pictures."""
        since_s, before = keeper.counted
        if now_s - since_s < RATE_S and before:
            return
        rate = (keeper.number - before) / (now_s - since_s)
        was_slow, keeper.counted = keeper.is_slow, (now_s, keeper.number)
        keeper.is_slow = bool(before) and rate < SLOW_PART * keeper.config.fps
        if keeper.is_slow and not was_slow:
            _say(
                f"Camera {keeper.name!r} gives {rate:.1f} pictures a second, asked for {keeper.config.fps:g}. Give it "
                "more light or a fixed exposure (`v4l2-ctl -c exposure_dynamic_framerate=0`), or set its fps to that."
            )

    def _lost(self, keeper: _Keeper, now_s: float) -> None:
        keeper.is_stale, keeper.is_open, keeper.counted = True, False, (0.0, 0)
        why, pause_s = keeper.ended(), 2.0**keeper.tries
        keeper.retry_s = now_s + pause_s
        if keeper.tries < TRIES:
            next_step = f"Starting it again in {pause_s:.0f} s ({keeper.tries + 1} of {TRIES})."
        else:
            next_step = "It stays down: check it, then start the bridge again."
        _say(f"Camera {keeper.name!r} has ended: {why.rstrip('.')}. {next_step}")


def _last_words(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    try:
        text, _ = process.communicate(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
    try:
        message = json.loads(text.strip().rpartition(b"\n")[2] or b"{}")
    except ValueError:
        return {}
    return message if isinstance(message, dict) and "pictures" in message else {}


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
