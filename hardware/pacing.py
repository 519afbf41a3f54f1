"""A loop's beat: absolute deadlines, whole periods skipped and counted when it is late, and how late it was.

Measured with a 2 ms period while two processes kept both cores busy: `time.sleep`, which is clock_nanosleep with an
absolute deadline since Python 3.11, and clock_nanosleep through ctypes differ by less than two runs of either do.
A final spin of 200 µs takes 8% of a core. Under SCHED_FIFO it brings the lateness from p50 36 µs and p99 75 µs to
0.6 µs and 2 µs; without that priority it makes p99 worse, because it uses up the time that the scheduler allots.
"""

import time

from hardware.histogram import Histogram


class Pacer:
    """Gives the beat of a loop, or listens to the robot's. Two beats are never less than half a period apart.

    With `clock="host"`, `wait` wakes at multiples of a period, CLOCK_MONOTONIC. With `clock="robot"` the driver's
    `read` blocks until the robot's next cycle: `wait` returns at once, and `arrived`, called after `read`, compares the
    robot's beat with its period. A robot that beats no more is the driver's to notice: its `read` raises `DeviceError`.

    Attributes:
        period_ns: Of the beat [ns].
        lateness: How long after their time cycles began.
        busy: How long they took.
        overruns: How often periods were skipped, because a cycle took too long or began too late.
        skipped: How many periods.
        gap_ns: From the last beat but one to the last [ns], including the time that the machine was suspended; 0 after
            `restart`. Much more than a period: the process was stopped, and what was planned before is not to go on.
    """

    def __init__(self, rate_hz: float, clock: str = "host", spin_us: int = 0) -> None:
        """Begin now.

        Args:
            rate_hz: Beats a second.
            clock: `host` or `robot`, as in `ArmSpecs`.
            spin_us: End of every wait that is spent awake [µs]; costs that share of a core.
        """
        self.period_ns = round(1e9 / rate_hz)
        self.lateness, self.busy = Histogram(), Histogram()
        self.overruns = self.skipped = self.gap_ns = 0
        self._is_robots, self._spin_ns = clock == "robot", 1000 * spin_us
        self.restart()

    def restart(self) -> None:
        """Begin a new beat now; after something that is allowed to take long."""
        self._began_ns = self._due_ns = time.monotonic_ns()
        self._beat_ns = _with_suspension_ns()
        self.gap_ns = 0

    def wait(self) -> int:
        """Sleep until the next beat, if it is ours to give; the time at which this thread woke [ns]."""
        now = time.monotonic_ns()
        self.busy.add(now - self._began_ns)
        if self._is_robots:
            return now
        self._due_ns += self.period_ns
        # After a late beat the next one may be due right away. It is left out: cycles that follow each other closely
        # would send an arm two targets at once.
        earliest = max(now, self._began_ns + self.period_ns // 2)
        if earliest > self._due_ns:
            self._skip(-(-(earliest - self._due_ns) // self.period_ns))
        if (left := self._due_ns - self._spin_ns - now) > 0:
            time.sleep(left / 1e9)
        while (now := time.monotonic_ns()) < self._due_ns:
            pass
        self._begin(now)
        return now

    def arrived(self, woke_ns: int) -> int:
        """Call it when `read` has returned; the time at which this cycle began [ns], `woke_ns` if the beat is ours."""
        if self._is_robots:
            woke_ns = now = time.monotonic_ns()
            self._due_ns += self.period_ns
            self._begin(now)
            if (late := now - self._due_ns) >= self.period_ns:
                self._skip(late // self.period_ns)
            # The robot's clock is not ours: what comes early is punctual, and a slow drift is followed.
            self._due_ns += min(now - self._due_ns, (now - self._due_ns) // 64)
        return woke_ns

    def _begin(self, now: int) -> None:
        self._began_ns = now
        self.lateness.add(now - self._due_ns)
        beat = _with_suspension_ns()
        self.gap_ns, self._beat_ns = beat - self._beat_ns, beat

    def _skip(self, periods: int) -> None:
        self._due_ns += periods * self.period_ns
        self.overruns += 1
        self.skipped += periods


def _with_suspension_ns() -> int:
    """CLOCK_MONOTONIC stands still while the machine sleeps, CLOCK_BOOTTIME does not [ns]."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
