from pathlib import Path
from typing import Any

import pytest

from hardware.doctor import beat
from hardware.doctor.findings import Level
from hardware.histogram import Histogram
from tests.hardware.doctor.machines import built, named


def result(p99: float, fifo: bool = True) -> dict[str, Any]:
    histogram = Histogram()
    histogram.add(round(1000 * p99))
    return {"fifo": fifo, "memory": fifo, "p50": 5.0, "p99": p99, "max": 2 * p99, "rows": histogram.rows()}


def test_the_beat_of_this_machine_is_measured(tmp_path: Path) -> None:
    findings = beat.examined(tmp_path, 0.1)
    found = named(findings, "beat, no priority")
    assert "at 500 Hz" in found.value
    # 50 beats, all of them in the picture.
    assert sum(int(line.split()[-2]) for line in found.picture) == 50
    assert named(findings, "timer slack").value.startswith("50 µs")


@pytest.mark.parametrize(
    ("p99", "with_priority", "without"),
    [(100, Level.OK, Level.OK), (900, Level.WARN, Level.WARN), (5000, Level.FAIL, Level.WARN)],
)
def test_late_beats(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, p99: float, with_priority: Level, without: Level
) -> None:
    monkeypatch.setattr(beat, "_beaten", lambda seconds, priorities: [result(p99), result(p99, False)])
    findings = beat.examined(tmp_path, 1.0)
    assert named(findings, "beat, SCHED_FIFO").level == with_priority
    assert named(findings, "beat, no priority").level == without


def test_without_rights_there_is_one_beat_and_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(beat, "_beaten", lambda seconds, priorities: [result(50, False), result(50, False)])
    findings = beat.examined(tmp_path, 1.0)
    assert not [finding for finding in findings if finding.name == "beat, SCHED_FIFO"]
    assert named(findings, "real-time rights").level == Level.WARN


@pytest.mark.parametrize(("source", "level"), [("tsc", Level.OK), ("kvm-clock", Level.OK), ("hpet", Level.WARN)])
def test_clock_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, level: Level) -> None:
    monkeypatch.setattr(beat, "_beaten", lambda seconds, priorities: [result(50), result(50)])
    folder = "sys/devices/system/clocksource/clocksource0/"
    root = built(tmp_path, {folder + "current_clocksource": source, folder + "available_clocksource": "tsc hpet"})
    assert named(beat.examined(root, 1.0), "clock source").level == level
