"""A loop's beat: absolute deadlines, how late it was, and the privileges that make it less late."""

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Callable

import numpy as np

BIN_US = 5
"""Width of a bin of the lateness histogram [µs]."""
_BINS = 8000
_PR_SET_TIMERSLACK = 29
_MCL_CURRENT = 1


class Histogram:
    """Durations in fixed bins; adding allocates nothing."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS + 1, np.int64)
        self._max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration [ns]; negative ones count as zero."""
        self._counts[min(max(duration_ns, 0) // (1000 * BIN_US), _BINS)] += 1
        self._max_ns = max(self._max_ns, duration_ns)

    def percentile_us(self, percent: float) -> float:
        """Upper edge of the bin that holds the percentile [µs], at most the maximum; 0 without samples."""
        cumulated = self._counts.cumsum()
        if not cumulated[-1]:
            return 0.0
        at = int(np.searchsorted(cumulated, np.ceil(percent / 100 * cumulated[-1])))
        return self.max_us if at == _BINS else min((at + 1.0) * BIN_US, self.max_us)

    @property
    def max_us(self) -> float:
        """Longest duration [µs]."""
        return self._max_ns / 1000

    @property
    def count(self) -> int:
        """Number of durations."""
        return int(self._counts.sum())


class Pacer:
    """Wakes at multiples of a period, CLOCK_MONOTONIC. After an overrun it skips whole periods: it never catches up."""

    def __init__(self, rate_hz: float) -> None:
        self.period_ns = round(1e9 / rate_hz)
        self.lateness, self.busy = Histogram(), Histogram()
        self.overruns = self.skipped = 0
        self.restart()

    def restart(self) -> None:
        """Begin a new beat now; after something that is allowed to take long."""
        self._woke_ns = self._deadline_ns = time.monotonic_ns()

    def wait(self) -> int:
        """Sleep until the next deadline; the time at which this thread woke [ns]."""
        now = time.monotonic_ns()
        self.busy.add(now - self._woke_ns)
        self._deadline_ns += self.period_ns
        if now >= self._deadline_ns:
            missed = (now - self._deadline_ns) // self.period_ns + 1
            self._deadline_ns += missed * self.period_ns
            self.overruns += 1
            self.skipped += missed
        # From Python 3.11 on this is clock_nanosleep with an absolute time, so that it does not drift.
        time.sleep((self._deadline_ns - now) / 1e9)
        self._woke_ns = time.monotonic_ns()
        self.lateness.add(self._woke_ns - self._deadline_ns)
        return self._woke_ns


def become_real_time(priority: int, core: int) -> list[str]:
    """Ask for what a control loop wants: FIFO scheduling, a core of its own, locked memory, no garbage collection.

    Args:
        priority: SCHED_FIFO priority, 1 to 99; 0 does not ask.
        core: Core to stay on; -1 for any.

    Returns:
        One sentence for everything that was not granted, with the fix. The loop runs without it, only later at times.
    """
    notes = []
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(AttributeError):
        libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if priority > 0 and not _granted(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))):
        notes.append(
            "No real-time priority: add '@realtime - rtprio 99' and '@realtime - memlock unlimited' to "
            "/etc/security/limits.conf, put this user into the group 'realtime', and log in again."
        )
    if core >= 0 and not _granted(lambda: os.sched_setaffinity(0, {core})):
        notes.append(f"Cannot stay on core {core}: this process may use {sorted(os.sched_getaffinity(0))}.")
    if priority > 0 and libc.mlockall(_MCL_CURRENT) != 0 and not notes:
        notes.append("Memory is not locked: add '@realtime - memlock unlimited' to /etc/security/limits.conf.")
    gc.collect()
    gc.freeze()
    gc.disable()
    return notes


def _granted(ask: Callable[[], None]) -> bool:
    try:
        ask()
    except (OSError, AttributeError):
        return False
    return True
