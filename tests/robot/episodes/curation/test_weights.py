import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.episodes.curation import weights
from robot.episodes.curation.weights import Sampler, window_weights
from robot.episodes.dataset import Dataset
from robot.episodes.loading.batches import Batches, Form
from robot.episodes.loading.mixture import Mixture, Part
from robot.errors import ConfigError, DatasetError, UnknownNameError
from tests.robot.episodes.fakes import point_specs, random_episode

LENGTHS = (4, 2, 3)
RETURNS = (0.0, 1.0, 0.5)


def dataset(returns=RETURNS, lengths=LENGTHS, drop=()):
    """Episodes whose rewards sum to `returns`, all in their first row."""
    specs = point_specs()
    episodes = [random_episode(specs, length, number) for number, length in enumerate(lengths)]
    for episode, total in zip(episodes, returns, strict=True):
        episode["next.reward"] = np.zeros(len(episode["action"]), np.float32)
        episode["next.reward"][0] = total
        episode["next.success"] = np.full(len(episode["action"]), total > 0.9)
        for key in drop:
            del episode[key]
    return Dataset.from_episodes(specs, episodes)


def test_uniform_is_off():
    assert window_weights(dataset(), Sampler()) is None


def test_return_weights_by_hand():
    got = window_weights(dataset(), Sampler("return", temperature=0.5))
    # Returns 0, 1, 0.5 are scaled already: e^0, e^2, e^1 for each window of 4, 2 and 3.
    e = [1.0, 7.38905609893065, 2.718281828459045]
    total = 4 * e[0] + 2 * e[1] + 3 * e[2]
    np.testing.assert_allclose(got, np.repeat(np.array(e) / total, LENGTHS), rtol=1e-12)


def test_return_weights_do_not_depend_on_the_scale_of_rewards():
    ours = weights.softmax(np.array([0.0, 1.0, 0.5]), 0.3)
    np.testing.assert_allclose(weights.softmax(np.array([-7.0, 13.0, 3.0]), 0.3), ours, rtol=1e-12)


def test_equal_returns_are_uniform():
    np.testing.assert_array_equal(
        weights.episode_weights(dataset((0.5, 0.5, 0.5)), Sampler("return")), np.full(3, 1 / 3)
    )


def test_a_small_temperature_does_not_overflow():
    got = weights.softmax(np.array([0.0, 1e6]), 1e-5)
    np.testing.assert_array_equal(got, [0.0, 1.0])


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [0, 1, 0]), (2, [0, 0.5, 0.5]), (0.1, [0, 1, 0]), (0.67, [0, 0.5, 0.5]), (99, [1 / 3, 1 / 3, 1 / 3])],
)
def test_top_k(k, expected):
    np.testing.assert_allclose(weights.top_k(np.array(RETURNS), k), expected)


def test_top_k_takes_earlier_episodes_of_equal_returns():
    np.testing.assert_allclose(weights.top_k(np.array([1.0, 1.0, 1.0]), 2), [0.5, 0.5, 0])


def test_advantages_are_what_a_fit_without_the_episode_leaves():
    rng = np.random.default_rng(3)
    states, returns = rng.normal(2.0, 5.0, (12, 3)), rng.normal(size=12)
    x = (states - states.mean(axis=0)) / states.std(axis=0)
    expected = []
    for i in range(12):
        others = np.delete(np.arange(12), i)
        design = np.hstack([np.ones((11, 1)), x[others]])
        penalty = weights.RIDGE * np.diag([0.0, 1.0, 1.0, 1.0])
        beta = np.linalg.solve(design.T @ design + penalty, design.T @ returns[others])
        expected.append(returns[i] - np.array([1.0, *x[i]]) @ beta)
    np.testing.assert_allclose(weights.advantages(returns, states), expected, rtol=1e-9)


def test_advantages_do_not_credit_an_easy_start():
    """The return follows the start exactly but for one episode, which did better than its start promises."""
    starts = np.linspace(0, 1, 40)[:, None]
    returns = 10 * starts[:, 0]
    returns[5] += 2
    assert weights.advantages(returns, starts).argmax() == 5
    assert returns.argmax() != 5


