"""What a control loop asks of the kernel, and what to do where the kernel says no.

In the order of what it brings: SCHED_FIFO, a core of its own, locked memory, no deep sleep of the processor. A loop
runs without any of it, only later at times. Without SCHED_FIFO it asks for the shortest time slice, which needs no
privilege, as little as the session of its own that the bridge gives it. `make bench-loop` on two busy cores, Linux
6.18, 99th percentile of the lateness at 500 Hz: 14 ms for an ordinary loop, 2.5 ms with slice and session, 0.1 ms with
SCHED_FIFO.
"""

import ctypes
import errno
import gc
import os
import resource
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

RIGHTS = (
    "sudo groupadd -f realtime && sudo usermod -aG realtime $USER",
    "printf '@realtime - rtprio 99\\n@realtime - memlock unlimited\\n' | "
    "sudo tee /etc/security/limits.d/99-realtime.conf",
)
"""Commands that grant a user real-time priority and locked memory, from the next login on."""
ELSEWHERE = (
    "in a container: --cap-add SYS_NICE --cap-add IPC_LOCK --ulimit rtprio=99 --ulimit memlock=-1",
    "as a service: LimitRTPRIO=99 and LimitMEMLOCK=infinity in its systemd unit",
    "for one Python only: sudo setcap cap_sys_nice,cap_ipc_lock=ep $(readlink -f .venv/bin/python)",
)
"""The same where nobody logs in."""
THROTTLED = "sudo sysctl -w kernel.sched_rt_runtime_us=-1"
"""Lets FIFO processes run where the kernel gives control groups no real-time budget."""
LATENCY = (
    'echo \'KERNEL=="cpu_dma_latency", GROUP="realtime", MODE="0660"\' | '
    "sudo tee /etc/udev/rules.d/99-cpu-dma-latency.rules"
)
"""Lets the group keep processors from sleeping deeply."""

SHORTEST_SLICE_NS = 100_000
"""Shortest slice that the kernel grants an ordinary process (sched(7), from Linux 6.12 on) [ns]."""

_PR_SET_TIMERSLACK = 29
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_MADV_POPULATE_READ = 22
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_SCHED_ATTR = "=IIQiIQQQ"
_SYS_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


@dataclass
class Granted:
    """What a process got. Keep it as long as the loop runs: it holds the processor awake.

    Attributes:
        fifo: SCHED_FIFO.
        core: It stays on the core that was asked for, alone among the threads of its process.
        memory: All of its pages are locked.
        awake: Processors do not sleep deeply.
        slice: Without SCHED_FIFO: the shortest slice.
        note: What was asked for and not granted, with the fix; empty if nothing was refused.
    """

    fifo: bool = False
    core: bool = False
    memory: bool = False
    awake: bool = False
    slice: bool = False
    note: str = ""
    _refused: list[str] = field(default_factory=list)
    _fixes: list[str] = field(default_factory=list)
    _latency_fd: int = -1

    def close(self) -> None:
        """Let the processors sleep again."""
        if self._latency_fd >= 0:
            os.close(self._latency_fd)
            self._latency_fd = -1


def become_real_time(priority: int, core: int) -> Granted:
    """Ask for all of it, for the calling thread and the memory of its process; collect garbage a last time.

    Args:
        priority: SCHED_FIFO priority, 1 to 99; 0 asks for no privilege at all.
        core: Core to stay on; -1 for any.
    """
    got, libc = Granted(), ctypes.CDLL(None, use_errno=True)
    _keep_memory(libc)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if priority > 0:
        _ask_priority(got, priority)
        _ask_memory(got, libc)
        _ask_awake(got)
    if not got.fifo:
        got.slice = shortest_slice()
    if core >= 0:
        _ask_core(got, core)
    got.note = _note(got)
    gc.collect()
    gc.freeze()
    gc.disable()
    return got


def try_fifo(priority: int) -> str:
    """Ask for SCHED_FIFO; the reason if it is not granted, else nothing."""
    # What the loop's process starts later is ordinary again.
    return _asked(lambda: os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority)))


def shortest_slice() -> bool:
    """Ask for the shortest time slice as an ordinary process; False where the kernel does not know slices."""
    number = _SYS_SCHED_SETATTR.get(os.uname().machine)
    if number is None:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    size = struct.calcsize(_SCHED_ATTR)
    attributes = struct.pack(_SCHED_ATTR, size, os.SCHED_OTHER, 0, nice, 0, SHORTEST_SLICE_NS, 0, 0)
    return libc.syscall(number, 0, attributes, 0) == 0 and _kernel_has_slices()


