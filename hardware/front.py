"""What the channels of a gateway share: the arm's newest state, the lease, the sessions, and who may connect."""

import time
from collections import Counter

import numpy as np

from hardware.keys import BridgeKeys
from hardware.lease import LeaseDesk
from hardware.sessions import Sessions, Tally
from hardware.shared_memory import SharedMemory
from robot.bridge.schema import INDEX, STANDSTILL_RADPS, BridgeSchema, Mode
from robot.bridge.wire import HEADER


class Front:
    """One bridge as its clients see it.

    Attributes:
        schema: What hello answers.
        memory: Shared with the real-time process.
        keys: Who may connect; None for anybody who reaches us.
        lease: Who drives.
        sessions: Who is connected.
        tally: Frames refused on the command and control channels.
        estops: Frames refused on the e-stop channel, which has a thread of its own.
        frame: A frame that holds it, to be sealed and sent.
        state: The newest state, as `refresh` read it.
        count: How many states the real-time process had written by then.
        planned_until_ns: When the last row of a chunk that was passed on ends.
    """

    def __init__(self, schema: BridgeSchema, memory: SharedMemory, keys: BridgeKeys | None) -> None:
        self.schema, self.memory, self.keys = schema, memory, keys
        self.lease, self.sessions = LeaseDesk(memory.words), Sessions()
        self.tally, self.estops = Tally(), Tally()
        self.frame = bytearray(HEADER.size + 8 * schema.layout.size)
        self.state = np.frombuffer(self.frame, np.float64, offset=HEADER.size)
        self.count = self.planned_until_ns = 0
        self._dq = schema.layout.views(self.state)["dq"]
        self._names = keys.names() if keys else {}

    def refresh(self) -> None:
        """Read the newest state."""
        self.count = self.memory.states.read(self.state)

    def is_moving(self, now_ns: int) -> bool:
        """Whether the arm moves, or has a row planned."""
        self.refresh()
        if self.state[INDEX["mode"]] in (Mode.DISARMED, Mode.FAULT):
            return False
        return now_ns < self.planned_until_ns or bool((np.abs(self._dq) > STANDSTILL_RADPS).any())

    def name_of(self, user: str, claimed: str) -> str:
        """What a client is called: by its key where there are keys, else as it says."""
        if self.keys is not None:
            return self._names.get(user, "")
        # Whoever shows a name on a terminal must not be at the mercy of who chose it.
        return "".join(letter for letter in claimed[:64] if letter.isprintable())

    def forget_revoked(self) -> None:
        """Take sessions and lease from clients that are not authorised any more."""
        if self.keys is None:
            return
        self._names = self.keys.names()
        for session in self.sessions.drop(self._names):
            self.lease.release(session, time.monotonic_ns())

    def counters(self) -> dict[str, int]:
        """Frames refused since the start, by reason."""
        return dict(Counter(self.tally.refused) + Counter(self.estops.refused))
