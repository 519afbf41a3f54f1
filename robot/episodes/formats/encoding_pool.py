"""Episodes encoded one after the other, here or in worker processes; what comes out is the same."""

import ctypes
import os
import signal
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from robot import processes
from robot.episodes.formats.encoded import Encoded, encode
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import RowSource
from robot.errors import WorkerError

_PR_SET_PDEATHSIG = 1
WORTH_S = 6.0
"""Workers take seconds to begin: less work than this, as the first episode tells, is done without them."""
AHEAD = 2
"""Episodes that are begun before they are asked for, beyond one for each worker."""


@dataclass(frozen=True)
class Job:
    """What a worker needs for any episode."""

    source: RowSource
    encoding: Encoding
    fps: int
    folder: Path

    def run(self, number: int) -> Encoded:
        """Encode one."""
        return encode(self.source, number, self.encoding, self.fps, self.folder)


def encoded(job: Job, numbers: Sequence[int], workers: int) -> Generator[Encoded, None, None]:
    """The episodes `numbers`, in this order; at most `workers + AHEAD` of them wait in memory.

    Raises:
        ArmatureError: An episode cannot be read or does not fit.
        WorkerError: A worker died.
        OSError: The disk is full.
    """
    workers = min(workers, len(numbers))
    if workers > 1 and WORTH_S:
        began = time.monotonic()
        first = job.run(numbers[0])
        left_s, numbers = (time.monotonic() - began) * (len(numbers) - 1), numbers[1:]
        yield first
        workers = workers if left_s > WORTH_S else 1
    if workers <= 1:
        yield from map(job.run, numbers)
        return
    with processes.started_quietly():
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (job, os.getpid()))
        waiting: deque[Future[Encoded]] = deque()
        left = iter(numbers)
        _submit(pool, waiting, left, workers)  # starts the processes
    try:
        _submit(pool, waiting, left, AHEAD)
        while waiting:
            yield waiting.popleft().result()
            _submit(pool, waiting, left, 1)
    except BrokenProcessPool as error:
        raise WorkerError(
            "A process that encoded an episode died, perhaps for want of memory. Build again with fewer workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_job: Job


def _begin(job: Job, parent: int) -> None:
    """In a worker: remember the job, and die with the parent."""
    global _job
    _job = job
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)  # it died before we asked


def _run(number: int) -> Encoded:
    return _job.run(number)


def _submit(pool: ProcessPoolExecutor, waiting: "deque[Future[Encoded]]", left: Iterator[int], count: int) -> None:
    for _ in range(count):
        number = next(left, None)
        if number is None:
            return
        waiting.append(pool.submit(_run, number))
