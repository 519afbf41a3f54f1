import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.episodes import statistics
from robot.episodes.dataset import Dataset
from robot.errors import DatasetError
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import STATE, point_specs, random_dataset, random_episode


def quantile(sorted_values: list[float], q: float) -> float:
    """Linear interpolation between order statistics (Hyndman & Fan 1996, type 7)."""
    position = q * (len(sorted_values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(sorted_values) - 1)
    return sorted_values[below] + (position - below) * (sorted_values[above] - sorted_values[below])


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30))
def test_statistics_by_their_definitions(values):
    stat = statistics.of_column(np.array(values, np.float32))
    mean = math.fsum(values) / len(values)
    expected = {
        "min": min(values),
        "max": max(values),
        "mean": mean,
        "std": math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)),
        "count": len(values),
        **{f"q{100 * q:02.0f}": quantile(sorted(values), q) for q in (0.01, 0.1, 0.5, 0.9, 0.99)},
    }
    assert list(stat) == list(statistics.NAMES) == list(expected)
    for name, value in expected.items():
        assert stat[name].shape == (1,)
        assert stat[name][0] == pytest.approx(value, abs=1e-9, rel=1e-9), name


def test_statistics_of_known_numbers():
    stat = statistics.of_column(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]]))
    assert stat["mean"].tolist() == [2.0, 5.0]
    assert stat["std"] == pytest.approx([math.sqrt(2), 0.0])
    assert stat["q10"] == pytest.approx([0.4, 5.0])
    assert stat["q99"] == pytest.approx([3.96, 5.0])
    assert stat["count"].tolist() == [5]


def test_episodes_become_columns():
    dataset = random_dataset((5, 1, 9))
    assert len(dataset) == 15
    assert dataset.fps == 20
    assert dataset.episode_starts.tolist() == [0, 5, 6]
    np.testing.assert_array_equal(dataset.columns[STATE][6:], random_episode(dataset.specs, 9, 2)[STATE])
    assert dataset.stats["action"]["count"].tolist() == [15]


def test_the_identity_is_of_the_content():
    one = random_dataset()
    assert one.identity == random_dataset().identity
    assert len(one.identity) == 64
    assert one.identity != random_dataset(seed=1).identity
    assert one.identity != random_dataset((1, 5, 9)).identity
    other = Dataset(point_specs(robot="other"), one.columns, one.episode_lengths, one.stats)
    assert one.identity != other.identity


def test_what_does_not_fit_is_refused():
    specs, episode = point_specs(), random_episode(point_specs(), 4, 0)
    with pytest.raises(DatasetError, match="at least one episode"):
        Dataset.from_episodes(specs, [])
    with pytest.raises(DatasetError, match=r"no column 'observation.state'"):
        Dataset.from_episodes(specs, [{key: episode[key] for key in episode if key != STATE}])
    with pytest.raises(DatasetError, match="Episode 1 has no column 'action'"):
        Dataset.from_episodes(specs, [episode, {key: episode[key] for key in episode if key != "action"}])
    with pytest.raises(DatasetError, match=r"Columns of episode 1 differ in length: .*3"):
        Dataset.from_episodes(specs, [episode, {**episode, STATE: episode[STATE][:3]}])
    with pytest.raises(DatasetError, match=r"expected float32 of shape \(4, 2\)"):
        Dataset.from_episodes(specs, [{**episode, STATE: np.zeros((4, 5), np.float32)}])
    with pytest.raises(DatasetError, match=r"Episode 1: .*shape"):
        Dataset.from_episodes(specs, [episode, {**episode, STATE: np.zeros((4, 5), np.float32)}])
    with pytest.raises(DatasetError, match="at least one frame"):
        Dataset.from_episodes(specs, [{key: column[:0] for key, column in episode.items()}])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_that_is_not_finite_is_named(value):
    episode = random_episode(point_specs(), 4, 0)
    episode[STATE][2, 1] = value
    with pytest.raises(DatasetError, match=r"'observation.state' is not finite at frame 2"):
        Dataset.from_episodes(point_specs(), [episode])


def test_a_rate_that_is_no_whole_number_is_refused():
    specs = point_specs(dt_s=0.03)
    dataset = Dataset.from_episodes(specs, [random_episode(specs, 4, 0)])
    with pytest.raises(DatasetError, match="whole number of frames per second"):
        assert dataset.fps


def test_specs_survive_json_with_their_dataset():
    specs = random_dataset().specs
    assert type(specs).from_json(json.loads(json.dumps(specs.to_json()))) == specs


def test_rows_of_a_dataset_in_memory_are_a_source():
    dataset = random_dataset((5, 1, 9))
    source = dataset.rows()
    assert len(source) == 3
    rows = source.read(2)
    assert (len(rows), rows.task) == (9, "reach the goal")
    np.testing.assert_array_equal(rows.columns[STATE], dataset.columns[STATE][6:])
    assert set(rows.columns) == set(source.schema.columns) == set(dataset.columns)
    assert source.schema.extras["next.success"] == ArraySpec("next.success", (), "bool")


def test_every_frame_has_a_task():
    dataset = random_dataset((5, 1, 9))
    assert dataset.tasks == ("reach the goal",)
    assert dataset.task_index.tolist() == [0] * 15
    numbers = np.array([0] * 5 + [1] * 3 + [0] * 7)
    several = Dataset(dataset.specs, dataset.columns, dataset.episode_lengths, dataset.stats, ("a", "b"), numbers)
    assert [several.rows().read(number).task for number in range(3)] == ["a", "b", ("b", "b", *"aaaaaaa")]
    assert several.identity != dataset.identity
    with pytest.raises(DatasetError, match=r"task_index has shape \(3,\), expected \(15,\)"):
        Dataset(dataset.specs, dataset.columns, dataset.episode_lengths, dataset.stats, ("a", "b"), numbers[:3])


def test_pictures_are_no_columns():
    specs = point_specs()
    key = "observation.images.front"
    specs.observation[key] = ArraySpec(key, (4, 4, 3), "uint8", 0, 255)
    dataset = Dataset.from_episodes(specs, [random_episode(point_specs(), 4, 0)])
    assert key not in dataset.columns
    assert key in dataset.specs.observation
