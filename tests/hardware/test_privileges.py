"""What is asked of the kernel: in processes of their own, because nothing of it can be taken back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hardware import privileges
from hardware.privileges import Granted, cores, isolated

UNPRIVILEGED = """
import gc, json, os, resource, sys
from hardware.privileges import become_real_time
for limit in (resource.RLIMIT_RTPRIO, resource.RLIMIT_MEMLOCK):
    resource.setrlimit(limit, (0, 0))
if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
got = become_real_time(*map(int, sys.argv[1:]))
print(json.dumps({"got": {name: getattr(got, name) for name in ("fifo", "core", "memory", "awake", "slice", "note")},
                  "collects": gc.isenabled(), "scheduler": os.sched_getscheduler(0),
                  "core": list(os.sched_getaffinity(0))}))
"""


def unprivileged(priority: int, core: int) -> dict[str, Any]:
    command = [sys.executable, "-c", UNPRIVILEGED, str(priority), str(core)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_without_rights_it_runs_with_the_shortest_slice_and_one_message_that_tells_the_fix() -> None:
    result = unprivileged(80, -1)
    got = result["got"]
    assert not got["fifo"]
    assert not got["memory"]
    assert got["slice"] == (tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12))
    assert result["scheduler"] == os.SCHED_OTHER
    assert not result["collects"]
    note = got["note"]
    assert "real-time priority (not permitted)" in note
    assert "locked memory" in note
    for exact in (
        "@realtime - rtprio 99",
        "@realtime - memlock unlimited",
        "/etc/security/limits.d/",
        "usermod -aG realtime",
        "--ulimit rtprio=99",
        "LimitRTPRIO=99",
        "setcap cap_sys_nice,cap_ipc_lock=ep",
    ):
        assert note.count(exact) == 1, exact


def test_who_asks_for_nothing_is_told_nothing() -> None:
    result = unprivileged(0, -1)
    assert result["got"]["note"] == ""
    assert not result["collects"]


def test_a_core_is_taken_and_shared_ones_are_named() -> None:
    core = max(os.sched_getaffinity(0))
    result = unprivileged(0, core)
    assert result["core"] == [core]
    assert result["got"]["core"]
    if core not in isolated():
        assert f"isolcpus={core} nohz_full={core}" in result["got"]["note"]


def test_a_core_that_does_not_exist_names_those_that_do() -> None:
    got = unprivileged(0, 999)["got"]
    assert not got["core"]
    assert f"core 999 (this process may use {sorted(os.sched_getaffinity(0))})" in got["note"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to SCHED_FIFO")
def test_with_rights_the_loop_is_first_and_its_children_are_ordinary() -> None:
    program = (
        "import os, subprocess, sys\n"
        "from hardware.privileges import become_real_time\n"
        "got = become_real_time(70, -1)\n"
        "child = [sys.executable, '-c', 'import os; print(os.sched_getscheduler(0))']\n"
        "fifo = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO\n"
        "print(got.fifo, fifo, os.sched_getparam(0).sched_priority, subprocess.check_output(child, text=True))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    fifo, is_fifo, priority, child = result.stdout.split()
    if fifo == "False":
        pytest.skip("this container's root may not")
    assert (is_fifo, priority, child) == ("True", "70", str(os.SCHED_OTHER))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to lock memory")
def test_locked_memory_is_what_is_used_and_not_what_is_reserved() -> None:
    program = (
        "import mmap, re\n"
        "from hardware.privileges import become_real_time\n"
        "reserved = mmap.mmap(-1, 1 << 30)\n"
        "got = become_real_time(70, -1)\n"
        "sizes = dict(re.findall(r'(VmLck|VmRSS):\\s+(\\d+) kB', open('/proc/self/status').read()))\n"
        "print(got.memory, sizes['VmLck'], sizes['VmRSS'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    memory, locked_kb, resident_kb = result.stdout.split()
    if memory == "False":
        pytest.skip("this container's root may not")
    assert int(locked_kb) > 1 << 20
    assert int(resident_kb) < 1 << 19


def test_a_group_without_budget_is_told_to_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "try_fifo", lambda priority: "not permitted")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    got = Granted()
    privileges._ask_priority(got, 80)
    assert privileges.THROTTLED in privileges._note(got)


def test_cores_as_the_kernel_writes_them(tmp_path: Path) -> None:
    assert cores("0-2,5\n") == {0, 1, 2, 5}
    assert cores("\n") == set()
    folder = tmp_path / "sys/devices/system/cpu"
    folder.mkdir(parents=True)
    (folder / "isolated").write_text("3,6-7\n")
    assert isolated(tmp_path) == {3, 6, 7}
    assert isolated(tmp_path / "nowhere") == set()
