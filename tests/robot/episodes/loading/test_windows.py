import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.dataset import Dataset
from robot.episodes.loading.windows import Windows
from robot.errors import DatasetError
from tests.robot.episodes.fakes import ENVIRONMENT_STATE, STATE, point_specs, random_dataset


def slow_window(dataset: Dataset, frame: int, n_obs_steps: int, horizon: int, stride: int) -> dict[str, np.ndarray]:
    """One window, one frame at a time, from the episodes as separate lists."""
    episodes, begin = [], 0
    for length in dataset.episode_lengths:
        episodes.append(range(begin, begin + length))
        begin += length
    (episode,) = [candidate for candidate in episodes if frame in candidate]
    at = episode.index(frame)
    window = {}
    wanted = [at - stride * back for back in reversed(range(n_obs_steps))]
    for key in (STATE, ENVIRONMENT_STATE):
        steps = [max(0, step) for step in wanted]
        window[key] = np.stack([dataset.columns[key][episode[step]] for step in steps])
    actions, padded = [], []
    for ahead in range(horizon):
        is_over = at + ahead >= len(episode)
        actions.append(dataset.columns["action"][episode[-1] if is_over else episode[at + ahead]])
        padded.append(is_over)
    window |= {"action": np.stack(actions), "action_is_pad": np.array(padded)}
    return {**window, "observation_is_pad": np.array([step < 0 for step in wanted]), "task_index": np.int64(0)}


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    n_obs_steps=st.integers(1, 5),
    horizon=st.integers(1, 12),
    stride=st.integers(1, 4),
    data=st.data(),
)
def test_batches_equal_windows_made_frame_by_frame(lengths, n_obs_steps, horizon, stride, data):
    dataset = random_dataset(tuple(lengths))
    windows = Windows(dataset, n_obs_steps, horizon, stride=stride)
    frames = data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=20))
    batch = windows.batch(np.array(frames))
    for row, frame in enumerate(frames):
        expected = slow_window(dataset, frame, n_obs_steps, horizon, stride)
        assert batch.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(batch[key][row], value)
            assert batch[key].dtype == value.dtype


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
    assert batch["observation_is_pad"].tolist() == [[True, True, False], [False, False, False]]
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
    with pytest.raises(DatasetError, match="stride >= 1"):
        Windows(random_dataset((3,)), 1, 1, stride=0)
    with pytest.raises(DatasetError, match=r"no observation 'observation.sate'; it has observation.state"):
        Windows(random_dataset((3,)), 1, 1, keys=["observation.sate"])


def test_only_the_wanted_observations_are_there():
    batch = Windows(random_dataset((3,)), 1, 1, keys=[STATE]).batch(np.arange(2))
    assert list(batch) == [STATE, "action", "action_is_pad", "observation_is_pad", "task_index"]


def test_filling_writes_into_what_is_given():
    dataset = random_dataset()
    windows = Windows(dataset, 2, 3)
    out = {key: np.full((4, *shape), 7, dtype) for key, (shape, dtype) in windows.layout.items()}
    before = {key: array.ctypes.data for key, array in out.items()}
    windows.fill(np.array([0, 5, 6, 14]), out)
    expected = windows.batch(np.array([0, 5, 6, 14]))
    for key, array in out.items():
        assert array.ctypes.data == before[key]
        np.testing.assert_array_equal(array, expected[key])


def test_tasks_are_counted_as_they_are_asked_for():
    data = random_dataset((2, 3))
    several = Dataset(
        data.specs, data.columns, data.episode_lengths, data.stats, ("push", "pull"), np.array([0, 0, 1, 1, 0])
    )
    assert Windows(several, 1, 1).batch(np.arange(5))["task_index"].tolist() == [0, 0, 1, 1, 0]
    joint = Windows(several, 1, 1, tasks=("lift", "pull", "push"))
    assert joint.batch(np.arange(5))["task_index"].tolist() == [2, 2, 1, 1, 2]
