"""Memory that the gateway and the real-time process share: single words, a ring of states, a ring of commands.

It is anonymous (`memfd`), inherited by file descriptor: no name exists, so that nothing is left behind however either
side dies. Neither side ever waits for the other. Sequence counters order reads and writes on x86, whose stores are
seen in order; a CRC with every record makes torn ones visible on processors that promise less.
"""

import mmap
import os
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from robot.errors import BridgeError
from robot.processes import anonymous_memory

STATE_CAPACITY = 256
"""Longest state [float64]."""
STATE_SLOTS = 256
"""States that are kept: a gateway that was away for a quarter of a second misses none, at 1 kHz."""
COMMAND_SLOTS = 32
VERDICT_SLOTS = 64
"""Verdicts on commands that are kept."""
LOST = -1
"""A verdict that was overwritten before it was read."""
COMMAND_FIELDS = 8
COMMAND_CAPACITY = 128 * 16
"""Longest rows of a command [float64]."""
_READ_ATTEMPTS = 1000
_STRIDE = 8
"""Words lie a cache line (8 × 8 bytes) apart, so that writers on different cores do not disturb each other."""


class Word(IntEnum):
    """Single int64, each with one writer; an aligned one is read and written whole."""

    ESTOP = 0
    GATEWAY_ALIVE_NS = 1
    SHUTDOWN = 2
    LEASE_SESSION = 3
    LEASE_UNTIL_NS = 4
    LEASE_ALIVE_NS = 5
    """When the holder last showed a sign of life."""
    LEASE_BLEND_SESSION = 6
    """The session that took over in mid-motion, by agreement: the arm stays armed and goes on from where it is."""
    LEASE_PRIORITY = 7


class Kind(IntEnum):
    """What a command asks for."""

    CHUNK = 1
    ARM = 2
    DISARM = 3
    HOME = 4
    STOP = 5
    RESET = 6


@dataclass(frozen=True)
class Command:
    """One record of the command ring.

    Attributes:
        kind: What is asked for.
        session: Of the client that asks.
        number: Sequence number of a chunk, identity of an operation.
        t0_ns: When row 0 of a chunk begins [ns].
        dt_ns: Length of a row [ns].
        seed: Of the scene that HOME begins; -1 for none.
        rows: Actions (N, A) of a chunk.
    """

    kind: Kind
    session: int
    number: int
    t0_ns: int = 0
    dt_ns: int = 0
    seed: int = -1
    rows: np.ndarray | None = None


