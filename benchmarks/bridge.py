"""How long a state takes to a client, and the command that answers it back to the arm, against bare sockets.

What is timed: from the moment the real-time process begins to write a state until the gateway has put the command that
a client sent upon it into the real-time process's ring. That is everything but the loop's wait for its next period,
which is told apart, in periods. The references send the same bytes at the same rate over the same transport: a bare
DEALER/ROUTER echo (state out, command back), and the usual REQ/REP server that pickles dicts of arrays, whose client
has to ask for a state first. Rounds of all three take turns. Prints a JSON object a line.
"""

import contextlib
import json
import mmap
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from benchmarks.bridge_reference import Pickled
from hardware.arms import ARM_SCHEMAS, ArmConfig, build
from hardware.bridge import BridgeConfig
from hardware.gateway import Gateway, Listen
from hardware.keys import BridgeKeys, authorise, make
from hardware.shared_memory import Command, SharedMemory, Word
from hardware.sockets import authenticator, bound
from robot import config
from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.curve import ClientKeys
from robot.bridge.image_client import ImageClient
from robot.bridge.schema import INDEX, Mode, Outcome, state_layout
from robot.bridge.wire import Frame, FrameType, chunk_payload, encode
from robot.contract import ActionChunk
from robot.sim.config import ENV_SCHEMAS

ROOT = Path(__file__).resolve().parent.parent
RATE_HZ = 500
ROUNDS, SAMPLES, WARM_UP = 4, 500, 50
"""Rounds of each of the three, samples of each round."""
ROWS, DT_S = np.zeros((16, 7)), 0.05
WHOLE_S = 8.0
FORK = multiprocessing.get_context("fork")


