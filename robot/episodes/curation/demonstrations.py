"""Demonstrations as plain arrays: what the measures of quality are taken of, wherever the episodes come from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import ACTION, SUCCESS, Dataset
from robot.errors import DatasetError, unknown_name
from robot.specs import ArraySpec

STATE = "observation.state"


@dataclass(frozen=True)
class Demonstrations:
    """Episodes side by side. E episodes of T_e frames each.

    Attributes:
        specs: Of the environment.
        names: What to call each episode, (E,).
        elements: Name of each dimension of the states, `key:name`.
        states: Of each episode, float64, (T_e, S): vectors of the observation, one after the other.
        actions: Of each episode, float64, (T_e, A).
        success: Whether each episode ended in success, float64, (E,): 1, 0, or NaN where nobody said.
        tasks: What was to be done, of each episode, (E,); empty where all have one task.
        facts: What only a log knows of each episode, (E,) by name, e.g. `drops`; NaN where it does not.
    """

    specs: EnvironmentSpecs
    names: tuple[str, ...]
    elements: tuple[str, ...]
    states: list[np.ndarray]
    actions: list[np.ndarray]
    success: np.ndarray
    tasks: tuple[str, ...] = ()
    facts: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.states:
            raise DatasetError("There is no episode to measure.")
        for name, states, actions in zip(self.names, self.states, self.actions, strict=True):
            if len(states) == 0 or len(states) != len(actions):
                raise DatasetError(
                    f"Episode {name} has {len(states)} states and {len(actions)} actions; "
                    "expected equally many, and at least one."
                )
            for kind, rows in (("observation", states), ("action", actions)):
                if not np.isfinite(rows).all():
                    row = int(np.argwhere(~np.isfinite(rows))[0][0])
                    raise DatasetError(
                        f"Episode {name}: the {kind} of row {row} is not finite. Give it proxy actions (`armature "
                        "dataset relabel`) if it never had any; else discard the episode."
                    )

    def __len__(self) -> int:
        return len(self.states)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each episode, int64, (E,)."""
        return np.array([len(states) for states in self.states], np.int64)

    @property
    def gripper(self) -> tuple[int, ...]:
        """Elements of the action that open and close something, by their names."""
        return tuple(i for i, name in enumerate(self.specs.action.names) if "grip" in name.lower())

    def path(self) -> list[np.ndarray] | None:
        """Of each episode the positions of its tools, (T_e, 3 or 6) in their own unit; None if no name tells them.

        Tools are elements `ee_x`, `ee_y`, `ee_z`, of two arms with a prefix, or `x`, `y`, `z`.
        """
        names = [element.partition(":")[2] for element in self.elements]
        for stem in ("ee_", ""):
            tools = [[i for i, name in enumerate(names) if name.endswith(stem + axis)] for axis in "xyz"]
            exact = [
                [i for i in found if names[i] == stem + axis or (stem and names[i].endswith("_" + stem + axis))]
                for axis, found in zip("xyz", tools, strict=True)
            ]
            if exact[0] and len({len(found) for found in exact}) == 1:
                columns = [i for arm in zip(*exact, strict=True) for i in arm]
                return [states[:, columns] for states in self.states]
        return None


def of_dataset(dataset: Dataset, keys: Sequence[str] | None = None) -> Demonstrations:
    """The demonstrations that a dataset holds (see `of_rows`)."""
    ends = np.cumsum(dataset.episode_lengths)[:-1]
    parts = {key: np.split(column, ends) for key, column in dataset.columns.items()}
    episodes = [
        (str(number), {key: column[number] for key, column in parts.items()})
        for number in range(len(dataset.episode_lengths))
    ]
    texts = tuple(dataset.tasks[number] for number in dataset.task_index[dataset.episode_starts])
    return replace(of_rows(dataset.specs, episodes, keys), tasks=texts)


def of_rows(
    specs: EnvironmentSpecs, episodes: Iterable[tuple[str, Mapping[str, np.ndarray]]], keys: Sequence[str] | None = None
) -> Demonstrations:
    """Demonstrations from columns.

    Args:
        specs: Of the environment.
        episodes: Name and columns of each episode.
        keys: Which observations make up the state; all vectors if None.

    Raises:
        UnknownNameError: One of `keys` is none of the vectors.
        DatasetError: There is no vector, no episode, or a value that is not finite.
    """
    vectors = _vectors(specs, keys)
    names, states, actions, success = [], [], [], []
    for name, columns in episodes:
        names.append(name)
        states.append(np.concatenate([columns[key] for key in vectors], axis=1).astype(np.float64))
        actions.append(np.asarray(columns[ACTION], np.float64))
        success.append(_success(columns))
    elements = tuple(f"{key}:{name}" for key, spec in vectors.items() for name in _element_names(spec))
    return Demonstrations(specs, tuple(names), elements, states, actions, np.array(success))


def _vectors(specs: EnvironmentSpecs, keys: Sequence[str] | None) -> dict[str, ArraySpec]:
    found = {key: spec for key, spec in specs.observation.items() if len(spec.shape) == 1}
    for key in keys or ():
        if key not in found:
            raise unknown_name("vector of the observation", key, found)
    if not found:
        raise DatasetError(
            f"The observations are {', '.join(specs.observation) or 'nothing'}; the measures need at least one vector "
            f"(e.g. {STATE!r}) and do not look at pictures."
        )
    return {key: found[key] for key in keys} if keys else found


def _element_names(spec: ArraySpec) -> Sequence[str]:
    return spec.names or [str(i) for i in range(spec.shape[0])]


def _success(columns: Mapping[str, np.ndarray]) -> float:
    """Of the last row; the reward tells nothing of it."""
    if SUCCESS in columns and len(columns[SUCCESS]):
        return float(np.asarray(columns[SUCCESS]).reshape(-1)[-1])
    return float("nan")
