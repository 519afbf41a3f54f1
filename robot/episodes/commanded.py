"""Which row of which chunk was in force when: the real-time process's plan, retold from the journal.

A chunk replaces what was planned from the beginning of its first row that is not over (`robot.control.plan.Plan`). A
row that was replaced before it began was never commanded, and is left out here.
"""

from dataclasses import dataclass

import numpy as np

from robot.bridge.client import BridgeState
from robot.bridge.journal import Taken
from robot.bridge.schema import Mode
from robot.control.plan import Reject


@dataclass(frozen=True)
class CommandedRow:
    """One row of an accepted chunk.

    Attributes:
        t_ns: When it came into force [ns].
        action: Shape (A,), as it was sent.
    """

    t_ns: int
    action: np.ndarray


class CommandedRows:
    """Fed with chunks and states in the order of the journal, gives the rows as they come into force."""

    def __init__(self) -> None:
        self._planned: list[CommandedRow] = []
        self._driver = 0

    def take(self, taken: Taken) -> None:
        """Plan the rows of a chunk, if it was accepted."""
        if taken.verdict != Reject.NONE:
            return
        if taken.driver != self._driver:
            self._planned, self._driver = [], taken.driver
        dt_ns = round(taken.dt_s * 1e9)
        over = min(max(0, (taken.t_ns - taken.t0_ns) // dt_ns), len(taken.rows) - 1)
        begins = [taken.t0_ns + number * dt_ns for number in range(over, len(taken.rows))]
        kept = [row for row in self._planned if row.t_ns < begins[0]]
        # A row that had begun before its chunk was there is in force from then on.
        rows = [
            CommandedRow(max(begin, taken.t_ns), action)
            for begin, action in zip(begins, taken.rows[over:], strict=True)
        ]
        self._planned = kept + rows

    def reached(self, state: BridgeState) -> list[CommandedRow]:
        """Rows that have come into force by the time of a state. What stops the arm, or a new driver, ends the plan."""
        driver = int(state.status("lease"))
        if state.mode != Mode.ARMED or driver != self._driver:
            self._planned, self._driver = [], driver
        count = 0
        while count < len(self._planned) and self._planned[count].t_ns <= state.t_ns:
            count += 1
        done, self._planned = self._planned[:count], self._planned[count:]
        return done
