"""Taking noise away step by step: DDIM without added noise (Song et al. 2021), with its coefficients tabulated."""

from enum import Enum

import torch
from torch import Tensor


class Prediction(Enum):
    """What the network is asked for; named as the command line spells it."""

    epsilon = "epsilon"
    """The noise in the sample, as Chi et al. do."""
    sample = "sample"
    """The actions without the noise: the same optimum, reached in fewer steps when training is short."""


class DdimSampler:
    """DDIM without added noise (Song et al. 2021, equation 12)."""

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

    def shares(self, index: int) -> tuple[float, float]:
        """By what the clean chunk and the noise are multiplied in a sample before step `index`."""
        return self._coefficients[index][:2]

    def clean(self, index: int, predicted: Tensor, sample: Tensor) -> Tensor:
        """The clean chunk that a prediction means."""
        if self._prediction is Prediction.sample:
            return predicted
        signal, noise = self.shares(index)
        return (sample - noise * predicted) / signal

    def towards(self, index: int, clean: Tensor, sample: Tensor) -> Tensor:
        """The sample one step less noisy, if this is the clean chunk in it."""
        signal_now, noise_now, signal_next, noise_next = self._coefficients[index]
        noise = (sample - signal_now * clean) / noise_now
        return signal_next * clean.clamp(-1, 1) + noise_next * noise
