import os
from collections import namedtuple
from pathlib import Path

import pytest

from hardware.doctor import machine
from hardware.doctor.findings import Level
from tests.hardware.doctor.machines import built, named

Usage = namedtuple("Usage", "total used free")


def test_a_good_machine(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "model name\t: Ryzen\nflags\t\t: fpu sse\n",
        "proc/loadavg": "0.10 0.10 0.10 1/99 1\n",
        "proc/meminfo": "MemTotal:  16777216 kB\nMemAvailable:  8388608 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "0\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
    }
    findings = machine.examined(built(tmp_path, files), tmp_path)
    assert {finding.level for finding in findings if not finding.name.startswith(("disk", "cores"))} == {Level.OK}
    assert named(findings, "memory").value == "8.0 of 16.0 GiB available"
    assert "Ryzen" in named(findings, "cores").value
    assert "virtual" not in named(findings, "cores").value


@pytest.mark.parametrize(
    ("name", "path", "content", "fix"),
    [
        ("load", "proc/loadavg", "99.0 9.0 9.0 1/99 1\n", "ps -eo"),
        ("frequency", "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n", "echo performance"),
        ("heat", "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "17\n", ""),
        ("quota", "sys/fs/cgroup/cpu.max", "150000 100000\n", "--cpuset-cpus"),
        ("quota", "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "150000\n", "--cpuset-cpus"),
        ("memory", "proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 500000 kB\n", "ps -eo"),
    ],
)
def test_what_slows_a_loop_down(tmp_path: Path, name: str, path: str, content: str, fix: str) -> None:
    found = named(machine.examined(built(tmp_path, {path: content}), tmp_path), name)
    assert found.level == Level.WARN
    assert found.meaning
    assert fix in "\n".join(found.fix)


def test_a_virtual_machine_and_a_single_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    root = built(tmp_path, {"proc/cpuinfo": "flags : fpu hypervisor sse\n"})
    found = named(machine.examined(root, tmp_path), "cores")
    assert found.level == Level.WARN
    assert found.value == "1 cores, virtual machine"


def test_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(64 << 20, 0, 64 << 20))
    found = machine._shared(tmp_path)
    assert found is not None
    assert (found.level, found.value) == (Level.WARN, "64 MiB in /dev/shm")
    assert "--shm-size" in found.fix[0]


@pytest.mark.parametrize(
    ("free", "level", "has_speed"),
    [(100 << 30, Level.OK, True), (5 << 30, Level.WARN, True), (1 << 20, Level.FAIL, False)],
)
def test_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: Level, has_speed: bool
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(free, 0, free))
    monkeypatch.setattr(machine, "_WRITE_BYTES", 1 << 20)
    findings = machine.disk(tmp_path / "not" / "there" / "yet")
    assert findings[0].level == level
    assert str(tmp_path) in findings[0].value
    assert (len(findings) == 2) == has_speed
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_and_one_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_WRITE_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "SLOW_DISK", 1e15)
    assert machine._speed(tmp_path).level == Level.WARN
    found = machine._speed(Path("/proc"))
    assert found.level == Level.FAIL
    assert "cannot write in /proc" in found.value
