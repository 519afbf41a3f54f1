"""Diffusion Policy: a conditional 1-D U-Net that turns noise into a chunk of actions (Chi et al., RSS 2023).

Legend: B batch, A action, D observation, G conditioning.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.base import AbstractHead, Batch, HeadConfig, Metrics, ObservationNormaliser
from policies.normalisation import Normalisation, Normaliser, Statistics
from policies.packed_unet import PackedUnet
from policies.unet import ConditionalUnet, UnetSizes
from robot.contract import EnvironmentSpecs, PolicySpecs
from robot.errors import ConfigError


class Prediction(Enum):
    """What the network is asked for; named as the command line spells it."""

    epsilon = "epsilon"
    """The noise in the sample, as Chi et al. do."""
    sample = "sample"
    """The actions without the noise: the same optimum, reached in fewer steps when training is short."""


@dataclass(kw_only=True)
class DiffusionConfig(HeadConfig):
    """Sizes of the U-Net and of the diffusion process.

    Attributes:
        down_dims: Channels of each level of the U-Net; each level halves the time axis of the one above.
        kernel_size: Width of the convolutions, odd.
        n_groups: Groups of the group normalisations; divides every number of channels.
        step_embedding: Width of the embedding of the denoising step, even.
        observation_embedding: Width of the two layers that read the observations. Chi et al. hand them to the
            U-Net raw; with the layers, short trainings get further.
        prediction: What the network is asked for.
        train_timesteps: Steps of the diffusion process that the network is trained on.
        inference_timesteps: DDIM steps that make a chunk.
    """

    n_obs_steps: int = 2
    horizon: int = 16
    n_action_steps: int = 4
    lr: float = 1e-3
    beta1: float = 0.95
    weight_decay: float = 1e-6
    down_dims: list[int] = field(default_factory=lambda: [32, 64])
    kernel_size: int = 5
    n_groups: int = 8
    step_embedding: int = 64
    observation_embedding: int = 256
    prediction: Prediction = Prediction.sample
    train_timesteps: int = 100
    inference_timesteps: int = 8

    def build(self, specs: EnvironmentSpecs, statistics: Statistics | None) -> "DiffusionHead":
        """The head for an environment (see `HeadConfig.build`)."""
        self._check()
        return DiffusionHead(self, self.policy_specs(specs), statistics)

    def _check(self) -> None:
        divisor = 2 ** (len(self.down_dims) - 1)
        if not self.down_dims or self.horizon % divisor:
            raise ConfigError(
                f"policy.horizon is {self.horizon}; a U-Net with {len(self.down_dims)} levels (policy.down_dims) "
                f"halves it {len(self.down_dims) - 1} times, so it must be a multiple of {divisor}."
            )
        if self.n_groups < 1 or any(dim < 1 or dim % self.n_groups for dim in self.down_dims):
            raise ConfigError(
                f"policy.down_dims is {self.down_dims}; every entry must be a multiple of policy.n_groups, "
                f"{self.n_groups}."
            )
        if self.kernel_size % 2 == 0 or self.step_embedding < 4 or self.step_embedding % 2:
            raise ConfigError(
                f"policy.kernel_size must be odd and policy.step_embedding even and at least 4, got "
                f"{self.kernel_size} and {self.step_embedding}."
            )
        if not 1 <= self.inference_timesteps <= self.train_timesteps:
            raise ConfigError(
                f"policy.inference_timesteps is {self.inference_timesteps}, expected 1 to "
                f"{self.train_timesteps} (policy.train_timesteps)."
            )


class DiffusionHead(AbstractHead):
    """Tells noise and normalised actions apart; removes the noise step by step to act."""

    signal: Tensor

    _signal: Tensor  # (train_timesteps,)

    def __init__(self, config: DiffusionConfig, specs: PolicySpecs, statistics: Statistics | None) -> None:
        super().__init__()
        self.specs = specs
        environment = specs.environment
        observation_size = sum(spec.shape[0] for spec in environment.observation.values() if spec.shape)
        self.observation = ObservationNormaliser(environment.observation, Normalisation.Z_SCORE, statistics)
        self.action = Normaliser(environment.action, Normalisation.MIN_MAX, statistics)
        sizes = UnetSizes(tuple(config.down_dims), config.kernel_size, config.n_groups, config.step_embedding)
        width = config.observation_embedding
        self.encoder = nn.Sequential(
            nn.Linear(specs.n_obs_steps * observation_size, width), nn.Mish(), nn.Linear(width, width)
        )
        self.unet = ConditionalUnet(environment.action.shape[0], width, sizes)
        self._prediction = config.prediction
        self._packed: PackedUnet | None = None
        # The noise schedule travels with the weights: what acts needs no diffusers, which takes seconds to import.
        untold = torch.full((config.train_timesteps,), math.nan)
        self.register_buffer("signal", untold if statistics is None else noise_schedule(config.train_timesteps))
        self._timesteps = trailing_timesteps(config.train_timesteps, config.inference_timesteps)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean squared error of the predicted noise (Ho et al. 2020, equation 14) or of the predicted actions.

        Steps beyond the end of an episode count too: they repeat its last action, which teaches to hold it.
        """
        actions = self.action(batch["action"])
        noise = torch.randn_like(actions)
        steps = torch.randint(len(self.signal), actions.shape[:1], device=actions.device)
        share = self.signal[steps, None, None]
        noisy = share.sqrt() * actions + (1 - share).sqrt() * noise
        predicted = self.unet(noisy, self.unet.conditioning(self._condition(batch), steps))
        target = noise if self._prediction is Prediction.epsilon else actions
        return F.mse_loss(predicted, target), {}

    def predict(self, observation: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Denoise a chunk by DDIM; (B, horizon, A)."""
        condition = self._condition(observation)
        shape = (len(condition), self.specs.horizon, *self.specs.environment.action.shape)
        sample = torch.randn(shape, generator=generator, device=generator.device).to(condition)
        steps = self._timesteps.to(condition.device)
        sampler = DdimSampler(self.signal[steps], self._prediction)
        films = self.unet.conditioning(
            condition.repeat(len(steps), 1), steps.repeat_interleave(len(condition))
        ).unflatten(0, (len(steps), len(condition)))
        denoise = self.unet if self._packed is None or len(sample) > 1 else self._packed
        for index, film in enumerate(films):
            sample = sampler.step(index, denoise(sample, film), sample)
        return self.action.restore(sample)

    def prepare(self) -> None:
        """Pack the network for one observation at a time on a CPU."""
        if self.action.centre.device.type == "cpu":
            self._packed = PackedUnet(self.unet)

    def _condition(self, observation: dict[str, Tensor]) -> Tensor:
        """The observation history as one vector, (B, G)."""
        return self.encoder(torch.cat(self.observation(observation), dim=-1).flatten(1))


def noise_schedule(timesteps: int) -> Tensor:
    """Share of the signal's variance that each diffusion step leaves: diffusers' squared-cosine schedule."""
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2")  # untyped attributes
    return scheduler.alphas_cumprod


def trailing_timesteps(train_timesteps: int, inference_timesteps: int) -> Tensor:
    """Diffusion steps to denoise from, evenly spaced from the last one backwards.

    A chunk then begins where the training's noise does, however few steps there are (Lin et al. 2024, section 3.3).
    """
    spaced = torch.arange(inference_timesteps, 0, -1, dtype=torch.float64) * train_timesteps / inference_timesteps
    return spaced.round().long() - 1


class DdimSampler:
    """DDIM without added noise (Song et al. 2021, equation 12), with its coefficients tabulated."""

    def __init__(self, signal: Tensor, prediction: Prediction) -> None:
        """Tabulate.

        Args:
            signal: Share of the signal's variance at each step of the sampler, noisiest first.
            prediction: What the network is asked for.
        """
        self._prediction = prediction
        now = signal.tolist()
        self._coefficients = [
            (a**0.5, (1 - a) ** 0.5, b**0.5, (1 - b) ** 0.5) for a, b in zip(now, [*now[1:], 1.0], strict=True)
        ]

    def step(self, index: int, predicted: Tensor, sample: Tensor) -> Tensor:
        """The sample one step less noisy, given what the network predicted from it."""
        signal_now, noise_now, signal_next, noise_next = self._coefficients[index]
        if self._prediction is Prediction.epsilon:
            noise, clean = predicted, torch.add(sample, predicted, alpha=-noise_now).div_(signal_now)
        else:
            noise, clean = torch.add(sample, predicted, alpha=-signal_now).div_(noise_now), predicted
        clean = clean.clamp(-1, 1)
        return clean.mul_(signal_next).add_(noise, alpha=noise_next)
