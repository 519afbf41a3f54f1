import numpy as np
import pytest

from hardware.lease import LeaseDesk
from hardware.shared_memory import Word
from robot.errors import LeaseError

S = 10**9


def test_one_holder_until_silence_or_release() -> None:
    words = np.zeros(len(Word), np.int64)
    desk = LeaseDesk(words)
    desk.acquire(1, "first", 0.5, S)
    with pytest.raises(LeaseError, match="BUSY: 'first'"):
        desk.acquire(2, "second", 0.5, S + S // 4)
    assert desk.renew(1, S + S // 4)
    assert not desk.renew(2, S + S // 4)
    assert desk.holds(1, S + S * 7 // 10)
    assert not desk.holds(1, S + S * 8 // 10)
    assert not desk.renew(1, 2 * S)
    desk.acquire(2, "second", 0.5, 2 * S)
    desk.release(1, 2 * S)
    assert desk.holds(2, 2 * S)
    desk.release(2, 2 * S)
    assert not desk.is_held(2 * S)


def test_no_session_holds_nothing_and_times_are_bounded() -> None:
    desk = LeaseDesk(np.zeros(len(Word), np.int64))
    assert not desk.holds(0, 0)
    for ttl_s in (0.01, 60.0, float("nan")):
        with pytest.raises(LeaseError, match="lease lasts"):
            desk.acquire(1, "first", ttl_s, 0)
