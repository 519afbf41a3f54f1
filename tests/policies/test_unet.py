import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from policies.diffusion import noise_schedule, trailing_timesteps
from policies.packed_unet import PackedUnet
from policies.sampling import DdimSampler, Prediction
from policies.unet import ConditionalUnet, StepEmbedding, UnetSizes

SIZES = UnetSizes(down_dims=(16, 32, 64), kernel_size=5, n_groups=8, step_embedding=16)


@pytest.fixture
def unet() -> ConditionalUnet:
    torch.manual_seed(0)
    return ConditionalUnet(action_size=7, condition_size=60, sizes=SIZES)


def convolution(c_in: int, c_out: int, width: int) -> int:
    return c_out * (c_in * width + 1)


def residual(c_in: int, c_out: int, condition: int) -> int:
    """Two convolution blocks, FiLM, shortcut; counted by hand from Chi et al.'s block."""
    blocks = convolution(c_in, c_out, 5) + convolution(c_out, c_out, 5) + 2 * 2 * c_out
    film = 2 * c_out * (condition + 1)
    return blocks + film + (convolution(c_in, c_out, 1) if c_in != c_out else 0)


def test_parameters_are_those_of_the_paper(unet: ConditionalUnet) -> None:
    g = 16 + 60
    pairs = [(7, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64)]
    pairs += [(128, 32), (32, 32), (64, 16), (16, 16)]
    expected = sum(residual(c_in, c_out, g) for c_in, c_out in pairs)
    expected += sum(convolution(dim, dim, 3) for dim in (16, 32))
    expected += sum(convolution(dim, dim, 4) for dim in (32, 16))
    expected += convolution(16, 16, 5) + 2 * 16 + convolution(16, 7, 1)
    expected += 64 * 17 + 16 * 65  # step embedding
    assert sum(parameter.numel() for parameter in unet.parameters()) == expected


def test_keeps_the_shape(unet: ConditionalUnet) -> None:
    film = unet.conditioning(torch.randn(3, 60), torch.tensor([0, 50, 99]))
    assert unet(torch.randn(3, 16, 7), film).shape == (3, 16, 7)


def test_depends_on_sample_observation_and_step(unet: ConditionalUnet) -> None:
    noisy, condition, step = torch.randn(1, 16, 7), torch.randn(1, 60), torch.tensor([10])
    out = unet(noisy, unet.conditioning(condition, step))
    assert not torch.allclose(out, unet(noisy + 0.1, unet.conditioning(condition, step)))
    assert not torch.allclose(out, unet(noisy, unet.conditioning(condition + 0.1, step)))
    assert not torch.allclose(out, unet(noisy, unet.conditioning(condition, step + 40)))


def test_every_parameter_learns(unet: ConditionalUnet) -> None:
    unet(torch.randn(2, 16, 7), unet.conditioning(torch.randn(2, 60), torch.tensor([1, 2]))).square().sum().backward()
    still = [name for name, value in unet.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert still == []


@pytest.mark.parametrize("dims", [(16,), (16, 32), (8, 16, 32)])
@pytest.mark.parametrize("horizon", [4, 16])
@pytest.mark.parametrize("marks", [0, 1])
def test_packed_is_the_same_function(dims: tuple[int, ...], horizon: int, marks: int) -> None:
    torch.manual_seed(1)
    unet = ConditionalUnet(5, 10, UnetSizes(dims, 5, 8, 16), marks)
    for value in unet.parameters():  # away from the initial values, where scales are near one and norms do nothing
        nn.init.normal_(value, std=0.3)
    packed = PackedUnet(unet)
    for step in (0, 99):
        film = unet.conditioning(torch.randn(1, 10), torch.tensor([step]))
        noisy = torch.randn(1, horizon, 5 + marks)
        with torch.inference_mode():
            expected = unet(noisy, film)
            torch.testing.assert_close(packed(noisy, film), expected, rtol=1e-4, atol=1e-4)


def test_step_embedding_is_sines_and_cosines() -> None:
    embedding = StepEmbedding(4)
    embedding.layers = nn.Identity()
    # Width 4: frequencies 1 and 1e-4; sin and cos of 3 and 3e-4, worked out by hand.
    expected = torch.tensor([[0.14112, 0.0003, -0.98999, 1.0]])
    torch.testing.assert_close(embedding(torch.tensor([3])), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 100])
def test_ddim_steps_are_those_of_diffusers(steps: int, prediction: Prediction) -> None:
    scheduler = DDIMScheduler(
        100,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        prediction_type=prediction.value,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    timesteps = trailing_timesteps(100, steps)
    assert timesteps.tolist() == scheduler.timesteps.tolist()
    sampler = DdimSampler(noise_schedule(100)[timesteps], prediction)
    ours = theirs = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(0))
    for index, step in enumerate(scheduler.timesteps):
        noise = torch.randn(2, 16, 7, generator=torch.Generator().manual_seed(index + 1))
        ours = sampler.step(index, noise, ours)
        theirs = scheduler.step(noise, step, theirs).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert int(timesteps[0]) == 99


def test_the_noise_schedule_is_the_squared_cosine() -> None:
    """Against Nichol and Dhariwal 2021, equation 17, before the largest step is capped."""
    angle = (torch.arange(1, 100) / 100 + 0.008) / 1.008 * torch.pi / 2
    begin = torch.cos(torch.tensor(0.008 / 1.008 * torch.pi / 2)).square()
    torch.testing.assert_close(noise_schedule(100)[:-1], torch.cos(angle).square() / begin, rtol=1e-3, atol=1e-6)
