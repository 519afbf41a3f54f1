import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.curation.neighbours import Scale, nearest_elsewhere


def by_brute_force(points, groups, k):
    """Distances and frames of the nearest frame of each of the k nearest other groups."""
    found = []
    for own, point in zip(groups, points, strict=True):
        away = np.sqrt(((points - point) ** 2).sum(axis=1))
        best = sorted(min((away[i], i) for i in np.flatnonzero(groups == g)) for g in set(groups) - {own})
        found.append(best[:k])
    return np.array(found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 8), st.integers(1, 40))
def test_equals_brute_force(seed, count, k, longest):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), rng.integers(1, longest + 1, count))
    # Groups that sit apart: all of the nearest frames are of the own group, so the search has to widen.
    points = rng.normal(size=(len(groups), 3)) + 5 * groups[:, None]
    near = nearest_elsewhere(points, groups, k)
    expected = by_brute_force(points, groups, k)
    assert near.k == min(k, count - 1)
    np.testing.assert_allclose(near.distances, expected[..., 0], rtol=1e-9)
    np.testing.assert_array_equal(near.indices, expected[..., 1])


def test_never_the_own_group_and_each_other_group_once():
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1, 2, 1, 3], 50)  # 1 is the number of two copies
    near = nearest_elsewhere(rng.normal(size=(250, 2)), groups, 3)
    assert (groups[near.indices] != groups[:, None]).all()
    assert all(len(set(row)) == 3 for row in groups[near.indices])


def test_only_used_frames_are_asked_and_found():
    rng = np.random.default_rng(2)
    groups, used = np.repeat([0, 1, 2], 20), np.arange(0, 60, 3)
    near = nearest_elsewhere(rng.normal(size=(60, 2)), groups, 2, used)
    np.testing.assert_array_equal(near.queries, used)
    assert np.isin(near.indices, used).all()


def test_one_group_has_no_neighbours():
    assert nearest_elsewhere(np.zeros((4, 2)), np.zeros(4, int), 5).k == 0


def test_scaled_distance_is_a_mean_over_dimensions_in_standard_deviations():
    rows = np.array([[0.0, 0.0, 7.0], [2.0, 20.0, 7.0]])  # std 1 and 10, and a constant
    scale = Scale.of(rows)
    assert scale.dimensions == 2
    a, b = scale(rows)
    assert np.linalg.norm(a - b) == pytest.approx(2.0)  # two standard deviations apart in each


def test_a_weight_counts_a_row_so_many_times():
    rows = np.random.default_rng(0).normal(size=(5, 3))
    weighted, repeated = Scale.of(rows, np.array([1, 2, 1, 1, 3.0])), Scale.of(np.repeat(rows, [1, 2, 1, 1, 3], axis=0))
    np.testing.assert_allclose(weighted.centre, repeated.centre)
    np.testing.assert_allclose(weighted.spread, repeated.spread)


def test_rounding_of_a_constant_is_no_variation():
    rows = np.full((100, 1), 0.3) + np.random.default_rng(0).normal(size=(100, 1)) * 1e-9
    assert Scale.of(rows).dimensions == 0
    np.testing.assert_array_equal(Scale.of(rows)(rows), 0.0)


def test_kinds_are_searched_apart_and_small_ones_left_out():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(7), 10)
    kinds = np.repeat([0, 0, 0, 1, 1, 1, 2], 10)  # the last is alone
    points = rng.normal(size=(70, 2))
    near = nearest_elsewhere(points, groups, 5, kinds=kinds)
    assert near.k == 2
    np.testing.assert_array_equal(near.queries, np.arange(60))
    np.testing.assert_array_equal(kinds[near.indices], np.broadcast_to(kinds[near.queries][:, None], (60, 2)))
    alone = nearest_elsewhere(points[:30], groups[:30], 5)
    np.testing.assert_array_equal(near.indices[:30], alone.indices)
