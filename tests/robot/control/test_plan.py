from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.control.limits import PoseLimits
from robot.control.plan import MAX_ROWS, Follower, Plan, Reject
from robot.control.rotations import is_orthonormal
from robot.control.safety import Situation
from tests.robot.control.test_safety import LIMITS

DT = 50_000_000
MS = 1_000_000
NOW = 10**12
POS, ROT = np.array([0.5, 0.0, 0.3]), np.array([1.0, 0, 0, 0, 1, 0])


def at(pos: np.ndarray) -> Situation:
    return Situation(np.zeros(10), np.zeros(2), np.zeros(2), pos, ROT)


def plan() -> Plan:
    return Plan(PoseLimits.from_mapping(LIMITS), 2)


def rows(*values: float) -> np.ndarray:
    return np.array([[value, 0.0] for value in values])


def played(plan: Plan, times: list[int]) -> list[float | None]:
    out: list[float | None] = []
    for now in times:
        index, _ = plan.advance(now)
        out.append(float(plan.row(index)[0]) if index >= 0 else None)
    return out


def test_rows_play_in_their_time() -> None:
    p = plan()
    assert p.add(1, NOW, DT, rows(1, 2, 3), NOW) == Reject.NONE
    times = [NOW - 1, NOW, NOW + DT - 1, NOW + DT, NOW + 3 * DT - 1, NOW + 3 * DT]
    assert played(p, times) == [None, 1, 1, 2, 3, None]


