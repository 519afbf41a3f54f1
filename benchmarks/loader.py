"""Samples a second that a training is fed with: Armature's loader against LeRobotDataset in a DataLoader.

Both load the same dataset: two cameras of 128 x 128, windows of two frames and sixteen actions, shuffled batches of 64
that two worker processes make. LeRobot decodes with PyAV, once from the AV1 that it writes itself, once from the H.264
that we write. It runs in an environment of its own, `.cache/lerobot`, which is made when it is missing, as are the
datasets in `.cache/loader`. Samples are compared with LeRobot's as well.

LeRobot decodes in every epoch, we once before the first; that has lines of its own, and so has turning our uint8 into
the float32 (C, H, W) in [0, 1] that LeRobot gives. Rounds alternate; figures are medians over them.
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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loader_ours import BATCH_SIZE, HORIZON, N_OBS_STEPS
from benchmarks.sim import emit
from robot.episodes.dataset import Dataset
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import write
from robot.episodes.loading.cache import FrameCache
from robot.episodes.loading.decoding import decoded
from robot.episodes.loading.windows import Windows

ROOT = Path(__file__).resolve().parent.parent
LEROBOT, DATA = ROOT / ".cache" / "lerobot", ROOT / ".cache" / "loader"
REFERENCE = ROOT / "benchmarks" / "loader_reference.py"
REQUIREMENT = "lerobot==0.4.4"
AV1, H264, VECTORS = "av1", "h264", "vectors"
OURS = {
    "2": (AV1, 2, "uint8"),
    "0": (AV1, 0, "uint8"),
    "float": (AV1, 2, "float"),
    "vectors 2": (VECTORS, 2, "uint8"),
    "vectors 0": (VECTORS, 0, "uint8"),
}
"""Dataset, worker processes, and what becomes of pictures, of each of our runs."""
WORKERS, ROUNDS = 2, 2
THEIR_WARM_UP, THEIR_BATCHES = 6, {AV1: 14, H264: 14, VECTORS: 40}
SAMPLES = (0, 1, 124, 125, 1700, 2990, 2999)
CASE = "2 cameras 128 x 128, 2 frames, 16 actions, batch 64"


def main() -> int:
    """Make what is missing, measure, and print."""
    _prepare()
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        cache = FrameCache(Path(folder) / "frames")
        first = {name: _decode(name, cache) for name in (AV1, H264)}
        theirs: dict[str, list[dict[str, Any]]] = {name: [] for name in (AV1, H264, VECTORS)}
        ours: dict[str, list[dict[str, Any]]] = {key: [] for key in OURS}
        for _ in range(ROUNDS):
            for name, run in _their_runs(Path(folder)).items():
                theirs[name].append(run)
            for key, runs in ours.items():
                runs.append(_our_run(key, cache))
        for name in theirs:
            _compare(name, cache, Path(folder) / f"{name}.npz")
    _print(first, theirs, ours)
    return 0


def _print(first: dict[str, float], theirs: dict[str, list[dict]], ours: dict[str, list[dict]]) -> None:
    rate = {name: statistics.median(run["samples_s"] for run in runs) for name, runs in (theirs | ours).items()}
    n = len(Dataset.open(DATA / AV1))
    for name, what in ((AV1, "LeRobot's AV1"), (H264, "our H.264")):
        lerobot = {"against": f"lerobot, {what}, 2 workers", "other": rate[name]}
        emit(f"{CASE}, 2 workers, {what}", rate["2"], "samples/s", "higher", **lerobot)
        emit(f"{CASE}, no worker, {what}", rate["0"], "samples/s", "higher", **lerobot)
        emit(f"{CASE}, 2 workers, made float32 by torch, {what}", rate["float"], "samples/s", "higher", **lerobot)
        emit(f"decoding {2 * n} pictures once, {what}", first[name], "s", "lower")
        emit(f"decoding, {what}", 2 * n / first[name], "pictures/s", "higher")
        emit(
            f"first epoch of {n} samples with decoding, 2 workers, {what}", first[name] + n / rate["2"], "s", "lower",
            against=f"lerobot, {what}, 2 workers", other=n / rate[name],
        )  # fmt: skip
    lerobot = {"against": "lerobot, 2 workers", "other": rate[VECTORS]}
    emit("vectors only, 2 frames, 16 actions, batch 64, no worker", rate["vectors 0"], "samples/s", "higher", **lerobot)
    emit("vectors only, 2 frames, 16 actions, batch 64, 2 workers", rate["vectors 2"], "samples/s", "higher", **lerobot)
    pictures = 2 * n * 128 * 128 * 3 / 1e6
    for key, processes in (("2", "3 processes"), ("0", "1 process")):
        _print_memory(f"{processes}, {pictures:.0f} MB of pictures", ours[key], theirs[AV1])


def _print_memory(case: str, ours: list[dict], theirs: list[dict]) -> None:
    for kind in ("RssAnon", "RssFile", "RssShmem"):
        own, other = (max(run["memory"][kind] for run in runs) for runs in (ours, theirs))
        emit(f"{kind} of {case}", own / 1e6, "MB", "lower", against="lerobot, 3 processes", other=max(other, 1) / 1e6)
    total, other = (max(sum(run["memory"].values()) for run in runs) for runs in (ours, theirs))
    batch = ours[0]["batch_bytes"]
    emit(
        f"memory beyond one batch of {batch / 1e6:.0f} MB, {case}", (total - batch) / 1e6, "MB", "lower",
        against="lerobot, 3 processes", other=(other - 4 * batch) / 1e6,
    )  # fmt: skip


def _prepare() -> None:
    """LeRobot's environment, and the datasets."""
    python = LEROBOT / "bin" / "python"
    if not python.exists():
        print(f"Installing {REQUIREMENT} into {LEROBOT} (some gigabytes) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", LEROBOT], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True, stdout=sys.stderr)
    DATA.mkdir(parents=True, exist_ok=True)
    for name, kind in ((AV1, "pictures"), (VECTORS, "vectors")):
        if not (DATA / name).exists():
            print(f"LeRobot makes {DATA / name}, about a minute ...", file=sys.stderr)
            part = DATA / f".{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            _lerobot("make", part, kind)
            part.rename(DATA / name)
    if not (DATA / H264).exists():
        write(LeRobotSource(DATA / AV1), DATA / H264)


