"""A policy that drives while its network fails: the arm comes to rest in time, and moves again only once armed anew."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from robot.bridge.client import BridgeClient
from robot.bridge.schema import Mode
from robot.bridge.wire import Frame, FrameType, chunk_payload, decode, encode
from robot.contract import ActionChunk
from tests.hardware.chaos import BadNetwork
from tests.hardware.test_bridge import DT_S, Running, running, settle, stay

ROWS = np.repeat([[0, 0, 0.3, 0, 0, 0, 0]], 20, axis=0)
REST = 0.01
"""Joint speed of an arm at rest [rad/s]."""
BOUND_S = 0.1 + 0.1 + 0.1
"""Silence until the arm reacts, its braking, and some for a loaded machine."""


@pytest.fixture(scope="module")
def bridge() -> Iterator[Running]:
    with running() as up:
        yield up


@contextmanager
def driven(bridge: Running, seed: int = 0) -> Iterator[tuple[BridgeClient, BadNetwork]]:
    """A client that drives through a network that is still good."""
    client = bridge.client("driver")
    with client:
        network = BadNetwork(client.schema.endpoints["command"], seed=seed)
        client._connection.drop("command")
        client.schema.endpoints["command"] = network.endpoint
        try:
            client.acquire()
            client.home(0)
            client.arm()
            drive(client, 0.3)
            assert speed(client) > 0.02
            yield client, network
        finally:
            network.close()
            client.acquire()
            client.stop()
            settle(client, Mode.DISARMED)


def speed(client: BridgeClient) -> float:
    return float(np.abs(client.state().values["dq"]).max())


def drive(client: BridgeClient, seconds: float) -> list[tuple[float, float]]:
    """Send chunks as a policy does; (time, speed) of every state."""
    begin, sent, speeds = time.monotonic(), 0.0, []
    while (now := time.monotonic() - begin) < seconds:
        if now >= sent:
            client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())
            sent += DT_S
        speeds.append((now, speed(client)))
    return speeds


@pytest.mark.parametrize("way", ["cut", "delay"])
def test_a_network_that_is_cut_or_slow_stops_the_arm_until_it_is_armed_anew(bridge: Running, way: str) -> None:
    with driven(bridge) as (client, network):
        network.way = way
        client._has_lease = False  # the lease may end meanwhile, which is no error here
        speeds = drive(client, 0.8)
        assert max(fast for now, fast in speeds if now > BOUND_S) < REST
        network.way = "pass"
        assert max(fast for _, fast in drive(client, 0.4)) < REST
        assert client.state().mode == Mode.DISARMED
        client.acquire()
        client.arm()
        assert max(fast for _, fast in drive(client, 0.3)) > 0.02


@pytest.mark.parametrize("way", ["double", "reorder"])
def test_frames_that_come_twice_or_out_of_order_change_nothing(bridge: Running, way: str) -> None:
    with driven(bridge) as (client, network):
        before = client.counters().get("replayed", 0)
        network.way = way
        speeds = drive(client, 0.6)
        assert client.state().mode == Mode.ARMED
        assert min(fast for now, fast in speeds if now > 0.1) > 0.02
        assert client.counters()["replayed"] > before
        assert client.state().status("reject") == 0 or way == "reorder"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_everything_at_once_never_leaves_the_arm_moving(bridge: Running, seed: int) -> None:
    with driven(bridge, seed) as (client, network):
        network.way = "all"
        client._has_lease = False
        drive(client, 0.6)
        network.way = "cut"
        # What is on its way may still come for 0.3 s; none of it counts as a sign of life then.
        speeds = drive(client, 0.8)
        assert max(fast for now, fast in speeds if now > BOUND_S) < REST


def test_recorded_frames_move_nothing(bridge: Running) -> None:
    """Of the same session, of one that is over, and of another start of the bridge."""
    with driven(bridge) as (client, network):
        client.disarm()
        settle(client, Mode.DISARMED)
        client.arm()
        position = stay(client, 0.1).values["ee_pos"].copy()
        before = sum(client.counters().values())
        other_boot = Frame(FrameType.CHUNK, chunk_payload(ROWS, DT_S), client._boot_id + 1, client._session, 2**40)
        frames = [*network.seen, encode(other_boot)]
        chunks = [data for data in network.seen if decode(data).type == FrameType.CHUNK]
        assert len(chunks) >= 6
        with zmq.Context() as context:
            socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 1000)
            socket.connect(network.behind)
            for data in frames:
                socket.send(data)
            end = stay(client, 0.2)
            socket.close()
        np.testing.assert_allclose(end.values["ee_pos"], position, atol=1e-4)
        assert sum(client.counters().values()) >= before + len(frames)
        old = network.seen
    with bridge.client("next") as client, zmq.Context() as context:
        client.acquire()
        client.arm()
        socket = context.socket(zmq.DEALER)
        socket.connect(client.schema.endpoints["command"])
        before = client.counters().get("replayed", 0) + client.counters().get("no lease", 0)
        for data in old:
            socket.send(data)
        stay(client, 0.2)
        after = client.counters()
        assert after.get("replayed", 0) + after.get("no lease", 0) >= before + len(old)
        np.testing.assert_allclose(client.state().values["ee_pos"], end.values["ee_pos"], atol=1e-3)
        socket.close(0)
