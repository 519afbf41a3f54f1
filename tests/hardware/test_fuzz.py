"""Hostile frames against the gateway: no crash, no motion, no memory, and every one counted by reason."""

import contextlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from hardware.gateway import Gateway, Listen
from hardware.keys import authorise, make
from hardware.lease import Claim
from hardware.shared_memory import Word
from robot.bridge.client import BridgeClient
from robot.bridge.curve import ClientKeys
from robot.bridge.schema import Mode
from robot.bridge.wire import HEADER, MAX_FRAME, Reason, decode
from robot.errors import WireError
from tests.hardware.gateways import new_gateway
from tests.hardware.hostile import Hostile
from tests.hardware.test_bridge import Running, running, settle

HOLDER = 1234567
LEAK = 8 * 2**20
"""What a process may grow by, whatever it is sent [bytes]: nothing that counts frames fits in."""


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held_gateway() -> Gateway:
    """A gateway whose lease is held by `HOLDER`."""
    gateway = new_gateway(Listen("127.0.0.1"))
    now_ns = time.monotonic_ns()
    gateway.front.sessions.open(HOLDER, "holder", "", now_ns)
    gateway.front.lease.acquire(Claim(HOLDER, "holder", 2.0), now_ns, False)
    gateway.front.sessions.get(HOLDER).sent_ns = now_ns - 10**9
    return gateway


def assault(gateway: Gateway, count: int, seed: int) -> int:
    """Send `count` hostile frames to the handlers in turn; bytes that this process grew by after the first tenth."""
    hostile = Hostile(seed, gateway.schema.boot_id, HOLDER, time.monotonic_ns)
    before = 0
    for index, data in enumerate(hostile.frames(count)):
        if index == count // 10:
            before = resident(os.getpid())
        # The lease stays held, as if its holder went on; it is not what these frames fail by.
        gateway.front.memory.words[Word.LEASE_UNTIL_NS] = time.monotonic_ns() + 10**9
        parts = [data] if index % 50 else [data, data]
        if index % 4 == 0:
            gateway.take_request(b"peer", parts)
        elif index % 4 == 1:
            gateway._estop.take(b"peer", parts)
        else:
            gateway.take_command(parts)
    return resident(os.getpid()) - before


def check(gateway: Gateway, count: int, grown: int) -> None:
    counters = gateway.front.counters()
    assert sum(counters.values()) == count, counters
    assert set(counters) <= set(map(str, Reason))
    assert int(gateway.front.memory.commands._pushed[0]) == 0
    assert gateway.front.memory.words[Word.ESTOP] == 0
    assert len(gateway.front.sessions) == 1
    assert grown < LEAK


def test_twenty_thousand_frames() -> None:
    gateway = held_gateway()
    grown = assault(gateway, 20_000, seed=0)
    check(gateway, 20_000, grown)
    counters = gateway.front.counters()
    expected = set(map(str, Reason)) - {Reason.FULL, Reason.NO_LEASE, Reason.KEY, Reason.REQUEST, Reason.SEQUENCE}
    assert set(counters) >= expected - {Reason.PAYLOAD}
    gateway.close()


def test_what_decodes_is_what_was_meant() -> None:
    hostile = Hostile(3, 1, HOLDER, time.monotonic_ns)
    whole = 0
    for data in hostile.frames(5_000):
        with contextlib.suppress(WireError):
            assert len(decode(data).payload) == len(data) - HEADER.size
            whole += 1
    assert 1_000 < whole < 4_000


def test_senseless_requests_are_answered_and_change_nothing() -> None:
    gateway = held_gateway()
    answers: list[bytes] = []
    gateway._requests._send = lambda _, data: answers.append(data)  # type: ignore[method-assign]
    words = gateway.front.memory.words.copy()
    hostile = Hostile(1, gateway.schema.boot_id, HOLDER, time.monotonic_ns)
    for data in hostile.requests(3_000, HOLDER):
        gateway.take_request(b"peer", [data])
    assert len(answers) == 3_000
    assert {decode(data).message()["ok"] for data in answers} <= {True, False}
    words[Word.LEASE_UNTIL_NS] = gateway.front.memory.words[Word.LEASE_UNTIL_NS]
    words[Word.LEASE_ALIVE_NS] = gateway.front.memory.words[Word.LEASE_ALIVE_NS]
    np.testing.assert_array_equal(gateway.front.memory.words, words)
    assert len(gateway.front.sessions.get(HOLDER).answers) <= 4
    gateway.close()


@pytest.mark.slow
def test_a_million_frames() -> None:
    gateway = held_gateway()
    grown = assault(gateway, 1_000_000, seed=1)
    check(gateway, 1_000_000, grown)
    gateway.close()


def over_sockets(bridge: Running, driver: BridgeClient, spy: int, count: int, keys: ClientKeys | None) -> None:
    """Send `count` frames through real sockets while somebody else drives; the arm must not notice."""
    pid, target = bridge.process.pid, driver.state().values["target"].copy()
    hostile = Hostile(2, driver.schema.boot_id, spy, driver.now_ns)
    size = refused = 0
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        sockets = []
        for channel in ("command", "control", "estop"):
            socket = stack.enter_context(context.socket(zmq.DEALER))
            socket.setsockopt(zmq.LINGER, 0)
            if keys is not None:
                keys.apply(socket)
            socket.connect(driver.schema.endpoints[channel])
            sockets.append(socket)
        for index, data in enumerate(hostile.frames(count)):
            sockets[index % 3].send(data)
            if index % 20 == 0:
                state = driver.state()
                assert state.mode == Mode.ARMED
                np.testing.assert_array_equal(state.values["target"], target)
            if index == count // 10:
                size = resident(pid)
        until = time.monotonic() + 10
        while refused < count and time.monotonic() < until:
            refused = sum(driver.counters().values())
    assert refused == count
    assert driver.state().mode == Mode.ARMED
    assert resident(pid) - size < LEAK


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "ipc", "tcp+curve"])
def test_a_hundred_thousand_frames_over_sockets(transport: str, tmp_path: Path) -> None:
    overrides, client_keys, path = [], None, ""
    if transport == "tcp+curve":
        for name in ("bridge", "mallory"):
            make(tmp_path, name)
        authorise(tmp_path, tmp_path / "mallory.key")
        path = str(tmp_path / "mallory.key_secret")
        overrides, client_keys = [f"keys={tmp_path}"], ClientKeys.load(path)
    elif transport == "ipc":
        overrides = [f"host=ipc://{tmp_path}/run"]
    with (
        running(*overrides) as bridge,
        bridge.client("driver", keys=path) as driver,
        bridge.client("spy", keys=path) as spy,
    ):
        driver.acquire()
        driver.home(0)
        driver.arm()
        settle(driver, Mode.ARMED)
        over_sockets(bridge, driver, spy._session, 100_000, client_keys)


def test_a_frame_that_is_far_too_long_costs_its_sender_the_connection() -> None:
    with running() as bridge, bridge.client("driver") as driver:
        size = resident(bridge.process.pid)
        with zmq.Context() as context:
            socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(driver.schema.endpoints["command"])
            for _ in range(20):
                socket.send(bytes(50 * MAX_FRAME))
                driver.state()
            socket.close()
        time.sleep(0.1)
        assert driver.state().t_ns > 0
        assert resident(bridge.process.pid) - size < LEAK + 50 * MAX_FRAME
        assert driver.counters() == {}
