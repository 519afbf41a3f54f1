"""Cores, memory and disk."""

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from hardware.doctor.findings import Finding, Level, number, text

AREA = "machine"
LITTLE_MEMORY, LITTLE_SHARED = 1 << 30, 256 << 20
LITTLE_DISK, NO_DISK = 20 << 30, 1 << 30
SLOW_DISK = 60e6
"""Two cameras of 640 × 480 at 30 Hz write 55 MB/s when they are recorded raw, about a tenth of that as JPEG."""
_WRITE_BYTES, _WRITE_S = 64 << 20, 0.7


def examined(root: Path, folder: Path) -> list[Finding]:
    """Look at `root`, `/` or what stands for it, and write a file in `folder` for a moment."""
    findings = [
        *(_cores(root), _load(root), _governor(root), _throttled(root), _quota(root)),
        *(_memory(root), _shared(root), *disk(folder)),
    ]
    return [finding for finding in findings if finding is not None]


def _cores(root: Path) -> Finding:
    cores = sorted(os.sched_getaffinity(0))
    info = text(root, "proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)", info, re.MULTILINE)
    guest = ", virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE) else ""
    value = f"{len(cores)} cores{guest}" + (f", {model[1]}" if model else "")
    if len(cores) == 1:
        return Finding(AREA, "cores", Level.WARN, value, "The control loop and the policy share one core.")
    meaning = "The host may take a core away for milliseconds; no setting in here prevents that." if guest else ""
    return Finding(AREA, "cores", Level.OK, value, meaning)


def _load(root: Path) -> Finding | None:
    load = text(root, "proc/loadavg").split()
    if not load:
        return None
    cores = len(os.sched_getaffinity(0))
    if float(load[0]) <= cores:
        return Finding(AREA, "load", Level.OK, f"{load[0]} on {cores} cores")
    return Finding(
        *(AREA, "load", Level.WARN, f"{load[0]} on {cores} cores"),
        "More computes here than there are cores for.",
        ("ps -eo pid,pcpu,comm --sort=-pcpu | head",),
    )


def _governor(root: Path) -> Finding | None:
    folder = root / "sys/devices/system/cpu"
    governors = sorted({text(path.parent, path.name) for path in folder.glob("cpu*/cpufreq/scaling_governor")})
    if not governors:
        return None
    if governors == ["performance"]:
        return Finding(AREA, "frequency", Level.OK, "performance")
    return Finding(
        *(AREA, "frequency", Level.WARN, ", ".join(governors)),
        "Cores slow down between cycles, so that the next cycle takes longer.",
        ("echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",),
    )


def _throttled(root: Path) -> Finding | None:
    paths = list((root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count"))
    if not paths:
        return None
    count = max(number(path.parent, path.name, 0) for path in paths)
    if count == 0:
        return Finding(AREA, "heat", Level.OK, "never throttled")
    return Finding(
        *(AREA, "heat", Level.WARN, f"a core was throttled {count} times since the start"),
        "A core that is too hot runs slower for seconds. Clean the fans, or give it air.",
    )


def _quota(root: Path) -> Finding | None:
    """A container's share of the cores; used up, everything in it stands still until the next period."""
    quota, _, period = text(root, "sys/fs/cgroup/cpu.max", "max 100000").partition(" ")
    if quota == "max":
        quota = text(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
        period = text(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    if not quota.isdigit() or not period.isdigit():
        return None
    return Finding(
        *(
            AREA,
            "quota",
            Level.WARN,
            f"{int(quota) / int(period):.1f} cores, in periods of {int(period) / 1000:.0f} ms",
        ),
        "This container stands still for the rest of a period once that is used up, the control loop with it.",
        ("start it with --cpuset-cpus=... instead of --cpus=...",),
    )


def _memory(root: Path) -> Finding | None:
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", text(root, "proc/meminfo"), re.MULTILINE))
    if "MemAvailable" not in sizes:
        return None
    free, total = (1024 * int(sizes[key]) for key in ("MemAvailable", "MemTotal"))
    value = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB available"
    if free < LITTLE_MEMORY:
        return Finding(
            *(AREA, "memory", Level.WARN, value),
            "A simulated world with a policy takes about 2 GiB.",
            ("ps -eo pid,rss,comm --sort=-rss | head",),
        )
    return Finding(AREA, "memory", Level.OK, value)


def _shared(root: Path) -> Finding | None:
    path = root / "dev/shm"
    if not path.is_dir():
        return None
    size = shutil.disk_usage(path).total
    if size < LITTLE_SHARED:
        return Finding(
            *(AREA, "shared memory", Level.WARN, f"{size / 2**20:.0f} MiB in /dev/shm"),
            "Training's loader processes pass batches through it. The bridge does not need it.",
            ("docker run --shm-size=2g ...", "or sudo mount -o remount,size=2G /dev/shm"),
        )
    return Finding(AREA, "shared memory", Level.OK, f"{size / 2**30:.1f} GiB in /dev/shm")


def disk(folder: Path) -> list[Finding]:
    """Room and speed where episodes are recorded; `folder` need not exist yet."""
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    free = shutil.disk_usage(place).free
    room = Finding(AREA, "disk", Level.OK, f"{free / 2**30:.0f} GiB free in {place}")
    if free < LITTLE_DISK:
        level = Level.FAIL if free < NO_DISK else Level.WARN
        meaning = "An hour of two cameras takes about 20 GiB as JPEG."
        room = Finding(AREA, "disk", level, room.value, meaning, (f"du -xh --max-depth=2 {place} | sort -h | tail",))
    return [room] if free < NO_DISK else [room, _speed(place)]


def _speed(place: Path) -> Finding:
    path = place / f".armature-doctor-{os.getpid()}"
    block, begin, written = os.urandom(1 << 20), time.monotonic(), 0
    try:
        with path.open("wb") as file:
            while written < _WRITE_BYTES and time.monotonic() - begin < _WRITE_S:
                written += file.write(block)
                file.flush()
                os.fdatasync(file.fileno())
    except OSError as error:
        return Finding(
            *(AREA, "disk speed", Level.FAIL, f"cannot write in {place}: {error.strerror}"),
            "Episodes could not be recorded.",
            (f"ls -ld {place}; id",),
        )
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
    rate = written / (time.monotonic() - begin)
    value = f"{rate / 1e6:.0f} MB/s, written through in blocks of 1 MiB"
    if rate < SLOW_DISK:
        meaning = "Too slow for two cameras that are recorded raw (55 MB/s); as JPEG they need a tenth."
        return Finding(AREA, "disk speed", Level.WARN, value, meaning, ("record to a local disk: out=...",))
    return Finding(AREA, "disk speed", Level.OK, value)
