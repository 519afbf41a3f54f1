import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.loading import order
from robot.episodes.loading.order import Interleaved, Permutation, Shuffled, Weighted
from robot.errors import DatasetError


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 5000), entropy=st.lists(st.integers(0, 2**31), min_size=1, max_size=3))
def test_a_permutation_hits_everything_once(n, entropy):
    found = Permutation(n, entropy).at(np.arange(n))
    assert np.array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", [10**8, 2**40 + 1])
def test_a_permutation_of_very_many_takes_no_memory_and_repeats_nothing(n):
    permutation = Permutation(n, [1])
    positions = np.concatenate([np.arange(200_000), np.arange(n - 200_000, n)])
    found = permutation.at(positions)
    assert found.min() >= 0
    assert found.max() < n
    assert len(np.unique(found)) == len(positions)
    assert np.array_equal(permutation.at(positions[5:9]), found[5:9])


def test_a_permutation_looks_random():
    """Neighbours, and places, do not depend on each other; three standard deviations of what chance gives."""
    n = 2**18
    found = Permutation(n, [3]).at(np.arange(n)).astype(np.float64)
    assert abs(np.corrcoef(found, np.arange(n))[0, 1]) < 3 / math.sqrt(n)
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 3 / math.sqrt(n)
    fixed = int((found == np.arange(n)).sum())  # Poisson with mean 1
    assert fixed < 8
    counts = np.histogram2d(np.arange(n), found, bins=16)[0]
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi2 - 255) < 4 * math.sqrt(2 * 255)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**31), computed=st.booleans())
def test_every_epoch_visits_every_window_once(n, seed, computed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "DRAWN", 0 if computed else 2**20)
        visited = Shuffled(n, seed).at(np.arange(3 * n))
    for epoch in range(3):
        assert sorted(visited[epoch * n : (epoch + 1) * n]) == list(range(n))


@settings(max_examples=30, deadline=None)
@given(blocks=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 20)), min_size=1, max_size=4))
def test_the_order_is_a_function_of_the_position_alone(blocks):
    orders = {
        "shuffled": (Shuffled(17, 3), lambda: Shuffled(17, 3)),
        "weighted": (Weighted(np.arange(5), 3), lambda: Weighted(np.arange(5), 3)),
    }
    for used, fresh in orders.values():
        for start, count in blocks:
            positions = np.arange(start, start + count)
            one_by_one = [int(fresh().at(np.array([position]))[0]) for position in positions]
            assert used.at(positions).tolist() == one_by_one


def test_orders_differ_between_epochs_seeds_and_streams():
    first = Shuffled(100, 0).at(np.arange(200))
    assert first[:100].tolist() != first[100:].tolist()
    assert first.tolist() != Shuffled(100, 1).at(np.arange(200)).tolist()
    assert first.tolist() != Shuffled(100, 0, [1]).at(np.arange(200)).tolist()
    assert first.tolist() == Shuffled(100, 0, [0]).at(np.arange(200)).tolist()


def test_few_windows_are_in_the_order_of_numpys_permutation():
    """Trainings of earlier versions visit what they visited."""
    expected = np.random.default_rng([5, 2]).permutation(50)
    assert Shuffled(50, 5).at(np.arange(100, 150)).tolist() == expected.tolist()


def test_bad_orders_are_refused():
    for n, seed in ((0, 0), (1, -1)):
        with pytest.raises(DatasetError, match="n >= 1 and seed >= 0"):
            Shuffled(n, seed)
    for weights in ([], [0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [[1.0]], [np.inf]):
        with pytest.raises(DatasetError, match="finite numbers >= 0"):
            Weighted(np.array(weights), 0)
    for shares in ([], [1.0, 0.0], [1.0, -1.0], [np.nan]):
        with pytest.raises(DatasetError, match="above zero"):
            Interleaved(shares)


def test_weights_say_how_often():
    """Within four standard deviations of the binomial distribution; zero is never."""
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 0.0])
    draws = 80_000
    counts = np.bincount(Weighted(weights, 7).at(np.arange(draws)), minlength=6)
    for count, p in zip(counts, weights / 8, strict=True):
        assert abs(count - draws * p) <= 4 * math.sqrt(draws * p * (1 - p))


def test_equal_weights_draw_independently():
    """With replacement: of n draws from n windows a share of 1/e is not hit."""
    n = 50_000
    hit = len(np.unique(Weighted(np.ones(n), 0).at(np.arange(n))))
    assert abs(hit / n - (1 - 1 / math.e)) < 0.01


@settings(max_examples=60, deadline=None)
@given(shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=6), start=st.integers(0, 10**12))
def test_shares_hold_in_every_stretch_and_own_positions_have_no_gap(shares, start):
    interleaved, length = Interleaved(shares), 400
    numbers, own = interleaved.at(np.arange(start, start + length))
    for number, share in enumerate(np.array(shares) / np.sum(shares)):
        mine = own[numbers == number]
        assert abs(len(mine) - share * length) <= len(shares) + length * 1e-5
        assert np.array_equal(mine, np.arange(mine[0], mine[0] + len(mine)) if len(mine) else mine)
    beginning, first = interleaved.at(np.arange(length))
    for number in set(beginning.tolist()):
        assert first[beginning == number][0] == 0
