"""How the datasets of a robomimic file become columns, and the other way round.

- `observation.state`: vectors `obs/robot<i>_*` side by side, robot after robot, in the order of `PROPRIOCEPTION` and
  then of the alphabet; where a file has no such names, all its vectors but `object`, in the order of the alphabet.
- `observation.environment_state`: `obs/object`. `observation.images.<camera>`: `obs/<camera>_image`.
- `action`: `actions`; `next.reward`: `rewards`; `next.done`: `dones`.
- Everything else that has one row for each action, in every demonstration alike, becomes a column
  `robomimic.<path with dots>` of its own type: `robomimic.states`, `robomimic.action_dict.rel_pos`. So does, a second
  time, what the columns above hold in another type than the file (robomimic has float64 and training wants float32):
  the way back takes the exact numbers, unless somebody has changed the column meanwhile.
"""

import re
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import h5py
import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import IMAGES
from robot.episodes.formats.given import Given
from robot.episodes.formats.robosuite_description import Description, action_spec
from robot.episodes.rows import ACTION
from robot.errors import ConfigError, DatasetError, unknown_name
from robot.specs import ArraySpec, Specs

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
PREFIX = "robomimic."
ACTIONS = "actions"

PROPRIOCEPTION = (
    *("eef_pos", "eef_quat", "gripper_qpos", "joint_pos", "joint_pos_cos", "joint_pos_sin", "joint_vel"),
    *("eef_vel_lin", "eef_vel_ang", "gripper_qvel"),
)
"""Order of a robot's vectors in `observation.state`."""

_OUTCOMES = {"rewards": ("next.reward", "float32"), "dones": ("next.done", "bool")}
_UNITS = {
    **{"eef_pos": ("m", "xyz"), "eef_quat": ("1", "xyzw"), "gripper_qpos": ("m", ""), "gripper_qvel": ("m/s", "")},
    **{"joint_pos": ("rad", ""), "joint_vel": ("rad/s", ""), "eef_vel_lin": ("m/s", "xyz")},
    **{"joint_pos_cos": ("1", ""), "joint_pos_sin": ("1", ""), "eef_vel_ang": ("rad/s", "xyz")},
}
_ROBOT = re.compile(r"robot(\d+)_(.+)")


@dataclass(frozen=True)
class Mapping:
    """Which datasets make which column.

    Attributes:
        specs: Of observation and action.
        extras: Of the other columns.
        parts: Paths of the datasets, inside a demonstration, that stand side by side in each column.
        pictures: Path of the dataset of each picture key.
    """

    specs: EnvironmentSpecs
    extras: Specs
    parts: dict[str, tuple[str, ...]]
    pictures: dict[str, str]

    @property
    def columns(self) -> Specs:
        """Specs of all columns, by key."""
        vectors = {key: spec for key, spec in self.specs.observation.items() if key not in self.pictures}
        return {**vectors, ACTION: self.specs.action, **self.extras}


def derive(demo: h5py.Group, uniform: set[str], description: Description, given: Given) -> Mapping:
    """The mapping of a file that does not come from us.

    Args:
        demo: One demonstration.
        uniform: Paths of the datasets that every demonstration has, of equal type and shape of a row.
        description: Of the world.
        given: `state` names the vectors of `observation.state` (`robot0_eef_pos`).

    Raises:
        DatasetError: There are no actions.
        UnknownNameError: A name in `given.state` does not exist.
    """
    observations = {path.removeprefix("obs/"): demo[path] for path in sorted(uniform) if path.startswith("obs/")}
    parts: dict[str, tuple[str, ...]] = {}
    observation: Specs = {}
    for key, names in _vector_groups(observations, given).items():
        if names:
            observation[key] = _side_by_side(key, {name: observations[name] for name in names})
            parts[key] = tuple(f"obs/{name}" for name in names)
    pictures = {_picture_key(name): f"obs/{name}" for name, dataset in observations.items() if _is_pictures(dataset)}
    observation |= {key: ArraySpec(key, demo[path].shape[1:], "uint8", 0.0, 255.0) for key, path in pictures.items()}
    parts[ACTION] = (ACTIONS,)
    specs = EnvironmentSpecs(
        observation=observation,
        action=action_spec(description.action_space, _width(demo[ACTIONS])),
        action_space=description.action_space,
        dt_s=1.0 / description.hz,
        robot=description.robot,
        task=description.words,
    )
    extras = _outcomes(demo, uniform, parts) | _exact(demo, uniform, parts, pictures)
    return Mapping(specs, extras, parts, pictures)


