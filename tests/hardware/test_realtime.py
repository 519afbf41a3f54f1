"""How the real-time loop ends, without processes."""

import os
import time

import pytest

from hardware.pacing import Pacer
from hardware.realtime import _loop, _StopOnSignal
from hardware.shared_memory import SharedMemory, Word


class Alive:
    """Counts cycles and does in one of them what the test wants."""

    def __init__(self, at: int, what: object) -> None:
        self.cycles, self._at, self._what = 0, at, what

    def run(self, now_ns: int) -> None:
        self.cycles += 1
        if self.cycles == self._at and callable(self._what):
            self._what()


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory.create()


def run(memory: SharedMemory, cycle: Alive, timeout_s: float = 0.05) -> str:
    stop = object.__new__(_StopOnSignal)
    stop.requested = False
    return _loop(cycle, Pacer(500), memory, stop, int(timeout_s * 1e9))  # type: ignore[arg-type]


def test_a_silent_gateway_ends_the_loop_in_time(memory: SharedMemory) -> None:
    begin = time.monotonic()
    assert run(memory, Alive(0, None)) == "the gateway is silent"
    assert 0.05 <= time.monotonic() - begin < 0.3


def test_a_word_ends_the_loop(memory: SharedMemory) -> None:
    def ask() -> None:
        memory.words[Word.SHUTDOWN] = 1

    cycle = Alive(3, ask)
    assert run(memory, cycle, timeout_s=5) == "asked to"
    assert cycle.cycles == 3


def test_a_parent_that_is_gone_ends_the_loop(memory: SharedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = Alive(2, lambda: monkeypatch.setattr(os, "getppid", lambda: 1))
    assert run(memory, cycle, timeout_s=5) == "the gateway is gone"
    assert cycle.cycles == 2