class Transport:
    """Where one transport listens, and its keys."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.client_keys, self._keys = "", None
        if name == "tcp+curve":
            for pair in ("bridge", "client"):
                make(folder, pair)
            authorise(folder, folder / "client.key")
            self._keys, self.client_keys = BridgeKeys(folder), str(folder / "client.key_secret")
        self._folder = folder

    def listen(self) -> Listen:
        """For a gateway."""
        return Listen(f"ipc://{self._folder}" if self.name == "ipc" else "127.0.0.1", 0, self._keys)

    def address(self, what: str) -> str:
        """For one socket of a reference."""
        return f"ipc://{self._folder / what}" if self.name == "ipc" else "tcp://127.0.0.1:*"

    def keys(self) -> BridgeKeys | None:
        """Of whoever listens."""
        return self._keys

    def arguments(self, role: str) -> list[str]:
        """Keys for the pickling reference."""
        if self._keys is None:
            return []
        if role == "server":
            return [str(self._folder / "authorised"), self._keys.secret]
        mine = ClientKeys.load(self.client_keys)
        return [mine.bridge, mine.public, mine.secret]


@contextlib.contextmanager
def process(run: Callable[..., None], *arguments: Any) -> Iterator[None]:
    child = FORK.Process(target=run, args=arguments, daemon=True)
    child.start()
    try:
        yield
    finally:
        child.terminate()
        child.join()


def paced(rate_hz: float) -> Iterator[int]:
    """Times at which a loop of this rate wakes."""
    next_s = time.monotonic()
    while True:
        next_s = max(next_s + 1 / rate_hz, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))
        yield time.monotonic_ns()


class Ours:
    """Gateway and real-time process of one transport, each in a process; the client is this one."""

    def __init__(self, transport: Transport) -> None:
        settings = bridge_settings()
        arm, self._limits = build(settings.arm, settings.env)
        self._specs, self._transport = arm.specs, transport
        self._memory = SharedMemory.create()
        self._memory.states.wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._pushed = np.frombuffer(mmap.mmap(-1, 8 * 2**16), np.int64)
        self._told, self._tell = FORK.Pipe(duplex=False)
        self._endpoint = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[BridgeClient]:
        """A client of them."""
        with process(self._gateway), process(self._loop):
            endpoint = self._told.recv()
            with BridgeClient(endpoint, "bench", keys=self._transport.client_keys) as client:
                yield client

    def _gateway(self) -> None:
        push = self._memory.commands.push

        def stamped(command: Command) -> bool:
            is_pushed = push(command)
            self._pushed[command.number] = time.monotonic_ns()
            return is_pushed

        self._memory.commands.push = stamped  # type: ignore[method-assign]
        gateway = Gateway(self._specs, self._limits, self._memory, self._transport.listen(), 0.5)
        self._tell.send(gateway.schema.endpoints["control"])
        gateway.serve(RATE_HZ, lambda: False)

    def _loop(self) -> None:
        """A real-time process without an arm: takes commands, writes states."""
        flat = np.zeros(state_layout(self._specs).size)
        status = state_layout(self._specs).views(flat)["status"]
        status[INDEX["mode"]], words = Mode.ARMED, self._memory.words
        for _ in paced(RATE_HZ):
            while (command := self._memory.commands.pop()) is not None:
                if command.rows is None or not command.rows.size:
                    status[INDEX["operation"]], status[INDEX["outcome"]] = command.number, Outcome.DONE
            status[INDEX["lease_priority"]] = words[Word.LEASE_PRIORITY]
            status[INDEX["t_ns"]] = time.monotonic_ns()
            self._memory.states.write(flat)

    def round(self, client: BridgeClient) -> np.ndarray:
        """Rows (N, 3): whole round trip, state to client, command to ring [µs]."""
        chunk, taken = ActionChunk(ROWS, DT_S), []
        # The references had their turns meanwhile, longer than any lease lasts in silence.
        client.acquire()
        for index in range(SAMPLES + WARM_UP):
            state = client.state()
            has_ns = time.monotonic_ns()
            number = client.send_chunk(chunk, client.now_ns())
            if index >= WARM_UP:
                taken.append((number, state.t_ns, has_ns))
        time.sleep(0.05)
        numbers, written, has = np.array(taken).T
        pushed = self._pushed[numbers]
        return np.stack([pushed - written, has - written, pushed - has], axis=1)[pushed > 0] / 1e3


class Echo:
    """Bare sockets: a state's bytes out, a command's bytes back."""

    def __init__(self, transport: Transport) -> None:
        settings = bridge_settings()
        arm, _ = build(settings.arm, settings.env)
        self._transport = transport
        size = state_layout(arm.specs).size
        self._state = encode(Frame(FrameType.STATE, np.zeros(size).tobytes()))
        self._command = encode(Frame(FrameType.CHUNK, chunk_payload(ROWS, DT_S)))
        self._told, self._tell = FORK.Pipe(duplex=False)

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        """A socket that is answered."""
        with process(self._serve), zmq.Context() as context:
            socket = context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            if self._transport.client_keys:
                ClientKeys.load(self._transport.client_keys).apply(socket)
            socket.connect(self._told.recv())
            yield socket
            socket.close()

    def _serve(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        guard = authenticator(context, self._transport.keys())
        assert (guard is None) == (self._transport.keys() is None)
        socket, endpoint = bound(context, zmq.ROUTER, self._transport.address("echo"), self._transport.keys())
        self._tell.send(endpoint)
        while True:
            identity, _ = socket.recv_multipart()
            socket.send_multipart([identity, self._command])

    def round(self, socket: Any) -> np.ndarray:
        """Round trips (N,) [µs]."""
        taken = []
        for index, begin in enumerate(paced(RATE_HZ)):
            socket.send(self._state)
            socket.recv()
            taken.append(time.monotonic_ns() - begin)
            if index == SAMPLES + WARM_UP - 1:
                return np.array(taken[WARM_UP:]) / 1e3
        raise AssertionError


def bridge_settings() -> BridgeConfig:
    arms: dict[str, type] = dict.fromkeys(ARM_SCHEMAS, ArmConfig)
    return config.load("bridge", BridgeConfig, ["arm=fake"], {"arm": arms, "env": ENV_SCHEMAS})


def emit(name: str, value: float, unit: str, better: str, against: str | None = None, other: float = 0.0) -> None:
    line = {"name": name, "value": round(value, 4), "unit": unit, "better": better, "against": against}
    ratio = round(value / other, 4) if against and other else None
    line |= {"other": round(other, 4) if against else None, "ratio": ratio}
    print(json.dumps(line), flush=True)


def compare(transport: Transport) -> None:
    """Rounds of all three in turn, then the lines of this transport."""
    numbers = (SAMPLES, WARM_UP, RATE_HZ, len(ROWS))
    keys = [transport.arguments(role) for role in ("server", "client")]
    pickled = Pickled(transport.address("rep"), keys[0], keys[1], numbers)
    ours, echo = Ours(transport), Echo(transport)
    mine, bare, theirs = [], [], []
    with ours.running() as client, echo.running() as socket, pickled.running() as endpoint:
        for _ in range(ROUNDS):
            bare.append(echo.round(socket))
            mine.append(ours.round(client))
            theirs.append(pickled.round(endpoint))
    us, echoed, asked = np.concatenate(mine), np.concatenate(bare), np.concatenate(theirs)
    name = transport.name
    emit(f"commands lost {name}", ROUNDS * SAMPLES - len(us), "commands", "lower")
    for percent in (50, 99):
        whole, to_client, to_ring = np.percentile(us, percent, axis=0)
        by_echo = float(np.percentile(echoed, percent))
        with_ask, without = np.percentile(asked, percent, axis=0)
        p = f"p{percent}"
        emit(f"state to command in ring {name} {p}", whole, "us", "lower", f"echo {name}", by_echo)
        emit(f"state to command in ring {name} {p}", whole, "us", "lower", "req/rep pickled dict", with_ask)
        emit(f"state to command in ring {name} {p}", whole, "us", "lower", "req/rep without its request", without)
        emit(f"state to client {name} {p}", to_client, "us", "lower")
        emit(f"command to ring {name} {p}", to_ring, "us", "lower")


@contextlib.contextmanager
def whole_bridge(*overrides: str) -> Iterator[BridgeClient]:
    """The bridge as a user starts it, armed."""
    command = [sys.executable, "-m", "robot.cli", "bridge", "arm=fake", "port=0", *overrides]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert child.stdout is not None
    try:
        found = re.match(r"Ready: (\S+)", child.stdout.readline())
        assert found, "the bridge did not start"
        with BridgeClient(found[1], "bench") as client:
            client.acquire()
            client.home(0)
            client.arm()
            yield client
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=20)


class Counting(ImageClient):
    """Counts the pictures that come, all of them."""

    received = 0

    def _take(self, name: str, data: bytes) -> None:
        super()._take(name, data)
        self.received += 1


@dataclass
class Driven:
    """What happened to commands that were sent upon every state of a whole bridge.

    Attributes:
        sent: How many commands.
        lost: Of these, the ones that the loop did not take.
        periods: Cycles from a state to the one that took its command, for each that a state told of.
        pictures: Received from all cameras.
    """

    sent: int
    lost: int
    periods: np.ndarray
    pictures: int


def drive(client: BridgeClient, seconds: float) -> Driven:
    """Answer every state with a command, and receive every picture meanwhile."""
    sent: dict[int, float] = {}
    periods, count, until = [], 0, time.monotonic() + seconds
    before = client.state()
    with Counting(client) if client.schema.images else contextlib.nullcontext() as images:
        first = images.received if images else 0
        while time.monotonic() < until:
            state = client.state()
            taken = int(state.status("last_sequence"))
            for number in [number for number in sent if number <= taken]:
                periods.append(state.status("cycle") - sent.pop(number))
            sent[client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())] = state.status("cycle")
            count += 1
        after = settled(client)
        pictures = images.received - first if images else 0
    # A DEALER drops nothing, so what was not taken was refused, rejected, or is after the last that was taken.
    lost = sum(after.status(name) - before.status(name) for name in ("refused", "rejected"))
    lost += max(sent, default=0) > after.status("last_sequence")
    return Driven(count, round(lost), np.array(periods), pictures)


def settled(client: BridgeClient) -> BridgeState:
    """A state from after all that was sent."""
    until = time.monotonic() + 0.1
    state = client.state()
    while time.monotonic() < until:
        state = client.state()
    return state


def whole() -> None:
    """Through the bridge as a user starts it, without cameras and with two."""
    with whole_bridge() as client:
        alone = drive(client, WHOLE_S)
    with whole_bridge("cameras=[front:fake,side:fake]") as client:
        seen = drive(client, WHOLE_S)
    share = {name: 100 * float(np.mean(one.periods <= 1)) for name, one in (("alone", alone), ("seen", seen))}
    emit("taken in the next cycle", share["alone"], "%", "higher")
    emit("taken in the next cycle, two cameras", share["seen"], "%", "higher", "no cameras", share["alone"])
    for percent in (50, 99):
        periods = [float(np.percentile(one.periods, percent)) for one in (seen, alone)]
        emit(f"state to taken, two cameras p{percent}", periods[0], "periods", "lower", "no cameras", periods[1])
    emit(f"commands lost of {seen.sent}, two cameras", seen.lost, "commands", "lower", "no cameras", alone.lost)
    emit("pictures received, two 640x480", seen.pictures / WHOLE_S, "1/s", "higher", "30 Hz each", 60.0)


def main() -> None:
    for name in sys.argv[1:] or ("ipc", "tcp", "tcp+curve"):
        with tempfile.TemporaryDirectory() as folder:
            compare(Transport(name, Path(folder)))
    whole()


if __name__ == "__main__":
    main()
