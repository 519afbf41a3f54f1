"""Who may drive: one holder at a time, for as long as it shows signs of life."""

import numpy as np

from hardware.shared_memory import Word
from robot.errors import LeaseError

MIN_TTL_S, MAX_TTL_S = 0.1, 2.0
"""A lease shorter than a hiccup would be lost, a longer one would leave the arm moving without anybody."""


class LeaseDesk:
    """Writes the lease where the real-time process checks it for every chunk; it stops the arm when the lease ends."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words
        self._name, self._ttl_ns = "", 0

    def acquire(self, session: int, name: str, ttl_s: float, now_ns: int) -> None:
        """Give the lease to a session, or renew it.

        Raises:
            LeaseError: Somebody else holds it; names the holder.
        """
        if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
            raise LeaseError(f"A lease lasts {MIN_TTL_S} to {MAX_TTL_S} s without a sign of life, got {ttl_s} s.")
        if self.is_held(now_ns) and not self.holds(session, now_ns):
            raise LeaseError(f"BUSY: {self._name!r} drives the arm. Wait until it lets go, or stop that client.")
        self._name, self._ttl_ns = name, int(ttl_s * 1e9)
        # Never a moment in which the new session has the old one's time.
        if int(self._words[Word.LEASE_SESSION]) != session:
            self._words[Word.LEASE_UNTIL_NS] = 0
            self._words[Word.LEASE_SESSION] = session
        self._words[Word.LEASE_UNTIL_NS] = now_ns + self._ttl_ns

    def renew(self, session: int, now_ns: int) -> bool:
        """Count a sign of life; False if the session does not hold the lease any more."""
        if not self.holds(session, now_ns):
            return False
        self._words[Word.LEASE_UNTIL_NS] = now_ns + self._ttl_ns
        return True

    def release(self, session: int, now_ns: int) -> None:
        """End the lease if this session holds it."""
        if self.holds(session, now_ns):
            self._words[Word.LEASE_UNTIL_NS] = 0

    def is_held(self, now_ns: int) -> bool:
        """Whether anybody holds the lease."""
        return now_ns < int(self._words[Word.LEASE_UNTIL_NS])

    def holds(self, session: int, now_ns: int) -> bool:
        """Whether this session holds the lease. May be called from another thread."""
        return self.is_held(now_ns) and session != 0 and int(self._words[Word.LEASE_SESSION]) == session
