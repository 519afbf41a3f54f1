"""How the real-time loop ends, without processes."""

import os
import time

import pytest

from hardware.pacing import Pacer
from hardware.realtime import REST_NS, _loop, _StopOnSignal
from hardware.shared_memory import SharedMemory, Word


class Alive:
    """Counts cycles and does in one of them what the test wants; comes to rest in some more when it is told to."""

    def __init__(self, at: int, what: object, rests_after: int = 0) -> None:
        self.cycles, self._at, self._what = 0, at, what
        self.complaint = ""
        self.left, self.rested = rests_after, 0
        self.is_told_to_rest = False

    @property
    def is_at_rest(self) -> bool:
        return self.is_told_to_rest and self.rested >= self.left

    def come_to_rest(self, now_ns: int) -> None:
        self.is_told_to_rest = True

    def run(self, now_ns: int) -> None:
        if self.is_told_to_rest:
            self.rested += 1
            return
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


def test_the_arm_slows_down_before_the_loop_ends_but_not_for_ever(memory: SharedMemory) -> None:
    memory.words[Word.SHUTDOWN] = 1
    resting = Alive(0, None, rests_after=20)
    assert run(memory, resting, timeout_s=5) == "asked to"
    assert resting.rested == 20
    begin = time.monotonic()
    restless = Alive(0, None, rests_after=10**9)
    assert run(memory, restless, timeout_s=5) == "asked to"
    assert time.monotonic() - begin < REST_NS / 1e9 + 0.3


def test_what_a_driver_complains_of_is_said_once(memory: SharedMemory, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        cycle.complaint = "no answer"

    cycle = Alive(2, fail)
    assert run(memory, cycle) == "the gateway is silent"
    assert capsys.readouterr().err == "The arm has failed: no answer\n"
