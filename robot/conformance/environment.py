"""What every environment keeps to, as tests: derive a class whose name begins with Test and override `make`."""

from collections.abc import Iterator

import numpy as np
import pytest

from robot.contract import Environment, Observation
from robot.errors import SpecError

STEPS = 5


class EnvironmentConformance:
    """Tests of `robot.contract.Environment`."""

    def make(self) -> Environment:
        """A new environment, the same one at every call."""
        raise NotImplementedError(f"{type(self).__name__} overrides make().")

    @pytest.fixture
    def environment(self) -> Iterator[Environment]:
        """An environment that is closed after the test."""
        environment = self.make()
        yield environment
        environment.close()

    def test_is_an_environment_with_usable_specs(self, environment: Environment) -> None:
        """It has the four methods, and its specs generate values that they accept."""
        assert isinstance(environment, Environment)
        specs = environment.specs
        assert specs.observation
        assert specs.dt_s > 0
        assert specs.task
        assert all(key == spec.key for key, spec in specs.observation.items())
        specs.action.validate(specs.action.generate_value(np.random.default_rng(0)))

    def test_observations_fit_their_specs(self, environment: Environment) -> None:
        """Keys, shapes, exact types and ranges, after a reset and after a step."""
        observation, info = environment.reset(seed=0)
        self._check(environment, observation)
        assert isinstance(info, dict)
        self._check(environment, environment.step(environment.specs.action.generate_value())[0])

    def test_equal_seeds_give_equal_episodes(self, environment: Environment) -> None:
        """To the last bit: in the same environment, after other episodes, and in a new one."""
        first = self._episode(environment, seed=7)
        self._episode(environment, seed=8)
        again = self._episode(environment, seed=7)
        other = self.make()
        elsewhere = self._episode(other, seed=7)
        other.close()
        for key in environment.specs.observation:
            np.testing.assert_array_equal(first[key], again[key])
            np.testing.assert_array_equal(first[key], elsewhere[key])

    def test_different_seeds_begin_differently(self, environment: Environment) -> None:
        """A seed that changes nothing would hide behind every other test."""
        first, second = environment.reset(seed=1)[0], environment.reset(seed=2)[0]
        assert not all(np.array_equal(first[key], second[key]) for key in first)

    def test_observations_are_not_overwritten(self, environment: Environment) -> None:
        """An observation that somebody holds stays what it was."""
        held, _ = environment.reset(seed=0)
        copies = {key: array.copy() for key, array in held.items()}
        rng = np.random.default_rng(0)
        for _ in range(STEPS):
            environment.step(environment.specs.action.generate_value(rng))
        for key, copy in copies.items():
            np.testing.assert_array_equal(held[key], copy)

    def test_step_returns_the_five(self, environment: Environment) -> None:
        """Observation, finite float reward, two real bools, info with `success`."""
        environment.reset(seed=0)
        _, reward, terminated, truncated, info = environment.step(environment.specs.action.generate_value())
        assert isinstance(reward, float)
        assert np.isfinite(reward)
        assert isinstance(terminated, bool)
        assert isinstance(truncated, bool)
        assert isinstance(info["success"], bool)

    @pytest.mark.parametrize("fault", ["nan", "infinite", "beyond", "long", "short"])
    def test_refuses_a_wrong_action_and_does_not_move(self, environment: Environment, fault: str) -> None:
        """A refused action leaves no trace: the episode goes on as if it had not been sent."""
        spec = environment.specs.action
        good = spec.generate_value()
        bad = {
            "nan": np.full(spec.shape, np.nan, spec.dtype),
            "infinite": np.full(spec.shape, np.inf, spec.dtype),
            "beyond": (np.minimum(spec.bounds()[1], 1e30) * 1.01 + 0.01).astype(spec.dtype),
            "long": np.append(good, good[:1]),
            "short": good[:-1],
        }[fault]
        if fault == "beyond" and np.isinf(spec.bounds()[1]).all():
            pytest.skip("this action space has no bounds")
        environment.reset(seed=3)
        with pytest.raises(SpecError):
            environment.step(bad)
        after = environment.step(good)[0]
        environment.reset(seed=3)
        undisturbed = environment.step(good)[0]
        for key, array in undisturbed.items():
            np.testing.assert_array_equal(after[key], array)

    def test_an_idle_episode_ends_and_never_both_ways(self, environment: Environment) -> None:
        """Time runs out (truncated) or the task ends (terminated), not both, and a reset begins anew."""
        environment.reset(seed=0)
        idle = environment.specs.action.generate_value()
        for _ in range(100_000):
            _, _, terminated, truncated, _ = environment.step(idle)
            assert not (terminated and truncated)
            if terminated or truncated:
                break
        assert terminated or truncated
        environment.reset(seed=0)
        assert not any(environment.step(idle)[2:4])

    def test_close_twice(self, environment: Environment) -> None:
        """Closing is safe to repeat."""
        environment.close()
        environment.close()

    def _check(self, environment: Environment, observation: Observation) -> None:
        assert list(observation) == list(environment.specs.observation)
        for key, spec in environment.specs.observation.items():
            assert observation[key].dtype == np.dtype(spec.dtype), key
            spec.validate(observation[key])

    def _episode(self, environment: Environment, seed: int) -> Observation:
        observations = [environment.reset(seed=seed)[0]]
        rng = np.random.default_rng(seed)
        for _ in range(STEPS):
            observations.append(environment.step(environment.specs.action.generate_value(rng))[0])
        return {key: np.stack([frame[key] for frame in observations]) for key in observations[0]}
