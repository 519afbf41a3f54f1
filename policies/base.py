"""What training, checkpoints and the policy node know of a head, and no more.

A head is a network with a loss and a prediction. Its config is a dataclass whose `build` takes every shape from the
specs of the dataset; YAML never holds one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policies.continuing import Method
from policies.normalisation import Normalisation, Normaliser, Statistics
from robot.contract import EnvironmentSpecs, PolicySpecs
from robot.errors import ConfigError
from robot.specs import ArraySpec, Specs

Batch = dict[str, Tensor]
"""Every observation key (B, n_obs_steps, *D), vectors float32 and pictures uint8 (H, W, 3); `action` (B, horizon, A),
`action_is_pad` (B, horizon) and `observation_is_pad` (B, n_obs_steps) bool, `task_index` (B,) int64."""

Metrics = dict[str, Tensor]
"""Scalars by name. They stay on the device: reading one stalls it, so only the log does."""


@dataclass(frozen=True)
class Kept:
    """A batch of continuations for a head.

    Attributes:
        rows: Physical units, (B, horizon, A); anything where the weight is zero.
        weights: (B, horizon).
        method: See `Continuation`, like the next two.
        beta: See there.
        prior_std: See there.
    """

    rows: Tensor
    weights: Tensor
    method: Method
    beta: float = 5.0
    prior_std: float = 1.0


class AbstractHead(nn.Module, ABC):
    """A network that learns to continue observations with actions."""

    specs: PolicySpecs

    @abstractmethod
    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """The training loss of a batch, a scalar, and what else is worth logging."""

    @abstractmethod
    def predict(self, observation: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Actions in physical units, (B, horizon, A), for observations (B, n_obs_steps, D) by key.

        Args:
            observation: In physical units.
            generator: Source of everything that is drawn.
        """

    @property
    def methods(self) -> dict[Method, int]:
        """How `predict_after` can keep rows, and how many at most; nothing unless a head overrides both."""
        return {}

    def predict_after(self, observation: dict[str, Tensor], generator: torch.Generator, kept: Kept) -> Tensor:
        """What `predict` gives, going on from rows that are planned. Not to be called in inference mode.

        Raises:
            ConfigError: The head cannot do this.
        """
        raise ConfigError(f"{type(self).__name__} cannot go on from rows that are planned already.")

    def prepare(self) -> None:
        """Called once when the weights are final and only `predict` follows: make whatever speeds it up."""


@dataclass(kw_only=True)
class HeadConfig(ABC):
    """What every head has: the window it works on and the recipe it is trained with.

    Attributes:
        n_obs_steps: Observations it is given, the newest and those before it.
        horizon: Actions it predicts; the first one answers the newest observation.
        n_action_steps: Actions of a chunk that are executed before the next one.
        lr: Peak learning rate.
        beta1: AdamW's decay of the first moment.
        beta2: AdamW's decay of the second moment.
        weight_decay: AdamW's decoupled weight decay.
        warmup_fraction: Share of the training steps in which the learning rate rises from zero.
        ema_power: Power of the moving average's decay (see `policies.ema`); 0 uses the raw weights.
    """

    n_obs_steps: int
    horizon: int
    n_action_steps: int
    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float
    warmup_fraction: float = 0.05
    ema_power: float = 0.75

    @abstractmethod
    def build(self, specs: EnvironmentSpecs, statistics: Statistics | None) -> AbstractHead:
        """The head for an environment.

        Args:
            specs: Every shape comes from here.
            statistics: Of the dataset, for normalisation; None if a checkpoint is loaded next.

        Raises:
            ConfigError: The numbers of this config do not fit each other or the environment.
            DatasetError: A statistic that is needed is missing.
        """

    def policy_specs(self, specs: EnvironmentSpecs) -> PolicySpecs:
        """What the built policy wants and gives.

        Raises:
            ConfigError: The window is impossible.
        """
        if self.n_obs_steps < 1 or not 1 <= self.n_action_steps <= self.horizon:
            raise ConfigError(
                f"policy: expected n_obs_steps >= 1 and 1 <= n_action_steps <= horizon, got n_obs_steps "
                f"{self.n_obs_steps}, n_action_steps {self.n_action_steps}, horizon {self.horizon}."
            )
        return PolicySpecs(specs, self.n_obs_steps, self.horizon, self.n_action_steps)


class ObservationNormaliser(nn.Module):
    """Normalises every vector of an observation and keeps their order."""

    def __init__(self, specs: Specs, mode: Normalisation, statistics: Statistics | None) -> None:
        super().__init__()
        self._names = {key: key.replace(".", "_") for key in specs}  # torch allows no dot in a module's name
        self.vectors = nn.ModuleDict(
            {self._names[key]: Normaliser(_vector(spec), mode, statistics) for key, spec in specs.items()}
        )

    def forward(self, observation: dict[str, Tensor]) -> list[Tensor]:
        """Normalised vectors in the order of the specs, each (B, n_obs_steps, D)."""
        return [self.vectors[name](observation[key]) for key, name in self._names.items()]


def _vector(spec: ArraySpec) -> ArraySpec:
    if len(spec.shape) != 1:
        raise ConfigError(
            f"Observation {spec.key!r} has shape {spec.shape}; the heads read vectors only. "
            "Choose those with observations=[observation.state,...]."
        )
    return spec
