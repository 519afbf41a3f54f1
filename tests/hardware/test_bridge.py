"""The whole bridge as a user starts it, on a fake arm: processes, sockets, signals, kills."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.schema import Mode, Priority
from robot.bridge.wire import Frame, FrameType, chunk_payload, decode, encode, pack
from robot.contract import ActionChunk
from robot.control.plan import Reject
from robot.control.safety import Fault
from robot.errors import BridgeError, LeaseError
from tests.hardware.settings import limits

UP = np.array([[0, 0, 0.4, 0, 0, 0, 0]])
DT_S = 0.05
SILENCE_S = 0.3
"""Of the bridge that most tests share: where machines are busy, a test may be away for longer than 0.1 s."""


def start(*overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "robot.cli", "bridge", "arm=fake", *overrides]
    # A group of its own, so that a signal to all of it is what Ctrl-C in a terminal is.
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], within_s: float = 3.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.01)
    return False


class Running:
    def __init__(self, process: subprocess.Popen[str], endpoint: str) -> None:
        self.process, self.endpoint = process, endpoint

    def client(self, name: str = "test", **keywords: Any) -> BridgeClient:
        return BridgeClient(self.endpoint, name, **keywords)


@contextmanager
def running(*overrides: str) -> Iterator[Running]:
    process = start("port=0", *overrides)
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        found = re.match(r"Ready: (\S+) holds Fake", ready)
        assert found, ready
        yield Running(process, found[1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=15)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Running]:
    with running(f"arm.limits.silence_s={SILENCE_S}") as up:
        yield up


@pytest.fixture
def driver(bridge: Running) -> Iterator[BridgeClient]:
    """A client with the lease, the arm at home and armed."""
    with bridge.client("driver") as client:
        client.acquire()
        client.home(0)
        client.arm()
        yield client
        client.stop()
        settle(client, Mode.DISARMED)


def settle(client: BridgeClient, *modes: Mode, within_s: float = 3.0) -> BridgeState:
    until = time.monotonic() + within_s
    state = client.state()
    while state.mode not in modes and time.monotonic() < until:
        state = client.state()
    assert state.mode in modes
    return state


def stay(client: BridgeClient, seconds: float) -> BridgeState:
    """Show signs of life for a while."""
    until = time.monotonic() + seconds
    state = client.state()
    while time.monotonic() < until:
        state = client.state()
    return state


def drive(client: BridgeClient, seconds: float) -> BridgeState:
    state = client.state()
    for _ in range(round(seconds / DT_S)):
        client.send_chunk(ActionChunk(UP, DT_S), client.now_ns())
        time.sleep(DT_S)
        state = client.state()
    return state


def test_drives_and_reports(driver: BridgeClient) -> None:
    begin = driver.state()
    end = drive(driver, 0.5)
    assert end.values["ee_pos"][2] > begin.values["ee_pos"][2] + 0.01
    assert end.status("last_sequence") == end.status("applied_sequence") == 10
    assert end.status("rejected") == begin.status("rejected")
    assert end.status("clamped") == begin.status("clamped")
    assert end.status("lease") == driver.public_id
    assert 0 < end.status("late_p50_us") <= end.status("late_p99_us") <= end.status("late_max_us")
    observation = end.observation()
    assert observation["observation.state"].dtype == np.float32
    driver.schema.arm.environment.observation["observation.state"].validate(observation["observation.state"])


def test_the_limits_at_hello_are_those_in_force(bridge: Running) -> None:
    with bridge.client() as client:
        assert client.schema.limits == limits(silence_s=SILENCE_S)
        assert client.schema.endpoints["control"] == bridge.endpoint


def test_clock_offset_is_nothing_on_one_machine(driver: BridgeClient) -> None:
    assert abs(driver.offset_ns) <= driver.uncertainty_ns + 1000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonsense_is_refused_on_both_sides(driver: BridgeClient, bad: float) -> None:
    before = driver.state()
    rows = UP.copy()
    rows[0, 2] = bad
    with pytest.raises(BridgeError, match="not finite"):
        driver.send_chunk(ActionChunk(rows, DT_S), driver.now_ns())
    driver._sequence += 1
    driver._send(FrameType.CHUNK, chunk_payload(rows, DT_S), driver.now_ns())
    time.sleep(0.05)
    after = driver.state()
    assert after.status("refused") == before.status("refused") + 1
    assert after.status("refusal") == Reject.NOT_FINITE
    np.testing.assert_allclose(after.values["ee_pos"], before.values["ee_pos"], atol=1e-6)


@pytest.mark.parametrize(
    ("offset_s", "reason"), [(-0.2, Reject.TOO_LATE), (1.5, Reject.TOO_FAR_AHEAD), (None, Reject.SEQUENCE)]
)
def test_late_early_and_replayed_chunks_are_rejected(
    driver: BridgeClient, offset_s: float | None, reason: Reject
) -> None:
    driver.send_chunk(ActionChunk(UP, DT_S), driver.now_ns())
    if offset_s is None:
        driver._sequence -= 1
    driver.send_chunk(ActionChunk(UP, DT_S), driver.now_ns() + round((offset_s or 0) * 1e9))
    time.sleep(0.05)
    assert driver.state().status("reject") == reason


def test_without_the_lease_nothing_moves(bridge: Running) -> None:
    with bridge.client("stranger") as client:
        before = client.state()
        for request in (client.arm, lambda: client.home(0)):
            with pytest.raises(LeaseError):
                request()
        client.send_chunk(ActionChunk(UP, DT_S), client.now_ns())
        time.sleep(0.05)
        after = client.state()
        assert after.status("refused") == before.status("refused") + 1
        assert after.status("refusal") == Reject.NO_LEASE
        np.testing.assert_allclose(after.values["ee_pos"], before.values["ee_pos"], atol=1e-9)


def test_a_second_client_is_told_who_drives_and_may_stop(bridge: Running, driver: BridgeClient) -> None:
    with bridge.client("second") as second:
        with pytest.raises(LeaseError, match="BUSY: 'driver'"):
            second.acquire()
        driver.send_chunk(ActionChunk(np.repeat(UP, 10, axis=0), DT_S), driver.now_ns())
        second.stop()
        settle(driver, Mode.BRAKING, Mode.DISARMED)


def test_estop_by_anybody_reset_by_the_holder(bridge: Running, driver: BridgeClient) -> None:
    driver.send_chunk(ActionChunk(np.repeat(UP, 10, axis=0), DT_S), driver.now_ns())
    with bridge.client("second") as second:
        begin = time.monotonic()
        second.estop()
        assert time.monotonic() - begin < 0.5
        assert settle(driver, Mode.FAULT).status("fault") == Fault.ESTOP
        with pytest.raises(LeaseError, match="holder"):
            second.reset()
    with pytest.raises(BridgeError, match="e-stop"):
        driver.arm()
    driver.reset()
    assert settle(driver, Mode.DISARMED).status("fault") == Fault.NONE
    driver.arm()


def test_a_hand_takes_over_in_motion_and_the_arm_stays_armed(bridge: Running, driver: BridgeClient) -> None:
    rows = np.repeat(UP, 20, axis=0)
    driver.send_chunk(ActionChunk(rows, DT_S), driver.now_ns())
    stay(driver, 0.2)
    with bridge.client("hand", priority=Priority.TELEOP) as hand:
        with pytest.raises(LeaseError, match="BUSY: 'driver' drives the arm, which moves"):
            hand.acquire()
        assert driver.state().mode == Mode.ARMED
        hand.acquire(blend=True)
        with pytest.raises(LeaseError, match="'hand' has taken the arm over"):
            stay(driver, 0.5)
        hand.send_chunk(ActionChunk(rows, DT_S), hand.now_ns())
        end = stay(hand, 0.2)
        assert end.mode == Mode.ARMED
        assert end.status("lease") == hand.public_id
        assert end.status("lease_priority") == Priority.TELEOP
        assert end.status("applied_sequence") == 1
        assert np.abs(end.values["dq"]).max() > 0.02


def test_homing_needs_standstill(driver: BridgeClient) -> None:
    driver.send_chunk(ActionChunk(np.repeat(UP, 10, axis=0), DT_S), driver.now_ns())
    time.sleep(0.1)
    with pytest.raises(BridgeError, match="moves"):
        driver.home(0)


def test_the_end_of_commands_is_a_stop_within_the_bound(driver: BridgeClient) -> None:
    driver.send_chunk(ActionChunk(np.repeat(UP, 4, axis=0), DT_S), driver.now_ns())
    stay(driver, 0.2)
    end = time.monotonic()
    speeds = []
    while time.monotonic() - end < 0.5:
        state = driver.state()
        speeds.append((time.monotonic() - end, float(np.abs(state.values["dq"]).max())))
    assert max(speed for t, speed in speeds if t < 0.03) > 0.02
    # 75 ms of hold, 100 ms of braking, and some for a loaded machine.
    assert all(speed < 0.01 for t, speed in speeds if t > 0.25)
    assert driver.state().mode == Mode.ARMED


def test_a_repeated_request_is_answered_and_not_repeated(bridge: Running, driver: BridgeClient) -> None:
    driver.stop()
    settle(driver, Mode.DISARMED)
    before = driver.state().status("scene")
    driver._requests += 1
    frame = Frame(
        FrameType.REQUEST, pack({"op": "home", "seed": 3}), driver._boot_id, driver._session, driver._requests, 1
    )
    answers = []
    for _ in range(3):
        dealer = zmq.Context.instance().socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(bridge.endpoint)
        dealer.send(encode(frame))
        assert dealer.poll(2000)
        answers.append(decode(dealer.recv()).message()["ok"])
        dealer.close()
    assert answers == [True] * 3
    assert driver.state().status("scene") == before + 1


def test_rubbish_on_every_channel_is_counted_and_survived(bridge: Running, driver: BridgeClient) -> None:
    before = driver.state().status("refused")
    rng = np.random.default_rng(0)
    for channel in ("control", "command", "estop"):
        dealer = zmq.Context.instance().socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 200)
        dealer.connect(driver.schema.endpoints[channel])
        for size in (0, 1, 63, 64, 200, 5000):
            dealer.send(rng.bytes(size))
            dealer.send_multipart([rng.bytes(size), b"", rng.bytes(3)])
        good = encode(Frame(FrameType.REQUEST, pack({"op": "fly"}), driver._boot_id, 5, 1))
        dealer.send(good)
        dealer.close()
    after = stay(driver, 0.2)
    assert after.status("refused") == before + 26
    counters = driver.counters()
    assert counters["too short"] >= 9
    assert counters["magic"] >= 9
    assert counters["length"] >= 18
    assert counters["session"] >= 1
    assert after.mode == Mode.ARMED
    assert drive(driver, 0.2).mode == Mode.ARMED


def test_unknown_requests_are_named(driver: BridgeClient) -> None:
    with pytest.raises(BridgeError, match="Available: hello, clock, counters, holder, lease"):
        driver._request("fly")


def test_a_policy_for_something_else_is_refused_with_the_difference(driver: BridgeClient) -> None:
    environment = driver.schema.arm.environment
    driver.schema.require(environment)
    state = environment.observation["observation.state"]
    other = replace(
        environment,
        robot="Panda",
        dt_s=0.1,
        observation={"observation.state": replace(state, shape=(3,), names=("a", "b", "c")), "observation.x": state},
    )
    with pytest.raises(BridgeError) as caught:
        driver.schema.require(other)
    text = str(caught.value)
    for part in ("robot is Fake", "dt_s", "observation.x: missing", "shape is (18,), expected (3,)"):
        assert part in text


def test_silence_of_the_holder_disarms(bridge: Running) -> None:
    with bridge.client("silent") as client:
        client.acquire(ttl_s=0.2)
        client.home(0)
        client.arm()
        client._has_lease = False
        client.send_chunk(ActionChunk(np.repeat(UP, 40, axis=0), DT_S), client.now_ns())
        time.sleep(0.05)
        assert client.state().mode == Mode.ARMED
        time.sleep(0.3)
        state = client.state()
        assert state.mode == Mode.DISARMED
        assert state.status("lease") == 0
        assert np.abs(state.values["dq"]).max() < 0.01


CLIENT = """
import sys, time, numpy as np
from robot.bridge.client import BridgeClient
from robot.contract import ActionChunk
with BridgeClient(sys.argv[1], "victim") as client:
    client.acquire(); client.home(0); client.arm()
    rows = np.repeat([[0, 0, 0.3, 0, 0, 0, 0]], 60, axis=0)
    client.send_chunk(ActionChunk(rows, 0.05), client.now_ns())
    print("driving", flush=True)
    while True:
        client.state()
