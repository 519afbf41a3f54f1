import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes import statistics
from robot.episodes.dataset import Dataset
from robot.episodes.loading.batches import Batches, Form
from robot.episodes.loading.cache import FrameCache
from robot.episodes.loading.mixture import Mixture, Part, combined, weighted_quantiles
from robot.errors import DatasetError
from tests.robot.episodes.fakes import STATE, random_dataset
from tests.robot.episodes.loading.pictures import FRONT, WRIST, joined, picture_dataset, picture_specs


def numbered(lengths: tuple[int, ...], offset: float) -> Dataset:
    """The state of frame i begins with offset + i."""
    dataset = random_dataset(lengths)
    dataset.columns[STATE][:, 0] = offset + np.arange(len(dataset))
    return dataclasses.replace(dataset, stats=statistics.of_columns(dataset.columns))


def drawn(batches: Batches, steps: int) -> np.ndarray:
    """First number of the newest state of every sample."""
    return np.stack([batches.batch(step)[STATE][:, -1, 0] for step in range(steps)]).astype(int)


def test_shares_hold_in_every_batch_and_every_window_comes_once_an_epoch():
    mixture = Mixture([Part("a", numbered((30, 20), 0), 3.0), Part("b", numbered((40, 10, 10), 1000), 1.0)])
    batches = Batches.of(mixture, Form(2, 4, 16), seed=1)
    samples = drawn(batches, 100)
    for row in samples:
        assert abs((row < 1000).sum() - 12) <= 1
    of_a, of_b = samples[samples < 1000], samples[samples >= 1000]
    for epoch in range(len(of_a) // 50):
        assert sorted(of_a[50 * epoch : 50 * (epoch + 1)]) == list(range(50))
    for epoch in range(len(of_b) // 60):
        assert sorted(of_b[60 * epoch : 60 * (epoch + 1)]) == list(range(1000, 1060))


def test_batches_are_a_function_of_their_number():
    def made() -> Batches:
        weights = np.arange(50.0)
        parts = [Part("a", numbered((30, 20), 0), 0.7), Part("b", numbered((50,), 1000), 0.3, weights)]
        return Batches.of(Mixture(parts), Form(2, 4, 8), seed=5)

    used = made()
    for step in (3, 50, 0, 3, 1000):
        fresh, again = made().batch(step), used.batch(step)
        assert fresh.keys() == again.keys()
        for key in fresh:
            np.testing.assert_array_equal(fresh[key], again[key])
    with pytest.raises(IndexError, match="numbered from 0"):
        used.batch(-1)


def test_a_lone_dataset_is_what_it_is_alone():
    dataset = random_dataset()
    mixture = Mixture.of(dataset)
    assert mixture.stats is dataset.stats
    assert mixture.identity == dataset.identity
    assert mixture.specs is dataset.specs
    assert mixture.shares.tolist() == [1.0]


def test_weights_say_which_windows_come():
    weights = np.zeros(50)
    weights[[7, 30]] = 1.0, 3.0
    batches = Batches.of(Mixture.of(numbered((30, 20), 0), weights), Form(1, 1, 64), seed=0)
    samples = drawn(batches, 50)
    assert set(samples.ravel()) == {7, 30}
    assert abs((samples == 30).mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 3200)


def test_weights_of_episodes_are_those_of_their_windows():
    part = Part("", numbered((3, 2), 0), 1.0, np.array([0.25, 2.0]))
    assert part.weights.tolist() == [0.25] * 3 + [2.0] * 2
    assert set(drawn(Batches.of(Mixture([part]), Form(1, 1, 64), 0), 3).ravel()) == set(range(5))


def test_the_identity_counts_shares_weights_and_datasets():
    a, b = random_dataset(seed=1), random_dataset(seed=2)
    weights = np.ones(len(a))
    mixtures = [
        [Part("", a, 1.0), Part("", b, 1.0)],
        [Part("", a, 1.0), Part("", b, 2.0)],
        [Part("", b, 1.0), Part("", a, 1.0)],
        [Part("", a, 1.0, weights), Part("", b, 1.0)],
        [Part("", a, 1.0, 2 * weights), Part("", b, 1.0)],
        [Part("", a, 1.0, weights)],
        [Part("", a, 1.0)],
    ]
    assert len({Mixture(parts).identity for parts in mixtures}) == len(mixtures)
    assert Mixture([Part("", a, 2.0), Part("", b, 2.0)]).identity == Mixture(mixtures[0]).identity


def test_datasets_that_differ_do_not_mix():
    first, second = picture_dataset(), picture_dataset()
    other = dataclasses.replace(second, specs=picture_specs(robot="sawyer"))
    with pytest.raises(DatasetError, match=r"data/b cannot be mixed with data/a: robot is sawyer, expected point"):
        Mixture([Part("data/a", first, 1.0), Part("data/b", other, 1.0)])
    smaller = picture_dataset(size=(4, 4))
    with pytest.raises(DatasetError, match=r"observation.images.front: shape is \(4, 4, 3\), expected \(8, 12, 3\)"):
        Mixture([Part("data/a", first, 1.0), Part("data/b", smaller, 1.0)])
    for share in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(DatasetError, match=r"share of data/a is .*above zero"):
            Mixture([Part("data/a", first, share)])
    with pytest.raises(DatasetError, match=r"weights of shape \(4,\) for the 15 windows or 3 episodes of data/a"):
        Mixture([Part("data/a", first, 1.0, np.ones(4))])
    with pytest.raises(DatasetError, match="at least one dataset"):
        Mixture([])
    with pytest.raises(DatasetError, match="batch_size >= 1"):
        Form(1, 1, 0)


def test_tasks_are_counted_over_all_datasets():
    a, b = numbered((4,), 0), numbered((6,), 100)
    a = dataclasses.replace(a, tasks=("push", "pull"), task_index=np.array([0, 0, 1, 1]))
    b = dataclasses.replace(b, tasks=("lift", "pull"), task_index=np.array([0, 1, 1, 0, 0, 0]))
    mixture = Mixture([Part("a", a, 1.0), Part("b", b, 1.0)])
    assert mixture.tasks == ("push", "pull", "lift")
    batches = Batches.of(mixture, Form(1, 1, 20), seed=0)
    for step in range(5):
        batch = batches.batch(step)
        for state, task in zip(batch[STATE][:, -1, 0].astype(int), batch["task_index"], strict=True):
            own = a if state < 100 else b
            assert mixture.tasks[task] == own.tasks[own.task_index[state % 100]]


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_shares_by_length_give_the_statistics_of_everything_together(lengths, seed):
    rng = np.random.default_rng(seed)
    columns = [rng.normal(rng.normal(), 1 + rng.uniform(), (length, 3)) for length in lengths]
    shares = np.array(lengths) / sum(lengths)
    got = combined([statistics.of_column(column) for column in columns], columns, shares)
    expected = statistics.of_column(np.concatenate(columns))
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_shares_count_as_copies_do():
    """Drawing a twice as often as b is drawing from a, a and b, where both are equally long."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2000, 2)), rng.normal(3, 2, size=(2000, 2))
    got = combined([statistics.of_column(a), statistics.of_column(b)], [a, b], np.array([2 / 3, 1 / 3]))
    expected = statistics.of_column(np.concatenate([a, a, b]))
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-12)
    for name in ("q01", "q10", "q50", "q90", "q99"):
        np.testing.assert_allclose(got[name], expected[name], atol=0.02)
    assert got["count"].tolist() == [4000]


def test_a_few_quantiles_by_hand():
    """Values 0 1 2 with weights 1 2 1: S = 0, 1 x 2 + 2 x 1, 2 x 1 + 2 x 3, so 1 is the quantile 1/2."""
    got = weighted_quantiles(np.array([2.0, 0.0, 1.0]), np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(got, [0.02, 0.2, 1.0, 1.8, 1.98])
    assert weighted_quantiles(np.array([4.0]), np.array([1.0])).tolist() == [4.0] * 5


def test_statistics_of_pictures_mix_without_the_pictures():
    shape = (3, 1, 1)
    first = {name: np.full(shape, 0.2) for name in statistics.NAMES} | {"count": np.array([10])}
    second = {name: np.full(shape, 0.6) for name in statistics.NAMES} | {"count": np.array([30])}
    got = combined([first, second], [None, None], np.array([0.25, 0.75]))
    np.testing.assert_allclose(got["mean"], np.full(shape, 0.5))
    np.testing.assert_allclose(got["q50"], np.full(shape, 0.5))
    np.testing.assert_allclose(got["std"], np.sqrt(0.25 * (0.04 + 0.09) + 0.75 * (0.36 + 0.01)))


def test_mixed_batches_hold_the_pictures_of_their_frames(tmp_path):
    datasets = [picture_dataset((5, 3), seed=1), picture_dataset((4, 4, 4), seed=9)]
    mixture = Mixture([Part("a", datasets[0], 1.0), Part("b", datasets[1], 2.0)])
    batches = Batches.of(mixture, Form(2, 3, 12), 0, FrameCache(tmp_path))
    assert batches.has_pictures
    whole = {key: np.concatenate([joined(data.source, key) for data in datasets]) for key in (FRONT, WRIST)}
    states = np.concatenate([data.columns[STATE] for data in datasets])
    for step in range(4):
        batch = batches.batch(step)
        for sample in range(12):
            for k in range(2):
                (at,) = np.flatnonzero((states == batch[STATE][sample, k]).all(axis=1))
                for key in (FRONT, WRIST):
                    np.testing.assert_array_equal(batch[key][sample, k], whole[key][at])


def test_pictures_that_nobody_wants_are_not_decoded(tmp_path):
    form = Form(1, 1, 4, keys=(STATE,))
    batches = Batches.of(Mixture.of(picture_dataset()), form, 0, FrameCache(tmp_path))
    assert not batches.has_pictures
    assert list(tmp_path.iterdir()) == []
    without = dataclasses.replace(picture_dataset(), source=None)
    with pytest.raises(DatasetError, match=r"says that it has pictures .* but not where"):
        Batches.of(Mixture.of(without), Form(1, 1, 4), 0, FrameCache(tmp_path))
