"""Sessions of a gateway, and what it refused: both bounded, whatever arrives."""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from robot.bridge.wire import Frame, Reason
from robot.errors import BridgeError, WireError

MAX_SESSIONS = 32
IDLE_S = 30.0
"""A session that was silent for this long gives its place to a new one."""
_ANSWERS = 4
"""Requests of a session whose answers are kept; a client asks again only for its last."""
FUTURE_NS = 50_000_000
"""How far ahead of us a client may believe our clock to be."""
STALE_NS = 500_000_000
"""Frames that took longer than this are no signs of life."""


class Tally:
    """Frames that were refused, counted by reason. One thread writes."""

    def __init__(self) -> None:
        self._refused: Counter[str] = Counter()

    def refuse(self, reason: str) -> None:
        """Count one."""
        self._refused[str(reason)] += 1

    @property
    def refused(self) -> dict[str, int]:
        """How many, by reason; a copy."""
        return dict(self._refused)


@dataclass
class Session:
    """One client.

    Attributes:
        name: As the others see it.
        user: Public key that it proved itself with; empty without keys.
        seen_ns: When it was heard last.
        sent_ns: When its newest command was sent.
        request: Highest number of a request.
        answers: Bytes of the answers to its last requests, None while the arm has not answered.
    """

    name: str
    user: str
    seen_ns: int
    sent_ns: int = 0
    request: int = 0
    answers: OrderedDict[int, bytes | None] = field(default_factory=OrderedDict)

    def fresh(self, frame: Frame, now_ns: int) -> int:
        """When a command was sent, at most now [ns].

        Raises:
            WireError: It is a replay, has been overtaken, took too long, or comes from the future.
        """
        if frame.t_send_ns <= self.sent_ns:
            raise WireError("The frame is not newer than the one before it.", Reason.REPLAY)
        if not now_ns - STALE_NS <= frame.t_send_ns <= now_ns + FUTURE_NS:
            raise WireError(f"The frame was sent {(now_ns - frame.t_send_ns) / 1e9:.3f} s ago.", Reason.CLOCK)
        self.sent_ns, self.seen_ns = frame.t_send_ns, now_ns
        return min(frame.t_send_ns, now_ns)

    def begin(self, number: int, now_ns: int) -> bool:
        """Note a request; False if it was noted before, so that it is answered and not repeated.

        Raises:
            WireError: It is older than every request that is remembered.
        """
        self.seen_ns = now_ns
        if number in self.answers:
            return False
        if number <= self.request:
            raise WireError(f"Request {number} is older than {self.request}.", Reason.REPLAY)
        self.request = number
        self.answers[number] = None
        while len(self.answers) > _ANSWERS:
            self.answers.popitem(last=False)
        return True


class Sessions:
    """Who has said hello since the bridge was started."""

    def __init__(self) -> None:
        self._by_id: dict[int, Session] = {}

    def open(self, number: int, name: str, user: str, now_ns: int) -> Session:
        """The session of a hello: a new one, or the one that it repeats.

        Raises:
            BridgeError: There are too many, or the number is another user's.
        """
        found = self._by_id.get(number)
        if found is not None:
            if found.user != user:
                raise BridgeError("This session belongs to somebody else.")
            return found
        if len(self._by_id) >= MAX_SESSIONS:
            self._by_id = {key: one for key, one in self._by_id.items() if now_ns - one.seen_ns < IDLE_S * 1e9}
        if len(self._by_id) >= MAX_SESSIONS:
            raise BridgeError(
                f"{MAX_SESSIONS} clients are connected, which is all that a bridge takes. Close one; a silent one "
                f"makes room after {IDLE_S:.0f} s."
            )
        self._by_id[number] = Session(name, user, now_ns)
        return self._by_id[number]

    def get(self, number: int) -> Session:
        """The session of a frame.

        Raises:
            WireError: It has not said hello, or was forgotten.
        """
        try:
            return self._by_id[number]
        except KeyError:
            raise WireError("No client of this session is known.", Reason.SESSION) from None

    def remember(self, number: int, request: int, answer: bytes) -> None:
        """Keep an answer for a request that may be made again."""
        session = self._by_id.get(number)
        if session is not None and request in session.answers:
            session.answers[request] = answer

    def drop(self, known: dict[str, str]) -> list[int]:
        """Forget the sessions of users that are not `known` any more; returns their numbers."""
        gone = [number for number, one in self._by_id.items() if one.user and one.user not in known]
        for number in gone:
            del self._by_id[number]
        return gone

    def __len__(self) -> int:
        return len(self._by_id)