"""


def test_killing_the_client_stops_the_arm(bridge: Running) -> None:
    victim = subprocess.Popen([sys.executable, "-c", CLIENT, bridge.endpoint], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "driving\n"
    with bridge.client("witness") as witness:
        time.sleep(0.2)
        assert np.abs(witness.state().values["dq"]).max() > 0.05
        victim.kill()
        killed = time.monotonic()
        while np.abs(witness.state().values["dq"]).max() > 0.01:
            # Silence, braking of 0.1 s, and some for a loaded machine.
            assert time.monotonic() - killed < SILENCE_S + 0.25
        victim.communicate()
        settle(witness, Mode.DISARMED)
        assert stay(witness, 0.5).status("lease") == 0


def test_killing_the_gateway_ends_the_real_time_process() -> None:
    with running() as up:
        pids = children(up.process)
        assert len(pids) == 1
        with up.client() as client:
            client.acquire()
            client.arm()
            up.process.kill()
            assert gone(pids, within_s=1.5)
            client.timeout_s = 0.3
            time.sleep(0.05)
            client.state()  # the last one, which was on its way
            with pytest.raises(BridgeError, match="no state"):
                client.state()


def test_a_gateway_that_hangs_ends_the_real_time_process() -> None:
    with running() as up:
        pids = children(up.process)
        up.process.send_signal(signal.SIGSTOP)
        ended = gone(pids, within_s=1.5)
        up.process.send_signal(signal.SIGCONT)
        assert ended
        _, errors = up.process.communicate(timeout=5)
        assert up.process.returncode == 1
        assert "the gateway is silent" in errors


def test_a_real_time_process_that_dies_ends_the_bridge() -> None:
    with running() as up:
        os.kill(children(up.process)[0], signal.SIGKILL)
        _, errors = up.process.communicate(timeout=5)
        assert up.process.returncode == 1
        assert "ended by itself" in errors
        assert "Traceback" not in errors


@pytest.mark.parametrize("whom", ["gateway", "twice", "term"])
def test_ctrl_c_leaves_nothing_behind(whom: str) -> None:
    memory = set(os.listdir("/dev/shm"))
    with running() as up:
        pids = children(up.process)
        if whom == "twice":
            os.killpg(up.process.pid, signal.SIGINT)
        if whom in ("gateway", "twice"):
            up.process.send_signal(signal.SIGINT)
        if whom == "term":
            up.process.send_signal(signal.SIGTERM)
        out, errors = up.process.communicate(timeout=10)
        assert up.process.returncode == 0
        assert gone(pids)
        assert set(os.listdir("/dev/shm")) <= memory
        assert "Traceback" not in errors
        assert "leaked" not in errors
        assert re.search(r"lateness p50 [\d.]+ ms, p99 [\d.]+ ms", out)
        assert "rejected chunks" in out


def test_a_port_in_use_is_said_clearly() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = start(f"port={other.getsockname()[1]}")
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Cannot listen on 127.0.0.1" in errors
    assert "port=" in errors
    assert "Traceback" not in errors


def test_the_command_refuses_them_before_it_touches_the_arm() -> None:
    process = start("host=0.0.0.0", "port=0")
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ssh -L" in errors
    assert not out


def test_a_missing_limit_is_named() -> None:
    process = start("port=0", "arm.limits.tracking_m=null")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "tracking_m" in errors
    assert "Traceback" not in errors


def test_nobody_there_is_said_within_the_time() -> None:
    begin = time.monotonic()
    with pytest.raises(BridgeError, match="No bridge answers 'hello'"), BridgeClient("tcp://127.0.0.1:9", timeout_s=1):
        pass
    assert time.monotonic() - begin < 3


def test_a_restarted_bridge_voids_the_session(bridge: Running) -> None:
    with bridge.client() as client:
        client._boot_id += 1
        with pytest.raises(BridgeError, match="restarted"):
            client.state()
        with pytest.raises(BridgeError, match="restarted"):
            client.acquire()
        client._boot_id -= 1
