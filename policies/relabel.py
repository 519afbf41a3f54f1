"""`armature dataset relabel`: a dataset whose missing or wrong actions are those that an inverse dynamics model infers.

The new dataset holds everything that the old one did, and three columns more, so that nobody takes a proxy for a fact:

    action.is_proxy       whether the action of the row is inferred
    action.proxy_std      standard deviation of each of its elements, in the action's units; zero where it is a fact
    action.is_uncertain   whether one of them is large: the model has seen nothing like the row, or it cannot be told

An action is missing where the dataset has no column `action` or where a value of the row is NaN. Zeros may be true (an
arm that holds still), so they count as missing only if asked for (`rows=zeros`), and only in episodes that have nothing
else. The last row of an episode shows no consequence of its action; it is inferred from what came before.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from policies import inverse_dynamics
from policies import inverse_dynamics_checkpoint as store
from policies.inverse_dynamics import InverseDynamicsConfig
from policies.inverse_dynamics_checkpoint import Trained
from robot.config import load
from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.rows import ACTION, Rows, RowSource, Schema
from robot.errors import ConfigError, DatasetError, unknown_name
from robot.specs import ArraySpec

IS_PROXY, PROXY_STD, IS_UNCERTAIN = "action.is_proxy", "action.proxy_std", "action.is_uncertain"
MISSING, ZEROS, ALL = "missing", "zeros", "all"
_UNKNOWN = "unknown"
"""What a foreign dataset is read to say where it says nothing."""


@dataclass(kw_only=True)
class RelabelConfig:
    """See `configs/dataset_relabel.yaml`."""

    dataset: str
    labelled: str | None
    out: str
    rows: str
    model: str | None
    states: list[str] | None
    threshold: float
    threads: int
    learn: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)

    def __post_init__(self) -> None:
        if self.rows not in (MISSING, ZEROS, ALL):
            raise unknown_name("choice of rows", self.rows, (MISSING, ZEROS, ALL))
        if not self.threshold > 0 or self.threads < 0:
            raise ConfigError(
                f"threshold is {self.threshold} and threads {self.threads}; expected above 0 and not below."
            )
        if Path(self.out).resolve() == Path(self.dataset).resolve():
            raise ConfigError(f"out={self.out} is the dataset itself; write to another folder.")


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("dataset_relabel", RelabelConfig, overrides)
    if config.threads:
        torch.set_num_threads(config.threads)
    base = LeRobotSource(config.dataset)
    trained = _model(config, base.schema.specs)
    for line in described(trained):
        print(line)
    source = Relabelled(base, trained, config.rows, config.threshold)
    about = {"relabel": {"rows": config.rows, "threshold": config.threshold, "model": trained.digest}}
    lerobot_writer.write(source, config.out, lerobot_writer.Settings(progress=True), about)
    print(_summary(config.out))
    return 0


def _model(config: RelabelConfig, specs: EnvironmentSpecs) -> Trained:
    """The model that is there, or a new one; it fits a dataset of these specs.

    Raises:
        ConfigError: There is nothing to learn from.
        DatasetError: The datasets do not belong together.
    """
    folder = None if config.model is None else Path(config.model)
    if folder is not None and store.is_saved(folder):
        trained = store.load(folder)
        check_fit(trained.specs, specs, trained.keys)
        return trained
    if config.labelled is None:
        raise ConfigError(
            "Give labelled=FOLDER, a dataset of the same robot whose actions are true, or model=FOLDER of a model "
            "that was trained before."
        )
    labelled = Dataset.open(config.labelled)
    keys = config.states or common_vectors(labelled.specs, specs)
    check_fit(labelled.specs, specs, keys)
    model, validation = inverse_dynamics.train(labelled, keys, config.learn)
    trained = store.identified(Trained(model, labelled.specs, tuple(keys), validation, labelled.identity))
    if folder is not None:
        store.save(trained, folder)
    return trained


def common_vectors(labelled: EnvironmentSpecs, other: EnvironmentSpecs) -> list[str]:
    """Keys of the vectors that both observations have.

    Raises:
        DatasetError: There is none.
    """
    sets = [[key for key, spec in specs.observation.items() if len(spec.shape) == 1] for specs in (labelled, other)]
    keys = [key for key in sets[0] if key in sets[1]]
    if not keys:
        raise DatasetError(
            f"The labelled dataset has the vectors {', '.join(sets[0]) or '(none)'}, the other one "
            f"{', '.join(sets[1]) or '(none)'}: none in common. An inverse dynamics model sees vectors, not pictures."
        )
    return keys


def check_fit(labelled: EnvironmentSpecs, other: EnvironmentSpecs, keys: Sequence[str]) -> None:
    """Refuse a model for a dataset of another robot, rate or observation.

    Raises:
        DatasetError: Says what differs. A foreign dataset that names no robot is accepted.
    """
    lines = []
    for key in keys:
        if key not in other.observation or key not in labelled.observation:
            lines.append(f"{key!r} is not in both")
            continue
        want, got = labelled.observation[key], other.observation[key]
        if want.shape != got.shape:
            lines.append(f"{key!r} has shape {got.shape}, expected {want.shape}")
        for name in ("names", "unit", "frame"):
            first, second = getattr(want, name), getattr(got, name)
            if first and second and first != second:
                lines.append(f"{name} of {key!r} are {second}, expected {first}")
    if labelled.robot != other.robot and _UNKNOWN not in (labelled.robot, other.robot):
        lines.append(f"robot is {other.robot!r}, expected {labelled.robot!r}")
    if abs(labelled.dt_s - other.dt_s) > 1e-9:
        lines.append(f"{1 / other.dt_s:g} rows per second, expected {1 / labelled.dt_s:g}")
    if labelled.action.shape == (0,):
        lines.append("the labelled dataset has no actions itself")
    if lines:
        raise DatasetError(
            f"The labelled dataset does not tell the actions of the other one: {'; '.join(lines)}. "
            "Use labelled episodes of the same robot, observation and rate."
        )


def _check_same_action(labelled: EnvironmentSpecs, other: EnvironmentSpecs) -> None:
    """Proxies and actions that are kept mean the same."""
    want, got = labelled.action, other.action
    lines = [] if want.shape == got.shape else [f"their shape is {got.shape}, expected {want.shape}"]
    if want.names and got.names and want.names != got.names:
        lines.append(f"their elements are {got.names}, expected {want.names}")
    if labelled.action_space != other.action_space and _UNKNOWN not in (labelled.action_space, other.action_space):
        lines.append(f"their space is {other.action_space!r}, expected {labelled.action_space!r}")
    if lines:
        raise DatasetError(
            f"The actions that are there mean something else than those of the labelled dataset: {'; '.join(lines)}. "
            "rows=all replaces every one."
        )


class Relabelled:
    """A source with the proxies of a model.

    Attributes:
        schema: That of the base, with the action of the labelled dataset and three columns more.
    """

    schema: Schema

    def __init__(self, base: RowSource, trained: Trained, rows: str, threshold: float) -> None:
        """Take proxies for some rows.

        Args:
            base: Where everything else comes from.
            trained: Fits the base (see `check_fit`).
            rows: `missing`, `zeros` or `all`.
            threshold: Share of an element's standard deviation beyond which a proxy is uncertain.

        Raises:
            DatasetError: Actions that are to be kept mean something else.
        """
        specs, action = base.schema.specs, trained.specs.action
        self._has_actions = specs.action.shape != (0,)
        if self._has_actions and rows != ALL:
            _check_same_action(trained.specs, specs)
        self._base, self._trained, self._rows, self._threshold = base, trained, rows, threshold
        size = int(np.prod(action.shape))
        extras = {
            **base.schema.extras,
            IS_PROXY: ArraySpec(IS_PROXY, (), "bool"),
            PROXY_STD: ArraySpec(PROXY_STD, (size,), "float32", names=action.names),
            IS_UNCERTAIN: ArraySpec(IS_UNCERTAIN, (), "bool"),
        }
        robot = trained.specs.robot if specs.robot == _UNKNOWN else specs.robot
        of_labelled = EnvironmentSpecs(
            specs.observation, action, trained.specs.action_space, specs.dt_s, robot, specs.task
        )
        self.schema = Schema(of_labelled, extras, base.schema.notes)

    def __len__(self) -> int:
        return len(self._base)

    def identity(self, number: int) -> str:
        """Of the base's episode, the model and the choices."""
        known = [self._base.identity(number), self._trained.digest, self._rows, self._threshold]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def read(self, number: int) -> Rows:
        """Episode `number`, with proxies where its actions are missing."""
        rows = self._base.read(number)
        states = np.concatenate([rows.columns[key] for key in self._trained.keys], axis=1)
        broken = ~np.isfinite(states).all(axis=1)
        if broken.any():
            raise DatasetError(
                f"Episode {number}: the observation of row {int(np.flatnonzero(broken)[0])} is not finite, so nothing "
                "can be inferred from it. Leave the episode out."
            )
        spec = self.schema.specs.action
        mean, std = self._trained.model.predict(states)
        actions, is_proxy = self._kept(rows)
        actions[is_proxy] = mean.reshape(-1, *spec.shape)[is_proxy].astype(spec.dtype)
        std[~is_proxy] = 0.0
        limit = self._threshold * self._trained.model.of_action.spread.numpy()
        is_uncertain = np.any(std > limit, axis=1)
        flags = {IS_PROXY: is_proxy.copy(), PROXY_STD: std, IS_UNCERTAIN: np.asarray(is_uncertain)}
        columns: dict[str, np.ndarray] = {**rows.columns, ACTION: actions, **flags}
        for key in flags:
            if key in self._base.schema.extras:  # proxies of before stay proxies where they are kept
                columns[key][~is_proxy] = rows.columns[key][~is_proxy]
        origin = {**rows.origin, "proxy_rows": int(columns[IS_PROXY].sum()), "proxy_model": self._trained.digest}
        return Rows(columns, rows.pictures, rows.task, origin, rows.subsets)

    def _kept(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the actions that are there, of the new dtype, and which rows want a proxy."""
        count, spec = len(rows), self.schema.specs.action
        if not self._has_actions or self._rows == ALL:
            return np.zeros((count, *spec.shape), spec.dtype), np.ones(count, bool)
        actions = np.array(rows.columns[ACTION], spec.dtype)
        missing = ~np.isfinite(actions).reshape(count, -1).all(axis=1)
        if self._rows == ZEROS and not np.nan_to_num(actions).any():
            missing[:] = True
        return actions, missing


def described(trained: Trained) -> list[str]:
    """How good a model is, a line for each element of the action."""
    found = trained.validation
    lines = [
        f"Inverse dynamics model: {found.epochs} passes; on {found.episodes} held-out episodes "
        f"{found.within_two_std:.0%} of the actions are within two of its standard deviations.",
    ]
    names = trained.specs.action.names or [str(i) for i in range(len(found.rmse))]
    for name, rmse, constant in zip(names, found.rmse, found.constant_rmse, strict=True):
        told = "" if rmse < 0.9 * constant or constant < 1e-6 else "  <- no better than a constant: it cannot be told"
        lines.append(f"  {name}: error {rmse:.3g} (rms), of a constant {constant:.3g}{told}")
    return lines


def _summary(out: str) -> str:
    source = LeRobotSource(out)
    counts = np.zeros(3, np.int64)
    worst: tuple[float, int] = (0.0, -1)
    for number in range(len(source)):
        columns = source.read(number).columns
        is_proxy, is_uncertain = (np.asarray(columns[key]).reshape(-1) for key in (IS_PROXY, IS_UNCERTAIN))
        counts += [len(is_proxy), int(is_proxy.sum()), int(is_uncertain.sum())]
        worst = max(worst, (float(is_uncertain.mean()), number))
    text = f"{out}: {counts[0]} rows, {counts[1]} with a proxy action, {counts[2]} of them uncertain."
    return text + (f" Most uncertain: episode {worst[1]} ({worst[0]:.0%} of its rows)." if worst[0] > 0 else "")
