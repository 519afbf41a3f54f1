"""A gateway in this process, with something that answers for the real-time process."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hardware.arms import build
from hardware.gateway import Gateway, Listen
from hardware.shared_memory import Command, Kind, SharedMemory, Word
from robot.bridge.client import BridgeClient
from robot.bridge.schema import INDEX, Mode, Outcome, state_layout
from robot.bridge.wire import public_id
from tests.hardware.settings import limits, settings

PERIOD_S = 0.002


def new_gateway(listen: Listen) -> Gateway:
    """A gateway in front of memory that nobody writes to."""
    arm, _ = build(settings("arm=fake").arm, settings("arm=fake").env)
    return Gateway(arm.specs, limits("fake"), SharedMemory.create(), listen, 0.5)


def watch(client: BridgeClient, count: int = 300) -> None:
    """Read states, as somebody does to whom something will happen."""
    for _ in range(count):
        client.state()


class StandIn:
    """Serves a gateway in a thread, and does in another what a real-time process would: no motion, only answers."""

    def __init__(self, listen: Listen) -> None:
        self.gateway = new_gateway(listen)
        self.memory: SharedMemory = self.gateway.front.memory
        self.memory.states.wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.chunks: list[Command] = []
        self.speed = 0.0
        self.mode = Mode.DISARMED
        self.verdict = 0
        self._flat = np.zeros(state_layout(self.gateway.schema.arm).size)
        self._is_over = False
        self._threads = [
            threading.Thread(target=self._answer),
            threading.Thread(target=self.gateway.serve, args=(500, lambda: self._is_over)),
        ]

    @property
    def endpoint(self) -> str:
        return self.gateway.schema.endpoints["control"]

    def client(self, name: str = "test", **keywords: Any) -> BridgeClient:
        return BridgeClient(self.endpoint, name, **keywords)

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()
        self.gateway.close()
        os.close(self.memory.states.wake_fd)
        self.memory.close()

    def _answer(self) -> None:
        views = state_layout(self.gateway.schema.arm).views(self._flat)
        status, dq = views["status"], views["dq"]
        while not self._is_over:
            while (command := self.memory.commands.pop()) is not None:
                self._obey(command, status)
            now_ns, words = time.monotonic_ns(), self.memory.words
            if words[Word.ESTOP]:
                self.mode = Mode.FAULT
            status[INDEX["t_ns"]], status[INDEX["mode"]] = now_ns, self.mode
            status[INDEX["cycle"]] += 1
            is_held = now_ns < words[Word.LEASE_UNTIL_NS]
            status[INDEX["lease"]] = public_id(int(words[Word.LEASE_SESSION])) if is_held else 0
            dq[:] = self.speed
            self.memory.states.write(self._flat)
            time.sleep(PERIOD_S)

    def _obey(self, command: Command, status: np.ndarray) -> None:
        if command.kind == Kind.CHUNK:
            self.chunks.append(command)
            self.memory.commands.judge(self.verdict, time.monotonic_ns())
            status[INDEX["last_sequence"]] = command.number
            return
        if command.kind in (Kind.ARM, Kind.DISARM):
            self.mode = Mode.ARMED if command.kind == Kind.ARM else Mode.DISARMED
        if command.kind == Kind.RESET and not self.memory.words[Word.ESTOP]:
            self.mode = Mode.DISARMED
        status[INDEX["operation"]], status[INDEX["outcome"]] = command.number, Outcome.DONE


@contextmanager
def standing_in(listen: Listen | None = None) -> Iterator[StandIn]:
    """One that serves."""
    one = StandIn(listen or Listen("127.0.0.1"))
    one.begin()
    try:
        yield one
    finally:
        one.end()
