"""`armature watch` in a terminal of its own, at a bridge that is killed and started again."""

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

import pytest

from tests.hardware.test_bridge import children, gone, start

PORT = 17400


class Terminal:
    def __init__(self, process: "subprocess.Popen[bytes]", fd: int) -> None:
        self.process, self.fd, self.text = process, fd, ""

    def shows(self, words: str, within_s: float = 10.0) -> bool:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    return words in self.text
            if words in self.text:
                return True
        return False

    def picture(self) -> str:
        """The last whole one."""
        return self.text.rpartition("\x1b[J")[0].rpartition("\x1b[H")[2]


@contextmanager
def watching(*overrides: str, **environment: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    command = [sys.executable, "-m", "robot.cli", "watch", f"bridge=tcp://127.0.0.1:{PORT}", *overrides]
    environment = {**os.environ, "TERM": "xterm", **environment}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_sees_a_bridge_go_and_come_back_and_ends_at_a_key() -> None:
    bridge = start(f"port={PORT}")
    try:
        with watching() as terminal:
            assert terminal.shows("DISARMED", 20)
            # The alternative screen, without a cursor.
            assert terminal.text.startswith("\x1b[?1049h\x1b[?25l")
            pids = [bridge.pid, *children(bridge)]
            os.kill(bridge.pid, signal.SIGKILL)
            assert terminal.shows("no bridge")
            bridge.wait()
            assert gone(pids)
            bridge = start(f"port={PORT}")
            # What was known last is shown until there is more to know.
            assert "DISARMED" in terminal.picture()
            until = time.monotonic() + 20
            while "no bridge" in terminal.picture() and time.monotonic() < until:
                terminal.shows("no such words", 0.2)
            assert "no bridge" not in terminal.picture()
            assert "DISARMED" in terminal.picture()
            os.write(terminal.fd, b"q")
            assert terminal.shows("\x1b[?25h\x1b[?1049l")
            assert terminal.process.wait(5) == 0
    finally:
        bridge.send_signal(signal.SIGINT)
        bridge.communicate(timeout=15)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_leaves_the_terminal_as_it_was_whatever_ends_it(number: signal.Signals) -> None:
    with watching(PYTHONIOENCODING="ascii", NO_COLOR="1") as terminal:
        assert terminal.shows("no bridge", 20)
        assert "\x1b[31m" not in terminal.text
        terminal.process.send_signal(number)
        assert terminal.shows("\x1b[?25h\x1b[?1049l")
        assert terminal.process.wait(5) == 0
