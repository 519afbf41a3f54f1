"""How punctual a loop is here and now: the bridge's own pacer for a second, in processes of their own.

Run as a module with a number of seconds and a priority it is one of them, and prints what it saw as JSON.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hardware.doctor import kernel
from hardware.doctor.findings import Finding, Level, number, text
from hardware.histogram import drawn
from hardware.pacing import Pacer
from hardware.privileges import become_real_time

AREA = "timers"
RATE_HZ = 500
PRIORITY = 80
LATE_US, MISSED_US = 200.0, 2000.0
"""A 99th percentile above these is a tenth of the loop's period and a whole one."""
_EXTRA_S = 10.0


def beat(seconds: float, priority: int) -> dict[str, Any]:
    """Beat at 500 Hz for a while, with a priority or as an ordinary process; lateness in µs."""
    granted = become_real_time(priority, -1)
    pacer = Pacer(RATE_HZ)
    for _ in range(round(seconds * RATE_HZ)):
        pacer.wait()
    late = pacer.lateness
    return {
        "fifo": granted.fifo,
        "memory": granted.memory,
        "p50": late.percentile_us(50),
        "p99": late.percentile_us(99),
        "max": late.max_us,
        "rows": late.rows(),
    }


def examined(root: Path, seconds: float) -> list[Finding]:
    """Clock and timers, then the beat with SCHED_FIFO and without, at the same time."""
    findings = [_clock(root), _slack(root)]
    with_priority, ordinary = _beaten(seconds, (PRIORITY, 0))
    findings.append(kernel.rights(with_priority["fifo"], with_priority["memory"]))
    if with_priority["fifo"]:
        findings.append(_punctual("beat, SCHED_FIFO", with_priority, "The cause is the kernel or the firmware."))
    findings.append(_punctual("beat, no priority", ordinary, "Something else is computing, or the machine is shared."))
    return findings


def _beaten(seconds: float, priorities: tuple[int, ...]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "hardware.doctor.beat", str(seconds)]
    running = [
        subprocess.Popen([*command, str(priority)], stdout=subprocess.PIPE, text=True) for priority in priorities
    ]
    return [json.loads(process.communicate(timeout=seconds + _EXTRA_S)[0]) for process in running]


def _punctual(name: str, result: dict[str, Any], cause: str) -> Finding:
    value = (
        f"late by p50 {result['p50'] / 1000:.3f} ms, p99 {result['p99'] / 1000:.3f} ms, max {result['max'] / 1000:.3f} "
        f"ms at {RATE_HZ} Hz"
    )
    picture = tuple(drawn(result["rows"]))
    if result["p99"] <= LATE_US:
        return Finding(AREA, name, Level.OK, value, picture=picture)
    level = Level.WARN if result["p99"] <= MISSED_US else Level.FAIL
    # An ordinary process that is late is what real-time rights are for.
    level = min(level, Level.WARN) if "no priority" in name else level
    meaning = f"One cycle in a hundred begins later than a tenth of its period. {cause}"
    fix = ("top -o %CPU   # what runs", "uptime        # a load above the number of cores is too much")
    return Finding(AREA, name, level, value, meaning, fix, picture)


def _clock(root: Path) -> Finding:
    folder = "sys/devices/system/clocksource/clocksource0/"
    source, others = text(root, folder + "current_clocksource", "unknown"), text(root, folder + "available_clocksource")
    if source in ("hpet", "acpi_pm", "jiffies"):
        return Finding(
            *(AREA, "clock source", Level.WARN, source),
            f"Reading the time takes microseconds; the kernel did not trust a faster clock of {others or source}.",
            ("sudo dmesg | grep -i -e tsc -e clocksource   # why",),
        )
    return Finding(AREA, "clock source", Level.OK, source)


def _slack(root: Path) -> Finding:
    slack = number(root, "proc/self/timerslack_ns", 50_000)
    return Finding(AREA, "timer slack", Level.OK, f"{slack / 1000:.0f} µs, set to 0.001 µs by the bridge")


if __name__ == "__main__":
    print(json.dumps(beat(float(sys.argv[1]), int(sys.argv[2]))))
