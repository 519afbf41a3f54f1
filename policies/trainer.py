"""One training step, and everything that a resumed training needs to take the next one exactly.

All that is random in a step is seeded by (seed, step), and the learning rate is a function of (step, steps): what is
left to save are weights, moments and the moving average.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.base import AbstractHead, Batch, HeadConfig
from policies.checkpoint import TrainingState
from policies.ema import MovingAverage
from robot.errors import CheckpointError


def learning_rate(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Rises linearly from zero over the first share of the steps, then falls to zero as a cosine."""
    warmup = max(1, round(warmup_fraction * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Settings:
    """What the arithmetic of a training depends on, besides head and data."""

    steps: int
    batch_size: int
    seed: int
    lr: float


class Trainer:
    """A head, its optimiser and its moving average."""

    def __init__(self, head: AbstractHead, config: HeadConfig, settings: Settings, device: torch.device) -> None:
        self.head = head.to(device).train()
        self.step = 0
        self._config, self._settings, self._device = config, settings, device
        self._optimiser = torch.optim.AdamW(
            head.parameters(),
            lr=settings.lr,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._average = MovingAverage(head, config.ema_power)

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return learning_rate(self.step, self._settings.steps, self._settings.lr, self._config.warmup_fraction)

    def advance(self, arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
        """Learn from one batch; returns scalars on the device, `loss` among them, without waiting for them."""
        seed = np.random.SeedSequence([self._settings.seed, self.step]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0] >> np.uint64(1)))
        batch: Batch = {key: self._tensor(value) for key, value in arrays.items()}
        for group in self._optimiser.param_groups:
            group["lr"] = self.lr
        loss, metrics = self.head.loss(batch)
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._average.update()
        self.step += 1
        return {"loss": loss.detach(), **metrics}

    def _tensor(self, array: np.ndarray) -> Tensor:
        """On the device. What crosses to a GPU goes through pinned memory, so that neither side waits for it."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def model(self) -> dict[str, Tensor]:
        """Averaged weights and buffers: what acts."""
        return {**self.head.state_dict(), **self._average.parameters()}

    def state(self) -> TrainingState:
        """What `load` takes."""
        tensors: dict[str, Tensor] = {f"weights.{name}": value for name, value in self.head.named_parameters()}
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        return TrainingState(tensors, {"step": self.step, "ema_updates": self._average.updates})

    @torch.no_grad()
    def load(self, state: TrainingState, model: dict[str, Tensor]) -> None:
        """Continue where `state` and `model` were taken.

        Raises:
            CheckpointError: They are not of this head.
        """
        try:
            for name, parameter in self.head.named_parameters():
                parameter.copy_(state.tensors[f"weights.{name}"])
            optimiser = self._optimiser.state_dict()
            optimiser["state"] = {
                index: {name: state.tensors[f"optimiser.{index}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq")}
                for index in range(len(self._average.parameters()))
            }
            self._optimiser.load_state_dict(optimiser)
            self._average.load(model, state.numbers["ema_updates"])
            self.step = state.numbers["step"]
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"The state of the training is not of this head: {error}. Train anew with resume=false."
            ) from error
