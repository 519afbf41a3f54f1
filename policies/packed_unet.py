"""The U-Net rearranged to denoise one chunk on a CPU; the same function as `ConditionalUnet`, some times faster.

A chunk is a short sequence, so time goes into moving weights and into calls, not into arithmetic. Activations are
(T, C) here and zero-padded in time, so that the windows of a convolution are a strided view of memory that is there
already, and a convolution is one matrix product with weights stored in the order in which it reads them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.unet import ConditionalUnet, ResidualBlock


class PackedUnet:
    """Takes what `ConditionalUnet.forward` takes, for a batch of one. Does not see later changes of the weights."""

    def __init__(self, unet: ConditionalUnet) -> None:
        self._film_sizes = unet.film_sizes
        self._down = [_level(level) for level in unet.down]
        self._middle = _level(unet.middle)
        self._up = [_level(level) for level in unet.up]
        self._shrink = [_Convolution(convolution) for convolution in unet.shrink]
        self._grow = [_Doubling(doubling) for doubling in unet.grow]
        self._last = _Block(unet.last)
        self._to_action = unet.to_action

    @torch.inference_mode()
    def __call__(self, noisy: Tensor, film: Tensor) -> Tensor:
        """The noise in `noisy` (1, T, A), given `conditioning` (1, F)."""
        films = iter(film[0].split(self._film_sizes))
        x, skips = noisy[0], []
        for index, level in enumerate(self._down):
            for block in level:
                x = block(x, next(films))
            skips.append(x)
            if index < len(self._shrink):
                x = self._shrink[index](x)
        for block in self._middle:
            x = block(x, next(films))
        for level, grow in zip(self._up, self._grow, strict=True):
            x = torch.cat([x, skips.pop()], dim=1)
            for block in level:
                x = block(x, next(films))
            x = grow(x)
        return self._to_action(self._last(x)).unsqueeze(0)


def _level(level: nn.Module) -> "list[_Residual]":
    assert isinstance(level, nn.ModuleList)
    return [_Residual(block) for block in level]


class _Residual:
    """`ResidualBlock` on (T, C)."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, ResidualBlock)
        self._first, self._second = _Block(block.first), _Block(block.second)
        self._shortcut = _Convolution(block.shortcut) if isinstance(block.shortcut, nn.Conv1d) else None

    def __call__(self, x: Tensor, film: Tensor) -> Tensor:
        scale, bias = film.chunk(2)
        y = self._second(torch.addcmul(bias, self._first(x), scale))
        return y.add_(x if self._shortcut is None else self._shortcut(x))


class _Block:
    """Convolution, group normalisation, Mish on (T, C)."""

    def __init__(self, block: nn.Module) -> None:
        assert isinstance(block, nn.Sequential)
        convolution, norm, _ = block
        assert isinstance(norm, nn.GroupNorm)
        self._convolution = _Convolution(convolution)
        self._groups, self._weight, self._bias, self._epsilon = norm.num_groups, norm.weight, norm.bias, norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        x = self._convolution(x)
        # (T, C) is an image (1, C, T, 1) in channels-last order, which is normalised without a copy.
        image = x.t().unsqueeze(0).unsqueeze(-1)
        image = F.group_norm(image, self._groups, self._weight, self._bias, self._epsilon)
        return F.mish(image, inplace=True).squeeze(-1).squeeze(0).t()


class _Convolution:
    """`Conv1d` on (T, C)."""

    def __init__(self, convolution: nn.Module) -> None:
        assert isinstance(convolution, nn.Conv1d)
        assert convolution.bias is not None
        self._pad, self._width = int(convolution.padding[0]), convolution.kernel_size[0]
        self._stride = convolution.stride[0]
        self._weight = convolution.weight.detach().permute(2, 1, 0).flatten(0, 1).contiguous()  # (width * c_in, c_out)
        self._bias = convolution.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        if self._width > 1:
            length, channels = x.shape
            padded = F.pad(x, (0, 0, self._pad, self._pad))
            x = padded.as_strided((length // self._stride, self._width * channels), (self._stride * channels, 1))
        return torch.addmm(self._bias, x, self._weight)


class _Doubling:
    """`ConvTranspose1d` of width 4, stride 2 and padding 1 on (T, C).

    Every output sees two neighbouring inputs: input t and the one before make output 2t, input t and the one after
    make output 2t + 1. Over the T + 1 pairs of a padded sequence, one product gives both.
    """

    def __init__(self, doubling: nn.Module) -> None:
        assert isinstance(doubling, nn.ConvTranspose1d)
        assert doubling.bias is not None
        first, second, third, fourth = doubling.weight.detach().unbind(2)  # each (c_in, c_out)
        after, before = torch.cat([third, first]), torch.cat([fourth, second])
        self._weight = torch.cat([before, after], dim=1).contiguous()  # (2 * c_in, 2 * c_out)
        self._bias = doubling.bias.detach().repeat(2)

    def __call__(self, x: Tensor) -> Tensor:
        length, channels = x.shape
        pairs = F.pad(x, (0, 0, 1, 1)).as_strided((length + 1, 2 * channels), (channels, 1))
        both = torch.addmm(self._bias, pairs, self._weight)
        return torch.cat([both[:-1, :channels], both[1:, channels:]], dim=1).view(2 * length, channels)
