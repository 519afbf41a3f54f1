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
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from hardware.arms import ARM_SCHEMAS, ArmConfig, build
from hardware.bridge import BridgeConfig
from hardware.gateway import Gateway, Listen
from hardware.keys import BridgeKeys, authorise, make
from hardware.shared_memory import Command, SharedMemory, Word
from hardware.sockets import authenticator, bound
from robot import config
from robot.bridge.client import BridgeClient
from robot.bridge.curve import ClientKeys
from robot.bridge.schema import INDEX, Mode, Outcome, state_layout
from robot.bridge.wire import Frame, FrameType, chunk_payload, encode
from robot.contract import ActionChunk
from robot.sim.config import ENV_SCHEMAS

ROOT = Path(__file__).resolve().parent.parent
RATE_HZ = 500
ROUNDS, SAMPLES, WARM_UP = 4, 500, 50
"""Rounds of each of the three, samples of each round."""
ROWS, DT_S = np.zeros((16, 7)), 0.05
CAMERA_S = 10.0
FORK = multiprocessing.get_context("fork")

# The reference as such servers are written: one REP socket, a dict of arrays either way, unpickled whoever it is from.
PICKLED = """
import sys, time, zmq, numpy as np
role, endpoint, count, warm_up, rate, rows, keys = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]), sys.argv[7:]
context = zmq.Context()
sizes = {"status": 29, "target": 10, "q": 7, "dq": 7, "ee_pos": 3, "ee_rot6d": 6, "gripper": 2, "observation": 18}
if role == "server":
    socket = context.socket(zmq.REP)
    if keys:
        from zmq.auth.thread import ThreadAuthenticator
        guard = ThreadAuthenticator(context)
        guard.start()
        guard.configure_curve(domain="*", location=keys[0])
        socket.curve_server, socket.curve_secretkey = True, keys[1].encode()
    socket.bind(endpoint)
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    state = {key: np.zeros(size) for key, size in sizes.items()}
    while True:
        request = socket.recv_pyobj()
        if request["method"] == "get_observations":
            socket.send_pyobj({**state, "t_ns": time.monotonic_ns()})
        else:
            socket.send_pyobj({"t_ns": time.monotonic_ns()})
socket = context.socket(zmq.REQ)
if keys:
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (key.encode() for key in keys)
socket.connect(endpoint)
next_s = time.monotonic()
for index in range(count + warm_up):
    next_s = max(next_s + 1 / rate, time.monotonic())
    time.sleep(max(0.0, next_s - time.monotonic()))
    begin = time.monotonic_ns()
    socket.send_pyobj({"method": "get_observations"})
    state = socket.recv_pyobj()
    command = {"rows": np.zeros((rows, 7)), "dt_s": 0.05, "t0_ns": time.monotonic_ns()}
    socket.send_pyobj({"method": "command", "args": command})
    arrived = socket.recv_pyobj()["t_ns"]
    if index >= warm_up:
        print(arrived - begin, arrived - state["t_ns"])
"""


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
        return Listen(f"ipc://{self._folder}" if self.name == "ipc" else "127.0.0.1", 0, self._keys)

    def address(self, what: str) -> str:
        return f"ipc://{self._folder / what}" if self.name == "ipc" else "tcp://127.0.0.1:*"

    def keys(self) -> BridgeKeys | None:
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


class Pickled:
    """The usual server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        server = subprocess.Popen(self._command("server", self._transport.address("rep")), stdout=-1, text=True)
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()
            server.communicate()

    def _command(self, role: str, endpoint: str) -> list[str]:
        numbers = map(str, (SAMPLES, WARM_UP, RATE_HZ, len(ROWS)))
        return [sys.executable, "-c", PICKLED, role, endpoint, *numbers, *self._transport.arguments(role)]

    def round(self, endpoint: str) -> np.ndarray:
        """Rows (N, 2): from asking for a state to the command's arrival; the same from the state's reading [µs]."""
        output = subprocess.run(self._command("client", endpoint), check=True, capture_output=True, text=True).stdout
        return np.array([line.split() for line in output.splitlines()], np.float64) / 1e3


def bridge_settings() -> BridgeConfig:
    arms: dict[str, type] = dict.fromkeys(ARM_SCHEMAS, ArmConfig)
    return config.load("bridge", BridgeConfig, ["arm=fake"], {"arm": arms, "env": ENV_SCHEMAS})


def emit(name: str, value: float, unit: str, better: str, against: str | None = None, other: float = 0.0) -> None:
    line = {"name": name, "value": round(value, 4), "unit": unit, "better": better, "against": against}
    line |= {"other": round(other, 4), "ratio": round(value / other, 4)} if against else {"other": None, "ratio": None}
    print(json.dumps(line), flush=True)


def compare(transport: Transport) -> None:
    """Rounds of all three in turn, then the lines of this transport."""
    ours, echo, pickled = Ours(transport), Echo(transport), Pickled(transport)
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


def next_cycle() -> None:
    """How many periods after a state the loop has taken the command that was sent upon it."""
    with whole_bridge() as client:
        sent: dict[int, tuple[float, int]] = {}
        periods, whole_ms = [], []
        for _ in range(4 * SAMPLES):
            state = client.state()
            taken = int(state.status("last_sequence"))
            for number in [number for number in sent if number <= taken]:
                cycle, written_ns = sent.pop(number)
                periods.append(state.status("cycle") - cycle)
                whole_ms.append((state.t_ns - written_ns) / 1e6)
            sent[client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())] = (state.status("cycle"), state.t_ns)
    emit("taken in the next cycle", 100 * float(np.mean(np.array(periods) == 1)), "%", "higher")
    for percent in (50, 99):
        emit(f"state to command taken by the loop p{percent}", float(np.percentile(whole_ms, percent)), "ms", "lower")


def main() -> None:
    for name in sys.argv[1:] or ("ipc", "tcp", "tcp+curve"):
        with tempfile.TemporaryDirectory() as folder:
            compare(Transport(name, Path(folder)))
    next_cycle()


if __name__ == "__main__":
    main()
