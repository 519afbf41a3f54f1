"""GPU and OpenGL: policies train on the one, worlds are drawn with the other; a robot computer needs neither."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from hardware.doctor.findings import Finding, Level, text

AREA = "graphics"
GL_FIX = "sudo apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"
_GPU_S, _GL_S = 3.0, 4.0
_QUERY = "name,driver_version,memory.total,temperature.gpu,clocks_throttle_reasons.hw_slowdown"

# As the worlds draw: robot.sim picks the library. In a process of its own, because a wrong OpenGL may hang or crash.
_PICTURE = """
import time
import mujoco
from robot.sim.rendering import Renderer
ball, camera = '<geom size=".1" group="1"/>', '<camera name="c" pos="0 -1 0" xyaxes="1 0 0 0 0 1"/>'
model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{ball}{camera}</worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = Renderer(model, data)
picture = renderer.draw("c", 84, 84)
assert picture.max() > 0, "the picture is black"
begin = time.perf_counter()
for _ in range(10):
    renderer.draw("c", 84, 84)
took = (time.perf_counter() - begin) / 10
from OpenGL import GL
print(f"{GL.glGetString(GL.GL_RENDERER).decode()}; an empty world in {1e3 * took:.1f} ms")
"""


def start_picture() -> "subprocess.Popen[str] | None":
    """Begin to draw a picture beside us; None where there is no simulator."""
    if importlib.util.find_spec("mujoco") is None:
        return None
    command = [sys.executable, "-c", _PICTURE]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def examined(root: Path, picture: "subprocess.Popen[str] | None") -> list[Finding]:
    """The GPU, whether torch would use it, and what became of the picture."""
    return [*_gpu(root), _opengl(picture)]


def _gpu(root: Path) -> list[Finding]:
    has_driver = bool(text(root, "proc/driver/nvidia/version"))
    smi = shutil.which("nvidia-smi")
    if smi is None:
        if has_driver:
            meaning = "The driver is loaded but its tools are not here."
            return [Finding(AREA, "GPU", Level.WARN, "no nvidia-smi", meaning, ("sudo apt-get install nvidia-utils",))]
        return [Finding(AREA, "GPU", Level.OK, "none: policies run on the CPU")]
    try:
        command = [smi, f"--query-gpu={_QUERY}", "--format=csv,noheader"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_S, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stdout", "") or error).strip().splitlines()[0]
        meaning = "There is an NVIDIA driver, and it does not answer."
        return [Finding(AREA, "GPU", Level.WARN, reason, meaning, ("sudo dmesg | grep -i nvrm", "restart"))]
    return [*map(_one_gpu, output.strip().splitlines()), *_torch()]


def _one_gpu(line: str) -> Finding:
    name, driver, memory, degrees, slowdown = (part.strip() for part in line.split(","))
    value = f"{name}, {memory}, driver {driver}, {degrees} °C"
    if slowdown == "Active":
        return Finding(
            AREA, "GPU", Level.WARN, value, "It is slowed down by heat or power.", ("nvidia-smi -q -d PERFORMANCE",)
        )
    return Finding(AREA, "GPU", Level.OK, value)


def _torch() -> list[Finding]:
    """Only what the installation says of itself: this package never loads torch."""
    if importlib.util.find_spec("torch") is None:
        return [Finding(AREA, "torch", Level.OK, "not installed: no policy runs on this machine")]
    version = importlib.metadata.version("torch")
    if version.endswith("+cpu"):
        meaning = "This build of torch does not use the GPU."
        return [Finding(AREA, "torch", Level.WARN, version, meaning, ("make clean && make setup",))]
    return [Finding(AREA, "torch", Level.OK, version)]


def _opengl(picture: "subprocess.Popen[str] | None") -> Finding:
    if picture is None:
        return Finding(AREA, "OpenGL", Level.OK, "no simulator here, nothing to draw")
    try:
        out, err = picture.communicate(timeout=_GL_S)
    except subprocess.TimeoutExpired:
        picture.kill()
        picture.communicate()
        meaning = "A first picture took too long: OpenGL hangs, or the machine is very busy."
        return Finding(AREA, "OpenGL", Level.WARN, f"no picture within {_GL_S:.0f} s", meaning, _backends())
    if picture.returncode != 0:
        # OpenGL may complain once more while the interpreter ends: the first error is the cause.
        found = re.search(r"^[\w.]+Error: (.+)$", err, re.MULTILINE)
        reason = found[1] if found else f"the process that drew ended with status {picture.returncode}"
        return Finding(AREA, "OpenGL", Level.WARN, reason, "Worlds run, but no camera sees anything.", (GL_FIX,))
    return Finding(AREA, "OpenGL", Level.OK, out.strip())


def _backends() -> tuple[str, ...]:
    chosen = os.environ.get("MUJOCO_GL", "")
    other = "osmesa" if chosen != "osmesa" else "egl"
    return (f"export MUJOCO_GL={other}   # draw with another library", GL_FIX)
