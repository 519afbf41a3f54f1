"""What recording a bridge costs: 500 Hz of state and two 640 x 480 cameras at 30 Hz, in one core, dropping nothing.

The bridge, its arm and cameras (fake ones), and a client that drives run in processes of their own; this process does
what `armature record source=bridge` does, and only it is counted. Once the cameras send JPEGs, which are kept as they
are, and once raw pixels, which are encoded here. What was dropped or lost is counted by the recorder and again from the
file. Prints a JSON object a line; `--seconds` is the length of each of the two (300).
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.sim import emit
from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.schema import INDEX, Mode
from robot.contract import ActionChunk
from robot.control.latency import Latency
from robot.episodes.bridge_feed import BridgeFeed
from robot.episodes.bridge_log import STATUS_TOPIC, Sight, header
from robot.episodes.bridge_session import KEYS, Rules, Session
from robot.episodes.episode import Episode
from robot.episodes.log import LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.pictures import Encoding
from robot.episodes.recorder import DROPPED, Recorder
from robot.errors import ArmatureError, BridgeError

SECONDS = 300.0
STATE_HZ, FPS, CAMERAS = 500, 30, ("front", "wrist")
DT_S, ROWS = 0.05, 16
QUALITY = 98
"""Of the cameras' JPEGs: makes what a fake camera shows, which is smooth, as long as a photograph, 70 kB."""
SHORT = 0.98
"""A source that gave less than this part of what it should has measured something else."""


class TimedRecorder(Recorder):
    """Notes how long each vector keeps its caller."""

    def __init__(self, path: Path, client: BridgeClient, state: BridgeState, room: int) -> None:
        opened = partial(LogWriter, encoding=Encoding(fps=FPS))
        begun = header(client, state, Sight(CAMERAS, {}, Latency.none()), "")
        self.took_ns, self.calls = np.zeros(room, np.int64), 0
        super().__init__(path, begun, open_log=opened)

    def vector(self, topic: str, t_ns: int, values: np.ndarray) -> bool:
        """As the recorder does."""
        begin_ns = time.perf_counter_ns()
        done = super().vector(topic, t_ns, values)
        if self.calls < len(self.took_ns):
            self.took_ns[self.calls] = time.perf_counter_ns() - begin_ns
            self.calls += 1
        return done


def main() -> None:
    """Record twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--drive", default="", help=argparse.SUPPRESS)
    arguments, _ = parser.parse_known_args()
    if arguments.drive:
        drive(arguments.drive)
        return
    for encoding in ("jpeg", "raw"):
        with bridged(encoding) as endpoint, tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            record(endpoint, encoding, Path(folder), arguments.seconds)


@contextlib.contextmanager
def bridged(encoding: str) -> Iterator[str]:
    """Address of a bridge with two cameras that somebody drives."""
    cameras = [
        f"cameras.{name}.{key}"
        for name in CAMERAS
        for key in (f"encoding={encoding}", f"fps={FPS}", f"quality={QUALITY}")
    ]
    chosen = f"cameras=[{','.join(f'{name}:fake' for name in CAMERAS)}]"
    arm = ["arm=fake", f"state_hz={STATE_HZ}", "arm.limits.silence_s=0.5", "port=0"]
    command = [sys.executable, "-m", "robot.cli", "bridge", *arm, chosen, *cameras]
    with started(command, subprocess.PIPE) as bridge:
        assert bridge.stdout is not None
        found = re.match(r"Ready: (\S+) holds", bridge.stdout.readline())
        if found is None:
            raise BridgeError("The bridge of the benchmark did not start.")
        with started([sys.executable, "-m", "benchmarks.episode_recording", "--drive", found[1]], None):
            yield found[1]


@contextlib.contextmanager
def started(command: list[str], out: int | None) -> Iterator[subprocess.Popen[str]]:
    """A process with one thread of linear algebra, which ends with the block."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(command, stdout=out, text=True, env={**os.environ, **threads}, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def drive(endpoint: str) -> None:
    """Send chunks as a policy does, until Ctrl-C."""
    rng = np.random.default_rng(0)
    with contextlib.suppress(KeyboardInterrupt, ArmatureError), BridgeClient(endpoint, "driver") as client:
        client.acquire()
        client.home(0)
        client.arm()
        sent_ns = 0
        while True:
            state = client.state()
            if state.t_ns - sent_ns > DT_S * ROWS / 2 * 1e9:
                sent_ns = state.t_ns
                client.tell_device(np.zeros(7))
                client.send_chunk(ActionChunk(rng.uniform(-0.1, 0.1, (ROWS, 7)), DT_S), client.now_ns())
            time.sleep(0.005)


