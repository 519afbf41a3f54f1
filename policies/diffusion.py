"""Diffusion Policy: a conditional 1-D U-Net that turns noise into a chunk of actions (Chi et al., RSS 2023).

Legend: B batch, A action, D observation, G conditioning.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.base import AbstractHead, Batch, HeadConfig, Kept, Metrics, ObservationNormaliser
from policies.continuing import Method
from policies.guidance import Guidance
from policies.linking import load_triton
from policies.normalisation import Normalisation, Normaliser, Statistics
from policies.packed_unet import PackedUnet
from policies.sampling import DdimSampler, Prediction
from policies.unet import ConditionalUnet, UnetSizes
from robot.contract import EnvironmentSpecs, PolicySpecs
from robot.errors import ConfigError


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
        prefix_max: Longest beginning of a chunk that training shows without noise, so that a chunk can go on from
            rows that will have been played when it is ready (Black et al. 2025, "Training-time action conditioning
            for efficient real-time chunking"). 0 leaves the head as it is without.
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
    prefix_max: int = 0

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
        if not 0 <= self.prefix_max < self.horizon:
            raise ConfigError(
                f"policy.prefix_max is {self.prefix_max}, expected at least 0 and less than policy.horizon, "
                f"{self.horizon}: at least one row has to be learned."
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
        self._prefix_max = config.prefix_max
        self.unet = ConditionalUnet(environment.action.shape[0], width, sizes, mark_size=int(config.prefix_max > 0))
        self._prediction = config.prediction
        self._packed: PackedUnet | None = None
        # The noise schedule travels with the weights: what acts needs no diffusers, which takes seconds to import.
        untold = torch.full((config.train_timesteps,), math.nan)
        self.register_buffer("signal", untold if statistics is None else noise_schedule(config.train_timesteps))
        self._timesteps = trailing_timesteps(config.train_timesteps, config.inference_timesteps)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Mean squared error of the predicted noise (Ho et al. 2020, equation 14) or of the predicted actions.

        Steps beyond the end of an episode count too: they repeat its last action, which teaches to hold it. Rows of
        a prefix are free of noise and do not count.
        """
        actions = self.action(batch["action"])
        noise = torch.randn_like(actions)
        steps = torch.randint(len(self.signal), actions.shape[:1], device=actions.device)
        share = self.signal[steps, None, None]
        noisy = share.sqrt() * actions + (1 - share).sqrt() * noise
        film = self.unet.conditioning(self._condition(batch), steps)
        target = noise if self._prediction is Prediction.epsilon else actions
        if not self._prefix_max:
            return F.mse_loss(self.unet(noisy, film), target), {}
        is_kept = self._draw_prefixes(actions)
        error = F.mse_loss(self.unet(_marked(noisy, actions, is_kept), film), target, reduction="none").mean(-1)
        return error[~is_kept].mean(), {}

    def _draw_prefixes(self, actions: Tensor) -> Tensor:
        """Which rows are shown as they are, (B, T): none in half of the chunks, so that a head acts as well without."""
        size, device = (len(actions), 1), actions.device
        length = torch.randint(1, self._prefix_max + 1, size, device=device) * torch.randint(2, size, device=device)
        return torch.arange(actions.shape[1], device=device) < length

    def predict(self, observation: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """Denoise a chunk by DDIM; (B, horizon, A)."""
        return self._denoised(observation, generator, None)

    @property
    def methods(self) -> dict[Method, int]:
        """Every diffusion head can be guided; one that was trained with prefixes takes them."""
        horizon = self.specs.horizon
        prefix = {Method.prefix: self._prefix_max} if self._prefix_max else {}
        return {**prefix, Method.guided: horizon, Method.constant: horizon}

    def predict_after(self, observation: dict[str, Tensor], generator: torch.Generator, kept: Kept) -> Tensor:
        """Denoise a chunk that goes on from rows that are planned; (B, horizon, A)."""
        if kept.method not in self.methods:
            return super().predict_after(observation, generator, kept)
        return self._denoised(observation, generator, kept)

    def _denoised(self, observation: dict[str, Tensor], generator: torch.Generator, kept: Kept | None) -> Tensor:
        condition = self._condition(observation)
        shape = (len(condition), self.specs.horizon, *self.specs.environment.action.shape)
        sample = torch.randn(shape, generator=generator, device=generator.device).to(condition)
        steps = self._timesteps.to(condition.device)
        sampler = DdimSampler(self.signal[steps], self._prediction)
        films = self.unet.conditioning(
            condition.repeat(len(steps), 1), steps.repeat_interleave(len(condition))
        ).unflatten(0, (len(steps), len(condition)))
        is_kept, rows, guidance = torch.zeros(sample.shape[:2], dtype=torch.bool, device=sample.device), sample, None
        if kept is not None:
            rows = self.action(kept.rows.to(sample)).clamp(-1, 1)
            if kept.method is Method.prefix:
                is_kept = kept.weights.to(sample.device) >= 1
            else:
                guidance = Guidance(sampler, rows, kept)
        needs_gradient = kept is not None and kept.method is Method.guided
        network = self.unet if self._packed is None or len(sample) > 1 or needs_gradient else self._packed
        for index, film in enumerate(films):
            denoise = partial(self._predicted, network, film, rows, is_kept)
            if guidance is None:
                sample = sampler.step(index, denoise(sample), sample)
            else:
                sample = guidance.step(index, denoise, sample)
        return self.action.restore(torch.where(is_kept.unsqueeze(-1), rows, sample) if self._prefix_max else sample)

    def _predicted(
        self, network: ConditionalUnet | PackedUnet, film: Tensor, rows: Tensor, is_kept: Tensor, sample: Tensor
    ) -> Tensor:
        return network(_marked(sample, rows, is_kept) if self._prefix_max else sample, film)

    def prepare(self) -> None:
        """Pack the network for one observation at a time on a CPU."""
        if self.action.centre.device.type == "cpu":
            self._packed = PackedUnet(self.unet)

    def _condition(self, observation: dict[str, Tensor]) -> Tensor:
        """The observation history as one vector, (B, G)."""
        return self.encoder(torch.cat(self.observation(observation), dim=-1).flatten(1))


def noise_schedule(timesteps: int) -> Tensor:
    """Share of the signal's variance that each diffusion step leaves: diffusers' squared-cosine schedule."""
    load_triton()
    from diffusers import DDPMScheduler

    scheduler: Any = DDPMScheduler(timesteps, beta_schedule="squaredcos_cap_v2")  # untyped attributes
    return scheduler.alphas_cumprod


def trailing_timesteps(train_timesteps: int, inference_timesteps: int) -> Tensor:
    """Diffusion steps to denoise from, evenly spaced from the last one backwards.

    A chunk then begins where the training's noise does, however few steps there are (Lin et al. 2024, section 3.3).
    """
    spaced = torch.arange(inference_timesteps, 0, -1, dtype=torch.float64) * train_timesteps / inference_timesteps
    return spaced.round().long() - 1


def _marked(noisy: Tensor, rows: Tensor, is_kept: Tensor) -> Tensor:
    """`noisy` with the kept rows as they are, and beside each row whether it is one: (B, T, A + 1)."""
    mark = is_kept.unsqueeze(-1)
    return torch.cat([torch.where(mark, rows, noisy), mark.to(noisy)], dim=-1)
