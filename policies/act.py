"""Action Chunking with Transformers: a conditional VAE that continues the newest observation (Zhao et al., RSS 2023).

Legend: B batch, H horizon, A action, T observation steps, W width of the transformer, Z style.

The public code takes the output of the *first* decoder layer, so that all others never learn. Here the last one
speaks. Its loss is a mean over all entries with padded ones set to zero, which makes the tails of episodes count less;
here it is a mean over the valid ones.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.base import AbstractHead, Batch, HeadConfig, Metrics, ObservationNormaliser
from policies.normalisation import Normalisation, Normaliser, Statistics
from robot.contract import EnvironmentSpecs, PolicySpecs
from robot.errors import ConfigError


@dataclass(kw_only=True)
class ACTConfig(HeadConfig):
    """Sizes of the transformer and weight of the prior.

    Attributes:
        width: Size of a token.
        n_heads: Attention heads; divides `width`, which is even.
        feedforward: Width of the feed-forward layers.
        encoder_layers: Layers over the observation tokens.
        decoder_layers: Layers over the action queries.
        style_layers: Layers of the style encoder, which only training uses.
        style_size: Size of the style z.
        dropout: Share of activations dropped in training; 0.1 in the paper, which trains for hours on a GPU.
        kl_weight: Weight of the divergence of the style from the standard normal distribution.
    """

    n_obs_steps: int = 1
    horizon: int = 20
    n_action_steps: int = 5
    lr: float = 1e-3
    weight_decay: float = 1e-4
    width: int = 64
    n_heads: int = 4
    feedforward: int = 256
    encoder_layers: int = 2
    decoder_layers: int = 2
    style_layers: int = 2
    style_size: int = 32
    dropout: float = 0.0
    kl_weight: float = 10.0

    def build(self, specs: EnvironmentSpecs, statistics: Statistics | None) -> "ACTHead":
        """The head for an environment (see `HeadConfig.build`)."""
        if self.n_heads < 1 or self.width < 2 or self.width % self.n_heads or self.width % 2:
            raise ConfigError(
                f"policy.width is {self.width}, expected an even multiple of policy.n_heads, {self.n_heads}."
            )
        for key in ("encoder_layers", "decoder_layers", "style_layers", "style_size", "feedforward"):
            if getattr(self, key) < 1:
                raise ConfigError(f"policy.{key} is {getattr(self, key)}, expected at least 1.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"policy.dropout is {self.dropout}, expected at least 0 and less than 1.")
        return ACTHead(self, self.policy_specs(specs), statistics)


class ACTHead(AbstractHead):
    """Regresses the chunk; a style variable, zero at inference, soaks up what demonstrations do differently."""

    def __init__(self, config: ACTConfig, specs: PolicySpecs, statistics: Statistics | None) -> None:
        super().__init__()
        self.specs = specs
        self._kl_weight = config.kl_weight
        environment = specs.environment
        sizes = [specs.n_obs_steps * math.prod(spec.shape) for spec in environment.observation.values()]
        self.observation = ObservationNormaliser(environment.observation, Normalisation.Z_SCORE, statistics)
        self.action = Normaliser(environment.action, Normalisation.Z_SCORE, statistics)
        self.style = StyleEncoder(config, sizes, environment.action.shape[0])
        self.to_tokens = nn.ModuleList(nn.Linear(size, config.width) for size in sizes)
        self.style_to_token = nn.Linear(config.style_size, config.width)
        self.token_position = nn.Parameter(0.02 * torch.randn(1, len(sizes) + 1, config.width))
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.query = nn.Parameter(torch.randn(1, config.horizon, config.width))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.width)
        self.to_action = nn.Linear(config.width, environment.action.shape[0])

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """L1 over the valid actions plus the weighted KL divergence of the style (Zhao et al., appendix C)."""
        observation = self._vectors(batch)
        actions, valid = self.action(batch["action"]), ~batch["action_is_pad"]
        mean, log_variance = self.style(observation, actions, batch["action_is_pad"])
        style = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        error = F.l1_loss(self._decode(observation, style), actions, reduction="none").mean(-1)
        l1 = (error * valid).sum() / valid.sum()  # row 0 of every window is valid
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()
        return l1 + self._kl_weight * kl, {"l1": l1.detach(), "kl": kl.detach()}

    def predict(self, observation: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """The chunk of the style zero, the mean of the prior; nothing is drawn. (B, horizon, A)."""
        vectors = self._vectors(observation)
        style = vectors[0].new_zeros(len(vectors[0]), self.style_to_token.in_features)
        return self.action.restore(self._decode(vectors, style))

    def _vectors(self, observation: dict[str, Tensor]) -> list[Tensor]:
        """One vector for each key with its history, (B, T * D)."""
        return [vector.flatten(1) for vector in self.observation(observation)]

    def _decode(self, observation: list[Tensor], style: Tensor) -> Tensor:
        tokens = [layer(vector) for layer, vector in zip(self.to_tokens, observation, strict=True)]
        memory = torch.stack([self.style_to_token(style), *tokens], dim=1)
        for layer in self.encoder:
            memory = layer(memory, self.token_position)
        # From zeros, as in the public code, the first layer's self-attention would have values of no content.
        x = self.query.expand(len(style), -1, -1)
        for layer in self.decoder:
            x = layer(x, self.query, memory, self.token_position)
        return self.to_action(self.norm(x))


class StyleEncoder(nn.Module):
    """Reads observation and actions, and says which style made them: mean and log variance of z."""

    position: Tensor

    def __init__(self, config: ACTConfig, observation_sizes: list[int], action_size: int) -> None:
        super().__init__()
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, config.width))
        self.to_tokens = nn.ModuleList(nn.Linear(size, config.width) for size in observation_sizes)
        self.action_to_token = nn.Linear(action_size, config.width)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.style_layers))
        self.to_style = nn.Linear(config.width, 2 * config.style_size)
        length = 1 + len(observation_sizes) + config.horizon
        self.register_buffer("position", sinusoids(length, config.width), persistent=False)

    def forward(self, observation: list[Tensor], actions: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, T * D), actions (B, H, A), padding (B, H) to mean and log variance, each (B, Z)."""
        tokens = [layer(vector) for layer, vector in zip(self.to_tokens, observation, strict=True)]
        state = torch.stack(tokens, dim=1)
        x = torch.cat([self.summary.expand(len(actions), -1, -1), state, self.action_to_token(actions)], dim=1)
        ignored = F.pad(is_pad, (1 + len(tokens), 0))
        for layer in self.layers:
            x = layer(x, self.position, ignored)
        mean, log_variance = self.to_style(x[:, 0]).chunk(2, dim=-1)
        return mean, log_variance


