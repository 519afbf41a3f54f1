"""Frames a second that become a dataset: our writer against LeRobot's own way, from the same pictures in one run.

Ten episodes of 150 rows with two cameras of 128 x 128: textured surfaces, moving shapes, the noise of a sensor.
LeRobot runs `LeRobotDataset.create`, `add_frame`, `save_episode` and `finalize` with its default AV1 and with H.264,
and four threads for each camera that write pictures, as its `record` does; in an environment of its own,
`.cache/lerobot`, which is made when it is missing. Ours writes what `armature build` writes by default, once allowed as
many workers as there are cores (it starts them where work is worth it), and once in one process. Starting Python and
importing is nobody's, but our workers' counts; a frame is a row of both cameras. Pictures are given to both as arrays
in a memory map. Rounds alternate; figures are medians over them.

So that speed is not bought: size, PSNR against what was given, and the time of one frame from anywhere stand beside it.
A second build, to which one episode was added, is compared with a whole one.
"""

import json
import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np

from benchmarks.sim import emit
from robot.contract import EnvironmentSpecs
from robot.episodes.formats import lerobot_writer, video
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import Settings
from robot.episodes.rows import Rows, Schema
from robot.specs import ArraySpec

ROOT = Path(__file__).resolve().parent.parent
LEROBOT = ROOT / ".cache" / "lerobot"
REQUIREMENT = "lerobot==0.4.4"
CAMERAS = ("observation.images.front", "observation.images.wrist")
EPISODES, ROWS, SIDE, FPS = 10, 150, 128, 20
OUR_ROUNDS, THEIR_ROUNDS = 4, {"libsvtav1": 2, "h264": 1}
SEEKS = 100
THEIRS = {"libsvtav1": "lerobot", "h264": "lerobot with h264"}

REFERENCE = """
import json, sys, time
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
folder, root, codec, fps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
frames, state, action = (np.load(f"{folder}/{name}.npy", mmap_mode="r") for name in ("frames", "state", "action"))
episodes, cameras, rows = frames.shape[:3]
keys = json.loads(sys.argv[5])
picture = {"dtype": "video", "shape": frames.shape[3:], "names": ["height", "width", "channels"]}
features = {key: picture for key in keys}
features |= {"observation.state": {"dtype": "float32", "shape": (7,), "names": None},
             "action": {"dtype": "float32", "shape": (7,), "names": None}}
begin = time.perf_counter()
dataset = LeRobotDataset.create("bench/build", fps, features, root=root, use_videos=True, vcodec=codec,
                                image_writer_threads=4 * cameras)
for number in range(episodes):
    for row in range(rows):
        frame = {key: np.ascontiguousarray(frames[number, camera, row]) for camera, key in enumerate(keys)}
        frame |= {"observation.state": state[number, row], "action": action[number, row], "task": "move"}
        dataset.add_frame(frame)
    dataset.save_episode()
dataset.finalize()
print(json.dumps(time.perf_counter() - begin))
"""


@dataclass(frozen=True)
class Filmed:
    """Episodes whose pictures are in a memory map; small enough to be sent to workers."""

    folder: str
    count: int

    @property
    def schema(self) -> Schema:
        """Two cameras, a state and an action."""
        observation = {"observation.state": ArraySpec("observation.state", (7,))}
        observation |= {key: ArraySpec(key, (SIDE, SIDE, 3), "uint8") for key in CAMERAS}
        return Schema(EnvironmentSpecs(observation, ArraySpec("action", (7,)), "ee_delta", 1 / FPS, "bench", "move"))

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.load(f"{self.folder}/{name}.npy", mmap_mode="r") for name in ("frames", "state", "action")}

    def __len__(self) -> int:
        return self.count

    def identity(self, number: int) -> str:
        """Films do not change."""
        return f"{self.folder} {number}"

    def read(self, number: int) -> Rows:
        """Arrays of the memory map."""
        arrays = self._arrays
        columns = {"observation.state": arrays["state"][number], "action": arrays["action"][number]}
        pictures = {key: arrays["frames"][number, camera] for camera, key in enumerate(CAMERAS)}
        return Rows(columns, pictures, "move")


def main() -> int:
    """Film, build, and print."""
    _prepare()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _film(folder)
        source = Filmed(str(folder), EPISODES)
        cores = len(os.sched_getaffinity(0))
        ours: dict[int, list[float]] = {cores: [], 1: []}
        theirs: dict[str, list[float]] = {codec: [] for codec in THEIRS}
        for round_ in range(OUR_ROUNDS):
            for workers, taken in ours.items():
                taken.append(_ours(source, folder / f"ours {workers}", workers))
            for codec, taken in theirs.items():
                if round_ < THEIR_ROUNDS[codec]:
                    taken.append(_theirs(folder, folder / codec, codec))
        _print_rates(ours, theirs)
        _print_quality(folder, source, cores)
        _print_incremental(folder, source, statistics.median(ours[1]))
    return 0


def _print_rates(ours: dict[int, list[float]], theirs: dict[str, list[float]]) -> None:
    case, frames = f"build, 2 cameras {SIDE} x {SIDE}", EPISODES * ROWS
    for codec, against in THEIRS.items():
        other = frames / statistics.median(theirs[codec])
        for workers, taken in ours.items():
            value = frames / statistics.median(taken)
            name = f"{case}, {workers} process{'es' * (workers > 1)}"
            emit(name, value, "frames/s", "higher", against=against, other=other)


