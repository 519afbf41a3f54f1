"""What processes that work together share: a quiet start, nameless memory, words for a parent and about an end."""

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
STOP_S = 5.0
"""How long a process is given to end."""


@contextmanager
def started_quietly() -> Iterator[None]:
    """A process that is started here leaves Ctrl-C to us and computes in one thread; both are inherited.

    Only the main thread may change what Ctrl-C does; a process that another thread starts ignores it by itself.
    """
    before = {key: os.environ.get(key) for key in ONE_THREAD}
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if is_main else None
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def cause_of_end(process: BaseProcess) -> str:
    """How a process ended that has gone silent: `signal SIGKILL`, `status 1`; waits a little until it has."""
    process.join(STOP_S)
    code = process.exitcode
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"status {code}"


def end(process: BaseProcess) -> None:
    """Make sure that a process is gone."""
    process.join(STOP_S)
    if process.is_alive():
        process.kill()
        process.join()


def anonymous_memory(name: str) -> int:
    """File descriptor of empty memory that other processes map: nothing is left behind however anybody dies.

    Args:
        name: Shown in `/proc`, need not be unique.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def tell(message: dict[str, Any]) -> None:
    """Print one line of JSON for the parent, which may be gone."""
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        # Python would fail again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
