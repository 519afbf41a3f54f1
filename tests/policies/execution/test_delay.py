from policies.execution.delay import WINDOW, DelayEstimate


def test_one_stall_does_not_count_and_two_do() -> None:
    delay = DelayEstimate()
    assert delay.rows == 0
    for rows in [1] * 18 + [9]:
        delay.add(rows)
    assert delay.rows == 1
    delay.add(9)
    delay.add(9)
    assert delay.rows == 9


def test_what_was_slow_is_forgotten() -> None:
    """Unlike a maximum over all time, which a cold start sets for ever."""
    delay = DelayEstimate()
    delay.add(50)
    assert delay.rows == 50
    for _ in range(WINDOW):
        delay.add(2)
    assert delay.rows == 2