def record(endpoint: str, encoding: str, folder: Path, seconds: float) -> None:
    """Record one episode and print what it cost."""
    path = folder / "episode-000000.mcap"
    recorders: list[TimedRecorder] = []
    with BridgeClient(endpoint, "record") as client:

        def open_next(state: BridgeState) -> tuple[int, Recorder]:
            recorders.append(TimedRecorder(path, client, state, int(20 * STATE_HZ * (seconds + 5))))
            return 0, recorders[0]

        session = Session(client.schema, Rules(KEYS, 0.0, 1, CAMERAS), open_next)
        with BridgeFeed(client, CAMERAS, session) as feed:
            feed.wait(5.0)
            while client.state().mode != Mode.ARMED:
                pass
            time.sleep(1.0)
            session.begin()
            cpu_s, begin_s = time.process_time(), time.monotonic()
            deepest = 0
            while time.monotonic() - begin_s < seconds:
                time.sleep(0.1)
                client.state()
                feed.check()
                if recorders:
                    deepest = max(deepest, sum(count.depth for count in recorders[0].counts().values()))
            session.end(label=True)
            cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - begin_s
            while not session.ended:
                time.sleep(0.01)
            session.ended.popleft().finish()
    counts = recorders[0].counts()
    lost = sum(count.dropped + count.missing for count in counts.values())
    took_ns = recorders[0].took_ns[: recorders[0].calls]
    name = f"recording {encoding}"
    one_core = {"against": "one core", "other": 1.0}
    emit(f"{name}: processor", cpu_s / wall_s, "core", "lower", **one_core)
    emit(f"{name}: dropped or lost", float(lost), "items", "lower")
    emit(f"{name}: deepest queue", float(deepest), "items", "lower")
    emit(f"{name}: caller waits p99", float(np.percentile(took_ns, 99)) / 1000, "us", "lower")
    emit(f"{name}: caller waits longest", float(took_ns.max()) / 1000, "us", "lower")
    emit(f"{name}: written", path.stat().st_size / wall_s / 1e6, "MB/s", "lower")
    verify(EpisodeReader(path).read(), name, wall_s)


def verify(episode: Episode, name: str, seconds: float) -> None:
    """Count in the file: what is missing, and whether the sources gave what they were asked for."""
    status = episode.channels[STATUS_TOPIC]
    missing = int((np.diff(status.values[:, INDEX["cycle"]]) - 1).sum())
    missing += sum(int(event.data["count"]) for event in episode.events if event.name == DROPPED)
    emit(f"{name}: missing in the file", float(missing), "items", "lower")
    emit(f"{name}: states", len(status.t_ns) / seconds, "Hz", "higher", against="asked for", other=float(STATE_HZ))
    for topic, channel in episode.pictures.items():
        rate = len(channel.t_ns) / seconds
        emit(f"{name}: {topic}", rate, "Hz", "higher", against="asked for", other=float(FPS))
        if rate < SHORT * FPS:
            print(f"{topic} came at {rate:.1f} Hz only: this machine is too busy for the sources.", file=sys.stderr)


if __name__ == "__main__":
    main()
