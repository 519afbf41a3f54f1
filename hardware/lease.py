"""Who may drive: one holder at a time, for as long as it shows signs of life. Who outranks it may take over."""

from dataclasses import dataclass

import numpy as np

from hardware.shared_memory import Word
from robot.bridge.schema import Priority
from robot.errors import LeaseError

MIN_TTL_S, MAX_TTL_S = 0.1, 2.0
"""A lease shorter than a hiccup would be lost, a longer one would leave the arm moving without anybody."""


@dataclass(frozen=True)
class Claim:
    """A session that wants to drive.

    Attributes:
        session: Of the client.
        name: Shown to the others.
        ttl_s: How long the lease lasts without a sign of life [s].
        priority: A higher one takes over from a lower one.
        blend: Whether to take over in mid-motion; the arm goes on from where it is, under arms.
    """

    session: int
    name: str
    ttl_s: float
    priority: Priority = Priority.POLICY
    blend: bool = False


class LeaseDesk:
    """Writes the lease where the real-time process checks it for every chunk; it stops the arm when the lease ends."""

    def __init__(self, words: np.ndarray) -> None:
        # A view that gives plain ints: an array makes an object of its own type for each.
        self._words = words.data
        self._ttl_ns = 0
        self.name = ""
        """Of whoever held the lease last."""

    def acquire(self, claim: Claim, now_ns: int, is_moving: bool) -> None:
        """Give the lease to a session, or renew it.

        Args:
            claim: Who asks for what.
            now_ns: The present [ns].
            is_moving: Whether the arm moves, or is about to, for its present holder.

        Raises:
            LeaseError: Somebody else holds it and is not outranked, or drives and would be interrupted.
        """
        if not MIN_TTL_S <= claim.ttl_s <= MAX_TTL_S:
            raise LeaseError(f"A lease lasts {MIN_TTL_S} to {MAX_TTL_S} s without a sign of life, got {claim.ttl_s} s.")
        takes_over = self.is_held(now_ns) and not self.holds(claim.session, now_ns)
        if takes_over:
            self._check_takeover(claim, is_moving)
        self.name, self._ttl_ns = claim.name, int(claim.ttl_s * 1e9)
        words = self._words
        if words[Word.LEASE_SESSION] != claim.session:
            if takes_over and is_moving:
                # The real-time process must know that this change is agreed before it sees it, and see no gap.
                words[Word.LEASE_BLEND_SESSION] = claim.session
            else:
                words[Word.LEASE_BLEND_SESSION] = 0
                # Never a moment in which the new session has the time of one that is over.
                words[Word.LEASE_UNTIL_NS] = 0
            words[Word.LEASE_ALIVE_NS] = now_ns
            words[Word.LEASE_SESSION] = claim.session
        words[Word.LEASE_PRIORITY] = claim.priority
        self._live(now_ns)

    def _check_takeover(self, claim: Claim, is_moving: bool) -> None:
        holder = f"BUSY: {self.name!r} drives the arm"
        priority = Priority(self._words[Word.LEASE_PRIORITY])
        if claim.priority <= priority:
            raise LeaseError(
                f"{holder} with priority {priority.name.lower()}, yours is {claim.priority.name.lower()}. Wait until "
                "it lets go, or stop that client."
            )
        if is_moving and not claim.blend:
            raise LeaseError(
                f"{holder}, which moves. Take over at standstill (`stop` ends the motion), or in motion with "
                "blend=True."
            )

    def renew(self, session: int, alive_ns: int, now_ns: int) -> bool:
        """Count a sign of life that was given at `alive_ns`; False if the session does not hold the lease any more."""
        if not self.holds(session, now_ns):
            return False
        self._live(max(alive_ns, self._words[Word.LEASE_ALIVE_NS]))
        return True

    def _live(self, alive_ns: int) -> None:
        self._words[Word.LEASE_ALIVE_NS] = alive_ns
        self._words[Word.LEASE_UNTIL_NS] = alive_ns + self._ttl_ns

    def release(self, session: int, now_ns: int) -> None:
        """End the lease if this session holds it."""
        if self.holds(session, now_ns):
            self._words[Word.LEASE_UNTIL_NS] = 0

    def is_held(self, now_ns: int) -> bool:
        """Whether anybody holds the lease."""
        return now_ns < self._words[Word.LEASE_UNTIL_NS]

    def holds(self, session: int, now_ns: int) -> bool:
        """Whether this session holds the lease. May be called from another thread."""
        return self.is_held(now_ns) and session != 0 and self._words[Word.LEASE_SESSION] == session

    def holder(self, now_ns: int) -> str:
        """Name of whoever holds the lease now; empty for nobody."""
        return self.name if self.is_held(now_ns) else ""
