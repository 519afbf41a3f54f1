"""What every policy keeps to, as tests: derive a class whose name begins with Test and override `make`."""

import numpy as np
import pytest

from robot.contract import Observation, Policy
from robot.errors import SpecError


class PolicyConformance:
    """Tests of `robot.contract.Policy`."""

    def make(self) -> Policy:
        """A new policy, the same one at every call."""
        raise NotImplementedError(f"{type(self).__name__} overrides make().")

    def observation(self, policy: Policy, seed: int = 0) -> Observation:
        """Stacked observations that the policy accepts; override where random ones mean nothing to it."""
        rng = np.random.default_rng(seed)
        return {
            key: np.stack([spec.generate_value(rng) for _ in range(policy.specs.n_obs_steps)])
            for key, spec in policy.specs.environment.observation.items()
        }

    @pytest.fixture
    def policy(self) -> Policy:
        """A policy at the beginning of an episode."""
        policy = self.make()
        policy.reset(seed=0)
        return policy

    def test_chunks_fit_the_specs(self, policy: Policy) -> None:
        """Shape, period, finite, and every row inside the action's spec."""
        specs = policy.specs
        for seed in range(3):
            chunk = policy.act(self.observation(policy, seed))
            assert chunk.actions.shape == (specs.horizon, *specs.environment.action.shape)
            assert chunk.dt_s == specs.environment.dt_s
            for row in chunk.actions:
                specs.environment.action.validate(row)

    def test_equal_seeds_give_equal_chunks(self, policy: Policy) -> None:
        """To the last bit, over several calls, after another episode, and in a new policy."""
        first = self._episode(policy, seed=3)
        self._episode(policy, seed=4)
        np.testing.assert_array_equal(first, self._episode(policy, seed=3))
        np.testing.assert_array_equal(first, self._episode(self.make(), seed=3))

    def test_the_observation_is_left_alone(self, policy: Policy) -> None:
        """The run loop hands the same arrays to the recorder."""
        observation = self.observation(policy)
        before = {key: value.copy() for key, value in observation.items()}
        policy.act(observation)
        for key, value in before.items():
            np.testing.assert_array_equal(observation[key], value)

    def test_chunks_are_not_overwritten(self, policy: Policy) -> None:
        """A chunk is played while the next one is made."""
        first = policy.act(self.observation(policy, 1)).actions
        before = first.copy()
        policy.act(self.observation(policy, 2))
        np.testing.assert_array_equal(first, before)

    def test_a_missing_key_is_refused(self, policy: Policy) -> None:
        """By name."""
        for key in policy.specs.environment.observation:
            observation = self.observation(policy)
            del observation[key]
            with pytest.raises(SpecError, match=key):
                policy.act(observation)

    def test_a_wrong_shape_is_refused(self, policy: Policy) -> None:
        """One observation too many, and one element too few."""
        for key in policy.specs.environment.observation:
            observation = self.observation(policy)
            right = observation[key]
            for wrong in (np.concatenate([right, right[:1]]), right[..., :-1]):
                with pytest.raises(SpecError, match=key):
                    policy.act({**observation, key: wrong})

    def test_what_is_not_finite_is_refused(self, policy: Policy) -> None:
        """In any place of any observation."""
        for key in policy.specs.environment.observation:
            for bad in (np.nan, np.inf):
                observation = self.observation(policy)
                observation[key].reshape(-1)[-1] = bad
                with pytest.raises(SpecError, match=key):
                    policy.act(observation)

    def _episode(self, policy: Policy, seed: int) -> np.ndarray:
        policy.reset(seed=seed)
        return np.stack([policy.act(self.observation(policy, step)).actions for step in range(3)])
