import numpy as np
import pytest

from robot.episodes.curation import coverage
from tests.robot.episodes.curation.worlds import STATE, dataset


def parts(data):
    ends = np.cumsum(data.episode_lengths)[:-1]
    return [[part.astype(float) for part in np.split(data.columns[key], ends)] for key in (STATE, "action")]


def test_effective_number_by_hand():
    far, together = np.arange(5)[:, None] * 100.0, np.zeros((5, 1))
    assert coverage.effective_number(far) == pytest.approx(5)
    assert coverage.effective_number(together) == pytest.approx(1)
    assert coverage.effective_number(np.array([[0.0], [0.0], [100.0], [100.0]])) == pytest.approx(2)
    # Two points at distance d have the eigenvalues (1 +- exp(-2 d^2)) / 2.
    a = (1 + np.exp(-2 * 0.3**2)) / 2
    expected = np.exp(-a * np.log(a) - (1 - a) * np.log(1 - a))
    assert coverage.effective_number(np.array([[0.0], [0.3]])) == pytest.approx(expected)


def test_more_starts_cover_more():
    few, many = (coverage.coverage(parts(dataset(n, seed=3))[0], np.arange(n)) for n in (4, 40))
    assert few.starts < many.starts
    assert few.occupied < many.occupied


def test_a_line_is_one_dimension_and_a_cloud_all_of_its():
    rng = np.random.default_rng(0)
    along = rng.normal(size=(5000, 1)) * [1.0, -20.0, 0.3]
    cloud = rng.normal(size=(5000, 3)) * [1.0, 20.0, 0.3]
    assert coverage.coverage([along], np.zeros(1, int)).dimensions == pytest.approx(1, abs=1e-6)
    assert coverage.coverage([cloud], np.zeros(1, int)).dimensions == pytest.approx(3, abs=0.05)


def test_evenness_of_two_places():
    even = np.repeat([[0.0], [1.0]], [500, 500], axis=0)
    uneven = np.repeat([[0.0], [1.0]], [900, 100], axis=0)
    group = np.zeros(1, int)
    assert coverage.coverage([even], group).evenness == pytest.approx(1)
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert coverage.coverage([uneven], group).evenness == pytest.approx(np.exp(entropy) / 2)


def test_copies_are_found_and_cover_nothing_more():
    states, actions = parts(dataset(8))
    rng = np.random.default_rng(0)
    states += [states[2], states[5] + 1e-5 * rng.normal(size=states[5].shape)]
    actions += [actions[2], actions[5]]
    groups = coverage.groups_of_copies(states, actions, 0.01)
    np.testing.assert_array_equal(groups, [*range(8), 2, 5])
    ours, theirs = coverage.coverage(states[:8], np.arange(8)), coverage.coverage(states, groups)
    np.testing.assert_array_equal(theirs.start_spread, ours.start_spread)
    assert (theirs.occupied, theirs.starts, theirs.episodes) == (ours.occupied, ours.starts, ours.episodes)


def test_other_actions_or_another_length_are_no_copy():
    states, actions = parts(dataset(3))
    states += [states[0], states[1][:-4]]
    actions += [-actions[0], actions[1][:-4]]
    np.testing.assert_array_equal(coverage.groups_of_copies(states, actions, 0.01), np.arange(5))


def test_units_do_not_make_copies():
    states, actions = parts(dataset(6))
    small = [1e-6 * part for part in states]
    np.testing.assert_array_equal(coverage.groups_of_copies(small, actions, 0.01), np.arange(6))


def test_resampling_keeps_ends_and_lines():
    rows = np.linspace([0.0, 5.0], [1.0, 7.0], 11)
    np.testing.assert_allclose(coverage.resampled(rows, 5), np.linspace([0, 5], [1, 7], 5))
    np.testing.assert_array_equal(coverage.resampled(rows[:1], 3), [[0, 5]] * 3)


def test_one_still_episode_is_covered_without_complaint():
    found = coverage.coverage([np.ones((1, 3))], np.zeros(1, int))
    assert (found.starts, found.episodes, found.dimensions) == (1, 1, 0)


def test_chains_of_copies_are_one_group_named_by_the_first():
    states, actions = parts(dataset(4))
    shift = 0.8 * 0.01 * np.concatenate(states).std(axis=0)
    states = [states[0], states[1], states[0] + shift, states[0] + 2 * shift, states[2]]
    actions = [actions[0], actions[1], actions[0], actions[0], actions[2]]
    np.testing.assert_array_equal(coverage.groups_of_copies(states, actions, 0.01), [0, 1, 0, 0, 2])


def test_no_tolerance_finds_exact_copies_only():
    states, actions = parts(dataset(3))
    states, actions = [*states, states[1], states[2] + 1e-4], [*actions, actions[1], actions[2]]
    np.testing.assert_array_equal(coverage.groups_of_copies(states, actions, 0.0), [0, 1, 2, 1, 3])
