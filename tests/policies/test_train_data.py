"""What a training is fed with: mixtures, samplers, worker processes, pictures."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from policies import checkpoint
from policies.base import AbstractHead, Batch, HeadConfig, Metrics
from policies.registry import HEADS
from policies.train import TrainConfig, main, opened, train
from robot.config import load
from robot.contract import EnvironmentSpecs
from robot.episodes.formats.lerobot_writer import write
from robot.episodes.loading import loader as loader_module
from robot.errors import CheckpointError, ConfigError, DatasetError, UnknownNameError, WorkerError
from tests.policies.test_train import StopAfter, lines_of, tensors_of
from tests.policies.worlds import demonstrations, train_config, trained
from tests.robot.episodes.loading.pictures import FRONT, WRIST, picture_dataset


def configured(**changes: Any) -> TrainConfig:
    return train_config(Path("unused"), **changes)


def equal(first: Path, second: Path) -> bool:
    one, other = tensors_of(first), tensors_of(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    for name, episodes in (("a", 4), ("b", 2)):
        write(demonstrations(episodes).rows(), tmp_path / name)
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_a_dataset_is_a_folder_or_folders_or_shares(folders: tuple[str, str]) -> None:
    a, b = folders
    assert opened(configured(dataset=a)).identity == demonstrations(4).identity
    assert opened(configured(dataset=[a, b])).shares.tolist() == [2 / 3, 1 / 3]  # by their frames
    assert opened(configured(dataset={a: 0.5, b: 1.5})).shares.tolist() == [0.25, 0.75]
    composed = load("train", TrainConfig, [f"dataset={{{a}:0.7,{b}:0.3}}"], {"policy": HEADS})
    assert composed.dataset == {a: 0.7, b: 0.3}
    composed = load("train", TrainConfig, [f"dataset=[{a},{b}]"], {"policy": HEADS})
    assert composed.dataset == [a, b]


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (3, "dataset is 3, expected a folder, a list of folders"),
        ([], "expected a folder"),
        ({}, "expected a folder"),
        ([1], "expected a folder"),
        ({"A": "much"}, "share of .*/a in dataset is 'much', expected a number"),
        ({"A": 0}, "is 0, expected a number above zero"),
        ({"A": True}, "is True, expected a number"),
        ({"A": None}, "is None, expected a number"),
    ],
)
def test_other_datasets_are_refused(dataset: Any, says: str, folders: tuple[str, str]) -> None:
    if isinstance(dataset, dict):
        dataset = {folders[0]: dataset["A"]} if dataset else {}
    with pytest.raises(ConfigError, match=says):
        opened(configured(dataset=dataset))


def test_the_command_trains_on_a_mixture(folders: tuple[str, str], tmp_path: Path, capsys: Any) -> None:
    a, b = folders
    small = ["policy.down_dims=[16,32]", "policy.horizon=8", "batch_size=16", "steps=3", f"out={tmp_path / 'run'}"]
    assert main([f"dataset={{{a}:3,{b}:1}}", "workers=1", *small]) == 0
    with pytest.raises(CheckpointError, match="dataset was"):
        main([f"dataset={{{a}:1,{b}:1}}", *small])
    with pytest.raises(DatasetError, match="no dataset folder"):
        main([f"dataset=[{a},{b}x]", *small])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, tmp_path: Path) -> None:
    assert equal(trained(tmp_path / "none", workers=0), trained(tmp_path / "some", workers=workers))


def test_a_worker_that_dies_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained is saved, and the same command goes on as if nothing had happened."""
    received = loader_module._Worker.receive

    def killing(self: Any, step: int) -> None:
        if step == 4:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.join()
        received(self, step)

    monkeypatch.setattr(loader_module._Worker, "receive", killing)
    config = train_config(tmp_path / "run", steps=8, save_every=100, workers=1)
    with pytest.raises(WorkerError, match=r"Worker 0 of the loader ended.*SIGKILL"):
        # What the worker had made ahead is still read.
        train(config, demonstrations(), lambda: False)
    reached = checkpoint.load_training(checkpoint.locate(tmp_path / "run")).numbers["step"]
    assert reached >= 4
    monkeypatch.undo()
    train(config, demonstrations(), lambda: False)
    assert equal(tmp_path / "run", trained(tmp_path / "whole", steps=8, save_every=100))


