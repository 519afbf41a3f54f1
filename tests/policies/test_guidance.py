"""Guided denoising against linear denoisers, whose guided steps are known in closed form."""

import numpy as np
import pytest
import torch
from torch import Tensor

from policies.base import Kept
from policies.continuing import Method
from policies.diffusion import noise_schedule, trailing_timesteps
from policies.guidance import Guidance
from policies.sampling import DdimSampler, Prediction

T, A, STEPS = 6, 2, 5
SIGNAL = noise_schedule(100)[trailing_timesteps(100, STEPS)].double()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def guidance(prediction: Prediction, rows: Tensor, weights: Tensor, method: Method, **settings: float) -> Guidance:
    return Guidance(DdimSampler(SIGNAL, prediction), rows, Kept(rows, weights, method, **settings))


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("index", range(STEPS))
@pytest.mark.parametrize("beta", [0.5, 1e9])
def test_a_linear_denoiser_is_guided_as_in_closed_form(prediction: Prediction, index: int, beta: float) -> None:
    """x -> M x over the whole chunk; every formula written out again in NumPy, with the scores."""
    matrix, sample = 0.2 * drawn(0, T * A, T * A), 0.3 * drawn(1, 1, T, A)
    rows, weights = 0.3 * drawn(2, 1, T, A), torch.tensor([[1, 1, 0.7, 0.3, 0, 0]], dtype=torch.float64)
    spread = 0.5
    guided = guidance(prediction, rows, weights, Method.guided, beta=beta, prior_std=spread)
    got = guided.step(index, lambda x: (x.flatten(1) @ matrix.T).view_as(x), sample)

    m, x, y, w = matrix.numpy(), sample.numpy().ravel(), rows.numpy().ravel(), np.repeat(weights.numpy().ravel(), A)
    share = float(SIGNAL[index])
    s, n = np.sqrt(share), np.sqrt(1 - share)
    jacobian = m if prediction is Prediction.sample else (np.eye(T * A) - n * m) / s
    clean = jacobian @ x
    unsure = n**2 * spread**2 / (n**2 + s**2 * spread**2)
    score = -(x - s * clean) / n**2
    strength = min(1 / unsure, beta * s / n**2)
    score = score + strength * jacobian.T @ (w * (y - clean))
    clean, noise = (x + n**2 * score) / s, -n * score
    following = float(SIGNAL[index + 1]) if index + 1 < STEPS else 1.0
    expected = np.sqrt(following) * np.clip(clean, -1, 1) + np.sqrt(1 - following) * noise
    np.testing.assert_allclose(got.numpy().ravel(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("spread", [0.2, 1.0])
@pytest.mark.parametrize("index", range(STEPS))
def test_for_normal_actions_firm_rows_are_met_and_free_ones_left(spread: float, index: int) -> None:
    """The best denoiser of actions that are normal with spread d is s d^2 x / (n^2 + s^2 d^2)."""
    share = float(SIGNAL[index])
    factor = share**0.5 * spread**2 / (1 - share + share * spread**2)
    rows = 0.3 * drawn(2, 1, T, A)
    weights = torch.tensor([[1, 1, 1, 0, 0, 0]], dtype=torch.float64)
    guided = guidance(Prediction.sample, rows, weights, Method.guided, beta=1e12, prior_std=spread)
    sample = 0.3 * drawn(1, 1, T, A)
    sampler = DdimSampler(SIGNAL, Prediction.sample)
    expected = sampler.towards(index, torch.cat([rows[:, :3], factor * sample[:, 3:]], dim=1), sample)
    torch.testing.assert_close(guided.step(index, lambda x: factor * x, sample), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", [Method.guided, Method.constant])
def test_without_weight_the_steps_are_those_of_the_sampler(method: Method) -> None:
    rows, weights = drawn(2, 3, T, A), torch.zeros(3, T, dtype=torch.float64)
    plain, guided = DdimSampler(SIGNAL, Prediction.sample), guidance(Prediction.sample, rows, weights, method)
    ours = theirs = drawn(1, 3, T, A)
    for index in range(STEPS):
        ours = guided.step(index, lambda x: 0.4 * x.tanh(), ours)
        theirs = plain.step(index, 0.4 * theirs.tanh(), theirs)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_constant_with_hard_weights_is_inpainting() -> None:
    """Rows of weight 1 come out as they were given; the others as though those had been in the sample all along."""
    rows, weights = 0.5 * drawn(2, 1, T, A).clamp(-1, 1), torch.tensor([[1, 1, 1, 0, 0, 0]], dtype=torch.float64)
    guided = guidance(Prediction.sample, rows, weights, Method.constant)
    sample = drawn(1, 1, T, A)
    for index in range(STEPS):
        sample = guided.step(index, lambda x: 0.5 * x.mean(1, keepdim=True).expand_as(x), sample)
    torch.testing.assert_close(sample[:, :3], rows[:, :3])


def test_guided_by_the_identity_is_constant() -> None:
    """Where the network is the identity and the gain is 1, the two methods are one."""
    rows, weights = 0.3 * drawn(2, 1, T, A), torch.rand(1, T, dtype=torch.float64)
    pair = [guidance(Prediction.sample, rows, weights, method, beta=1.0) for method in (Method.guided, Method.constant)]
    sample = 0.3 * drawn(1, 1, T, A)
    assert pair[0].gain(2) == 1.0
    torch.testing.assert_close(*(one.step(2, lambda x: x, sample) for one in pair))
