import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from policies import checkpoint
from policies.checkpoint import load_policy
from robot.conformance.policy import PolicyConformance
from robot.errors import CheckpointError
from tests.policies.worlds import HEADS, SPECS, trained


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"), steps=2, save_every=1)


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A run of two checkpoints that a test may damage."""
    return shutil.copytree(original, tmp_path / "run")


def newest(run: Path) -> Path:
    return checkpoint.locate(run)


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / "policy.json").read_text())
    change(data)
    (folder / "policy.json").write_text(json.dumps(data))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors and, as a foreign tool would, leave a file that is whole in itself."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    digest = checkpoint._sha256(folder / "model.safetensors")
    edit(folder, lambda data: data.update(model_sha256=digest))


class TestLoadedPolicy(PolicyConformance):
    @pytest.fixture(autouse=True)
    def _run(self, original: Path) -> None:
        self._path = original

    def make(self) -> Any:
        return load_policy(self._path)


def test_acting_does_not_import_diffusers(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)  # an import of it would raise
    policy = load_policy(original)
    specs = policy.specs.environment.observation
    history = {key: np.stack([spec.generate_value()] * policy.specs.n_obs_steps) for key, spec in specs.items()}
    assert np.isfinite(policy.act(history).actions).all()


@pytest.mark.parametrize("head", HEADS)
def test_a_saved_head_comes_back_bit_for_bit(head: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", head)
    loaded, description = checkpoint.load_head(run)
    assert description.specs == SPECS
    assert description.step == 6
    saved = load_file(newest(run) / "model.safetensors")
    state = loaded.state_dict()
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], state[name]) for name in saved)


def test_weights_are_the_average_and_not_the_raw_ones(original: Path) -> None:
    model = load_file(newest(original) / "model.safetensors")
    raw = load_file(newest(original) / "training" / "state.safetensors")
    names = [name.removeprefix("weights.") for name in raw if name.startswith("weights.")]
    assert names
    assert any(not torch.equal(model[name], raw[f"weights.{name}"]) for name in names)


def test_the_newest_checkpoint_is_found(original: Path) -> None:
    assert newest(original).name == "step_00000002"
    assert checkpoint.locate(newest(original)) == newest(original)


def test_a_folder_that_is_being_written_is_no_checkpoint(run: Path) -> None:
    shutil.copytree(newest(run), run / "checkpoints" / ".step_00000009.part")
    (run / "checkpoints" / "step_9").mkdir()
    assert newest(run).name == "step_00000002"


@pytest.mark.parametrize("name", ["model.safetensors", "training/state.safetensors"])
@pytest.mark.parametrize("length", [0, 5, 1000])
def test_a_truncated_file_is_named(run: Path, name: str, length: int) -> None:
    path = newest(run) / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=f"{path.name} is damaged or truncated"):
        checkpoint.load_training(newest(run)) if "training" in name else load_policy(run)


def test_a_flipped_bit_is_noticed(run: Path) -> None:
    path = newest(run) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="digest differs"):
        load_policy(run)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop("action.centre"), "action.centre: missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra: not expected"),
        (lambda tensors: tensors.update({"action.centre": torch.zeros(3)}), r"shape \(3,\), expected \(2,\)"),
        (lambda tensors: tensors.update({"action.centre": torch.full((2,), np.nan)}), "action.centre: not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(run: Path, change: Callable[..., Any], says: str) -> None:
    rewrite(newest(run), change)
    with pytest.raises(CheckpointError, match=says):
        load_policy(run)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(format="other"), "not an Armature checkpoint"),
        (lambda data: data.update(version=99), "version 99, this Armature .* reads 1"),
        (lambda data: data.update(head="diffuson"), "head 'diffuson'"),
        (lambda data: data["config"].update(down_dimz=[8]), "config of its head"),
        (lambda data: data["config"].update(horizon=7), "builds no head"),
        (lambda data: data["config"].update(down_dims=[16, 64]), "does not fit the head"),
        (lambda data: data.pop("specs"), "damaged"),
        (lambda data: data["specs"]["action"].pop("shape"), "damaged"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(run: Path, change: Callable[..., Any], says: str) -> None:
    edit(newest(run), change)
    with pytest.raises(CheckpointError, match=says):
        load_policy(run)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_description_is_named(run: Path, text: str) -> None:
    (newest(run) / "policy.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"policy.json is damaged"):
        load_policy(run)


def test_a_missing_model_is_named(run: Path) -> None:
    (newest(run) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        load_policy(run)


def test_foreign_and_missing_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_policy(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_policy(tmp_path / "nowhere")


def test_a_full_disk_leaves_the_older_checkpoint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = newest(run)
    folder, description = before, checkpoint.describe(before)
    training, model = checkpoint.load_training(folder), checkpoint.read_tensors(folder / "model.safetensors")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    later = checkpoint.Description(description.config, description.specs, description.dataset, 3)
    with pytest.raises(CheckpointError, match=r"No space left.*Older checkpoints are intact"):
        checkpoint.save(run, later, model, training, keep=1)
    monkeypatch.undo()
    assert newest(run) == before
    assert load_policy(run).specs.environment == SPECS
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_00000001", "step_00000002"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", steps=5, save_every=1, keep=2)
    assert [path.name for path in checkpoint.all_of(run)] == ["step_00000004", "step_00000005"]
