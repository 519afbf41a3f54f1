import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policies import inverse_dynamics
from policies import inverse_dynamics_checkpoint as store
from policies.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policies.inverse_dynamics_checkpoint import Trained
from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.errors import CheckpointError, ConfigError, DatasetError
from robot.specs import ArraySpec
from tests.policies.worlds import GOAL, demonstrations

STATE = "observation.state"
SPECS = EnvironmentSpecs(
    {STATE: ArraySpec(STATE, (2,), names=("p", "v"))},
    ArraySpec("action", (2,), low=-2.0, high=2.0, names=("push", "idle")),
    "joint_position",
    0.1,
    "Cart",
    "go about",
)


def cart(count=12, frames=40, seed=0, noise=0.0, far=0.0) -> Dataset:
    """A cart: v' = v + 0.3 push, p' = p + 0.1 v'. The second element of the action does nothing.

    Args:
        count: Episodes.
        frames: Of each.
        seed: Of the pushes.
        noise: Standard deviation of a push that nobody asked for, where p > 0.
        far: Where it starts.
    """
    rng, episodes = np.random.default_rng(seed), []
    for _ in range(count):
        p, v, states = far + rng.normal(), 0.0, []
        actions = rng.uniform(-1.5, 1.5, (frames, 2))
        for push, _idle in actions:
            states.append([p, v])
            v += 0.3 * (push + noise * rng.normal() * (p > 0)) - 0.1 * v
            p += 0.1 * v - 0.05 * (p - far)
        episodes.append({STATE: np.array(states, np.float32), "action": actions.astype(np.float32)})
    return Dataset.from_episodes(SPECS, episodes)


