import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from policies import checkpoint
from policies.registry import HEADS as REGISTERED
from policies.train import TrainConfig, main, train
from robot.config import load, options
from robot.episodes.formats.lerobot_writer import write
from robot.errors import ArmatureError, CheckpointError, ConfigError, UnknownNameError
from tests.policies.worlds import HEADS, demonstrations, diffusion, train_config, trained


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    folder = checkpoint.locate(run)
    model = load_file(folder / "model.safetensors")
    return model | {
        f"training.{name}": value for name, value in load_file(folder / "training/state.safetensors").items()
    }


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class StopAfter:
    """Asks to stop once it was asked `n` times whether it does."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("head", HEADS)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(head: str, tmp_path: Path) -> None:
    """Raw and averaged weights, moments and the log, to the last bit."""
    data = demonstrations()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(train_config(whole, head, steps=20, save_every=20), data, lambda: False)
    reached = train(train_config(parts, head, steps=20, save_every=20), data, StopAfter(9))
    assert 0 < reached < 20
    train(train_config(parts, head, steps=20, save_every=20), data, lambda: False)
    expected, got = tensors_of(whole), tensors_of(parts)
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []
    assert [(line["step"], line["loss"]) for line in lines_of(whole)] == [
        (line["step"], line["loss"]) for line in lines_of(parts)
    ]


def test_what_a_run_leaves(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    assert [line["step"] for line in lines_of(run)] == [2, 4, 6]
    assert {"loss", "lr", "wall_s"} <= lines_of(run)[0].keys()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["final_loss"] == lines_of(run)[-1]["loss"]
    assert summary["parameters"] > 1000
    assert list((run / "tensorboard").iterdir())


def test_the_loss_falls(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", steps=80, batch_size=32, save_every=80, log_every=1, lr=3e-3)
    losses = [line["loss"] for line in lines_of(run)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    before = tensors_of(run)
    trained(run)
    after = tensors_of(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((run / "summary.json").read_text())["steps"] == 6


def test_lines_of_steps_that_are_taken_again_are_dropped(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    checkpoint.folder_of(run, 6).rename(tmp_path / "lost")  # as if the machine had died between step 3 and 6
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    trained(run)
    assert [line["step"] for line in lines_of(run)] == [2, 4, 6]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"steps": 7}, "steps was 6, now 7"),
        ({"lr": 0.5}, "lr was 0.001, now 0.5"),
        ({"policy": diffusion(down_dims=[16, 48])}, r"down_dims was \[16, 32\], now \[16, 48\]"),
        ({"head": "act"}, "policy was diffusion, now act"),
    ],
)
def test_another_training_is_not_continued(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    with pytest.raises(CheckpointError, match=says):
        trained(run, **changes)


def test_another_dataset_is_not_continued(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    with pytest.raises(CheckpointError, match="dataset was"):
        train(train_config(run), demonstrations(episodes=3), lambda: False)


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    run = trained(tmp_path / "run")
    trained(run, seed=1, resume=False)
    assert checkpoint.load_training(checkpoint.locate(run)).numbers["settings"]["seed"] == 1
    assert [line["step"] for line in lines_of(run)] == [2, 4, 6]


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ArmatureError, match=r"loss is nan at step.*[Ll]ower the learning rate"):
        trained(tmp_path / "run", lr=1e30)
    for folder in checkpoint.all_of(tmp_path / "run"):
        assert all(torch.isfinite(value).all() for value in load_file(folder / "model.safetensors").values())


def test_a_device_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device=cuda:77"):
        trained(tmp_path / "run", device="cuda:77")


@pytest.mark.parametrize("name", REGISTERED)
def test_every_head_composes_and_is_named(name: str) -> None:
    config = load("train", TrainConfig, [f"policy={name}"], {"policy": REGISTERED})
    assert type(config.policy) is REGISTERED[name]
    assert config.lr == config.policy.lr
    assert config.run == Path(f"runs/lift/{name}")
    assert sorted(REGISTERED) == options("policy")


def test_defaults_of_yaml_and_schema_agree() -> None:
    """A default that stands in two places is the same in both."""
    for name, schema in REGISTERED.items():
        assert load("train", TrainConfig, [f"policy={name}"], {"policy": REGISTERED}).policy == schema()


@pytest.mark.parametrize(
    ("override", "near"),
    [("policy=difusion", "'diffusion'"), ("policy.horizn=8", "'policy.horizon'"), ("batchsize=4", "'batch_size'")],
)
def test_wrong_names_get_the_nearest(override: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean .*{near}"):
        main([override])


@pytest.mark.parametrize("override", ["steps=0", "lr=-1", "steps=many", "seed=-1"])
def test_wrong_values_are_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        main([override])


def test_ctrl_c_saves_and_the_same_command_resumes(tmp_path: Path) -> None:
    write(demonstrations().rows(), tmp_path / "dataset")
    small = ["policy.down_dims=[16,32]", "policy.horizon=8", "batch_size=16", "threads=1", "save_every=100000"]
    command = [sys.executable, "-m", "robot.cli", "train", f"dataset={tmp_path / 'dataset'}", f"out={tmp_path / 'run'}"]
    command += ["steps=100000", "log_every=1", *small]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "same command resumes" in output
    state = checkpoint.load_training(checkpoint.locate(tmp_path / "run"))
    assert state.numbers["step"] == state.numbers["ema_updates"] > 0
