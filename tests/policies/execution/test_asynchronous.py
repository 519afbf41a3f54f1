"""Skipping what came too late, and mixing at the seam."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.execution.asynchronous import Asynchronous, AsynchronousConfig
from robot.contract import ActionChunk, PolicySpecs
from robot.errors import ConfigError
from tests.policies.execution.players import SPECS


def chunk(*values: float) -> ActionChunk:
    return ActionChunk(np.repeat(np.array(values, float)[:, None], 3, axis=1), 0.05)


def specs(horizon: int, n_action_steps: int) -> PolicySpecs:
    return PolicySpecs(SPECS, n_obs_steps=1, horizon=horizon, n_action_steps=n_action_steps)


def test_old_and_new_rows_are_mixed_at_the_seam() -> None:
    """By hand: with three rows to mix, a quarter, a half and three quarters of the new ones."""
    execution = Asynchronous(specs(8, 2), blend_rows=3)
    execution.begin(chunk(*[0.0] * 8))
    assert execution.ask(1) is None
    assert execution.ask(2) is not None
    execution.deliver(chunk(*[4.0] * 8), 3)
    assert execution.rows_from(3)[:, 0].tolist() == [1, 2, 3, 4, 4, 4, 4]
    assert (execution.end, execution.dropped_rows) == (10, 1)


def test_what_the_old_chunk_has_no_row_for_is_not_mixed() -> None:
    execution = Asynchronous(specs(4, 2), blend_rows=3)
    execution.begin(chunk(0, 0, 0, 0))
    execution.ask(2)
    execution.deliver(chunk(4, 4, 4, 4), 3)
    assert execution.rows_from(3)[:, 0].tolist() == [1, 4, 4]


@settings(max_examples=100, deadline=None)
@given(blend=st.integers(0, 6), delay=st.integers(0, 6), gap=st.floats(-1, 1))
def test_no_step_at_a_seam_is_larger_than_its_part_of_the_gap(blend: int, delay: int, gap: float) -> None:
    execution = Asynchronous(specs(16, 4), blend_rows=blend)
    execution.begin(chunk(*[0.0] * 16))
    execution.ask(4)
    before = execution.row(3 + delay)
    execution.deliver(chunk(*[gap] * 16), 4 + delay)
    assert before is not None
    rows = np.concatenate([before[None], execution.rows_from(4 + delay)])[:, 0]
    np.testing.assert_allclose(np.abs(np.diff(rows)).max(), abs(gap) / (blend + 1), atol=1e-12)
    assert rows[-1] == gap


def test_a_chunk_is_asked_for_in_time_for_its_successor() -> None:
    execution = Asynchronous(specs(8, 8))
    execution.delay.add(3)
    execution.begin(chunk(*range(8)))
    assert next(tick for tick in range(1, 9) if execution.ask(tick)) == 5


def test_of_a_chunk_that_came_too_late_the_last_row_plays() -> None:
    execution = Asynchronous(specs(4, 2))
    execution.begin(chunk(0, 1, 2, 3))
    execution.ask(2)
    execution.deliver(chunk(4, 5, 6, 7), 9)
    assert execution.rows_from(9)[:, 0].tolist() == [7]
    assert execution.row(10) is None


def test_negative_blending_is_refused() -> None:
    with pytest.raises(ConfigError, match="blend_rows is -1"):
        AsynchronousConfig(blend_rows=-1)
