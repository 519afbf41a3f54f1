"""What every way to play chunks has in common: a plan of rows on a grid of ticks, and when to ask for the next chunk.

Tick k is the moment of observation k. Row i of a chunk that answers observation k belongs to tick k + i, whenever the
chunk is ready. An execution only decides; whoever drives it observes, infers and plays. It therefore runs alike in a
simulation that counts ticks (`policies.execution.simulated`) and behind a bridge, where time passes by itself
(`policies.node`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from policies.continuing import Continuation
from policies.execution.delay import DelayEstimate
from robot.contract import ActionChunk, Policy, PolicySpecs


@dataclass(frozen=True)
class Ask:
    """A chunk is wanted now.

    Attributes:
        tick: Of the observation that it is to answer.
        continuation: What it has to go on from; None where it is free.
    """

    tick: int
    continuation: Continuation | None = None


class Execution(ABC):
    """Plays the chunks of one policy, an episode at a time.

    Attributes:
        delay: What inference costs, in rows. Outlives episodes; whoever drives may add what it measured before.
        dropped_rows: Rows of this episode whose tick had passed when their chunk was ready.
    """

    def __init__(self, specs: PolicySpecs) -> None:
        self.specs = specs
        self.delay = DelayEstimate()
        self._asked: int | None = None
        self._plan, self._first, self.dropped_rows = np.empty((0, 0)), 0, 0

    def begin(self, chunk: ActionChunk) -> None:
        """Forget the last episode. Nothing moved until its first chunk was there, so its row 0 plays at tick 0."""
        self._asked, self.dropped_rows = None, 0
        self._plan, self._first = self._begun(chunk.actions), 0

    def ask(self, tick: int) -> Ask | None:
        """Whether the observation of `tick` is to be answered; None also while an earlier one still is."""
        if self._asked is not None or not self._is_time(tick):
            return None
        self._asked = tick
        return Ask(tick, self._continuation(tick))

    def deliver(self, chunk: ActionChunk, tick: int) -> None:
        """Take the answer to the last ask; `tick` is the first one whose row it can still decide."""
        assert self._asked is not None, "a chunk that nobody asked for"
        asked, self._asked = self._asked, None
        self.delay.add(tick - asked)
        self._plan, self._first = self._merged(chunk.actions, asked, tick), tick

    def rows_from(self, tick: int) -> np.ndarray:
        """What is planned from `tick` on, (N, A), row 0 at `tick`; empty where the plan has run out."""
        return self._plan[max(0, tick - self._first) :]

    def row(self, tick: int) -> np.ndarray | None:
        """What plays at `tick`, (A,); None where nothing is planned: the arm has to hold."""
        rows = self.rows_from(tick)
        return rows[0] if len(rows) else None

    @property
    def end(self) -> int:
        """First tick that nothing is planned for."""
        return self._first + len(self._plan)

    def _begun(self, actions: np.ndarray) -> np.ndarray:
        """The plan from tick 0 on."""
        return actions

    @abstractmethod
    def _is_time(self, tick: int) -> bool:
        """Whether to ask at `tick`, where nothing is being inferred."""

    @abstractmethod
    def _merged(self, actions: np.ndarray, asked: int, tick: int) -> np.ndarray:
        """The plan from `tick` on, given a chunk (H, A) that answers the observation of `asked`."""

    def _continuation(self, tick: int) -> Continuation | None:
        return None

    def _still_ahead(self, actions: np.ndarray, asked: int, tick: int) -> np.ndarray:
        """The rows of a chunk from `tick` on. If all have passed, the last one: an old action is better than none."""
        late = min(tick - asked, len(actions) - 1)
        self.dropped_rows += late
        return actions[late:]


@dataclass(kw_only=True)
class ExecutionConfig(ABC):
    """Keys of an option of the config group `execution`."""

    @abstractmethod
    def build(self, policy: Policy) -> Execution:
        """The execution for a policy.

        Raises:
            ConfigError: The policy cannot be played like this; the message lists what works.
        """