class SharedMemory:
    """All of it, mapped into this process.

    Attributes:
        words: int64 by `Word`.
        states: Newest state, from the real-time process.
        commands: To the real-time process.
    """

    def __init__(self, fd: int) -> None:
        """Map what `create` made; `fd` was inherited from the process that did."""
        self.fd = fd
        try:
            # fstat also refuses -1, for which mmap would give memory that nobody else sees.
            os.fstat(fd)
            self._map = mmap.mmap(fd, _SIZE)
        except (OSError, ValueError) as error:
            raise BridgeError(f"File descriptor {fd} is not the bridge's shared memory: {error}.") from error
        buffer = np.frombuffer(self._map, np.uint8)
        self.words = buffer[:_WORDS].view(np.int64)[::_STRIDE]
        self.states = StateRing(buffer[_WORDS : _WORDS + _STATES])
        self.commands = CommandRing(buffer[_WORDS + _STATES :])

    @classmethod
    def create(cls) -> "SharedMemory":
        """New memory, all zero."""
        fd = anonymous_memory("armature-bridge")
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    def close(self) -> None:
        """Give the descriptor back; the kernel frees the memory with its last user."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class StateRing:
    """One writer, any readers: the writer never waits, a reader retries until it has seen no writing (a seqlock).

    Attributes:
        wake_fd: An eventfd that the writer rings after every state, for a reader that waits for it; -1 for none.
    """

    def __init__(self, buffer: np.ndarray) -> None:
        words = buffer.view(np.int64)
        # `data` gives and takes plain ints, several times as fast as elements of an array.
        self._written = words[:1].data
        slots = words[_STRIDE:].reshape(STATE_SLOTS, -1)
        self._sequence, self._crc, self._size = (slots[:, field].data for field in range(3))
        self._values = slots[:, _STRIDE:].view(np.float64)
        self.wake_fd = -1

    def write(self, values: np.ndarray) -> None:
        """Publish a float64 vector."""
        count = int(self._written[0])
        slot = count % STATE_SLOTS
        self._sequence[slot] = 2 * count + 1
        self._size[slot] = len(values)
        self._values[slot, : len(values)] = values
        self._crc[slot] = zlib.crc32(values.data)
        self._sequence[slot] = 2 * count + 2
        self._written[0] = count + 1
        if self.wake_fd >= 0:
            os.eventfd_write(self.wake_fd, 1)

    def read(self, out: np.ndarray) -> int:
        """Copy the newest vector into `out` and return how many were written before and with it; 0 if none yet.

        Raises:
            BridgeError: `out` has another length than what is written, or no whole state is to be had.
        """
        for _ in range(_READ_ATTEMPTS):
            count = int(self._written[0])
            if count == 0 or self.recall(count, out):
                return count
        raise BridgeError("No whole state can be read from the shared memory: something else writes to it.")

    def recall(self, count: int, out: np.ndarray) -> bool:
        """Copy vector number `count`, from 1, into `out`; False where it is not there any more.

        Raises:
            BridgeError: `out` has another length than what is written.
        """
        slot = (count - 1) % STATE_SLOTS
        size, before = int(self._size[slot]), int(self._sequence[slot])
        if before == 2 * count and size != len(out):
            raise BridgeError(f"The state has {size} numbers, this side expects {len(out)}.")
        np.copyto(out, self._values[slot, : len(out)])
        crc = int(self._crc[slot])
        return before == 2 * count == int(self._sequence[slot]) and zlib.crc32(out.data) == crc


class CommandRing:
    """One writer, one reader: a full ring refuses, nothing is overwritten. The reader may give a verdict on each."""

    def __init__(self, buffer: np.ndarray) -> None:
        words = buffer.view(np.int64)
        self._pushed, self._popped = words[:1].data, words[_STRIDE : _STRIDE + 1].data
        verdicts = words[2 * _STRIDE : 2 * _STRIDE + 2 * VERDICT_SLOTS].reshape(2, VERDICT_SLOTS)
        self._verdicts, self._judged_ns = verdicts[0].data, verdicts[1].data
        slots = words[2 * _STRIDE + 2 * VERDICT_SLOTS :].reshape(COMMAND_SLOTS, -1)
        self._fields, self._crc = slots[:, :COMMAND_FIELDS], slots[:, COMMAND_FIELDS].data
        self._rows = slots[:, 2 * _STRIDE :].view(np.float64)

    def push(self, command: Command) -> bool:
        """Append; False if the ring is full or the rows do not fit."""
        pushed = int(self._pushed[0])
        rows = np.empty((0, 0)) if command.rows is None else command.rows
        if pushed - int(self._popped[0]) >= COMMAND_SLOTS or rows.size > COMMAND_CAPACITY:
            return False
        slot = pushed % COMMAND_SLOTS
        self._fields[slot] = (
            *(command.kind, command.session, command.number, command.t0_ns, command.dt_ns, command.seed),
            *rows.shape,
        )
        self._rows[slot, : rows.size] = rows.ravel()
        self._crc[slot] = self._checksum(slot, rows.size)
        self._pushed[0] = pushed + 1
        return True

    def pop(self) -> Command | None:
        """The oldest command, or None if there is none or it is not all there yet."""
        popped = int(self._popped[0])
        if popped >= int(self._pushed[0]):
            return None
        slot = popped % COMMAND_SLOTS
        kind, session, number, t0_ns, dt_ns, seed, count, width = self._fields[slot].tolist()
        if not 0 <= count * width <= COMMAND_CAPACITY or self._checksum(slot, count * width) != int(self._crc[slot]):
            return None
        rows = self._rows[slot, : count * width].reshape(count, width).copy()
        self._popped[0] = popped + 1
        return Command(Kind(kind), session, number, t0_ns, dt_ns, seed, rows)

    @property
    def pushed(self) -> int:
        """Number of the command that was pushed last, from 1."""
        return int(self._pushed[0])

    def judge(self, verdict: int, t_ns: int) -> None:
        """Say what became of the command that was popped last.

        Args:
            verdict: 0 to 255.
            t_ns: The cycle in which that was decided [ns].
        """
        number = int(self._popped[0])
        slot = number % VERDICT_SLOTS
        self._verdicts[slot] = 0
        self._judged_ns[slot] = t_ns
        # One word, so that whoever sees the number sees the verdict that belongs to it.
        self._verdicts[slot] = number << 8 | verdict

    def verdict(self, number: int) -> tuple[int, int] | None:
        """What became of command `number`, and when [ns]; None while nothing has, `LOST` where it is too long ago."""
        slot = number % VERDICT_SLOTS
        word = int(self._verdicts[slot])
        t_ns = int(self._judged_ns[slot])
        if word >> 8 < number:
            return None
        return (word & 0xFF, t_ns) if word >> 8 == number and word == int(self._verdicts[slot]) else (LOST, 0)

    def _checksum(self, slot: int, size: int) -> int:
        return zlib.crc32(self._rows[slot, :size].data, zlib.crc32(self._fields[slot].data))


_WORDS = 8 * _STRIDE * len(Word)
_STATES = 8 * (_STRIDE + STATE_SLOTS * (_STRIDE + STATE_CAPACITY))
_COMMANDS = 8 * (2 * _STRIDE + 2 * VERDICT_SLOTS + COMMAND_SLOTS * (2 * _STRIDE + COMMAND_CAPACITY))
_SIZE = _WORDS + _STATES + _COMMANDS