class Attention(nn.Module):
    """Multi-head attention in which positions are added to queries and keys, not to values (Carion et al. 2020)."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self._heads, self._dropout = config.n_heads, config.dropout
        self.to_query = nn.Linear(config.width, config.width)
        self.to_key = nn.Linear(config.width, config.width, bias=False)  # softmax takes no notice of one
        self.to_value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, ignored: Tensor | None = None) -> Tensor:
        """(B, Q, W), (B, K, W), (B, K, W) and keys to ignore (B, K) to (B, Q, W)."""
        q, k, v = (
            layer(x).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for layer, x in ((self.to_query, query), (self.to_key, key), (self.to_value, value))
        )
        mask = None if ignored is None else ~ignored[:, None, None]
        dropout = self._dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out(x.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each normalised after its sum."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.attention, self.feedforward = Attention(config), _feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, position: Tensor, ignored: Tensor | None = None) -> Tensor:
        """(B, N, W) to the same."""
        placed = x + position
        x = self.norms[0](x + self.dropout(self.attention(placed, placed, x, ignored)))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


class DecoderLayer(nn.Module):
    """Self-attention over the queries, attention to the memory and feed-forward, each normalised after its sum."""

    def __init__(self, config: ACTConfig) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = Attention(config), Attention(config)
        self.feedforward = _feedforward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, query: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """(B, H, W) to the same; queries (1, H, W), memory (B, N, W) and its positions (1, N, W)."""
        placed = x + query
        x = self.norms[0](x + self.dropout(self.self_attention(placed, placed, x)))
        x = self.norms[1](x + self.dropout(self.cross_attention(x + query, memory + position, memory)))
        return self.norms[2](x + self.dropout(self.feedforward(x)))


def _feedforward(config: ACTConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.width, config.feedforward),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.feedforward, config.width),
    )


def sinusoids(length: int, width: int) -> Tensor:
    """Fixed positions (1, length, width), sines then cosines (Vaswani et al. 2017)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length).unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).unsqueeze(0)
