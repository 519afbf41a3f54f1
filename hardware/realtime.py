"""The real-time process: one arm, one loop, no sockets. Started by the gateway, ends with it.

It talks to its parent over shared memory, and over standard output at two moments only: before the loop begins (what
the arm is) and after it has ended (how punctual the loop was).
"""

import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from hardware.arms import build, from_json, model_path
from hardware.cycle import Cycle
from hardware.pacing import Pacer
from hardware.privileges import become_real_time
from hardware.shared_memory import STATE_CAPACITY, SharedMemory, Word
from robot.bridge.schema import arm_specs_to_json, state_layout
from robot.contract import Arm
from robot.errors import ArmatureError, BridgeError, DeviceError
from robot.processes import tell

WARM_UP_CYCLES = 50
REST_NS = 1_000_000_000
"""Longest time in which the loop brings the arm to rest before it ends; the driver's own stop comes after it."""


def main(arguments: list[str]) -> int:
    """Run one arm until the gateway says so or is gone.

    Args:
        arguments: File descriptors of the shared memory and of the eventfd that wakes the gateway, and JSON with
            `arm`, `env`, `priority`, `core`, `spin_us`.
    """
    stop = _StopOnSignal()
    memory, settings = SharedMemory(int(arguments[0])), json.loads(arguments[2])
    memory.states.wake_fd = int(arguments[1])
    try:
        config, env = from_json(settings)
        arm, limits = build(config, env)
        arm.open()
    except ArmatureError as error:
        tell({"error": str(error), "kind": type(error).__name__})
        return 1
    try:
        pacer = Pacer(arm.specs.rate_hz, arm.specs.clock, settings["spin_us"])
        cycle = Cycle(arm, limits, memory, pacer, model_path(config))
        _fits(arm)
        _warm_up(arm)
        granted = become_real_time(settings["priority"], settings["core"])
        notes = [granted.note] if granted.note else []
        tell({"arm": arm_specs_to_json(arm.specs), "limits": limits.to_json(), "notes": notes})
        reason = _loop(cycle, pacer, memory, stop, int(limits.gateway_timeout_s * 1e9))
    except ArmatureError as error:
        tell({"error": str(error), "kind": type(error).__name__})
        return 1
    finally:
        _end(arm)
    tell(_report(pacer, reason))
    return 0


def _loop(cycle: Cycle, pacer: Pacer, memory: SharedMemory, stop: "_StopOnSignal", timeout_ns: int) -> str:
    """Run cycles until something ends them; says what."""
    parent, words = os.getppid(), memory.words
    words[Word.GATEWAY_ALIVE_NS] = time.monotonic_ns()
    pacer.restart()
    reason = ""
    while not reason:
        now_ns = pacer.wait()
        if os.getppid() != parent:
            reason = "the gateway is gone"
        elif now_ns - int(words[Word.GATEWAY_ALIVE_NS]) > timeout_ns:
            reason = "the gateway is silent"
        elif stop.requested or words[Word.SHUTDOWN]:
            reason = "asked to"
        else:
            cycle.run(now_ns)
            if cycle.complaint:
                # The arm stands; what its driver has to say is for whoever looks at this terminal.
                print(f"The arm has failed: {cycle.complaint}", file=sys.stderr, flush=True)
                cycle.complaint = ""
    # Whatever it is, the arm slows down inside its limits first.
    cycle.come_to_rest(now_ns)
    until_ns = now_ns + REST_NS
    while not cycle.is_at_rest and now_ns < until_ns:
        cycle.run(now_ns)
        now_ns = pacer.wait()
    return reason


def _end(arm: Arm) -> None:
    """Stop and close, and say so if the arm does not confirm it."""
    try:
        arm.stop()
    except DeviceError as error:
        print(f"The arm has not confirmed that it stands. Look at it. {error}", file=sys.stderr, flush=True)
    finally:
        arm.close()


class _StopOnSignal:
    """SIGINT and SIGTERM set a flag that the loop sees; a second one changes nothing, so that a stop is never cut."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, *_: Any) -> None:
        self.requested = True


def _fits(arm: Arm) -> None:
    size = state_layout(arm.specs).size
    if size > STATE_CAPACITY:
        raise BridgeError(f"The arm's state has {size} numbers, the shared memory holds {STATE_CAPACITY}.")


def _warm_up(arm: Arm) -> None:
    """Touch every page and compile every function before anything depends on time; the arm holds its pose."""
    state = np.zeros(arm.specs.state.size)
    for _ in range(WARM_UP_CYCLES):
        arm.read(state)
    arm.stop()


def _report(pacer: Pacer, reason: str) -> dict[str, Any]:
    return {
        "ended": reason,
        "cycles": pacer.lateness.count,
        "late_p50_us": pacer.lateness.percentile_us(50),
        "late_p99_us": pacer.lateness.percentile_us(99),
        "late_p999_us": pacer.lateness.percentile_us(99.9),
        "late_max_us": pacer.lateness.max_us,
        "late_rows": pacer.lateness.rows(),
        "busy_p50_us": pacer.busy.percentile_us(50),
        "busy_p99_us": pacer.busy.percentile_us(99),
        "overruns": pacer.overruns,
        "skipped_periods": pacer.skipped,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
