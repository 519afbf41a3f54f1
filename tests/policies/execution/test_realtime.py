"""What a policy is told of the plan, and which policies can be told."""

import math

import numpy as np
import pytest

from policies.continuing import Method
from policies.execution.realtime import RealtimeConfig, soft_weights
from policies.execution.simulated import ExecutedPolicy
from robot.errors import ConfigError
from tests.policies.execution.players import ContinuingIndicator, Indicator, observed
from tests.policies.test_heads import ready
from tests.policies.worlds import act, diffusion


def test_weights_are_those_of_the_paper() -> None:
    """Black et al. 2025, equation 5, with H - s = 6 and d = 2, worked out by hand."""
    c = [4 / 5, 3 / 5, 2 / 5, 1 / 5]
    expected = [1, 1, *[x * (math.exp(x) - 1) / (math.e - 1) for x in c]]
    assert soft_weights(2, 4) == pytest.approx(expected)
    assert soft_weights(3, 0).tolist() == [1, 1, 1]
    assert (np.diff(soft_weights(0, 10)) < 0).all()


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("delay", [1, 2, 4])
def test_a_policy_is_told_what_is_planned_from_its_observation_on(method: Method, delay: int) -> None:
    policy = ContinuingIndicator(12, 4)
    executed = ExecutedPolicy(policy, RealtimeConfig(method=method).build(policy), delay)
    executed.reset(0)
    for tick in range(40):
        executed.act(observed(tick))
    assert len(policy.continuations) == len(policy.answered) - 1
    for tick, told in zip(policy.answered[1:], policy.continuations, strict=True):
        np.testing.assert_array_equal(told.rows[:, 0], tick + np.arange(len(told.rows)))
        assert (told.weights[:delay] == 1).all()
        assert (told.weights[delay:] < 1).all()
        assert (told.weights[delay:] == 0).all() == (method is Method.prefix)
        # d <= s <= H - d: whatever will have been played can be told.
        assert len(told.rows) >= delay


def test_a_seam_is_where_the_policy_put_it() -> None:
    """Rows that were fixed play from the old chunk, those after them from the new one."""
    policy = ContinuingIndicator(12, 4)
    executed = ExecutedPolicy(policy, RealtimeConfig().build(policy), 2)
    executed.reset(0)
    answering = [int(executed.act(observed(tick)).actions[0, 1]) for tick in range(14)]
    assert answering == [0] * 6 + [4] * 4 + [8] * 4


def test_without_delay_a_prefix_is_nothing() -> None:
    policy = ContinuingIndicator(12, 4)
    executed = ExecutedPolicy(policy, RealtimeConfig(method=Method.prefix).build(policy), 0)
    executed.reset(0)
    for tick in range(20):
        executed.act(observed(tick))
    assert policy.continuations == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (act(), "What works with it: no method; or execution=asynchronous"),
        (diffusion(), r"prefix_max above 0.*execution.method=guided, execution.method=constant; or execution=asynch"),
    ],
)
def test_a_policy_that_cannot_be_told_is_refused(config, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        RealtimeConfig(method=Method.prefix).build(ready(config))
    assert RealtimeConfig(method=Method.prefix).build(ready(diffusion(prefix_max=3)))


def test_an_expert_cannot_be_told() -> None:
    with pytest.raises(ConfigError, match="no method"):
        RealtimeConfig().build(Indicator(4, 2))


@pytest.mark.parametrize("changes", [{"beta": 0.0}, {"beta": math.inf}, {"prior_std": -1.0}, {"prior_std": math.nan}])
def test_impossible_guidance_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"execution.{next(iter(changes))} is"):
        RealtimeConfig(**changes)
