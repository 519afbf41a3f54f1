"""An inverse dynamics model: which action led from one observation to the next, and how sure that is.

    p(a_t | o_(t-back) ... o_(t+ahead)) = mixture of `members` Gaussians with a diagonal covariance each

It gives proxy actions to episodes that were recorded without any (Torabi, Warnell, Stone, "Behavioral Cloning from
Observation", IJCAI 2018; Baker et al., "Video PreTraining", NeurIPS 2022: looking ahead makes the problem far easier
than imitation). Members differ by their first weights and the order of their data, and their mixture's variance holds
both what each finds random and where they disagree (Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable
Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017). The loss is the beta-NLL with beta = 0.5, since
the plain likelihood lets a model explain what is hard by noise (Seitzer et al., ICLR 2022).

Vectors only: a dataset that holds nothing but pictures needs features of them as a vector first.

Legend: B batch, T time, S state, W = back + ahead, F features, M members, A action.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from policies.normalisation import Normalisation, Normaliser
from robot.episodes import statistics
from robot.episodes.dataset import ACTION, Dataset
from robot.errors import ArmatureError, ConfigError, DatasetError
from robot.specs import ArraySpec

_LOG_STD = (-6.0, 2.0)
"""Range of the logarithm of a standard deviation, in standard deviations of the actions."""
_BETA = 0.5


@dataclass(kw_only=True)
class InverseDynamicsConfig:
    """The network and how it learns.

    Attributes:
        back: Observations before the one that the action answers.
        ahead: Observations after it.
        members: Networks in the ensemble.
        width: Of hidden layers.
        layers: Hidden layers.
        lr: Learning rate of AdamW.
        weight_decay: Its decoupled weight decay.
        batch_size: Rows in a batch, of each member.
        epochs: Most passes over the data.
        patience: Passes without a better validation after which it ends.
        validation: Share of the episodes that are held out.
        seed: Of weights, order and split; equal seeds on one machine give equal models.
    """

    back: int = 2
    ahead: int = 2
    members: int = 4
    width: int = 128
    layers: int = 2
    lr: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 256
    epochs: int = 300
    patience: int = 25
    validation: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"back": 0, "seed": 0} | dict.fromkeys(
            ("ahead", "members", "width", "layers", "batch_size", "epochs", "patience"), 1
        )
        for key, bound in least.items():
            if getattr(self, key) < bound:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected at least {bound}.")
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise ConfigError(f"lr is {self.lr} and weight_decay {self.weight_decay}; expected above 0 and not below.")
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation is {self.validation}, expected a share in (0, 1).")


@dataclass(frozen=True)
class Validation:
    """How well a model tells the actions of episodes that it has not seen.

    Attributes:
        episodes: How many those are.
        rmse: Root mean square error of each element of the action, in its unit, (A,).
        constant_rmse: The same of the mean action of the training episodes.
        within_two_std: Share of true values within two predicted standard deviations; about 0.95 is honest.
        epochs: Passes that were made.
    """

    episodes: int
    rmse: list[float]
    constant_rmse: list[float]
    within_two_std: float
    epochs: int


class InverseDynamics(nn.Module):
    """The ensemble with its normalisation.

    Each member is a linear map beside a network: the action is nearly linear in the changes that follow it, and a map
    learns that from few episodes (in the lifting task a third less squared error with 25 of them).
    """

    change_spread: Tensor  # (S,)

    def __init__(
        self, size: int, action: ArraySpec, config: InverseDynamicsConfig, states: np.ndarray | None = None,
        changes: np.ndarray | None = None, actions: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Networks with random weights, from torch's generator.

        Args:
            size: Of the states, S.
            action: Spec of an action.
            config: See there.
            states: Rows (N, S) that normalisation is fixed from, like the next two; None if weights are loaded next.
            changes: Differences of successive states, (N, S).
            actions: Shape (N, A).
        """
        super().__init__()
        self.config, self.action = config, action
        state = ArraySpec("state", (size,))
        flat = ArraySpec(ACTION, (math.prod(action.shape),))
        self.of_state = Normaliser(state, Normalisation.Z_SCORE, _statistics("state", states))
        self.of_action = Normaliser(flat, Normalisation.Z_SCORE, _statistics(ACTION, actions))
        spread = np.full(size, np.nan) if changes is None else changes.std(axis=0)
        spread = np.where(spread > 1e-8, spread, np.where(np.isnan(spread), np.nan, 1.0))
        self.register_buffer("change_spread", torch.tensor(spread, dtype=torch.float32))
        window = config.back + config.ahead
        sizes = [size * (1 + window) + window, *[config.width] * config.layers, 2 * flat.shape[0]]
        self.straight = _Layers(config.members, sizes[0], flat.shape[0])
        self.layers = nn.ModuleList(_Layers(config.members, *pair) for pair in itertools.pairwise(sizes))

    def features(self, states: Tensor) -> Tensor:
        """What the networks see of an episode: each state, the changes around it, and which of those there are.

        Args:
            states: Of one whole episode, (T, S), physical units.

        Returns:
            Shape (T, F).
        """
        back, ahead = self.config.back, self.config.ahead
        count = len(states)
        changes = torch.zeros(count + back + ahead, states.shape[1])
        is_there = torch.zeros(count + back + ahead)
        changes[back : back + count - 1] = (states[1:] - states[:-1]) / self.change_spread
        is_there[back : back + count - 1] = 1.0
        rows = torch.arange(count)
        parts = [self.of_state(states)]
        for offset in range(back + ahead):  # change `offset` of row t is from t + offset - back to the one after it
            parts += [changes[rows + offset], is_there[rows + offset][:, None]]
        return torch.cat(parts, dim=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the standard deviation of each member, network units; (M, B, F) to two of (M, B, A)."""
        hidden = features
        for layer in self.layers[:-1]:
            hidden = functional.silu(layer(hidden))
        mean, raw = self.layers[-1](hidden).chunk(2, dim=-1)
        low, high = _LOG_STD
        mean = mean + self.straight(features)
        return mean, low + (high - low) * torch.sigmoid(raw)

    @torch.no_grad()
    def predict(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions of one episode, and their standard deviations.

        Args:
            states: (T, S), physical units. The last `ahead` rows have less to go by, and say so by their deviation.

        Returns:
            Mean inside the action's range, and standard deviation, float32, each (T, A).
        """
        features = self.features(torch.as_tensor(np.asarray(states), dtype=torch.float32))
        means, log_stds = self(features.expand(self.config.members, -1, -1))
        mean = means.mean(dim=0)
        variance = (log_stds.mul(2).exp() + means.square()).mean(dim=0) - mean.square()
        std = variance.clamp_min(0).sqrt() * self.of_action.spread
        low, high = (bound.ravel() for bound in self.action.bounds())
        return np.clip(self.of_action.restore(mean).numpy(), low, high).astype(np.float32), std.numpy()


class _Layers(nn.Module):
    """One linear layer of each member."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, rows: Tensor) -> Tensor:
        """(M, B, inputs) to (M, B, outputs)."""
        return torch.baddbmm(self.bias, rows, self.weight)


def states_of(dataset: Dataset, keys: Sequence[str]) -> list[np.ndarray]:
    """Vectors of the observation one after the other, of each episode (T, S)."""
    columns = np.concatenate([dataset.columns[key] for key in keys], axis=1)
    return np.split(columns, np.cumsum(dataset.episode_lengths)[:-1])


def train(dataset: Dataset, keys: Sequence[str], config: InverseDynamicsConfig) -> tuple[InverseDynamics, Validation]:
    """Learn from episodes whose actions are known.

    Args:
        dataset: At least two episodes.
        keys: Vectors of the observation that the model sees.
        config: See there.

    Returns:
        The model as it was when it did best on the episodes that were held out, and how well that was.

    Raises:
        DatasetError: There are too few episodes, or none has two rows.
        ArmatureError: The loss is not finite.
    """
    states = states_of(dataset, keys)
    ends = np.cumsum(dataset.episode_lengths)[:-1]
    actions = [part.reshape(len(part), -1) for part in np.split(dataset.columns[ACTION], ends)]
    learning, held_out = _split(len(states), config)
    changes = np.concatenate([np.diff(states[i], axis=0) for i in learning])
    if len(changes) == 0:
        raise DatasetError("No labelled episode has two rows, so nothing shows what an action does.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = InverseDynamics(
            states[0].shape[1], dataset.specs.action, config,
            np.concatenate([states[i] for i in learning]), changes, np.concatenate([actions[i] for i in learning]),
        )  # fmt: skip
        rows = [_rows(model, states, actions, which) for which in (learning, held_out)]
        epochs = _fit(model, rows[0], rows[1], config)
    return model, _validated(model, [states[i] for i in held_out], [actions[i] for i in held_out], epochs)


def _split(count: int, config: InverseDynamicsConfig) -> tuple[np.ndarray, np.ndarray]:
    """Episodes to learn from and those held out; whole ones, because neighbouring rows are nearly the same."""
    if count < 2:
        raise DatasetError(f"{count} labelled episode is too few: one is held out to tell how good the model is.")
    order = np.random.default_rng([config.seed, 1]).permutation(count)
    held_out = min(count - 1, max(1, round(config.validation * count)))
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _rows(
    model: InverseDynamics, states: list[np.ndarray], actions: list[np.ndarray], which: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Features (N, F) and normalised actions (N, A) of some episodes."""
    features = [model.features(torch.as_tensor(states[i], dtype=torch.float32)) for i in which]
    targets = torch.as_tensor(np.concatenate([actions[i] for i in which]), dtype=torch.float32)
    return torch.cat(features), model.of_action(targets)


def _fit(
    model: InverseDynamics, learning: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor],
    config: InverseDynamicsConfig,
) -> int:  # fmt: skip
    """Learn until the validation no longer improves, and keep the best weights; returns the passes that were made."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    best, best_epoch, kept, epoch = math.inf, 0, _copy(model), 0
    with tqdm(total=config.epochs, desc="inverse dynamics", unit="epoch", mininterval=0.5, disable=None) as bar:
        while epoch < config.epochs and epoch - best_epoch < config.patience:
            _one_pass(model, optimiser, *learning, config)
            epoch += 1
            value = _likelihood(model, *held_out)
            if not math.isfinite(value):
                raise ArmatureError(
                    f"The loss of the inverse dynamics model is {value} after {epoch} passes. Lower learn.lr, or look "
                    "for extreme values in the labelled dataset."
                )
            if value < best:
                best, best_epoch, kept = value, epoch, _copy(model)
            bar.set_postfix(validation=f"{value:.3f}", best=f"{best:.3f}", refresh=False)
            bar.update()
    model.load_state_dict(kept)
    model.eval().requires_grad_(False)
    return epoch


def _one_pass(
    model: InverseDynamics, optimiser: torch.optim.Optimizer, features: Tensor, targets: Tensor,
    config: InverseDynamicsConfig,
) -> None:  # fmt: skip
    model.train()
    orders = torch.stack([torch.randperm(len(features)) for _ in range(config.members)])  # each member its own
    for rows in orders.split(config.batch_size, dim=1):
        mean, log_std = model(features[rows])
        nll = 0.5 * ((targets[rows] - mean) * torch.exp(-log_std)).square() + log_std
        loss = (nll * (2 * _BETA * log_std.detach()).exp()).mean(dim=(1, 2)).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


@torch.no_grad()
def _likelihood(model: InverseDynamics, features: Tensor, targets: Tensor) -> float:
    """Mean negative logarithm of the likelihood of the mixture, without its constant, of each element."""
    model.eval()
    mean, log_std = model(features.expand(model.config.members, -1, -1))
    log = -0.5 * ((targets - mean) * torch.exp(-log_std)).square() - log_std
    joint = torch.logsumexp(log.sum(dim=2), dim=0) - math.log(model.config.members)
    return float(-joint.mean() / targets.shape[1])


def _copy(model: InverseDynamics) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _validated(model: InverseDynamics, states: list[np.ndarray], actions: list[np.ndarray], epochs: int) -> Validation:
    found = [model.predict(part) for part in states]
    errors = np.concatenate([mean for mean, _ in found]) - np.concatenate(actions)
    stds = np.concatenate([std for _, std in found])
    constant = np.concatenate(actions) - model.of_action.centre.numpy()
    return Validation(
        episodes=len(states),
        rmse=np.sqrt(np.square(errors).mean(axis=0)).tolist(),
        constant_rmse=np.sqrt(np.square(constant).mean(axis=0)).tolist(),
        within_two_std=float((np.abs(errors) <= 2 * stds + 1e-6).mean()),
        epochs=epochs,
    )


def _statistics(key: str, rows: np.ndarray | None) -> dict[str, statistics.Statistics] | None:
    return None if rows is None else {key: statistics.of_column(rows)}
