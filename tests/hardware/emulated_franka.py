"""An emulated Franka in a process of its own, for tests."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from hardware.franka import FrankaArm
from tests.hardware.settings import settings

START_S = 60.0


class Emulated:
    """One robot. It ends when its standard input does, so that none outlives the tests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hardware.franka_emulator", address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.heard(START_S) == {"serves": address}

    def say(self, request: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()

    def heard(self, timeout_s: float = 1.0) -> dict[str, Any] | None:
        """The next line that it prints, or None."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return json.loads(self._process.stdout.readline()) if ready else None

    def unplug(self) -> None:
        """Neither state nor answers any more, the connection stays as it was."""
        self._process.send_signal(signal.SIGSTOP)

    def plug_in(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        self.plug_in()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=5.0)
        self.kill()


def own_address(number: int) -> str:
    """A loopback address that no other test run takes."""
    return f"127.{77 + number}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"


def driver(address: str, *overrides: str) -> FrankaArm:
    chosen = settings("arm=franka", f"arm.device.address={address}", *overrides)
    return FrankaArm(chosen.arm, chosen.env)


@contextlib.contextmanager
def punctual() -> Iterator[bool]:
    """Real-time priority for this thread, where that is allowed; says whether it is."""
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, before, parameters)