def config(**changes) -> InverseDynamicsConfig:
    return InverseDynamicsConfig(
        **{"width": 32, "members": 3, "batch_size": 64, "epochs": 80, "patience": 15, "lr": 3e-3} | changes
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    dataset = cart()
    model, validation = inverse_dynamics.train(dataset, [STATE], config())
    return Trained(model, SPECS, (STATE,), validation, dataset.identity)


def test_it_tells_actions_that_have_consequences(trained):
    unseen = cart(4, seed=99)
    errors, constants = [], []
    for states, truth in zip(
        inverse_dynamics.states_of(unseen, [STATE]), np.split(unseen.columns["action"], 4), strict=True
    ):
        errors.append(trained.model.predict(states)[0][:-1, 0] - truth[:-1, 0])
        constants.append(truth[:-1, 0])
    assert np.square(np.concatenate(errors)).mean() < 0.01 * np.square(np.concatenate(constants)).mean()


def test_it_says_what_it_cannot_tell(trained):
    """An element without consequences: no better than a constant, and a deviation as large as the truth has."""
    found = trained.validation
    assert found.rmse[1] > 0.9 * found.constant_rmse[1]
    assert found.rmse[0] < 0.4 * found.constant_rmse[0]
    _, std = trained.model.predict(inverse_dynamics.states_of(cart(1, seed=5), [STATE])[0])
    assert np.median(std[:, 1]) == pytest.approx(3 / np.sqrt(12), rel=0.15)
    assert found.within_two_std > 0.9


def test_the_last_row_is_less_certain_than_the_others(trained):
    _, std = trained.model.predict(inverse_dynamics.states_of(cart(1, seed=5), [STATE])[0])
    assert std[-1, 0] > 5 * np.median(std[:-1, 0])


def test_it_is_less_certain_where_the_world_is_noisy():
    model, _ = inverse_dynamics.train(cart(30, noise=0.5), [STATE], config(epochs=40))
    states = np.concatenate(inverse_dynamics.states_of(cart(6, seed=3, noise=0.5), [STATE]))
    _, std = model.predict(states)
    noisy, calm = std[states[:, 0] > 0.5, 0], std[states[:, 0] < -0.5, 0]
    assert np.median(noisy) > 2.5 * np.median(calm)
    assert np.median(noisy) == pytest.approx(0.5, rel=0.4)


def test_it_is_less_certain_of_what_it_has_not_seen(trained):
    near, far = (inverse_dynamics.states_of(cart(2, seed=4, far=at), [STATE])[0] for at in (0.0, 30.0))
    assert np.median(trained.model.predict(far)[1][:, 0]) > 3 * np.median(trained.model.predict(near)[1][:, 0])


def test_predictions_stay_in_range(trained):
    wild = np.random.default_rng(0).normal(size=(50, 2)) * 100
    mean, std = trained.model.predict(wild)
    assert (np.abs(mean) <= 2).all()
    assert (std > 0).all()
    assert mean.dtype == std.dtype == np.float32


def test_features_by_hand():
    model = InverseDynamics(
        1, SPECS.action, config(back=1, ahead=2),
        np.array([[0.0], [2.0]]), np.array([[1.0], [-1.0]]), np.zeros((2, 2)),
    )  # fmt: skip
    # Centre 1, spread 1; changes of spread 1. Columns: state; change from the one before, to the next, after that.
    got = model.features(torch.tensor([[1.0], [3.0], [6.0]]))
    expected = [
        [0, 0, 0, 2, 1, 3, 1],
        [2, 2, 1, 3, 1, 0, 0],
        [5, 3, 1, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(got.numpy(), expected)
    alone = model.features(torch.tensor([[4.0]]))
    np.testing.assert_allclose(alone.numpy(), [[3, 0, 0, 0, 0, 0, 0]])


def test_equal_seeds_give_equal_models_and_leave_the_generator_alone():
    short = config(epochs=3)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second, other = (
        inverse_dynamics.train(cart(5), [STATE], replace(short, seed=seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    states = np.ones((6, 2), np.float32)
    np.testing.assert_array_equal(first.predict(states)[0], second.predict(states)[0])
    assert not np.array_equal(first.predict(states)[0], other.predict(states)[0])


def test_units_do_not_matter():
    dataset = cart(6)
    scaled = Dataset.from_episodes(
        SPECS,
        [
            {STATE: 1000 * states, "action": actions}
            for states, actions in zip(
                inverse_dynamics.states_of(dataset, [STATE]), np.split(dataset.columns["action"], 6), strict=True
            )
        ],
    )
    ours, theirs = (inverse_dynamics.train(data, [STATE], config(epochs=40))[1] for data in (dataset, scaled))
    assert theirs.rmse == pytest.approx(ours.rmse, rel=0.05)


def test_a_point_that_goes_to_its_goal_is_told_without_its_goal():
    """The action shows in the motion, so that the goal need not be seen."""
    dataset = demonstrations(20, 25)
    model, validation = inverse_dynamics.train(dataset, [STATE], config(epochs=150))
    assert max(validation.rmse) < 0.25 * min(validation.constant_rmse)
    both, _ = inverse_dynamics.train(dataset, [STATE, GOAL], config(epochs=5))
    assert both.predict(np.zeros((3, 5)))[0].shape == model.predict(np.zeros((3, 2)))[0].shape == (3, 2)


def test_too_little_to_learn_from():
    with pytest.raises(DatasetError, match="1 labelled episode"):
        inverse_dynamics.train(cart(1), [STATE], config())
    with pytest.raises(DatasetError, match="two rows"):
        inverse_dynamics.train(cart(3, frames=1), [STATE], config())


@pytest.mark.parametrize("changes", [{"ahead": 0}, {"members": 0}, {"lr": 0.0}, {"validation": 1.0}, {"back": -1}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        config(**changes)


def test_a_model_is_the_same_after_saving(trained, tmp_path):
    store.save(trained, tmp_path / "model")
    loaded = store.load(tmp_path / "model")
    states = inverse_dynamics.states_of(cart(1, seed=8), [STATE])[0]
    for ours, theirs in zip(trained.model.predict(states), loaded.model.predict(states), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.specs == trained.specs
    assert loaded.keys == trained.keys
    assert loaded.validation == trained.validation
    assert loaded.digest == store.identified(trained).digest


def test_saving_replaces_a_model_and_nothing_else(trained, tmp_path):
    store.save(trained, tmp_path / "model")
    store.save(trained, tmp_path / "model")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("precious")
    with pytest.raises(CheckpointError, match="holds no inverse dynamics model"):
        store.save(trained, tmp_path / "thesis")
    assert (tmp_path / "thesis/chapter.tex").read_text() == "precious"


def _cut(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def _edit(folder: Path, **changes) -> None:
    path = folder / "inverse_dynamics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "truncated"),
        (_flip, "changed after"),
        (lambda folder: (folder / "model.safetensors").unlink(), "missing"),
        (lambda folder: (folder / "inverse_dynamics.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "inverse_dynamics.json").unlink(), "holds no inverse dynamics model"),
        (lambda folder: _edit(folder, version=9), "version 9"),
        (lambda folder: _edit(folder, format="armature-policy"), "armature-policy"),
        (lambda folder: _edit(folder, config={"width": 8}), "damaged"),
        (lambda folder: _edit(folder, keys=["observation.nothing"]), "damaged"),
    ],
)
def test_damage_is_one_error(trained, tmp_path, damage, message):
    store.save(trained, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        store.load(tmp_path / "model")
