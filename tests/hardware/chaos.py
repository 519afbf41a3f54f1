"""A bad network between a client and one channel of a bridge."""

import heapq
import random
import threading
import time
from typing import Any

import zmq


class BadNetwork:
    """Passes frames on as `way` says: `pass`, `cut`, `delay`, `double`, `reorder`, or `all` of these at random.

    Attributes:
        way: What happens to frames from now on.
        seen: Every frame that a client sent, in order.
        behind: The bridge's own channel.
        endpoint: What clients connect to.
    """

    def __init__(self, behind: str, delay_s: float = 0.3, seed: int = 0) -> None:
        self.way, self.seen, self._delay_s = "pass", list[bytes](), delay_s
        self.behind = behind
        self._random, self._serial = random.Random(seed), 0
        self._due: list[tuple[float, int, bytes]] = []
        self._held: bytes | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._front, self._back = self._context.socket(zmq.ROUTER), self._context.socket(zmq.DEALER)
        for socket in (self._front, self._back):
            socket.setsockopt(zmq.LINGER, 0)
        self._front.bind("tcp://127.0.0.1:*")
        self.endpoint = self._front.getsockopt_string(zmq.LAST_ENDPOINT)
        self._back.connect(behind)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._front.close()
        self._back.close()
        self._context.term()

    def _run(self) -> None:
        while not self._is_over.is_set():
            if self._front.poll(1):
                data = self._front.recv_multipart()[-1]
                self.seen.append(data)
                self._treat(data)
            while self._due and self._due[0][0] <= time.monotonic():
                self._back.send(heapq.heappop(self._due)[2])

    def _treat(self, data: bytes) -> None:
        way = self._random.choice(("pass", "cut", "delay", "double", "reorder")) if self.way == "all" else self.way
        if way == "cut":
            return
        if way == "reorder":
            # The next frame overtakes this one.
            if self._held is None:
                self._held = data
                return
            self._post(data, 0.0)
            data, self._held = self._held, None
        self._post(data, self._delay_s if way == "delay" else 0.0)
        if way == "double":
            self._post(data, 0.0)
            self._post(data, self._random.uniform(0.0, self._delay_s))

    def _post(self, data: bytes, delay_s: float) -> None:
        self._serial += 1
        heapq.heappush(self._due, (time.monotonic() + delay_s, self._serial, data))
