"""Kill -9 a recorder at 100 random moments: every finished episode is intact, and the running one becomes an episode.

The recorder writes what a bridge gives: a state of 20 numbers and three actions at 500 Hz, and, every other one, 640 x
480 JPEG at 30 Hz, in episodes of a second and a half, one after the other. After every write it tells us, through
memory that survives it, what it has been told to record; what it lost is the time between that and the last message
that comes back. `python -m benchmarks.episode_kills 20 0.5` kills it 20 times in episodes of half a second.
"""

import json
import mmap
import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes import folder
from robot.episodes.episode import Header, Result
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.recover import recover
from robot.errors import EpisodeError
from robot.specs import ArraySpec

KILLS = 100
BAR_S = 0.5
RATE_HZ, PICTURES_HZ = 500, 30
EPISODE_S = 1.5
STATE, FRONT = "observation.state", "observation.images.front"
STATE_TOPIC, FRONT_TOPIC = "/observation/state", "/observation/images/front"
ACTIONS = ("/action/device", "/action/commanded", "/action/applied")


def emit(name: str, value: float, unit: str, better: str, **reference: Any) -> None:
    line = {"name": name, "value": value, "unit": unit, "better": better, "against": None, "other": None, "ratio": None}
    if reference:
        line.update(reference, ratio=value / reference["other"])
    print(json.dumps(line), flush=True)


@dataclass
class Tally:
    """What became of the recordings.

    Attributes:
        lost_s: Of each running episode that came back, what it lacks of what was written [s].
        finished: Episodes that were finished and read back whole.
        recovered: Running episodes that came back.
        too_young: Running episodes that were killed with nothing on the disk yet; how old they were is in `lost_s`.
        broken: What went wrong, a line each.
    """

    lost_s: list[float] = field(default_factory=list)
    finished: int = 0
    recovered: int = 0
    too_young: int = 0
    broken: list[str] = field(default_factory=list)


class Told:
    """Numbers in memory that a recorder's death does not touch."""

    def __init__(self) -> None:
        self._values = np.frombuffer(mmap.mmap(-1, 24), np.int64)

    def tell(self, finished: int, begin_ns: int, last_ns: int) -> None:
        """Number of finished episodes, begin and last message of the running one [ns]."""
        self._values[:] = finished, begin_ns, last_ns

    def read(self) -> tuple[int, int, int]:
        """What was told last."""
        finished, begin_ns, last_ns = self._values.tolist()
        return finished, begin_ns, last_ns


def header() -> Header:
    observation = {STATE: ArraySpec(STATE, (20,)), FRONT: ArraySpec(FRONT, (480, 640, 3), "uint8")}
    specs = EnvironmentSpecs(observation, ArraySpec("action", (7,)), "ee_delta", 0.05, "benchmark", "be killed")
    return Header(specs, "benchmark", clock="time")


