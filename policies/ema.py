"""Exponential moving average of weights, with the warm-up by Katherine Crowson that Diffusion Policy uses."""

import torch
from torch import Tensor, nn

_LARGEST_DECAY = 0.9999


def decay(step: int, power: float) -> float:
    """Decay of update `step` (from 0): `1 - (1 + step)^-power`, at most 0.9999.

    The first update takes the raw weights; from then on the window grows with the training.
    """
    return min(1 - (1 + step) ** -power, _LARGEST_DECAY)


class MovingAverage:
    """A copy of a module's parameters that follows them slowly. Buffers are constant and not averaged.

    The number of updates is part of the state: an average that is resumed with a counter of zero would forget
    everything at once.
    """

    def __init__(self, module: nn.Module, power: float) -> None:
        self._raw: list[Tensor] = list(module.parameters())
        self._names = [name for name, _ in module.named_parameters()]
        self._power = power
        self._average = [parameter.detach().clone() for parameter in self._raw]
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the present weights; a power of 0 copies them."""
        torch._foreach_lerp_(self._average, self._raw, 1 - decay(self.updates, self._power))
        self.updates += 1

    def parameters(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load(self, parameters: dict[str, Tensor], updates: int) -> None:
        """Continue from `parameters` after `updates` updates."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(parameters[name])
        self.updates = updates
