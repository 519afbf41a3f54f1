"""A whole bridge in one process around an arm that acts late by as much as is asked for: a stand-in for real delays.

python -m tests.hardware.delayed_bridge '{"arm_s": 0.04, "lag_s": 0.03}'
"""

import json
import os
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np

from hardware.arms import ArmConfig
from hardware.cameras.fleet import Fleet, surroundings
from hardware.cycle import Cycle
from hardware.fake import LAG_S, FakeArm
from hardware.gateway import Gateway, Listen
from hardware.pacing import Pacer
from hardware.shared_memory import SharedMemory
from robot.control.action_spaces import spec
from robot.control.plan import Plan
from robot.sim.config import EnvConfig
from tests.hardware.cameras.settings import fake
from tests.hardware.settings import limits, settings


class LateArm(FakeArm):
    """Follows what was written some time ago, or not at all; takes deltas or poses."""

    def __init__(self, config: ArmConfig, env: EnvConfig, delay_s: float, space: str, is_stuck: bool) -> None:
        super().__init__(config, env)
        environment = replace(self.specs.environment, action=spec(space), action_space=space)
        self.specs = replace(self.specs, environment=environment)
        self._delay_ns = round(delay_s * 1e9)
        self._late: deque[tuple[int, np.ndarray]] = deque()
        self._is_stuck = is_stuck
        self._at_ns = time.monotonic_ns()

    def _follow(self) -> None:
        # By the time that has passed, not by periods: a busy machine skips some, and no arm waits for that.
        now_ns = time.monotonic_ns()
        while self._late and (due_ns := self._late[0][0] + self._delay_ns) <= now_ns:
            self._advance(due_ns)
            self._target[:] = self._late.popleft()[1]
        self._advance(now_ns)

    def _advance(self, until_ns: int) -> None:
        passed_s = max(1, until_ns - self._at_ns) / 1e9
        self._at_ns, self._part, self._rate_hz = until_ns, 1.0 - np.exp(-passed_s / LAG_S), 1.0 / passed_s
        super()._follow()

    def write(self, target: np.ndarray) -> None:
        if not self._is_stuck:
            self._late.append((time.monotonic_ns(), target.copy()))


def delay_rows(plan: Plan, delay_ns: int) -> None:
    """Let every row begin later than it was to."""
    add = plan.add
    plan.add = lambda number, t0_ns, *rest: add(number, t0_ns + delay_ns, *rest)  # type: ignore[method-assign]


def main(options: dict[str, Any]) -> None:
    # The loop and the gateway share this process; neither is to wait long for the other.
    sys.setswitchinterval(0.0005)
    chosen = settings("arm=fake")
    # Not what is tested here: a machine that is busy with other tests may be away for longer than a robot's may.
    patient = limits("fake", silence_s=1.0, gateway_timeout_s=2.0)
    space, is_stuck = options.get("space", "ee_delta"), bool(options.get("stuck"))
    arm = LateArm(chosen.arm, chosen.env, options.get("arm_s", 0.0), space, is_stuck)
    arm.open()
    memory = SharedMemory.create()
    memory.states.wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
    gateway = Gateway(arm.specs, patient, memory, Listen("127.0.0.1"), 2.0)
    shows = "pattern" if options.get("blind") else "arm"
    cameras = {"front": fake(width=320, height=240, fps=60.0, shows=shows, lag_s=options["lag_s"])}
    fleet = Fleet(cameras, surroundings(gateway.schema, memory, {"front": "tcp://127.0.0.1:*"}, ""))
    pacer = Pacer(arm.specs.rate_hz)
    cycle = Cycle(arm, patient, memory, pacer)
    delay_rows(cycle._plan, round(options.get("plan_s", 0.0) * 1e9))
    over = threading.Event()
    try:
        fleet.wait(lambda: False)
        gateway.schema.images.update(fleet.streams)
        server = threading.Thread(target=gateway.serve, args=(250, over.is_set))
        server.start()
        print(gateway.schema.endpoints["control"], flush=True)
        ended = threading.Thread(target=lambda: (sys.stdin.read(), over.set()))
        ended.start()
        pacer.restart()
        while not over.is_set():
            cycle.run(pacer.wait())
        server.join()
    finally:
        fleet.end()
        gateway.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
