import json
import re
from pathlib import Path

import pytest

from hardware.doctor import command
from hardware.doctor.findings import Finding, Level, as_json, table
from robot import cli

FINDINGS = [
    Finding("kernel", "kernel", Level.OK, "6.8"),
    Finding(
        "timers", "beat", Level.WARN, "late", "It is late " + 20 * "and later " + "now.", ("sudo " + 30 * "long ",)
    ),
    Finding("kernel", "rights", Level.FAIL, "none", "Nothing works.", ("mend it",), ("  to 0.1 ms  ###  3",)),
]


def test_a_table_keeps_areas_together_wraps_words_and_never_commands() -> None:
    lines = table(FINDINGS, width=80).splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "kernel",
        "timers",
        "1 OK, 1 WARN, 1 FAIL.",
    ]
    assert lines.index("timers") > next(i for i, line in enumerate(lines) if "rights" in line)
    commands = [line for line in lines if "> " in line]
    assert any(line.endswith("> sudo " + 30 * "long ") for line in commands)
    assert all(len(line) <= 80 for line in lines if line not in commands)
    assert any(line.endswith("###  3") for line in lines)
    assert "\x1b" not in "\n".join(lines)


def test_colours_add_nothing_but_colours() -> None:
    painted = table(FINDINGS, 80, has_colours=True)
    assert "\x1b[31mFAIL\x1b[0m" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == table(FINDINGS, 80)


def test_json_says_the_same() -> None:
    data = json.loads(as_json(FINDINGS))
    assert data["summary"] == {"OK": 1, "WARN": 1, "FAIL": 1}
    assert [row["level"] for row in data["findings"]] == ["OK", "WARN", "FAIL"]
    assert data["findings"][2]["fix"] == ["mend it"]


@pytest.mark.parametrize(("findings", "status"), [(FINDINGS[:2], 0), (FINDINGS, 1)])
def test_only_what_fails_fails(
    findings: list[Finding], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "examined", lambda settings, root: findings)
    assert cli.main(["doctor", "format=json"]) == status
    assert json.loads(capsys.readouterr().out)["summary"]["OK"] == 1
    assert cli.main(["doctor"]) == status
    # Captured output is no terminal: no colours.
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("override", ["format=xml", "port=70000", "seconds=0", "arm=frnka"])
def test_wrong_keys_are_refused(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", override]) == 2
    assert capsys.readouterr().err.startswith("armature doctor: ")


@pytest.mark.slow
def test_this_machine_in_a_few_seconds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["doctor", "seconds=0.2", f"out={tmp_path}", "port=40000"]) in (0, 1)
    out = capsys.readouterr().out
    for area in ("kernel and rights", "timers", "machine", "devices", "network and time", "Python", "graphics"):
        assert f"\n{area}\n" in "\n" + out
    for line in out.splitlines():
        if re.match(r"  (WARN|FAIL) ", line):
            assert len(line) > 30