def some_jpeg() -> bytes:
    """As large as a camera's: noise that is blurred a little."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2.0))[1].tobytes()


def record(out: Path, told: Told, jpeg: bytes, episode_s: float, has_camera: bool) -> None:
    """The recorder: goes on until it is killed. Element k of message i of every vector is i + k."""
    numbers = np.arange(20, dtype=np.float64)
    for finished in count():
        begin_ns = time.monotonic_ns()
        told.tell(finished, begin_ns, begin_ns)
        with LogWriter(folder.episode_path(out, folder.next_number(out)), header()) as log:
            pictures = 0
            for at in range(round(episode_s * RATE_HZ)):
                t_ns = time.monotonic_ns()
                log.vector(STATE_TOPIC, t_ns, numbers + at)
                for topic in ACTIONS:
                    log.vector(topic, t_ns, numbers[:7] + at)
                if has_camera and t_ns - begin_ns > pictures * 1e9 / PICTURES_HZ:
                    log.picture(FRONT_TOPIC, t_ns, jpeg)
                    pictures += 1
                told.tell(finished, begin_ns, t_ns)
                time.sleep(max(0.0, (begin_ns - time.monotonic_ns()) / 1e9 + (at + 1) / RATE_HZ))
            log.finish(Result(0, False, False, False, True))


def check(path: Path, jpeg: bytes) -> int:
    """Read an episode back and compare every number; returns the time of its last state."""
    episode = EpisodeReader(path).read()
    for topic in (STATE_TOPIC, *ACTIONS):
        values = episode.channels[topic].values
        expected = np.arange(len(values))[:, None] + np.arange(values.shape[1])
        if not np.array_equal(values, expected):
            raise EpisodeError(f"{path}: {topic} is not what was written.")
    camera = episode.pictures.get(FRONT_TOPIC)
    if camera and any(data != jpeg for data, _ in camera.pictures.encoded()):  # type: ignore[attr-defined]
        raise EpisodeError(f"{path}: a picture is not what was written.")
    return int(episode.channels[STATE_TOPIC].t_ns[-1])


def kill_one(out: Path, after_s: float, jpeg: bytes, tally: Tally, episode_s: float) -> None:
    """One recorder's life and what it leaves."""
    told = Told()
    before = len(folder.finished(out))
    process = os.fork()
    if not process:
        try:
            record(out, told, jpeg, episode_s, has_camera=after_s * 100 % 2 < 1)
        finally:
            os._exit(1)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if not os.WIFSIGNALED(status):
        tally.broken.append(f"a recorder ended by itself with status {status}")
    finished, begin_ns, last_ns = told.read()
    kept = folder.finished(out)[before:]
    if len(kept) not in (finished, finished + 1):  # the one that was just given its name is not told of yet
        tally.broken.append(f"{len(kept)} episodes for {finished} finished ones")
    settle(out, kept, tally, jpeg)
    parts = folder.interrupted(out)
    if len(parts) > 1 or (not parts and len(kept) == finished and last_ns > begin_ns):
        tally.broken.append(f"{len(parts)} unfinished files")
    for part in parts:
        bring_back(part, begin_ns, last_ns, jpeg, tally)


def settle(out: Path, kept: list[Path], tally: Tally, jpeg: bytes) -> None:
    """Compare finished episodes with what was written."""
    for path in kept:
        try:
            check(path, jpeg)
            tally.finished += 1
        except EpisodeError as error:
            tally.broken.append(str(error))


def bring_back(part: Path, begin_ns: int, last_ns: int, jpeg: bytes, tally: Tally) -> None:
    """Make an episode of the running one, and see what it lacks."""
    path = part.with_suffix("")
    try:
        recover(part, path)
        tally.lost_s.append((last_ns - check(path, jpeg)) / 1e9)
        tally.recovered += 1
    except EpisodeError as error:
        tally.lost_s.append((last_ns - begin_ns) / 1e9)
        tally.too_young += 1
        if "was killed at once" not in str(error):
            tally.broken.append(str(error))
        part.unlink(missing_ok=True)


def run(kills: int, episode_s: float) -> Tally:
    """Kill so many recorders; needs a process without threads, for it forks."""
    jpeg, moments, tally = some_jpeg(), random.Random(0), Tally()
    out = Path(tempfile.mkdtemp(prefix="episode-kills-"))
    try:
        for _ in range(kills):
            kill_one(out, moments.uniform(0.05, 3 * episode_s), jpeg, tally, episode_s)
            for path in folder.finished(out):
                path.unlink()
    finally:
        shutil.rmtree(out)
    return tally


def main(kills: int = KILLS, episode_s: float = EPISODE_S) -> None:
    tally = run(kills, episode_s)
    for line in tally.broken:
        print(line, file=sys.stderr)
    emit("episodes: recorders killed", kills, "kills", "higher")
    emit("episodes: finished episodes intact after kill -9", tally.finished, "episodes", "higher")
    emit("episodes: running episodes recovered after kill -9", tally.recovered, "episodes", "higher")
    emit("episodes: running episodes without a chunk yet", tally.too_young, "episodes", "lower")
    emit("episodes: damaged by kill -9", len(tally.broken), "episodes", "lower")
    worst_s, median_s = max(tally.lost_s), statistics.median(tally.lost_s)
    emit("episodes: worst loss by kill -9", worst_s, "s", "lower", against="half a second", other=BAR_S)
    emit("episodes: median loss by kill -9", median_s, "s", "lower", against="half a second", other=BAR_S)
    if tally.broken or worst_s > BAR_S:
        sys.exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(float, sys.argv[2:3]))