def _kernel_has_slices() -> bool:
    """Older kernels accept the call and ignore the slice."""
    version = os.uname().release.split(".")
    return (int(version[0]), int(version[1].split("-")[0])) >= (6, 12)


def _keep_memory(libc: ctypes.CDLL) -> None:
    """Freed memory stays with the process, so that no cycle waits for new pages."""
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)


def _ask_priority(got: Granted, priority: int) -> None:
    reason = try_fifo(priority)
    got.fifo = not reason
    if reason:
        got._refused.append(f"real-time priority ({reason})")
        got._fixes += [*RIGHTS, THROTTLED] if os.geteuid() == 0 else RIGHTS


def _ask_memory(got: Granted, libc: ctypes.CDLL) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    # With a limit, locking what is to come would make a later allocation fail in the middle of the loop.
    future = _MCL_FUTURE if soft == resource.RLIM_INFINITY else 0
    # What is there stays; room that a simulator only reserves (2 GB for the twin) is not filled.
    got.memory = libc.mlockall(_MCL_CURRENT | future | _MCL_ONFAULT) == 0
    if got.memory:
        _load_code(libc)
    if not got.memory:
        got._refused.append(f"locked memory ({os.strerror(ctypes.get_errno())}; limit {soft} bytes)")
        got._fixes += [fix for fix in RIGHTS if fix not in got._fixes]


def _load_code(libc: ctypes.CDLL) -> None:
    """Read all code from disk now: what handles a fault has not run yet, and is to be quick when it does."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, *_, path = line.split(maxsplit=5) if line.count("/") else ("", "", "")
        if "x" in rights and path.startswith("/"):
            begin, end = (int(part, 16) for part in where.split("-"))
            # Kernels before 5.14 do not know this; the code is then read when it is first used.
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_POPULATE_READ)


def _ask_awake(got: Granted) -> None:
    path = Path("/dev/cpu_dma_latency")
    if not path.exists():
        return
    try:
        got._latency_fd = os.open(path, os.O_WRONLY)
        os.write(got._latency_fd, struct.pack("=i", 0))
    except PermissionError:
        got._refused.append("processors that stay awake (no right to write /dev/cpu_dma_latency)")
        got._fixes.append(LATENCY)
    except OSError as error:
        got._refused.append(f"processors that stay awake ({error.strerror})")
    else:
        got.awake = True


def _ask_core(got: Granted, core: int) -> None:
    allowed = os.sched_getaffinity(0)
    reason = _asked(lambda: os.sched_setaffinity(0, {core}))
    got.core = not reason
    if reason:
        got._refused.append(f"core {core} (this process may use {sorted(allowed)})")
        got._fixes.append(f"core={max(allowed)}")
        return
    if others := allowed - {core}:
        for thread in Path("/proc/self/task").iterdir():
            if int(thread.name) != threading.get_native_id():
                # A driver's own thread may end meanwhile; one that is pinned stays where it wants to be.
                _asked(lambda number=int(thread.name): os.sched_setaffinity(number, others))  # type: ignore[misc]
    if core not in isolated():
        got._refused.append(f"core {core} for itself (other processes run there too)")
        got._fixes.append(isolation(core))


def isolation(core: int) -> str:
    """What to do so that nothing else runs on a core."""
    return (
        f"add 'isolcpus={core} nohz_full={core} rcu_nocbs={core}' to GRUB_CMDLINE_LINUX in /etc/default/grub, "
        "sudo update-grub, restart"
    )


def isolated(root: Path = Path("/")) -> set[int]:
    """Cores that the scheduler gives to nobody who does not ask for them."""
    try:
        return cores((root / "sys/devices/system/cpu/isolated").read_text())
    except OSError:
        return set()


def cores(text: str) -> set[int]:
    """The cores of a list as the kernel writes it: `0-2,5`."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found |= set(range(int(first), int(last or first) + 1))
    return found


def _asked(ask: Callable[[], None]) -> str:
    try:
        ask()
    except OSError as error:
        return "not permitted" if error.errno == errno.EPERM else str(error.strerror)
    except AttributeError:
        return "unknown to this system"
    return ""


def _note(got: Granted) -> str:
    """One message for everything."""
    if not got._refused:
        return ""
    lines = [
        f"The loop runs without {', '.join(got._refused)}: cycles may be late while this machine is busy "
        "(`armature doctor` measures how late). Once, then log in again:",
        *(f"  {fix}" for fix in got._fixes),
    ]
    if RIGHTS[0] in got._fixes:
        lines += [f"  or {text}" for text in ELSEWHERE]
    return "\n".join(lines)
