import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.dataset import Dataset
from robot.episodes.loading.windows import BatchOrder, Windows
from robot.errors import DatasetError
from tests.robot.episodes.fakes import ENVIRONMENT_STATE, STATE, point_specs, random_dataset


def slow_window(dataset: Dataset, frame: int, n_obs_steps: int, horizon: int) -> dict[str, np.ndarray]:
    """One window, one frame at a time, from the episodes as separate lists."""
    episodes, begin = [], 0
    for length in dataset.episode_lengths:
        episodes.append(range(begin, begin + length))
        begin += length
    (episode,) = [candidate for candidate in episodes if frame in candidate]
    at = episode.index(frame)
    window = {}
    for key in (STATE, ENVIRONMENT_STATE):
        steps = [max(0, at - back) for back in reversed(range(n_obs_steps))]
        window[key] = np.stack([dataset.columns[key][episode[step]] for step in steps])
    actions, padded = [], []
    for ahead in range(horizon):
        is_over = at + ahead >= len(episode)
        actions.append(dataset.columns["action"][episode[-1] if is_over else episode[at + ahead]])
        padded.append(is_over)
    return {**window, "action": np.stack(actions), "action_is_pad": np.array(padded)}


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    n_obs_steps=st.integers(1, 5),
    horizon=st.integers(1, 12),
    data=st.data(),
)
def test_batches_equal_windows_made_frame_by_frame(lengths, n_obs_steps, horizon, data):
    dataset = random_dataset(tuple(lengths))
    windows = Windows(dataset, n_obs_steps, horizon)
    frames = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=20))
    batch = windows.batch(np.array(frames))
    for row, frame in enumerate(frames):
        expected = slow_window(dataset, frame, n_obs_steps, horizon)
        assert batch.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(batch[key][row], value)


def test_a_window_at_both_borders_of_an_episode():
    specs = point_specs()
    frames = np.arange(4, dtype=np.float32)
    episode = {
        STATE: np.stack([frames, frames], 1),
        ENVIRONMENT_STATE: frames[:, None],
        "action": np.stack([10 * frames] * 3, 1),
    }
    batch = Windows(Dataset.from_episodes(specs, [episode, episode]), 3, 3).batch(np.array([4, 7]))
    assert batch[STATE][:, :, 0].tolist() == [[0, 0, 0], [1, 2, 3]]
    assert batch["action"][:, :, 0].tolist() == [[0, 10, 20], [30, 30, 30]]
    assert batch["action_is_pad"].tolist() == [[False, False, False], [False, True, True]]
    assert batch[STATE].dtype == batch["action"].dtype == np.float32


def test_a_batch_is_a_copy():
    dataset = random_dataset()
    batch = Windows(dataset, 1, 1).batch(np.arange(len(dataset)))
    batch["action"][:] = 7
    assert not (dataset.columns["action"] == 7).any()


def test_windows_refuse_what_is_outside():
    windows = Windows(random_dataset((3,)), 1, 1)
    with pytest.raises(IndexError, match=r"\[0, 3\), got indices from -1"):
        windows.batch(np.array([-1]))
    with pytest.raises(IndexError, match=r"to 3"):
        windows.batch(np.array([0, 3]))
    with pytest.raises(DatasetError, match="horizon >= 1"):
        Windows(random_dataset((3,)), 1, 0)


def test_a_batch_of_256_takes_about_a_millisecond_at_most():
    dataset = random_dataset((100,) * 50)
    windows, order = Windows(dataset, 2, 16), BatchOrder(len(dataset), 256, 0)
    took = []
    for step in range(60):
        begin = time.perf_counter()
        windows.batch(order.indices(step))
        took.append(time.perf_counter() - begin)
    assert np.median(took) < 5e-3  # 0.2 ms on an idle core; the machine may be busy


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_every_epoch_visits_every_window_once(n, batch_size, seed):
    order = BatchOrder(n, batch_size, seed)
    steps = -(-3 * n // batch_size)
    visited = np.concatenate([order.indices(step) for step in range(steps)])
    for epoch in range(3):
        assert sorted(visited[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(steps=st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_the_order_is_a_function_of_the_step_alone(steps):
    used = BatchOrder(17, 5, seed=3)
    for step in steps:
        np.testing.assert_array_equal(used.indices(step), BatchOrder(17, 5, seed=3).indices(step))


def test_orders_differ_between_epochs_and_seeds():
    first = BatchOrder(100, 100, 0)
    assert first.indices(0).tolist() != first.indices(1).tolist()
    assert first.indices(0).tolist() != BatchOrder(100, 100, 1).indices(0).tolist()
    with pytest.raises(IndexError, match="numbered from 0"):
        first.indices(-1)
    with pytest.raises(DatasetError, match="n >= 1"):
        BatchOrder(0, 1, 0)
