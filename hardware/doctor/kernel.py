"""The kernel and what it lets this user do."""

import gzip
import os
import re
import resource
from pathlib import Path

from hardware.doctor.findings import Finding, Level, number, text
from hardware.privileges import ELSEWHERE, LATENCY, RIGHTS, cores, isolation

AREA = "kernel and rights"
_GRUB = "to GRUB_CMDLINE_LINUX in /etc/default/grub, sudo update-grub, restart"


def examined(root: Path, wants_realtime: bool) -> list[Finding]:
    """Version, preemption, cores set apart, rights.

    Args:
        root: `/`, or a folder that stands for it.
        wants_realtime: Whether the arm is one that asks for a real-time kernel: a loop of 1 kHz.
    """
    findings = [_version(root, wants_realtime), _apart(root), _limits(), _throttling(root), _awake(root)]
    return [finding for finding in findings if finding is not None]


def _version(root: Path, wants_realtime: bool) -> Finding:
    release = text(root, "proc/sys/kernel/osrelease", "unknown")
    is_realtime = text(root, "sys/kernel/realtime") == "1" or "PREEMPT_RT" in text(root, "proc/version")
    settings = _settings(root, release)
    preemption = "PREEMPT_RT" if is_realtime else _preemption(root, settings)
    ticks = re.search(r"^CONFIG_HZ=(\d+)", settings, re.MULTILINE)
    value = f"{release}, {preemption}" + (f", {ticks[1]} Hz" if ticks else "")
    if is_realtime:
        return Finding(AREA, "kernel", Level.OK, value)
    if wants_realtime:
        return Finding(
            *(AREA, "kernel", Level.WARN, value),
            "This arm's loop beats at 1 kHz: without PREEMPT_RT single cycles are late by milliseconds and the robot "
            "stops with a communication violation.",
            (
                "sudo apt-get install linux-image-rt-amd64   # Debian",
                "sudo pro enable realtime-kernel             # Ubuntu",
            ),
        )
    if preemption == "preempt=none":
        return Finding(
            *(AREA, "kernel", Level.WARN, value),
            "The kernel finishes what it does before it lets a loop run, however urgent that is.",
            (f"add 'preempt=full' {_GRUB}",),
        )
    return Finding(AREA, "kernel", Level.OK, value, "Enough for loops of 500 Hz; 1 kHz wants PREEMPT_RT.")


def _settings(root: Path, release: str) -> str:
    """How the kernel was built, where it says so."""
    if found := text(root, f"boot/config-{release}"):
        return found
    try:
        return gzip.decompress((root / "proc/config.gz").read_bytes()).decode()
    except (OSError, EOFError):
        return ""


def _preemption(root: Path, settings: str) -> str:
    chosen = re.search(r"\bpreempt=(\w+)", text(root, "proc/cmdline"))
    # Of several modes the one in force is in brackets.
    active = re.search(r"\((\w+)\)", text(root, "sys/kernel/debug/sched/preempt"))
    if active or chosen:
        return f"preempt={(active or chosen)[1]}"  # type: ignore[index]
    for mode in ("none", "voluntary", "lazy"):
        if f"CONFIG_PREEMPT_{mode.upper()}=y" in settings:
            return f"preempt={mode}"
    return "preempt=full" if "CONFIG_PREEMPT=y" in settings else "preemption unknown"


def _apart(root: Path) -> Finding:
    apart, quiet = (cores(text(root, f"sys/devices/system/cpu/{name}")) for name in ("isolated", "nohz_full"))
    present = cores(text(root, "sys/devices/system/cpu/online"))
    last = max(present, default=0)
    if not apart:
        words = "A loop that must never be late wants a core for itself; then start the bridge with core="
        advice = (isolation(last),) if len(present) > 2 else ()
        return Finding(AREA, "cores set apart", Level.OK, "none", f"{words}{last}." if advice else "", advice)
    value = f"isolcpus {sorted(apart)}, nohz_full {sorted(quiet)}"
    if not apart <= quiet:
        core = min(apart - quiet)
        return Finding(
            *(AREA, "cores set apart", Level.WARN, value),
            f"Core {core} runs nothing else, but the kernel's tick still interrupts it.",
            (isolation(core),),
        )
    return Finding(AREA, "cores set apart", Level.OK, value, f"Start the bridge with core={min(apart)}.")


def _limits() -> Finding:
    """The limits by themselves; whether they suffice is what the beat's measurement tries."""
    names = {"rtprio": resource.RLIMIT_RTPRIO, "memlock": resource.RLIMIT_MEMLOCK}
    shown = {
        name: "unlimited" if (soft := resource.getrlimit(kind)[0]) == resource.RLIM_INFINITY else str(soft)
        for name, kind in names.items()
    }
    value = ", ".join(f"{name} {limit}" for name, limit in shown.items())
    return Finding(AREA, "limits", Level.OK, value + (", root" if os.geteuid() == 0 else ""))


def rights(fifo: bool, memory: bool) -> Finding:
    """Whether a process got SCHED_FIFO and locked its memory when it asked."""
    refused = [name for name, got in (("SCHED_FIFO", fifo), ("locked memory", memory)) if not got]
    if not refused:
        return Finding(AREA, "real-time rights", Level.OK, "SCHED_FIFO and locked memory granted")
    return Finding(
        *(AREA, "real-time rights", Level.WARN, f"no {' and no '.join(refused)}"),
        "Cycles are late whenever the machine is busy. These commands, then log in again:",
        (*RIGHTS, *(f"or {text}" for text in ELSEWHERE)),
    )


def _throttling(root: Path) -> Finding | None:
    runtime, period = (number(root, f"proc/sys/kernel/sched_rt_{name}_us", 0) for name in ("runtime", "period"))
    if period <= 0:
        return None
    value = "off" if runtime < 0 else f"{100 * runtime / period:.0f}% of a core"
    if 0 <= runtime < 0.9 * period:
        return Finding(
            *(AREA, "real-time throttling", Level.WARN, value),
            "A loop under SCHED_FIFO is stopped for the rest of each period once it has used that.",
            ("sudo sysctl -w kernel.sched_rt_runtime_us=950000",),
        )
    return Finding(AREA, "real-time throttling", Level.OK, value)


def _awake(root: Path) -> Finding | None:
    path = root / "dev/cpu_dma_latency"
    if not path.exists():
        return None
    if os.access(path, os.W_OK):
        return Finding(AREA, "idle states", Level.OK, "the bridge may keep processors awake")
    return Finding(
        *(AREA, "idle states", Level.WARN, "/dev/cpu_dma_latency is not writable"),
        "Processors fall asleep between cycles and take up to 0.2 ms to wake.",
        (LATENCY, "sudo udevadm trigger --sysname-match=cpu_dma_latency"),
    )
