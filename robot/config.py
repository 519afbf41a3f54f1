"""Configuration: YAML under `configs/`, composed by Hydra over dataclass schemas, handed out as real dataclasses.

A verb's YAML holds numbers and names; its schema is the dataclass beside the code that reads it. A key that no schema
has, or a value of the wrong type, fails here, before anything runs. There is no `_target_` and no resolver: YAML
never names code to be called.
"""

import importlib.resources
from collections.abc import Mapping
from typing import Any, TypeVar

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from robot.errors import ConfigError, unknown_name

T = TypeVar("T")
Groups = Mapping[str, Mapping[str, type]]
"""Schemas of config groups: group name to option name to dataclass."""


def load(verb: str, schema: type[T], overrides: list[str], groups: Groups | None = None) -> T:
    """Compose `configs/<verb>.yaml` with the overrides of a command line into a `schema`.

    The YAML's defaults list names `<verb>_schema` first, and an option of a group names `<option>_schema`.

    Args:
        verb: Name of the YAML file.
        schema: Dataclass that the result is an instance of.
        overrides: `key=value` as typed, e.g. `["policy=act", "policy.lr=1e-4"]`.
        groups: Schemas of the groups that the YAML's defaults list selects from.

    Raises:
        UnknownNameError: A key or an option does not exist; names the nearest ones.
        ConfigError: A value is of the wrong type or missing, or the YAML does not compose.
    """
    groups = groups or {}
    store = ConfigStore.instance()
    store.store(name=f"{verb}_schema", node=schema)
    for group, options in groups.items():
        for option, node in options.items():
            store.store(group=group, name=f"{option}_schema", node=node)
    GlobalHydra.instance().clear()
    with initialize_config_module("configs", version_base="1.3"):
        selections, values = _sort(overrides, groups)
        _check_keys(_compose(verb, selections), values)
        return _to_object(_compose(verb, selections + [text for _, text in values]), schema)


def options(group: str) -> list[str]:
    """Names of the options of a config group: the YAML files in its folder."""
    folder = importlib.resources.files("configs").joinpath(group)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def described(verb: str) -> str:
    """The keys of a verb with their defaults and comments, as its YAML has them, and the options of its groups."""
    text = importlib.resources.files("configs").joinpath(f"{verb}.yaml").read_text()
    head, _, body = text.partition("_self_\n")
    lines = ["keys:", *(f"  {line}" for line in body.strip().splitlines())]
    for line in head.splitlines():
        group, _, default = line.strip().removeprefix("- ").partition(": ")
        if default and group != "defaults":
            lines.append(f"  {group}: {default}  # one of: {', '.join(options(group.split('@')[0]))}")
    return "\n".join(lines)


def _sort(overrides: list[str], groups: Groups) -> tuple[list[str], list[tuple[str, str]]]:
    """Selections of groups, and (key, text) of plain values."""
    selections, values = [], []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise ConfigError(f"{text!r} is not of the form key=value.") from error
        key = override.key_or_group
        if key not in groups:
            values.append((key, text))
        elif str(override.value()) not in options(key):
            raise unknown_name(key, str(override.value()), options(key))
        else:
            selections.append(text)
    return selections, values


def _check_keys(config: DictConfig, values: list[tuple[str, str]]) -> None:
    keys = _flat_keys(OmegaConf.to_container(config, resolve=False))
    for key, _ in values:
        if key.lstrip("+~") not in keys:
            raise unknown_name("config key", key, keys)


def _flat_keys(node: Any, prefix: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {prefix}
    below = {f"{prefix}.{key}" if prefix else str(key): value for key, value in node.items()}
    return set(below) | {name for key, value in below.items() for name in _flat_keys(value, key)}


def _compose(verb: str, overrides: list[str]) -> DictConfig:
    try:
        return compose(verb, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        raise ConfigError(f"The configuration of {verb!r} does not compose: {_first_lines(cause)}") from error


def _to_object(config: DictConfig, schema: type[T]) -> T:
    try:
        result = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"Configuration: {_first_lines(error)}") from error
    if not isinstance(result, schema):
        raise ConfigError(f"configs/ does not name the schema of {schema.__name__} first in its defaults list.")
    return result


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("object_type", "reference_type"))]
    return "; ".join(kept[:2])
