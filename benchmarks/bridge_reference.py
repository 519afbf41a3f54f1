"""The usual bridge, for comparison: REQ/REP, and dicts of arrays that are pickled.

It runs from text in processes of its own, so that no file of ours unpickles anything.
"""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

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


class Pickled:
    """The usual server."""

    def __init__(self, address: str, server_keys: list[str], client_keys: list[str], samples: tuple[int, ...]) -> None:
        """Not started yet.

        Args:
            address: Where it listens.
            server_keys: Folder of authorised keys, secret key; empty for none.
            client_keys: The server's public key, the client's public and secret one; empty for none.
            samples: Round trips of a round, those before that are not counted, their rate [Hz], rows of a command.
        """
        self._address, self._samples = address, samples
        self._keys = {"server": server_keys, "client": client_keys}

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Address of a server."""
        server = subprocess.Popen(self._command("server", self._address), stdout=-1, text=True)
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()
            server.communicate()

    def _command(self, role: str, endpoint: str) -> list[str]:
        return [sys.executable, "-c", PICKLED, role, endpoint, *map(str, self._samples), *self._keys[role]]

    def round(self, endpoint: str) -> np.ndarray:
        """Rows (N, 2): from asking for a state to the command's arrival; the same from the state's reading [µs]."""
        output = subprocess.run(self._command("client", endpoint), check=True, capture_output=True, text=True).stdout
        return np.array([line.split() for line in output.splitlines()], np.float64) / 1e3
