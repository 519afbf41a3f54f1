"""Guided denoising: chunks drawn towards rows that are planned already (real-time chunking for DDIM).

Black et al. 2025 ("Real-time execution of action chunking flow policies") guide a flow by the pseudo-inverse method of
Song et al. 2023 (PiGDM). Here is the same for DDIM. Let x = s c + n e be a sample of the clean chunk c and the noise e,
with s^2 + n^2 = 1, and c(x) what the network makes of it. Given rows y with weights W, the score of x gains
g = J^T W (y - c(x)) / r^2, where J = dc/dx and r is how unsure c still is: for actions that spread by d,
r^2 = n^2 d^2 / (n^2 + s^2 d^2). By Tweedie's formula the clean chunk moves by (n^2 / s) g, so

    c'(x) = c(x) + min(beta, (n^2 + s^2 d^2) / (s d^2)) J^T W (y - c(x)),    e' = (x - s c') / n.

For actions that are normal with spread d about zero, J = s d^2 / (n^2 + s^2 d^2), and c' is y wherever W is 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from policies.base import Kept
from policies.continuing import Method
from policies.sampling import DdimSampler


class Guidance:
    """Takes the steps of a sampler, each drawn towards the rows that are kept."""

    def __init__(self, sampler: DdimSampler, rows: Tensor, kept: Kept) -> None:
        """Nothing is drawn yet.

        Args:
            sampler: Whose steps are taken.
            rows: Normalised, (B, T, A).
            kept: How firmly, and by which method.
        """
        self._sampler, self._rows, self._kept = sampler, rows, kept
        self._weights = kept.weights.to(rows).unsqueeze(-1)

    def step(self, index: int, denoise: Callable[[Tensor], Tensor], sample: Tensor) -> Tensor:
        """The sample one step less noisy; `denoise` gives what the network predicts from a sample."""
        if self._kept.method is Method.constant:
            clean = self._sampler.clean(index, denoise(sample), sample)
            return self._sampler.towards(index, clean + self._weights * (self._rows - clean), sample)
        with torch.enable_grad():
            leaf = sample.detach().requires_grad_()
            clean = self._sampler.clean(index, denoise(leaf), leaf)
            error = (self._weights * (self._rows - clean)).detach()
            (pull,) = torch.autograd.grad(clean, leaf, error)
        return self._sampler.towards(index, clean.detach() + self.gain(index) * pull, sample)

    def gain(self, index: int) -> float:
        """What the pull through the Jacobian is multiplied by."""
        signal, noise = self._sampler.shares(index)
        spread = self._kept.prior_std**2
        return min(self._kept.beta, (noise**2 + signal**2 * spread) / (signal * spread))