def test_a_row_begins_once() -> None:
    p = plan()
    p.add(1, NOW, DT, rows(1, 2), NOW)
    assert [p.advance(NOW + k * DT // 2)[1] for k in range(4)] == [True, False, True, False]


def test_past_rows_are_skipped_and_counted() -> None:
    p = plan()
    assert p.add(1, NOW - 2 * DT - 5, DT, rows(1, 2, 3, 4), NOW) == Reject.NONE
    assert p.stale_rows == 2
    assert played(p, [NOW, NOW + DT]) == [3, 4]


def test_a_newer_chunk_replaces_from_its_beginning() -> None:
    p = plan()
    p.add(1, NOW, DT, rows(1, 2, 3, 4), NOW)
    p.advance(NOW)
    assert p.add(2, NOW + 2 * DT, DT, rows(8, 9), NOW + 10) == Reject.NONE
    assert played(p, [NOW + 10, NOW + DT, NOW + 2 * DT, NOW + 3 * DT, NOW + 4 * DT]) == [1, 2, 8, 9, None]


def test_replacing_in_the_middle_of_a_row_cuts_it_short() -> None:
    p = plan()
    p.add(1, NOW, DT, rows(1, 2), NOW)
    p.advance(NOW)
    p.add(2, NOW + DT // 2, DT, rows(8), NOW + 5)
    assert p.advance(NOW + 6) == (0, False)
    assert played(p, [NOW + DT // 2 - 1, NOW + DT // 2, NOW + DT, NOW + 2 * DT]) == [1, 8, 8, None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sequence": 5}, Reject.SEQUENCE),
        ({"sequence": 4}, Reject.SEQUENCE),
        ({"t0": NOW + 1001 * MS}, Reject.TOO_FAR_AHEAD),
        ({"t0": NOW - 3 * DT}, Reject.TOO_LATE),
        ({"t0": NOW - 1001 * MS, "rows": np.zeros((100, 2))}, Reject.TOO_LATE),
        ({"rows": np.array([[np.nan, 0]])}, Reject.NOT_FINITE),
        ({"rows": np.array([[0, np.inf]])}, Reject.NOT_FINITE),
        ({"rows": np.zeros((1, 3))}, Reject.SHAPE),
        ({"rows": np.zeros((0, 2))}, Reject.SHAPE),
        ({"rows": np.zeros((MAX_ROWS + 1, 2))}, Reject.SHAPE),
        ({"dt": 0}, Reject.SHAPE),
    ],
)
def test_refusals_change_nothing(change: dict[str, Any], reason: Reject) -> None:
    p = plan()
    p.add(5, NOW, DT, rows(1, 2), NOW)
    given = {"sequence": 6, "t0": NOW, "dt": DT, "rows": rows(7, 8, 9), **change}
    assert p.add(given["sequence"], given["t0"], given["dt"], given["rows"], NOW) == reason
    assert played(p, [NOW, NOW + DT]) == [1, 2]


@given(st.lists(st.tuples(st.integers(-3, 20), st.integers(1, 12), st.integers(0, 4)), max_size=40))
def test_any_stream_keeps_times_in_order(stream: list[tuple[int, int, int]]) -> None:
    p, now = plan(), NOW
    for sequence, (offset, count, step) in enumerate(stream, start=1):
        now += step * 10 * MS
        p.add(sequence, now + offset * 25 * MS, DT, np.full((count, 2), float(sequence)), now)
        begin, end = p._begin[p._at : p._count], p._end[p._at : p._count]
        assert (begin[:-1] < begin[1:]).all()
        assert (end[:-1] <= begin[1:]).all()
        assert (begin < end).all()
        index, _ = p.advance(now)
        if index >= 0:
            assert p._begin[index] <= now < p._end[index]


def follower() -> tuple[Plan, Follower]:
    def shift(action: np.ndarray, pos: np.ndarray, rot6d: np.ndarray, target: np.ndarray) -> None:
        target[:3], target[3:9], target[9] = pos + np.array([action[0], 0, 0]), rot6d, action[1]

    p = plan()
    f = Follower(p, PoseLimits.from_mapping(LIMITS), shift)
    f.rest(at(POS), gripper=0.0)
    return p, f


def test_a_delta_starts_from_the_pose_reached_and_is_held() -> None:
    p, f = follower()
    p.add(1, NOW, DT, rows(0.05, 0.05), NOW)
    target = np.zeros(10)
    f.fill(NOW, at(POS), target)
    assert target[0] == pytest.approx(0.55)
    f.fill(NOW + DT // 2, at(POS + 0.01), target)
    assert target[0] == pytest.approx(0.55)
    f.fill(NOW + DT, at(POS + 0.02), target)
    assert target[0] == pytest.approx(0.57)


def test_after_the_plan_it_holds_and_then_rests_within_the_bound() -> None:
    p, f = follower()
    p.add(1, NOW, DT, np.array([[0.05, 1.0]]), NOW)
    pos, target, path = POS.copy(), np.zeros(10), []
    for cycle in range(250):
        f.fill(NOW + cycle * 2 * MS, at(pos), target)
        assert is_orthonormal(target[3:9])
        pos += 0.05 * (target[:3] - pos)
        path.append(target[0])
    assert path[24] == path[0] == pytest.approx(0.55)
    assert path[36] == pytest.approx(0.55)
    # Row of 50 ms, hold until 1.5 periods after its beginning's end, then 100 ms.
    begin, end = next(i for i, x in enumerate(path) if x != path[0]), next(i for i in range(250) if path[i] == path[-1])
    assert begin * 2 <= 50 + 75 + 4
    assert (end - begin) * 2 <= 104
    assert f.is_resting
    assert target[9] == 1.0
    assert np.abs(np.diff(path)).max() < 0.002


def test_a_chunk_for_later_survives_the_rest_before_it() -> None:
    p, f = follower()
    p.add(1, NOW, DT, rows(0.05), NOW)
    target = np.zeros(10)
    f.fill(NOW, at(POS), target)
    p.add(2, NOW + 10 * DT, DT, rows(0.02), NOW + DT)
    for cycle in range(1, 10 * 25):
        f.fill(NOW + cycle * 2 * MS, at(POS), target)
    assert f.is_resting
    f.fill(NOW + 10 * DT, at(POS), target)
    assert target[0] == pytest.approx(0.52)


def test_brake_drops_the_plan() -> None:
    p, f = follower()
    p.add(1, NOW, DT, rows(*[0.05] * 20), NOW)
    target = np.zeros(10)
    f.fill(NOW, at(POS), target)
    f.brake(NOW + MS)
    f.fill(NOW + 102 * MS, at(POS), target)
    assert f.is_resting
    np.testing.assert_allclose(target[:3], POS)