def _lerobot(*arguments: object) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(DATA / "home")}
    command = [str(LEROBOT / "bin" / "python"), str(REFERENCE), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"LeRobot failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _their_runs(folder: Path) -> dict[str, dict[str, Any]]:
    options = {
        name: {
            "n_obs_steps": N_OBS_STEPS, "horizon": HORIZON, "batch_size": BATCH_SIZE, "workers": WORKERS,
            "warm_up": THEIR_WARM_UP, "batches": batches, "samples": SAMPLES, "save": str(folder / f"{name}.npz"),
        }
        for name, batches in THEIR_BATCHES.items()
    }  # fmt: skip
    return json.loads(_lerobot("measure", DATA, json.dumps(options)).splitlines()[-1])


def _our_run(key: str, cache: FrameCache) -> dict[str, Any]:
    """In a process of its own, so that memory is that of loading alone."""
    folder, workers, kind = OURS[key]
    environment = {**os.environ, "ARMATURE_CACHE": str(cache.root)}
    command = [sys.executable, "-m", "benchmarks.loader_ours", str(DATA / folder), str(workers), kind]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    return json.loads(done.stdout)


def _decode(name: str, cache: FrameCache) -> float:
    dataset = Dataset.open(DATA / name)
    assert dataset.source is not None
    begin = time.perf_counter()
    decoded(dataset.source, dataset.episode_lengths, cache=cache)
    return time.perf_counter() - begin


def _compare(name: str, cache: FrameCache, saved: Path) -> None:
    """The same samples, bit for bit but for the colours of pictures, whose conversion rounds."""
    dataset = Dataset.open(DATA / name)
    frames = {} if dataset.source is None else decoded(dataset.source, dataset.episode_lengths, cache=cache)
    ours = Windows(dataset, N_OBS_STEPS, HORIZON, frames=frames).batch(np.array(SAMPLES))
    theirs = np.load(saved)
    for row, sample in enumerate(SAMPLES):
        for key in ("observation.state", "action", "action_is_pad"):
            np.testing.assert_array_equal(ours[key][row], theirs[f"{sample} {key}"])
        for key in frames:
            other = np.moveaxis(theirs[f"{sample} {key}"], 1, -1) * 255
            difference = np.abs(ours[key][row] - other)
            assert difference.mean() < 1.5, (name, sample, key, difference.mean())


if __name__ == "__main__":
    sys.exit(main())
