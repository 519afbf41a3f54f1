"""A real-time process that was stopped for a while does not go on as if nothing had happened."""

import os
import signal
import time

import numpy as np
import pytest

from robot.bridge.schema import Mode
from robot.contract import ActionChunk
from robot.control.plan import Reject
from tests.hardware.test_bridge import DT_S, UP, children, running, settle


@pytest.mark.slow
def test_a_loop_that_was_away_brakes_and_wants_to_be_armed_again() -> None:
    with running() as bridge, bridge.client("driver") as client:
        client.acquire()
        client.home(0)
        client.arm()
        # A second of motion is planned: without the gap it would be followed to its end.
        client.send_chunk(ActionChunk(np.repeat(UP, 20, axis=0), DT_S), client.now_ns())
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            assert client.state().mode == Mode.ARMED
        (pid,) = children(bridge.process)
        # A session of its own, so that the scheduler does not let it share its part of a core with its terminal's.
        assert os.getsid(pid) == pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(pid, signal.SIGCONT)
        state = settle(client, Mode.BRAKING, Mode.DISARMED, within_s=0.5)
        begin = state.values["ee_pos"].copy()
        state = settle(client, Mode.DISARMED, within_s=0.5)
        assert np.abs(state.values["dq"]).max() < 0.05
        # 0.3 m/s for as long as braking takes, at most; the rest of the plan would have led 0.6 m up.
        assert np.linalg.norm(state.values["ee_pos"] - begin) < 0.04
        rejected = state.status("rejected")
        client.send_chunk(ActionChunk(UP, DT_S), client.now_ns())
        until = time.monotonic() + 1
        while state.status("rejected") == rejected and time.monotonic() < until:
            state = client.state()
        assert state.status("reject") == Reject.NOT_ARMED
        assert state.status("skipped_periods") >= 90
        client.arm()
        assert client.state().mode in (Mode.ARMED, Mode.DISARMED)
        settle(client, Mode.ARMED, within_s=0.5)
