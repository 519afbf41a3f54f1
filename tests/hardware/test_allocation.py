"""After warm-up the loop's memory does not grow: no garbage collector runs in it that could mend that."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hardware.pacing import Pacer
from robot.bridge.schema import Mode
from tests.hardware.test_cycle import FaultyArm, Rig
from tests.hardware.test_joint_cycle import JointRig

ROUNDS = 15
SLACK_BYTES = 4096
"""Numbers that grow by a digit; a float that is kept in each cycle would be five times that."""


class Forgetful(FaultyArm):
    """Remembers nothing of what is written."""

    def write(self, target: np.ndarray) -> None:
        super().write(target)
        self.written.clear()


@pytest.fixture(autouse=True)
def as_in_the_loop() -> Iterator[None]:
    """No collection: a cycle of references that nobody breaks stays for ever."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def growth(one_round: Callable[[], None]) -> int:
    """Bytes that are held after some rounds more than before them."""
    # Compiled before tracing begins, which would slow that down.
    one_round()
    tracemalloc.start()
    try:
        # CPython keeps up to 2000 freed tuples of each short length to use again. Once these are there nothing grows.
        for length in range(1, 20):
            kept = [tuple(range(length)) for _ in range(2000)]
            del kept
        for _ in range(3):
            one_round()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(ROUNDS):
            one_round()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def rig() -> Rig:
    made = Rig()
    made.arm.__class__ = Forgetful
    return made


def test_driving_with_chunks_clamps_and_rejects() -> None:
    driven = rig().armed()
    rng = np.random.default_rng(0)

    def one_round() -> None:
        driven.send(rng.uniform(-2, 2, (16, 7)))
        driven.run(60)
        driven.send(np.full((2, 7), np.nan))
        driven.send(np.zeros((2, 7)), sequence=1)

    assert growth(one_round) < SLACK_BYTES
    assert driven.mode == Mode.ARMED
    assert driven.status("clamped") > 0
    assert driven.status("rejected") > 2 * ROUNDS


def test_an_arm_that_has_failed_for_long() -> None:
    failing = rig().armed()
    failing.arm.fails = "read"
    assert growth(lambda: failing.run(100)) < SLACK_BYTES
    assert failing.mode == Mode.FAULT


def test_a_stop_that_is_not_confirmed() -> None:
    failing = rig().armed()
    failing.arm.fails = "stop"
    failing.lease(session=0)
    failing.memory.words[0] = 1
    assert growth(lambda: failing.run(100)) < SLACK_BYTES
    assert failing.mode == Mode.STOPPING


def test_joints_led_through_trajectories() -> None:
    driven = JointRig().armed()
    rng = np.random.default_rng(0)

    def one_round() -> None:
        driven.send(rng.uniform(-0.3, 0.3, (8, 7)))
        driven.run(60)
        driven.arm.written.clear()

    assert growth(one_round) < SLACK_BYTES
    assert driven.mode == Mode.ARMED


def test_the_beat() -> None:
    pacer = Pacer(20_000)

    def one_round() -> None:
        for _ in range(50):
            pacer.arrived(pacer.wait())

    assert growth(one_round) < SLACK_BYTES
