"""Means over chunks, worked out by hand."""

import math

import numpy as np
import pytest

from policies.execution.ensembling import Ensembling, EnsemblingConfig
from robot.contract import ActionChunk, PolicySpecs
from robot.errors import ConfigError
from tests.policies.execution.players import SPECS


def ensembling(decay: float) -> Ensembling:
    return Ensembling(PolicySpecs(SPECS, n_obs_steps=1, horizon=3, n_action_steps=1), decay)


def chunk(*values: float) -> ActionChunk:
    return ActionChunk(np.repeat(np.array(values, float)[:, None], 3, axis=1), 0.05)


def test_the_oldest_chunk_counts_most() -> None:
    """Chunks of tick 0, 1 and 2 say 2, 10 and 40 about tick 2; with m = ln 2 they count 4 : 2 : 1."""
    execution = ensembling(math.log(2))
    execution.begin(chunk(0, 1, 2))
    execution.ask(1)
    execution.deliver(chunk(9, 10, 11), 1)
    execution.ask(2)
    execution.deliver(chunk(40, 41, 42), 2)
    # Tick 3: 11 of the chunk of tick 1 and 41 of the one of tick 2, as 2 : 1. Tick 4: only 42 of the latter.
    assert execution.rows_from(2)[:, 0] == pytest.approx([(4 * 2 + 2 * 10 + 40) / 7, (2 * 11 + 41) / 3, 42])


def test_with_a_negative_decay_the_newest_does() -> None:
    execution = ensembling(-math.log(3))
    execution.begin(chunk(0, 4, 4))
    execution.ask(1)
    execution.deliver(chunk(8, 8, 8), 1)
    assert execution.row(1) == pytest.approx(np.full(3, (4 + 3 * 8) / 4))


def test_an_action_of_zeros_counts() -> None:
    """The populated test of ACT's public code takes zeros for a chunk that is not there."""
    execution = ensembling(0.0)
    execution.begin(chunk(0, 0, 0))
    execution.ask(1)
    execution.deliver(chunk(6, 6, 6), 1)
    assert execution.row(1) == pytest.approx(np.full(3, 3.0))


def test_late_chunks_join_where_they_still_have_rows() -> None:
    execution = ensembling(0.0)
    execution.begin(chunk(0, 1, 2))
    execution.ask(1)
    execution.deliver(chunk(3, 4, 5), 2)
    assert execution.rows_from(2)[:, 0].tolist() == [3, 5]
    assert execution.dropped_rows == 1


def test_a_decay_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="decay is nan"):
        EnsemblingConfig(decay=math.nan)