def undeclared(
    demo: h5py.Group, uniform: set[str], parts: dict[str, tuple[str, ...]], pictures: Dictionary[str, str]
) -> Specs:
    """Columns for the datasets of a file of ours that somebody has added; `parts` grows by them."""
    named = {path for paths in parts.values() for path in paths}
    return _exact(demo, uniform - named, parts, pictures)


def column(arrays: Dictionary[str, np.ndarray], parts: tuple[str, ...], spec: ArraySpec) -> np.ndarray:
    """One column, shape (T, *spec.shape), of arrays by path, each of T rows."""
    first = arrays[parts[0]]
    if len(parts) > 1 or (first.ndim == 1 and spec.shape):
        first = np.concatenate([arrays[path].reshape(len(first), -1) for path in parts], axis=1)
    if is_text(spec):
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in first.ravel()]
        first = np.array(texts, object)
    return np.ascontiguousarray(first.reshape(len(first), *spec.shape), dtype=object if is_text(spec) else spec.dtype)


def _vector_groups(observations: Dictionary[str, h5py.Dataset], given: Given) -> dict[str, list[str]]:
    vectors = [name for name, dataset in observations.items() if dataset.ndim <= 2 and dataset.dtype.kind in "fiub"]
    for name in given.state:
        if name not in vectors:
            raise unknown_name("vector of observations", name, vectors)
    world = [name for name in vectors if name == "object" and name not in given.state]
    robots = [name for name in vectors if _ROBOT.fullmatch(name)]
    state = list(given.state) or sorted(robots, key=_rank) or [name for name in vectors if name not in world]
    return {STATE: state, ENVIRONMENT_STATE: world}


def _rank(name: str) -> tuple[int, int, str]:
    match = _ROBOT.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} is not named like a robot's vector (robot0_eef_pos).")
    place = PROPRIOCEPTION.index(match[2]) if match[2] in PROPRIOCEPTION else len(PROPRIOCEPTION)
    return int(match[1]), place, match[2]


def _side_by_side(key: str, datasets: Dictionary[str, h5py.Dataset]) -> ArraySpec:
    names: list[str] = []
    units: list[str] = []
    for name, dataset in datasets.items():
        match = _ROBOT.fullmatch(name)
        unit, axes = _UNITS.get(match[2], ("", "")) if match else ("", "")
        width = _width(dataset)
        suffixes = axes if len(axes) == width else [str(i) for i in range(width)]
        names += [name] if dataset.ndim == 1 else [f"{name}.{suffix}" for suffix in suffixes]
        units += [unit] * width
    unit = " ".join(units) if all(units) else ""
    return ArraySpec(key, (len(names),), unit=unit, frame="world", names=tuple(names))


def _width(dataset: h5py.Dataset) -> int:
    return 1 if dataset.ndim == 1 else int(dataset.shape[1])


def _is_pictures(dataset: h5py.Dataset) -> bool:
    return dataset.ndim == 4 and dataset.dtype == np.uint8 and dataset.shape[3] == 3


def _picture_key(name: str) -> str:
    return IMAGES + name.removesuffix("_image").replace(".", "_")


def _outcomes(demo: h5py.Group, uniform: set[str], parts: dict[str, tuple[str, ...]]) -> Specs:
    specs = {}
    for path, (key, dtype) in _OUTCOMES.items():
        if path in uniform and np.prod(demo[path].shape[1:], dtype=int) == 1:
            specs[key] = ArraySpec(key, (), dtype)
            parts[key] = (path,)
    return specs


def _exact(
    demo: h5py.Group, uniform: set[str], parts: dict[str, tuple[str, ...]], pictures: Dictionary[str, str]
) -> Specs:
    """Columns of their own for what no column holds in its own type; `parts` grows by them."""
    kept = {path for key, paths in parts.items() for path in paths if demo[path].dtype.name == _dtype_of(key)}
    specs: Specs = {}
    for path in sorted(uniform - kept - set(pictures.values())):
        if path.startswith("next_obs/") or demo[path].dtype.kind not in "biuf":
            continue  # the record of the demonstration keeps them
        key = PREFIX + path.replace("/", ".")
        if key in parts:
            raise DatasetError(f"{demo.file.filename} has two datasets that would be called {key!r}. Rename {path!r}.")
        specs[key] = ArraySpec(key, demo[path].shape[1:], demo[path].dtype.newbyteorder("=").name)
        parts[key] = (path,)
    return specs


def is_text(spec: ArraySpec) -> bool:
    """Whether a column holds strings."""
    return spec.dtype in ("str", "string", "object")


def _dtype_of(key: str) -> str:
    return {name: dtype for name, dtype in _OUTCOMES.values()}.get(key, "float32")
