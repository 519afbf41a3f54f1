"""Inverse dynamics models on disk: `inverse_dynamics.json` and `model.safetensors`, complete or not at all."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import save_file

import robot
from policies.checkpoint import read_tensors
from policies.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, Validation
from robot.contract import EnvironmentSpecs
from robot.episodes.atomic import replaced_folder
from robot.errors import CheckpointError, SpecError

FORMAT, VERSION = "armature-inverse-dynamics", 1
_DESCRIPTION, _TENSORS = "inverse_dynamics.json", "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """A model, and what it was made of.

    Attributes:
        model: Ready to predict.
        specs: Of the dataset that it learned from.
        keys: Vectors of the observation that it sees, in order.
        validation: How good it is.
        dataset: Identity of the dataset that it learned from.
        digest: SHA-256 of its tensors; empty until it is known.
    """

    model: InverseDynamics
    specs: EnvironmentSpecs
    keys: tuple[str, ...]
    validation: Validation
    dataset: str
    digest: str = ""


def identified(trained: Trained) -> Trained:
    """The same with its digest, which equal models share."""
    digest = hashlib.sha256()
    for name, value in sorted(trained.model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return replace(trained, digest=digest.hexdigest())


def save(trained: Trained, folder: Path) -> None:
    """Write a model; what was in the folder is replaced.

    Raises:
        CheckpointError: The folder holds something else, or the disk is full or not writable.
    """
    if folder.exists() and not (folder.is_dir() and (is_saved(folder) or not any(folder.iterdir()))):
        raise CheckpointError(
            f"{folder} exists and holds no inverse dynamics model; choose another folder (model=...)."
        )
    data = {
        "format": FORMAT,
        "version": VERSION,
        "config": asdict(trained.model.config),
        "specs": trained.specs.to_json(),
        "keys": list(trained.keys),
        "dataset": trained.dataset,
        "validation": asdict(trained.validation),
        "digest": identified(trained).digest,
        "armature": robot.__version__,
    }
    try:
        with replaced_folder(folder) as part:
            save_file({name: value.contiguous() for name, value in trained.model.state_dict().items()}, part / _TENSORS)
            (part / _DESCRIPTION).write_text(json.dumps(data, indent=1))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} could not be written: {error}. Make room, or choose another.") from error


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a model of some kind."""
    return (folder / _DESCRIPTION).is_file()


def load(folder: Path) -> Trained:
    """The model that `save` wrote.

    Raises:
        CheckpointError: It is missing, damaged, foreign or was changed.
    """
    path = folder / _DESCRIPTION
    data = _read(path)
    if (data.get("format"), data.get("version")) != (FORMAT, VERSION):
        raise CheckpointError(
            f"{path} is {data.get('format')!r} of version {data.get('version')!r}, expected {FORMAT!r} of version "
            f"{VERSION}. Use the Armature that wrote it, or train anew."
        )
    tensors = read_tensors(folder / _TENSORS)
    try:
        specs = EnvironmentSpecs.from_json(data["specs"])
        keys = tuple(data["keys"])
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(InverseDynamicsConfig), data["config"]))
        assert isinstance(config, InverseDynamicsConfig)
        model = InverseDynamics(sum(specs.observation[key].shape[0] for key in keys), specs.action, config)
        model.load_state_dict(tensors)
        trained = Trained(model, specs, keys, Validation(**data["validation"]), data["dataset"])
        digest = data["digest"]
    except (KeyError, TypeError, RuntimeError, SpecError, OmegaConfBaseException) as error:
        raise CheckpointError(f"{folder} is damaged: {str(error).splitlines()[0]} Train anew.") from error
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise CheckpointError(f"{folder / _TENSORS} holds values that are not finite. Train anew.")
    found = identified(trained)
    if found.digest != digest:
        raise CheckpointError(f"{folder / _TENSORS} was changed after it was written: its digest differs. Train anew.")
    model.eval().requires_grad_(False)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: {path.parent} holds no inverse dynamics model.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object.")
    return data
