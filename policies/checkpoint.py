"""Checkpoints: a folder of safetensors and JSON that appears complete or not at all, and is loaded strictly.

    policy.json          format, head, its config, specs, identity of the dataset, step
    model.safetensors    averaged weights and normalisation: what `load_policy` needs
    training/            raw weights, optimiser and counters: what a resumed training needs

Nothing here is pickled, so opening a stranger's checkpoint runs no code of theirs.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import robot
from policies.base import AbstractHead, HeadConfig
from policies.head_policy import HeadPolicy
from policies.registry import HEADS, name_of
from robot.contract import EnvironmentSpecs, Policy
from robot.episodes.atomic import replaced_folder
from robot.errors import CheckpointError, ConfigError, SpecError

FORMAT = "armature-policy"
VERSION = 1
_STEP = re.compile(r"step_(\d{8})")


@dataclass(frozen=True)
class Description:
    """What `policy.json` says.

    Attributes:
        config: Config of the head.
        specs: Environment that the head was trained in.
        dataset: Identity of the dataset that it was trained on.
        step: Training steps taken.
        model_sha256: Digest of `model.safetensors`.
    """

    config: HeadConfig
    specs: EnvironmentSpecs
    dataset: str
    step: int
    model_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "head": name_of(self.config),
            "config": plain(self.config),
            "specs": self.specs.to_json(),
            "dataset": self.dataset,
            "step": self.step,
            "model_sha256": self.model_sha256,
            "armature": robot.__version__,
        }


@dataclass(frozen=True)
class TrainingState:
    """What a resumed training needs besides the model.

    Attributes:
        tensors: Raw weights (`weights.<name>`) and moments of the optimiser (`optimiser.<index>.<name>`).
        numbers: Counters and the settings that the arithmetic depends on, plain JSON.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def plain(config: Any) -> dict[str, Any]:
    """A config as plain JSON."""
    fields = dataclasses.asdict(config)
    return {key: value.value if isinstance(value, Enum) else value for key, value in fields.items()}


def folder_of(run: Path, step: int) -> Path:
    """Where a run keeps the checkpoint of a step."""
    return run / "checkpoints" / f"step_{step:08d}"


def all_of(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first. A folder has its name only once it is complete."""
    found = (run / "checkpoints").glob("step_*")
    return sorted(path for path in found if _STEP.fullmatch(path.name) and path.is_dir())


def save(run: Path, description: Description, model: Mapping[str, Tensor], training: TrainingState, keep: int) -> Path:
    """Write the checkpoint of a step, then remove all but the newest `keep`.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; older checkpoints are as they were.
    """
    target = folder_of(run, description.step)
    try:
        with replaced_folder(target) as folder:
            save_file(_contiguous(model), folder / "model.safetensors")
            described = dataclasses.replace(description, model_sha256=_sha256(folder / "model.safetensors"))
            (folder / "training").mkdir()
            save_file(_contiguous(training.tensors), folder / "training" / "state.safetensors")
            (folder / "training" / "state.json").write_text(json.dumps(training.numbers, indent=1))
            (folder / "policy.json").write_text(json.dumps(described.to_json(), indent=1))
        for old in all_of(run)[:-keep]:
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The checkpoint {target} could not be written: {error}. Older checkpoints are intact. "
            "Free space on that disk, then run the same command again to resume."
        ) from error
    return target


def locate(path: str | Path) -> Path:
    """The folder of a checkpoint: `path` itself, or the newest one of the run at `path`.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(path)
    if (path / "policy.json").is_file():
        return path
    if found := all_of(path):
        return found[-1]
    what = "holds no checkpoint" if path.is_dir() else "does not exist"
    raise CheckpointError(
        f"{path} {what}; expected a run folder (with checkpoints/step_...) or a checkpoint (with policy.json). "
        "`armature train` writes one."
    )


def describe(folder: Path) -> Description:
    """Read and check `policy.json`.

    Raises:
        CheckpointError: It is missing, damaged, foreign, or newer than this Armature.
    """
    data = _read_json(folder / "policy.json")
    if data.get("format") != FORMAT:
        raise CheckpointError(f"{folder} is not an Armature checkpoint: its format is {data.get('format')!r}.")
    if data.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} has version {data.get('version')}, this Armature ({robot.__version__}) reads {VERSION}. "
            f"It was written by Armature {data.get('armature')}; use that one."
        )
    try:
        return Description(
            config=_config(folder, data["head"], data["config"]),
            specs=EnvironmentSpecs.from_json(data["specs"]),
            dataset=data["dataset"],
            step=int(data["step"]),
            model_sha256=data["model_sha256"],
        )
    except (KeyError, TypeError, SpecError) as error:
        raise CheckpointError(f"{folder / 'policy.json'} is damaged: {error!r}.") from error


def load_head(path: str | Path, device: str = "cpu") -> tuple[AbstractHead, Description]:
    """A head with its averaged weights and normalisation, ready to predict.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, foreign, or does not fit the head that it names.
    """
    folder = locate(path)
    description = describe(folder)
    tensors = read_tensors(folder / "model.safetensors")
    if _sha256(folder / "model.safetensors") != description.model_sha256:
        raise CheckpointError(f"{folder / 'model.safetensors'} was changed after it was written: its digest differs.")
    try:
        head = description.config.build(description.specs, None)
    except ConfigError as error:
        raise CheckpointError(f"{folder}: its config builds no head: {error}") from error
    _check_fit(folder, head.state_dict(), tensors)
    head.load_state_dict(tensors)
    head.to(device).eval().requires_grad_(False)
    head.prepare()
    return head, description


def load_policy(path: str | Path, device: str = "cpu") -> Policy:
    """The policy of a checkpoint, or of the newest one of a run (see `load_head`)."""
    head, _ = load_head(path, device)
    return HeadPolicy(head, device)


def load_training(folder: Path) -> TrainingState:
    """What `save` was given as `training`.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    tensors = read_tensors(folder / "training" / "state.safetensors")
    return TrainingState(tensors, _read_json(folder / "training" / "state.json"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        CheckpointError: The file is missing or truncated.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; copy the whole checkpoint folder.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or truncated: {error}. Copy it again, or use another one.") from error


def _check_fit(folder: Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    wrong = [f"{name}: missing" for name in expected if name not in got]
    wrong += [f"{name}: not expected" for name in got if name not in expected]
    for name in expected.keys() & got.keys():
        if expected[name].shape != got[name].shape:
            wrong.append(f"{name}: shape {tuple(got[name].shape)}, expected {tuple(expected[name].shape)}")
        elif not torch.isfinite(got[name]).all():
            wrong.append(f"{name}: not finite")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"{folder} does not fit the head it names: {'; '.join(wrong[:5])}{more}.")


def _config(folder: Path, head: str, values: dict[str, Any]) -> HeadConfig:
    if head not in HEADS:
        raise CheckpointError(f"{folder} is of the head {head!r}; this Armature has: {', '.join(sorted(HEADS))}.")
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HEADS[head]), values))
    except OmegaConfBaseException as error:
        raise CheckpointError(f"{folder}: the config of its head {head!r} is damaged: {error}") from error
    assert isinstance(config, HeadConfig)
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; copy the whole checkpoint folder.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object.")
    return data


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
