import json
import subprocess
import sys
import time

import numpy as np
import pytest

from hardware.shared_memory import (
    COMMAND_CAPACITY,
    COMMAND_SLOTS,
    STATE_SLOTS,
    Command,
    Kind,
    SharedMemory,
    Word,
)
from robot.errors import BridgeError

WRITER = """
import sys, numpy as np
from hardware.shared_memory import SharedMemory, Word
memory, values, k = SharedMemory(int(sys.argv[1])), np.zeros(200), 0
while not memory.words[Word.SHUTDOWN]:
    k += 1
    values[:] = k
    memory.states.write(values)
print(k)
"""

ECHO = """
import sys, json
from hardware.shared_memory import SharedMemory
memory, wanted, seen = SharedMemory(int(sys.argv[1])), int(sys.argv[2]), []
while len(seen) < wanted:
    command = memory.commands.pop()
    if command is not None:
        assert (command.rows == command.number).all(), command
        seen.append(command.number)
print(json.dumps(seen))
"""


def child(code: str, memory: SharedMemory, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(memory.fd), *arguments]
    return subprocess.Popen(command, pass_fds=[memory.fd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_reader_never_sees_a_torn_state() -> None:
    memory = SharedMemory.create()
    process = child(WRITER, memory)
    out, newest, reads = np.zeros(200), 0.0, 0
    until = time.monotonic() + 30
    while newest < 20_000 and time.monotonic() < until:
        count = memory.states.read(out)
        assert (out == out[0]).all()
        assert out[0] >= newest
        assert count == out[0]
        newest, reads = out[0], reads + 1
    memory.words[Word.SHUTDOWN] = 1
    written, errors = process.communicate(timeout=10)
    assert not errors
    assert int(written) >= 20_000
    assert reads > 100
    memory.close()


def test_a_torn_slot_is_refused_rather_than_read() -> None:
    memory = SharedMemory.create()
    memory.states.write(np.arange(5.0))
    memory.states._values[0, 2] = 99.0
    with pytest.raises(BridgeError, match="No whole state"):
        memory.states.read(np.zeros(5))
    memory.close()


def test_newest_state_of_many_and_none_yet() -> None:
    memory = SharedMemory.create()
    out = np.zeros(3)
    assert memory.states.read(out) == 0
    for value in range(3 * STATE_SLOTS):
        memory.states.write(np.full(3, float(value)))
    assert memory.states.read(out) == 3 * STATE_SLOTS
    assert (out == 3 * STATE_SLOTS - 1).all()
    with pytest.raises(BridgeError, match="has 3 numbers"):
        memory.states.read(np.zeros(4))
    memory.close()


def test_commands_arrive_once_in_order_and_whole() -> None:
    memory = SharedMemory.create()
    process, total = child(ECHO, memory, "2000"), 2000
    number = 0
    while number < total:
        if memory.commands.push(Command(Kind.CHUNK, 7, number, rows=np.full((number % 60 + 1, 7), float(number)))):
            number += 1
    printed, errors = process.communicate(timeout=30)
    assert not errors
    assert json.loads(printed) == list(range(total))
    memory.close()


def test_a_full_ring_refuses() -> None:
    memory = SharedMemory.create()
    assert not memory.commands.push(Command(Kind.CHUNK, 1, 1, rows=np.zeros((COMMAND_CAPACITY + 1, 1))))
    pushed = [memory.commands.push(Command(Kind.STOP, 1, number)) for number in range(COMMAND_SLOTS + 1)]
    assert pushed == [True] * COMMAND_SLOTS + [False]
    first = memory.commands.pop()
    assert first is not None
    assert (first.kind, first.number) == (Kind.STOP, 0)
    assert memory.commands.push(Command(Kind.STOP, 1, 99))
    memory.close()


def test_fields_survive() -> None:
    memory = SharedMemory.create()
    memory.commands.push(Command(Kind.HOME, 2**62 - 1, 2**53, -5, 50_000_000, 123))
    got = memory.commands.pop()
    assert got is not None
    assert (got.session, got.number, got.t0_ns, got.dt_ns, got.seed) == (2**62 - 1, 2**53, -5, 50_000_000, 123)
    assert memory.commands.pop() is None
    memory.close()


@pytest.mark.parametrize("fd", [-1, 9999])
def test_a_foreign_descriptor_is_refused(fd: int) -> None:
    with pytest.raises(BridgeError, match="shared memory"):
        SharedMemory(fd)