def test_samplers_are_told_and_belong_to_the_run(folders: tuple[str, str], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(UnknownNameError, match="'topk'"):
        configured(sampler="topq")
    with pytest.raises(ConfigError, match="temperature"):
        configured(sampler="return", sampler_temperature=0.0)
    with pytest.raises(DatasetError, match=r"neither 'next.reward' nor 'next.success'"):
        opened(configured(dataset=folders[0], sampler="return"))
    run = trained(tmp_path / "run")
    with pytest.raises(CheckpointError, match="sampler was uniform, now return"):
        train(train_config(run, sampler="return"), demonstrations(), lambda: False)


@pytest.mark.parametrize("changes", [{"workers": -1}, {"threads": -1}])
def test_negative_numbers_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        configured(**changes)


class Looking(AbstractHead):
    """Actions from the mean colours of two cameras."""

    def __init__(self, config: "LookingConfig", specs: EnvironmentSpecs) -> None:
        super().__init__()
        self.specs = config.policy_specs(specs)
        self._horizon, self._width = config.horizon, specs.action.shape[0]
        self.layer = nn.Linear(6 * config.n_obs_steps, config.horizon * self._width)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        assert batch[FRONT].dtype == batch[WRIST].dtype == torch.uint8
        return (self.predict(batch, torch.Generator()) - batch["action"]).square().mean(), {}

    def predict(self, observation: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        colours = [observation[key].float().div(255).mean((2, 3)).flatten(1) for key in (FRONT, WRIST)]
        return self.layer(torch.cat(colours, 1)).unflatten(1, (self._horizon, self._width))


@dataclass(kw_only=True)
class LookingConfig(HeadConfig):
    n_obs_steps: int = 2
    horizon: int = 4
    n_action_steps: int = 2
    lr: float = 1e-2
    weight_decay: float = 0.0

    def build(self, specs: EnvironmentSpecs, statistics: Any) -> Looking:
        return Looking(self, specs)


def test_pictures_are_trained_on_and_resumed_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "looking", LookingConfig)
    monkeypatch.setenv("ARMATURE_CACHE", str(tmp_path / "frames"))
    data = picture_dataset((20, 30))

    def config(name: str, **changes: Any) -> TrainConfig:
        return train_config(tmp_path / name, policy=LookingConfig(), steps=12, save_every=12, **changes)

    train(config("whole", workers=0), data, lambda: False)
    train(config("parts"), data, StopAfter(5))  # two workers, as there are pictures
    assert checkpoint.load_training(checkpoint.locate(tmp_path / "parts")).numbers["step"] == 5
    train(config("parts", workers=1), data, lambda: False)
    assert equal(tmp_path / "whole", tmp_path / "parts")
    losses = [(line["step"], line["loss"]) for line in lines_of(tmp_path / "whole")]
    assert losses == [(line["step"], line["loss"]) for line in lines_of(tmp_path / "parts")]
    weights = load_file(checkpoint.locate(tmp_path / "whole") / "model.safetensors")
    assert np.isfinite(weights["layer.weight"].numpy()).all()


def test_pictures_that_no_head_reads_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARMATURE_CACHE", str(tmp_path / "frames"))
    with pytest.raises(ConfigError, match=r"observation.images.front.*heads read vectors only"):
        train(train_config(tmp_path / "run"), picture_dataset(), lambda: False)
    assert not (tmp_path / "frames").exists()


def test_a_policy_may_see_less_than_the_dataset_has(tmp_path: Path, capsys: Any) -> None:
    write(picture_dataset().rows(), tmp_path / "data")
    vectors = [key for key in picture_dataset().specs.observation if key not in (FRONT, WRIST)]
    small = ["policy.down_dims=[16,32]", "policy.horizon=8", "batch_size=16", "steps=2", f"dataset={tmp_path / 'data'}"]
    with pytest.raises(ConfigError, match=r"observations=\[observation.state"):
        main([*small, f"out={tmp_path / 'all'}"])
    assert (
        main([*small, f"observations={[str(key) for key in vectors]}".replace("'", ""), f"out={tmp_path / 'some'}"])
        == 0
    )
    seen = checkpoint.describe(checkpoint.all_of(tmp_path / "some")[-1]).specs
    assert list(seen.observation) == vectors
    assert seen.unmet(picture_dataset().specs) == []
    with pytest.raises(UnknownNameError, match=r"observation\.stat"):
        main([*small, "observations=[observation.stat]", f"out={tmp_path / 'none'}"])
