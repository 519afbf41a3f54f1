"""Rows in force as the recorder retells them, against the plan that the real-time process follows."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.bridge.journal import Taken
from robot.bridge.schema import Mode
from robot.control.limits import PoseLimits
from robot.control.plan import Plan, Reject
from robot.episodes.commanded import CommandedRows
from tests.robot.bridge.sights import schema, state
from tests.robot.control.test_safety import LIMITS

MS = 1_000_000
SCHEMA = schema()
DRIVER = 77


def at(t_ns: int, mode: Mode = Mode.ARMED, driver: int = DRIVER) -> Any:
    return state(SCHEMA, t_ns=t_ns, mode=mode, lease=driver)


def chunk(t_ns: int, t0_ns: int, rows: np.ndarray, sequence: int = 1, **changed: Any) -> Taken:
    told = {"driver": DRIVER, "priority": 1, "verdict": Reject.NONE, "dt_s": 0.01, **changed}
    return Taken(sequence=sequence, t_ns=t_ns, t0_ns=t0_ns, rows=rows, **told)


def numbered(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float64)[:, None]


class Played:
    """What comes into force, state by state."""

    def __init__(self) -> None:
        self.rows = CommandedRows()
        self.found: list[tuple[int, float]] = []

    def go(self, begin_ms: int, end_ms: int, **keywords: Any) -> None:
        for t in range(begin_ms, end_ms):
            self.found += [(row.t_ns // MS, float(row.action[0])) for row in self.rows.reached(at(t * MS, **keywords))]


def test_rows_come_into_force_at_their_times() -> None:
    played = Played()
    played.go(0, 5)
    played.rows.take(chunk(5 * MS, 10 * MS, numbered(3)))
    played.go(5, 100)
    assert played.found == [(10, 0), (20, 1), (30, 2)]


def test_what_is_replaced_before_it_began_was_never_commanded() -> None:
    played = Played()
    played.rows.take(chunk(0, 10 * MS, numbered(8)))
    played.go(0, 25)
    played.rows.take(chunk(25 * MS, 30 * MS, numbered(2, 100), 2))
    played.go(25, 200)
    assert played.found == [(10, 0), (20, 1), (30, 100), (40, 101)]


def test_rows_that_come_late_are_in_force_from_then_on() -> None:
    played = Played()
    played.go(0, 25)
    played.rows.take(chunk(25 * MS, 0, numbered(4)))
    played.go(25, 100)
    assert played.found == [(25, 2), (30, 3)]


def test_braking_ends_the_plan() -> None:
    played = Played()
    played.rows.take(chunk(0, 10 * MS, numbered(5)))
    played.go(0, 25)
    played.go(25, 30, mode=Mode.BRAKING)
    played.go(30, 100)
    assert played.found == [(10, 0), (20, 1)]


def test_another_driver_ends_it_and_its_own_rows_count_at_once() -> None:
    played = Played()
    played.rows.take(chunk(0, 10 * MS, numbered(5)))
    played.go(0, 25)
    played.rows.take(chunk(25 * MS, 25 * MS, numbered(2, 50), driver=78))
    played.go(25, 60, driver=78)
    played.rows.take(chunk(60 * MS, 70 * MS, numbered(1, 60), 2, driver=78))
    played.go(60, 65, driver=0)
    played.go(65, 100)
    assert played.found == [(10, 0), (20, 1), (25, 50), (35, 51)]


def test_rejected_chunks_change_nothing() -> None:
    played = Played()
    played.rows.take(chunk(0, 10 * MS, numbered(2)))
    played.rows.take(chunk(0, 10 * MS, numbered(2, 9), 2, verdict=Reject.TOO_LATE, driver=5))
    played.go(0, 50)
    assert played.found == [(10, 0), (20, 1)]


def test_states_that_were_lost_lose_no_rows() -> None:
    played = Played()
    played.rows.take(chunk(0, 10 * MS, numbered(4)))
    played.go(0, 5)
    played.go(35, 60)
    assert played.found == [(10, 0), (20, 1), (30, 2), (40, 3)]


chunks = st.lists(
    st.tuples(st.integers(0, 120), st.integers(-40, 60), st.integers(1, 12), st.sampled_from([5, 10, 20])), max_size=8
)


@settings(max_examples=50, deadline=None)
@given(chunks)
def test_it_is_the_plan_that_the_arm_follows(sent: list[tuple[int, int, int, int]]) -> None:
    plan = Plan(PoseLimits.from_mapping({**LIMITS, "max_ahead_s": 1.0, "max_age_s": 1.0}), 1)
    told, found, expected = CommandedRows(), [], []
    by_cycle = {k: [(n, entry) for n, entry in enumerate(sent) if entry[0] == k] for k in range(121)}
    now = None
    for k in range(400):
        t_ns = k * MS
        for number, (_, ahead, count, dt_ms) in by_cycle.get(k, []):
            rows = numbered(count, 1000 * (number + 1))
            verdict = plan.add(1000 * k + number + 1, t_ns + ahead * MS, dt_ms * MS, rows, t_ns)
            told.take(chunk(t_ns, t_ns + ahead * MS, rows, dt_s=dt_ms / 1000, verdict=verdict))
        index, _ = plan.advance(t_ns)
        value = float(plan.row(index)[0]) if index >= 0 else None
        if value is not None and value != now:
            expected.append((t_ns, value))
        now = value if value is not None else now
        found += [(row.t_ns, float(row.action[0])) for row in told.reached(at(t_ns))]
    assert found == expected
    assert all(a < b for (a, _), (b, _) in itertools.pairwise(found))
