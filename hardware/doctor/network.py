"""The bridge's ports, the robot's address, and whose time the clock shows."""

import contextlib
import ctypes
import os
import re
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from hardware.doctor.findings import Finding, Level, text

AREA = "network and time"
PORTS = ("control", "command", "state", "e-stop", "journal")
LISTENS = "0A"
ATTEMPTS, ATTEMPT_S = 20, 0.5
SLOW_MS = 0.3
"""A Franka wants an answer within 1 ms of its own: network, computation and processing together."""
_STA_UNSYNC = 0x40
_TIME_FIX = ("sudo timedatectl set-ntp true", "or sudo apt-get install chrony")


def examined(root: Path, port: int, robot: str) -> list[Finding]:
    """Ports from `port` on; the robot at its address if there is one; time."""
    findings = [_ports(root, port), synchronised(_status())]
    return [*findings, *([reachable(robot)] if robot else [])]


def _ports(root: Path, first: int) -> Finding:
    wanted = {first + offset: name for offset, name in enumerate(PORTS)}
    taken = {port: inode for port, inode in _listening(root) if port in wanted}
    if not taken:
        return Finding(AREA, "bridge's ports", Level.OK, f"{first} to {first + len(PORTS) - 1} are free")
    owners = _owners(root, set(taken.values()))
    who = {owners.get(inode, ("another user's process", "")) for inode in taken.values()}
    value = (
        ", ".join(f"{port} ({wanted[port]})" for port in sorted(taken)) + ": " + ", ".join(sorted({n for n, _ in who}))
    )
    if all("armature" in line or "robot.cli" in line for _, line in who):
        return Finding(AREA, "bridge's ports", Level.OK, value, "A bridge is running: armature watch shows it.")
    return Finding(
        *(AREA, "bridge's ports", Level.WARN, value),
        "A bridge takes five ports in a row and would not start on these.",
        (f"armature bridge port={_free(root, first)}", "sudo ss -ltnp   # who listens"),
    )


def _listening(root: Path) -> list[tuple[int, str]]:
    """Port and inode of every listening TCP socket."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in text(root, f"proc/net/{name}").splitlines()[1:]]
    return [(int(row[1].rpartition(":")[2], 16), row[9]) for row in rows if len(row) > 9 and row[3] == LISTENS]


def _free(root: Path, first: int) -> int:
    taken = {port for port, _ in _listening(root)}
    return next(port for port in range(first + 10, 60000, 10) if not taken & set(range(port, port + len(PORTS))))


def _owners(root: Path, inodes: set[str]) -> dict[str, tuple[str, str]]:
    """Name with number, and command line, of the processes that hold these sockets, as far as this user may know."""
    found = {}
    for folder in (root / "proc").glob("[0-9]*"):
        try:
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
        except OSError:
            continue
        for link in links:
            if (match := re.fullmatch(r"socket:\[(\d+)\]", link)) and match[1] in inodes:
                line = text(folder, "cmdline").replace("\0", " ")
                found[match[1]] = (f"{text(folder, 'comm')} ({folder.name})", line)
    return found


class _Timex(ctypes.Structure):
    _fields_ = (
        *(("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long)),
        *(("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int)),
        ("rest", ctypes.c_long * 32),
    )


def _status() -> tuple[int, int]:
    """The kernel's view: status bits and largest error [µs] (adjtimex(2)); works whatever keeps the time."""
    state = _Timex()
    ctypes.CDLL(None).adjtimex(ctypes.byref(state))
    return state.status, state.maxerror


def synchronised(status: tuple[int, int]) -> Finding:
    """What `adjtimex` said, in words."""
    bits, error_us = status
    if bits & _STA_UNSYNC:
        return Finding(
            *(AREA, "wall time", Level.WARN, "not synchronised"),
            "Dates in episodes may be wrong. The control loop does not use wall time.",
            _TIME_FIX,
        )
    return Finding(AREA, "wall time", Level.OK, f"synchronised, wrong by {error_us / 1000:.1f} ms at most")


def reachable(robot: str, connect: Callable[[str, int], float] | None = None) -> Finding:
    """Round trips to the robot by opening connections.

    Args:
        robot: Its address, or address:port. Without a port 443, where robots have their web pages; one that refuses it
            answers as fast.
        connect: Opens a connection, returns how long it took [s]; raises `OSError`.
    """
    address, _, port = robot.partition(":")
    taken: list[float] = []
    for _ in range(ATTEMPTS):
        try:
            taken.append(1e3 * (connect or _connect)(address, int(port or 443)))
        except OSError as error:
            return Finding(
                *(AREA, "robot", Level.FAIL, f"{robot}: {error.strerror or error}"),
                "Nothing answers at that address.",
                (f"ping -c 3 {address}", "ip -brief address   # is this machine in the robot's network?"),
            )
    value = f"{robot} answers in {statistics.median(taken):.2f} ms, at most {max(taken):.2f} ms of {len(taken)}"
    if statistics.median(taken) > SLOW_MS:
        meaning = (
            "A robot that clocks the loop at 1 kHz leaves 1 ms for everything. Use a cable, without a switch between."
        )
        return Finding(AREA, "robot", Level.WARN, value, meaning, (f"ip route get {address}   # which way it takes",))
    return Finding(AREA, "robot", Level.OK, value)


def _connect(address: str, port: int) -> float:
    begin = time.perf_counter()
    # A refusal is an answer too.
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection((address, port), ATTEMPT_S).close()
    return time.perf_counter() - begin