def test_advantages_survive_more_dimensions_than_episodes_and_constant_ones():
    rng = np.random.default_rng(0)
    states = np.hstack([rng.normal(size=(6, 30)), np.full((6, 2), 3.7)])
    got = weights.advantages(np.array([0, 0, 0, 0, 0, 1.0]), states)
    assert np.isfinite(got).all()
    assert got.argmax() == 5


def test_one_episode_has_no_advantage():
    np.testing.assert_array_equal(weights.advantages(np.ones(1), np.ones((1, 3))), [0.0])
    got = window_weights(dataset((1.0,), (4,)), Sampler("advantage"))
    np.testing.assert_allclose(got, np.full(4, 0.25))


def test_success_stands_in_for_rewards():
    got = weights.episode_weights(dataset(drop=("next.reward",)), Sampler("topk", k=1))
    np.testing.assert_array_equal(got, [0, 1, 0])


def test_without_rewards_and_success_it_says_so():
    bare = dataset(drop=("next.reward", "next.success", "next.terminated", "next.truncated"))
    with pytest.raises(DatasetError, match=r"neither 'next\.reward' nor 'next\.success'"):
        window_weights(bare, Sampler("return"))


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"temperature": float("nan")}, {"k": 0.0}, {"k": 2.5}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        Sampler("return", **values)


def test_a_misspelt_sampler_names_the_nearest():
    with pytest.raises(UnknownNameError, match="advantage"):
        Sampler("advantages")


def test_effective_sample_size_by_hand():
    assert weights.effective_sample_size(np.array([0.25] * 4)) == pytest.approx(4)
    assert weights.effective_sample_size(np.array([0.5, 0.5, 0, 0])) == pytest.approx(2)
    assert weights.effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)


def test_it_says_what_it_does():
    assert "worth 1.0 of 3 episodes" in weights.described(dataset(), Sampler("topk", k=1))
    assert "every window" in weights.described(dataset(), Sampler())


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20),
    st.floats(0.01, 10),
    st.sampled_from(["return", "topk", "advantage"]),
)
def test_weights_are_probabilities(returns, temperature, name):
    data = dataset(returns, tuple(1 + i % 4 for i in range(len(returns))))
    got = window_weights(data, Sampler(name, temperature, 0.3))
    assert got.shape == (len(data),)
    assert (got >= 0).all()
    assert got.sum() == pytest.approx(1)


def test_a_reward_that_is_not_finite_is_said():
    broken = dataset()
    broken.columns["next.reward"][5] = np.nan
    with pytest.raises(DatasetError, match="frame 5 is nan"):
        window_weights(broken, Sampler("return"))


def test_batches_hold_windows_as_often_as_the_weights_say():
    data = dataset((0.0, 1.0, 0.5), (40, 20, 30))
    weights = window_weights(data, Sampler("return", temperature=0.5))
    batches = Batches.of(Mixture([Part("data", data, 1.0, weights)]), Form(1, 1, 64), seed=0)
    drawn = np.concatenate([batches.draw(step)[1] for step in range(400)])
    counts = np.bincount(drawn, minlength=90)
    per_episode = np.add.reduceat(counts, data.episode_starts) / len(drawn)
    expected = np.add.reduceat(weights, data.episode_starts)
    np.testing.assert_allclose(per_episode, expected, atol=4 * np.sqrt(0.25 / len(drawn)))
    # The actions in a batch are those of the windows that were drawn.
    np.testing.assert_array_equal(batches.batch(3)["action"][:, 0], data.columns["action"][batches.draw(3)[1]])


def test_windows_of_left_out_episodes_are_never_drawn():
    data = dataset((0.0, 1.0, 0.5), (40, 20, 30))
    weights = window_weights(data, Sampler("topk", k=1))
    batches = Batches.of(Mixture([Part("data", data, 1.0, weights)]), Form(1, 1, 64), seed=1)
    drawn = np.concatenate([batches.draw(step)[1] for step in range(50)])
    assert set(drawn) == set(range(40, 60))
