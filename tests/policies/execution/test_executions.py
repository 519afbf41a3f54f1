"""What every execution keeps to: rows play at their ticks, whatever inference takes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.continuing import Method
from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.base import ExecutionConfig
from policies.execution.ensembling import EnsemblingConfig
from policies.execution.realtime import RealtimeConfig
from policies.execution.registry import EXECUTIONS
from policies.execution.simulated import ExecutedPolicy
from policies.execution.synchronous import SynchronousConfig
from robot.conformance.policy import PolicyConformance
from robot.contract import Policy
from robot.errors import ConfigError
from robot.loop import ChunkPlayer
from tests.policies.execution.players import ContinuingIndicator, Indicator, observed

TICKS = 60
SIZES = st.integers(1, 24).flatmap(lambda h: st.tuples(st.just(h), st.integers(1, h)))
DELAYS = st.integers(0, 10)


def played(
    config: ExecutionConfig, policy: Policy, delay: int, ticks: int = TICKS
) -> tuple[np.ndarray, ExecutedPolicy]:
    """Rows by tick (ticks, A), and what played them."""
    executed = ExecutedPolicy(policy, config.build(policy), delay)
    executed.reset(0)
    return np.stack([executed.act(observed(tick)).actions[0] for tick in range(ticks)]), executed


CONFIGS: dict[str, ExecutionConfig] = {
    "synchronous": SynchronousConfig(),
    "asynchronous": AsynchronousConfig(blend_rows=0),
    "asynchronous, blended": AsynchronousConfig(blend_rows=4),
    "ensembling": EnsemblingConfig(),
    "realtime": RealtimeConfig(),
    "realtime, prefix": RealtimeConfig(method=Method.prefix),
}
every = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
flowing = pytest.mark.parametrize("config", list(CONFIGS.values())[1:], ids=list(CONFIGS)[1:])


def test_every_execution_is_tested() -> None:
    assert {type(config) for config in CONFIGS.values()} == set(EXECUTIONS.values())


@flowing
@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, delay=DELAYS)
def test_rows_are_never_shifted_in_time(config: ExecutionConfig, sizes: tuple[int, int], delay: int) -> None:
    rows, executed = played(config, ContinuingIndicator(*sizes), delay)
    at, holds = np.arange(TICKS), (rows[:, :2] == 0).all(axis=1)
    shifted = ~np.isclose(rows[:, 0], at, rtol=0, atol=1e-9) & ~holds
    # Only where a whole chunk came too late does a row play after its tick: the last one, instead of none.
    assert (rows[shifted, 0] < at[shifted]).all()
    assert not shifted.any() or delay >= sizes[0]
    if delay < sizes[0]:
        assert executed.play.starved == 0 or delay > sizes[0] - delay
    if sizes[0] >= 2 * delay + 1:
        np.testing.assert_allclose(rows[:, 0], at)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, delay=DELAYS)
def test_between_synchronous_chunks_the_arm_holds(sizes: tuple[int, int], delay: int) -> None:
    n = sizes[1]
    rows, _ = played(SynchronousConfig(), Indicator(*sizes), delay)
    for tick, row in enumerate(rows):
        chunk, offset = divmod(tick, n + delay)
        asked = chunk * (n + delay) - delay if chunk else 0
        assert row.tolist() == ([asked + offset, asked, 1] if offset < n else [0, 0, 1])


@every
@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, delay=DELAYS)
def test_starving_is_counted_and_holds_the_gripper(config: ExecutionConfig, sizes: tuple[int, int], delay: int) -> None:
    rows, executed = played(config, ContinuingIndicator(*sizes), delay)
    assert executed.play.starved == (rows[1:, :2] == 0).all(axis=1).sum()
    np.testing.assert_allclose(rows[:, 2], 1)


@every
@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, delay=DELAYS)
def test_one_chunk_is_made_at_a_time(config: ExecutionConfig, sizes: tuple[int, int], delay: int) -> None:
    policy = ContinuingIndicator(*sizes)
    played(config, policy, delay)
    assert policy.answered[0] == 0
    assert all(later - earlier >= max(1, delay) for earlier, later in pairwise(policy.answered[1:]))


@every
def test_nothing_is_asked_while_something_is_made(config: ExecutionConfig) -> None:
    policy = ContinuingIndicator(6, 2)
    execution = config.build(policy)
    execution.begin(policy.act(observed(0)))
    asked = next(ask for tick in range(1, 20) if (ask := execution.ask(tick)) is not None)
    assert all(execution.ask(tick) is None for tick in range(asked.tick + 1, asked.tick + 30))


@every
def test_equal_episodes_play_equally_and_a_reset_forgets(config: ExecutionConfig) -> None:
    first, executed = played(config, ContinuingIndicator(12, 5), 2)
    executed.reset(0)
    again = np.stack([executed.act(observed(tick)).actions[0] for tick in range(TICKS)])
    np.testing.assert_array_equal(first, again)


@every
def test_what_was_asked_for_before_a_reset_never_plays(config: ExecutionConfig) -> None:
    policy = ContinuingIndicator(12, 5)
    executed = ExecutedPolicy(policy, config.build(policy), 4)
    executed.reset(0)
    for tick in range(8):  # something is being made now
        executed.act(observed(tick))
    executed.reset(0)
    rows = np.stack([executed.act(observed(tick)).actions[0] for tick in range(20)])
    np.testing.assert_array_equal(rows, played(config, ContinuingIndicator(12, 5), 4, 20)[0])


class TestExecutedPolicy(PolicyConformance):
    """A played policy is a policy."""

    def make(self) -> Policy:
        from tests.policies.test_heads import ready
        from tests.policies.worlds import diffusion

        policy = ready(diffusion())
        return ExecutedPolicy(policy, AsynchronousConfig().build(policy), 2)


@pytest.mark.parametrize("config", [SynchronousConfig(), AsynchronousConfig(blend_rows=0)])
@pytest.mark.parametrize(("horizon", "n_action_steps"), [(1, 1), (8, 3), (8, 8), (16, 4)])
def test_without_delay_it_is_the_run_loop(config: ExecutionConfig, horizon: int, n_action_steps: int) -> None:
    """What `robot.loop` plays, to the last bit."""
    player = ChunkPlayer(Indicator(horizon, n_action_steps))
    player.reset(0)
    frames = [{key: value[0] for key, value in observed(tick).items()} for tick in range(TICKS)]
    expected = np.stack([player.act(frame) for frame in frames])
    np.testing.assert_array_equal(played(config, Indicator(horizon, n_action_steps), 0)[0], expected)


def test_a_negative_delay_is_refused() -> None:
    policy = Indicator(4, 2)
    with pytest.raises(ConfigError, match="delay is -1"):
        ExecutedPolicy(policy, SynchronousConfig().build(policy), -1)
