"""Fixed initial states in a file."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from robot.errors import StateError
from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.evaluation_sets import EvaluationSet
from robot.sim.states import StoredState

SEEDS = (5, 3, 9)


@pytest.fixture(scope="module")
def door() -> Iterator[RobosuiteEnvironment]:
    environment = make(EnvConfig(task="door"))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def states(door: RobosuiteEnvironment) -> EvaluationSet:
    return EvaluationSet.from_seeds(door, SEEDS)


def test_what_is_loaded_begins_the_episodes_that_were_stored(
    door: RobosuiteEnvironment, states: EvaluationSet, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "door.npz"
    states.save(path)
    loaded = EvaluationSet.load(path)
    assert (len(loaded), loaded.task, loaded.model) == (len(SEEDS), "Door", states.model)
    assert loaded.digest() == states.digest()
    for seed, state in zip(SEEDS, loaded, strict=True):
        placed = {key: array.copy() for key, array in door.reset(seed=seed)[0].items()}
        for key, array in door.reset(seed=0, options={"state": state})[0].items():
            np.testing.assert_allclose(array, placed[key], atol=1e-6)
    assert [path.name for path in path.parent.iterdir()] == ["door.npz"]


def test_equal_sets_give_equal_files_and_order_counts(states: EvaluationSet, tmp_path: Path) -> None:
    again = EvaluationSet([StoredState.from_bytes(state.to_bytes()) for state in states])
    states.save(tmp_path / "one.npz")
    again.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert EvaluationSet(reversed(states)).digest() != states.digest()
    assert [state.flat[1] for state in states[1:]] == [states[1].flat[1], states[2].flat[1]]


def test_a_set_is_of_one_model(states: EvaluationSet) -> None:
    first = states[0]
    foreign = StoredState(first.task, "f" * 64, first.flat, first.posture, first.bodies, first.wiped)
    with pytest.raises(StateError, match="State 3 is of Door"):
        EvaluationSet([*states, foreign])
    with pytest.raises(StateError, match="at least one"):
        EvaluationSet([])


def test_a_set_of_another_task_is_refused(states: EvaluationSet) -> None:
    lift = make(EnvConfig())
    with pytest.raises(StateError, match="task Door, this world's is Lift"):
        lift.reset(options={"state": states[0]})


def test_damage_is_seen(states: EvaluationSet, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with pytest.raises(StateError, match="There is no evaluation set"):
        EvaluationSet.load(path)
    states.save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            loaded = EvaluationSet.load(path)
        except StateError:
            continue
        # Bytes of the archive's own book-keeping may be of no consequence; the states never differ.
        assert loaded.digest() == states.digest()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StateError, match="damaged"):
        EvaluationSet.load(path)


def test_other_archives_are_refused(states: EvaluationSet, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, header=np.frombuffer(b'{"format": "another"}', np.uint8), flat=np.zeros(3))
    with pytest.raises(StateError, match="no evaluation set"):
        EvaluationSet.load(path)
    states.save(path)
    with np.load(path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    arrays["flat"][0, 0] += 1.0
    np.savez(path, **arrays)
    with pytest.raises(StateError, match="checksum"):
        EvaluationSet.load(path)
