import pytest

from robot.bridge.meter import SECONDS, Meter
from robot.control.safety import Clamp
from tests.robot.bridge.sights import schema, state

SCHEMA = schema()
T0 = 10**12


def looked(meter: Meter, t_s: float, **status: float) -> None:
    meter.add(state(SCHEMA, t_ns=T0 + round(t_s * 1e9), **status))


def test_rates_are_those_of_the_last_seconds() -> None:
    meter = Meter()
    assert meter.per_second("cycle") == 0
    for tick in range(50):
        # 500 cycles a second for five seconds, then half as many.
        cycle = 50 * tick if tick <= 25 else 1250 + 25 * (tick - 25)
        looked(meter, tick / 10, cycle=cycle, last_sequence=2 * tick)
        if tick == 25:
            assert meter.per_second("cycle") == pytest.approx(500)
    assert meter.per_second("cycle") == pytest.approx(250)
    assert meter.per_second("last_sequence") == pytest.approx(20)


def test_a_new_session_begins_to_count_anew() -> None:
    meter = Meter()
    looked(meter, 0, last_sequence=1000)
    looked(meter, 0.1, last_sequence=3)
    assert meter.per_second("last_sequence") == 0


def test_a_state_that_was_seen_before_says_nothing() -> None:
    meter = Meter()
    for _ in range(5):
        looked(meter, 0, clamp_mask=Clamp.WORKSPACE)
    assert (meter.looks, meter.clamps["WORKSPACE"]) == (1, 1)


def test_clamps_by_name_and_second() -> None:
    meter = Meter()
    for tick in range(40):
        mask = Clamp.WORKSPACE | Clamp.GRIPPER if 10 <= tick < 20 else Clamp.NONE
        looked(meter, tick / 10, clamp_mask=mask, clamped=max(0, min(tick, 20) - 10))
    assert meter.clamps == {"WORKSPACE": 10, "GRIPPER": 10}
    history = meter.history("clamped")
    assert sum(history) == 10
    assert history[-2] == 1
    assert history[-3] == 9


def test_histories_end() -> None:
    meter = Meter()
    looked(meter, 0)
    looked(meter, 1, clamped=7)
    looked(meter, 10_000, clamped=8)
    assert meter.history("clamped") == [0] * (SECONDS - 1) + [1]
