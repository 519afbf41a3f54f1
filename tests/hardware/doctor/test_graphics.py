import subprocess
import sys
from pathlib import Path

import pytest

from hardware.doctor import graphics
from hardware.doctor.findings import Level
from tests.hardware.doctor.machines import built, named


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def drawing(program: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics.shutil, "which", lambda name: None)


def test_gpus_as_the_tool_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "RTX 4090, 550.54, 24564 MiB, 41, Not Active\nRTX 4090, 550.54, 24564 MiB, 93, Active"
    tool = script(tmp_path / "nvidia-smi", f"printf '{lines}'")
    monkeypatch.setattr(graphics.shutil, "which", lambda name: tool)
    monkeypatch.setattr(graphics.importlib.metadata, "version", lambda name: "2.6.0+cpu")
    findings = graphics._gpu(tmp_path)
    assert findings[0].value == "RTX 4090, 24564 MiB, driver 550.54, 41 °C"
    assert [finding.level for finding in findings] == [Level.OK, Level.WARN, Level.WARN]
    assert (findings[2].name, findings[2].value) == ("torch", "2.6.0+cpu")


def test_a_driver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = script(tmp_path / "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    monkeypatch.setattr(graphics.shutil, "which", lambda name: tool)
    found = named(graphics._gpu(tmp_path), "GPU")
    assert found.level == Level.WARN
    assert "version mismatch" in found.value


@pytest.mark.usefixtures("no_gpu")
def test_no_gpu_is_fine_and_half_a_driver_is_not(tmp_path: Path) -> None:
    assert named(graphics._gpu(tmp_path), "GPU").level == Level.OK
    built(tmp_path, {"proc/driver/nvidia/version": "NVRM version: 550.54\n"})
    assert named(graphics._gpu(tmp_path), "GPU").level == Level.WARN


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "import sys; sys.stderr.write('Traceback\\nrobot.errors.RenderingError: MuJoCo finds no OpenGL library.\\n"
            "OpenGL.EGLError: <exception str() failed>\\n'); sys.exit(1)",
            "MuJoCo finds no OpenGL library.",
        ),
        ("import os; os.abort()", "status -6"),
    ],
)
def test_a_picture_that_fails_says_why(program: str, words: str) -> None:
    found = graphics._opengl(drawing(program))
    assert found.level == Level.WARN
    assert words in found.value
    assert graphics.GL_FIX in found.fix


def test_a_picture_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics, "_GL_S", 0.2)
    process = drawing("import time; time.sleep(60)")
    assert graphics._opengl(process).level == Level.WARN
    assert process.poll() is not None


def test_no_simulator_no_picture() -> None:
    assert graphics._opengl(None).level == Level.OK


@pytest.mark.gl
def test_a_picture_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphics, "_GL_S", 60.0)
    found = graphics._opengl(graphics.start_picture())
    assert (found.level, found.fix) == (Level.OK, ())
