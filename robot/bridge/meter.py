"""What one learns of a bridge from looking at it now and then: rates, and what happened between two looks."""

from collections import Counter, deque

from robot.bridge.client import BridgeState
from robot.control.safety import Clamp

WINDOW_NS = 2_000_000_000
"""Rates are averages over this time."""
SECONDS = 30
"""Length of the histories."""
_COUNTED = ("cycle", "last_sequence", "clamped", "overruns", "rejected")


class Meter:
    """Rates and histories of one bridge, from its states.

    Attributes:
        clamps: In how many of the states that were looked at something was cut down, by `Clamp`'s name.
        looks: How many states were looked at.
    """

    def __init__(self) -> None:
        self.clamps: Counter[str] = Counter()
        self.looks = 0
        self._seen: deque[tuple[int, dict[str, int]]] = deque()
        self._seconds: dict[str, deque[int]] = {name: deque([0], SECONDS) for name in ("clamped", "overruns")}
        self._second_ns = 0

    def add(self, state: BridgeState) -> None:
        """Look at a state; one that is not newer than the last says nothing."""
        counts = {name: int(state.status(name)) for name in _COUNTED}
        if self._seen and state.t_ns <= self._seen[-1][0]:
            return
        self.looks += 1
        mask = Clamp(int(state.status("clamp_mask")))
        self.clamps.update(str(bit.name) for bit in Clamp if bit and bit in mask)
        if self._seen:
            self._remember(state.t_ns, self._seen[-1][1], counts)
        else:
            self._second_ns = state.t_ns
        self._seen.append((state.t_ns, counts))
        while len(self._seen) > 2 and state.t_ns - self._seen[1][0] >= WINDOW_NS:
            self._seen.popleft()

    def per_second(self, name: str) -> float:
        """How fast `cycle`, `last_sequence` or another counter has grown lately [Hz]; 0 where it began anew."""
        if len(self._seen) < 2:
            return 0.0
        (begin_ns, before), (end_ns, after) = self._seen[0], self._seen[-1]
        return max(0, after[name] - before[name]) / (end_ns - begin_ns) * 1e9

    def history(self, name: str) -> list[int]:
        """How much `clamped` or `overruns` grew in each of the last seconds, oldest first."""
        return list(self._seconds[name])

    def _remember(self, t_ns: int, before: dict[str, int], after: dict[str, int]) -> None:
        passed = (t_ns - self._second_ns) // 1_000_000_000
        self._second_ns += passed * 1_000_000_000
        for name, seconds in self._seconds.items():
            seconds.extend([0] * min(passed, SECONDS))
            seconds[-1] += max(0, after[name] - before[name])
