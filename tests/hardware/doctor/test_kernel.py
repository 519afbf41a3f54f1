import gzip
from pathlib import Path

import pytest

from hardware.doctor import kernel
from hardware.doctor.findings import Level
from tests.hardware.doctor.machines import built, named

STOCK = {
    "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
    "proc/version": "Linux version 6.8.0-45-generic #45-Ubuntu SMP PREEMPT_DYNAMIC\n",
    "proc/cmdline": "quiet splash\n",
    "boot/config-6.8.0-45-generic": "CONFIG_HZ=1000\nCONFIG_PREEMPT_VOLUNTARY=y\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/devices/system/cpu/isolated": "\n",
    "proc/sys/kernel/sched_rt_runtime_us": "950000\n",
    "proc/sys/kernel/sched_rt_period_us": "1000000\n",
}


@pytest.mark.parametrize(
    ("changed", "is_kilohertz", "level", "value", "fix"),
    [
        ({}, False, Level.OK, "6.8.0-45-generic, preempt=voluntary, 1000 Hz", ""),
        ({}, True, Level.WARN, "6.8.0-45-generic, preempt=voluntary, 1000 Hz", "linux-image-rt-amd64"),
        ({"sys/kernel/realtime": "1\n"}, True, Level.OK, "6.8.0-45-generic, PREEMPT_RT, 1000 Hz", ""),
        ({"proc/version": "Linux ... SMP PREEMPT_RT"}, True, Level.OK, "6.8.0-45-generic, PREEMPT_RT, 1000 Hz", ""),
        (
            {"proc/cmdline": "preempt=none"},
            False,
            Level.WARN,
            "6.8.0-45-generic, preempt=none, 1000 Hz",
            "preempt=full",
        ),
        (
            {"sys/kernel/debug/sched/preempt": "none voluntary (full) lazy", "proc/cmdline": "preempt=none"},
            *(False, Level.OK, "6.8.0-45-generic, preempt=full, 1000 Hz", ""),
        ),
    ],
)
def test_kernels(
    tmp_path: Path, changed: dict[str, str], is_kilohertz: bool, level: Level, value: str, fix: str
) -> None:
    found = named(kernel.examined(built(tmp_path, STOCK | changed), is_kilohertz), "kernel")
    assert (found.level, found.value) == (level, value)
    assert fix in "\n".join(found.fix)


def test_a_kernel_that_holds_its_own_settings(tmp_path: Path) -> None:
    built(tmp_path, {"proc/sys/kernel/osrelease": "6.18.1\n"})
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_HZ=250\nCONFIG_PREEMPT=y\n"))
    assert named(kernel.examined(tmp_path, False), "kernel").value == "6.18.1, preempt=full, 250 Hz"


def test_cores_set_apart(tmp_path: Path) -> None:
    shared = named(kernel.examined(built(tmp_path / "a", STOCK), False), "cores set apart")
    assert (shared.level, shared.value) == (Level.OK, "none")
    assert "isolcpus=7 nohz_full=7" in shared.fix[0]
    cpu = "sys/devices/system/cpu/"
    ticked = built(tmp_path / "b", STOCK | {cpu + "isolated": "6-7\n", cpu + "nohz_full": "7\n"})
    found = named(kernel.examined(ticked, False), "cores set apart")
    assert found.level == Level.WARN
    assert "isolcpus=6 nohz_full=6" in found.fix[0]
    quiet = built(tmp_path / "c", STOCK | {cpu + "isolated": "7\n", cpu + "nohz_full": "7\n"})
    found = named(kernel.examined(quiet, False), "cores set apart")
    assert found.level == Level.OK
    assert "core=7" in found.meaning


def test_a_small_budget_for_real_time_processes(tmp_path: Path) -> None:
    root = built(tmp_path, STOCK | {"proc/sys/kernel/sched_rt_runtime_us": "400000\n"})
    found = named(kernel.examined(root, False), "real-time throttling")
    assert (found.level, found.value) == (Level.WARN, "40% of a core")
    built(tmp_path, {"proc/sys/kernel/sched_rt_runtime_us": "-1\n"})
    assert named(kernel.examined(tmp_path, False), "real-time throttling").value == "off"


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    findings = kernel.examined(tmp_path, False)
    assert named(findings, "kernel").value == "unknown, preemption unknown"
    assert not [finding for finding in findings if finding.name in ("real-time throttling", "idle states")]


def test_missing_rights_name_every_way_to_get_them() -> None:
    assert kernel.rights(True, True).level == Level.OK
    found = kernel.rights(False, True)
    assert (found.level, found.value) == (Level.WARN, "no SCHED_FIFO")
    fixes = "\n".join(found.fix)
    assert all(words in fixes for words in ("rtprio 99", "memlock unlimited", "usermod", "setcap", "--ulimit"))
