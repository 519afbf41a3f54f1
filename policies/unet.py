"""The noise predictor of Diffusion Policy: a conditional 1-D U-Net (Chi et al. 2023, section III-A, and its code).

Legend: B batch, T horizon, A action, M marks, C channels, G conditioning, F scales and biases of all blocks.

What conditions it depends on the observation and on the denoising step, not on the sample. It is therefore a call of
its own, `conditioning`, and a sampler makes that call once for all steps of a chunk.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class UnetSizes:
    """Channels of each level, width of the convolutions, groups of the normalisations, width of the step embedding."""

    down_dims: tuple[int, ...]
    kernel_size: int
    n_groups: int
    step_embedding: int


class ConditionalUnet(nn.Module):
    """The noise predictor: levels of two residual blocks, FiLM-conditioned on observation and denoising step."""

    def __init__(self, action_size: int, condition_size: int, sizes: UnetSizes, mark_size: int = 0) -> None:
        """Draw the weights.

        Args:
            action_size: Width of a row that comes out.
            condition_size: Width of what is observed.
            sizes: Of the layers.
            mark_size: Numbers beside each row that goes in, which say something about it.
        """
        super().__init__()
        dims = sizes.down_dims
        self.step_embedding = StepEmbedding(sizes.step_embedding)
        pairs = list(itertools.pairwise([action_size + mark_size, *dims]))
        self.down = nn.ModuleList(self._level(c_in, c_out, sizes) for c_in, c_out in pairs)
        self.middle = self._level(dims[-1], dims[-1], sizes)
        self.up = nn.ModuleList(self._level(2 * c_out, c_in, sizes) for c_in, c_out in reversed(pairs[1:]))
        self.shrink = nn.ModuleList(nn.Conv1d(dim, dim, 3, 2, 1) for dim in dims[:-1])
        self.grow = nn.ModuleList(nn.ConvTranspose1d(dim, dim, 4, 2, 1) for dim in reversed(dims[:-1]))
        self.last = _convolution_block(dims[0], dims[0], sizes)
        self.to_action = nn.Linear(dims[0], action_size)
        widths = [*dims, dims[-1], *reversed(dims[:-1])]
        self.film_sizes = [2 * width for width in widths for _ in range(2)]
        self.film = nn.Linear(sizes.step_embedding + condition_size, sum(self.film_sizes))
        self._begin_as_identity()

    @staticmethod
    def _level(c_in: int, c_out: int, sizes: UnetSizes) -> nn.ModuleList:
        return nn.ModuleList([ResidualBlock(c_in, c_out, sizes), ResidualBlock(c_out, c_out, sizes)])

    @torch.no_grad()
    def _begin_as_identity(self) -> None:
        for bias in self.film.bias.split(self.film_sizes):
            bias[: len(bias) // 2] += 1

    def conditioning(self, condition: Tensor, steps: Tensor) -> Tensor:
        """Scale and bias of every block; (B, G) and (B,) to (B, F).

        One linear layer for all blocks: each block has rows of its own, so this equals a layer per block.
        """
        return self.film(F.mish(torch.cat([self.step_embedding(steps), condition], dim=-1)))

    def forward(self, noisy: Tensor, film: Tensor) -> Tensor:
        """The noise in `noisy` (B, T, A + M), given `conditioning`; (B, T, A)."""
        films = iter(film.unsqueeze(-1).split(self.film_sizes, dim=1))
        x, skips = noisy.transpose(1, 2), []
        for index, level in enumerate(self.down):
            x = _through(level, x, films)
            skips.append(x)
            if index < len(self.shrink):
                x = self.shrink[index](x)
        x = _through(self.middle, x, films)
        for level, grow in zip(self.up, self.grow, strict=True):
            x = grow(_through(level, torch.cat([x, skips.pop()], dim=1), films))
        return self.to_action(self.last(x).transpose(1, 2))


def _through(level: nn.Module, x: Tensor, films: Iterator[Tensor]) -> Tensor:
    assert isinstance(level, nn.ModuleList)
    for block in level:
        x = block(x, next(films))
    return x


class StepEmbedding(nn.Module):
    """A denoising step as a vector: sines and cosines (Vaswani et al. 2017), then two layers."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))

    def forward(self, steps: Tensor) -> Tensor:
        """(B,) to (B, width)."""
        angles = steps.to(self.frequencies).unsqueeze(-1) * self.frequencies
        return self.layers(torch.cat([angles.sin(), angles.cos()], dim=-1))


class ResidualBlock(nn.Module):
    """Two convolution blocks around a FiLM layer (Perez et al. 2018), and a shortcut past all three."""

    def __init__(self, c_in: int, c_out: int, sizes: UnetSizes) -> None:
        super().__init__()
        self.first = _convolution_block(c_in, c_out, sizes)
        self.second = _convolution_block(c_out, c_out, sizes)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv1d(c_in, c_out, 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """(B, c_in, T) and scale and bias (B, 2 * c_out, 1) to (B, c_out, T)."""
        scale, bias = film.chunk(2, dim=1)
        return self.second(torch.addcmul(bias, self.first(x), scale)) + self.shortcut(x)


def _convolution_block(c_in: int, c_out: int, sizes: UnetSizes) -> nn.Sequential:
    width = sizes.kernel_size
    return nn.Sequential(
        nn.Conv1d(c_in, c_out, width, padding=width // 2), nn.GroupNorm(sizes.n_groups, c_out), nn.Mish()
    )