def _print_quality(folder: Path, source: Filmed, cores: int) -> None:
    ours = _measured(folder / f"ours {cores}", source)
    for codec, against in THEIRS.items():
        other = _measured(folder / codec, source)
        for what, unit, better in (("size", "bytes/frame", "lower"), ("PSNR", "dB", "higher"), ("seek", "ms", "lower")):
            name = f"build, {what}" if what != "seek" else "build, one picture from anywhere"
            emit(name, ours[what], unit, better, against=against, other=other[what])


def _print_incremental(folder: Path, source: Filmed, whole_s: float) -> None:
    target = folder / "incremental"
    lerobot_writer.write(Filmed(source.folder, EPISODES - 1), target)
    begin = time.perf_counter()
    lerobot_writer.write(source, target)
    name = f"build, one episode more than {EPISODES - 1}, 1 process"
    emit(name, time.perf_counter() - begin, "s", "lower", against="whole build", other=whole_s)


def _ours(source: Filmed, target: Path, workers: int) -> float:
    shutil.rmtree(target, ignore_errors=True)
    begin = time.perf_counter()
    lerobot_writer.write(source, target, Settings(workers=workers))
    return time.perf_counter() - begin


def _theirs(folder: Path, target: Path, codec: str) -> float:
    shutil.rmtree(target, ignore_errors=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "SVT_LOG": "1"}
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.pop(threads, None)  # it may have both cores
    command = [str(LEROBOT / "bin" / "python"), "-c", REFERENCE, str(folder), str(target), codec, str(FPS)]
    done = subprocess.run([*command, json.dumps(CAMERAS)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"LeRobot failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.splitlines()[-1])


def _measured(root: Path, source: Filmed) -> dict[str, float]:
    """Size of a row's videos, PSNR over some episodes, and the time of a picture from anywhere with PyAV."""
    size = sum(path.stat().st_size for path in (root / "videos").rglob("*.mp4")) / (EPISODES * ROWS)
    errors = []
    found = LeRobotSource(root)
    for number in (0, EPISODES - 1):
        given, got = source.read(number), found.read(number)
        for key in CAMERAS:
            for one, other in zip(given.pictures[key], got.pictures[key], strict=True):
                errors.append(np.mean((np.asarray(one, np.float64) - other) ** 2))
    return {"size": size, "PSNR": float(10 * np.log10(255**2 / np.mean(errors))), "seek": _seek_ms(root)}


def _seek_ms(root: Path) -> float:
    path = sorted((root / "videos" / CAMERAS[0]).rglob("*.mp4"))[0]
    with av.open(str(path)) as container:
        frames = container.streams.video[0].frames
    wanted = np.random.default_rng(0).integers(0, frames, SEEKS)
    begin = time.perf_counter()
    for number in wanted:
        next(video.decode(path, int(number), 1, FPS))
    return 1e3 * (time.perf_counter() - begin) / SEEKS


def _film(folder: Path) -> None:
    rng = np.random.default_rng(0)
    frames = np.lib.format.open_memmap(
        folder / "frames.npy", "w+", np.uint8, (EPISODES, len(CAMERAS), ROWS, SIDE, SIDE, 3)
    )
    for number in range(EPISODES):
        for camera in range(len(CAMERAS)):
            _film_one(frames[number, camera], rng)
    frames.flush()
    for name in ("state", "action"):
        np.save(folder / f"{name}.npy", rng.normal(size=(EPISODES, ROWS, 7)).astype(np.float32))


def _film_one(frames: np.ndarray, rng: np.random.Generator) -> None:
    """A textured table that the camera drifts over, an arm of two links, boxes that are carried, and noise."""
    size = 2 * SIDE
    table = np.full((size, size, 3), 25, np.float32)
    for cells, amplitude in ((6, 110), (24, 60), (96, 30)):
        coarse = rng.integers(0, amplitude, (cells, cells, 3)).astype(np.float32)
        table += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    table = np.clip(table, 0, 255).astype(np.uint8)
    colours = rng.integers(30, 225, (4, 3)).tolist()
    phases = rng.uniform(0, 6, 6)
    for row, frame in enumerate(frames):
        t = row / FPS
        dx, dy = (int(SIDE / 2 + 20 * np.sin(0.4 * t + phase)) for phase in phases[:2])
        picture = table[dy : dy + SIDE, dx : dx + SIDE].copy()
        elbow = (int(64 + 34 * np.cos(t + phases[2])), int(20 + 28 * (1 + np.sin(0.7 * t + phases[3]))))
        hand = (int(elbow[0] + 30 * np.sin(1.3 * t + phases[4])), int(elbow[1] + 34))
        cv2.line(picture, (64, 0), elbow, colours[0], 11, cv2.LINE_AA)
        cv2.line(picture, elbow, hand, colours[1], 8, cv2.LINE_AA)
        cv2.circle(picture, elbow, 8, colours[2], -1, cv2.LINE_AA)
        cv2.rectangle(picture, (hand[0] - 9, hand[1] - 4), (hand[0] + 9, hand[1] + 10), colours[3], -1)
        shade = 1 + 0.06 * np.sin(2 * t + phases[5])
        frame[...] = np.clip(picture * shade + rng.normal(0, 2.5, picture.shape), 0, 255).astype(np.uint8)


def _prepare() -> None:
    python = LEROBOT / "bin" / "python"
    if not python.exists():
        print(f"Installing {REQUIREMENT} into {LEROBOT} (some gigabytes) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", LEROBOT], check=True, stdout=sys.stderr)
        subprocess.run([python, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
