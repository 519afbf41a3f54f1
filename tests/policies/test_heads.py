from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from policies.act import sinusoids
from policies.base import AbstractHead, HeadConfig
from policies.continuing import Continuation, Method
from policies.ema import MovingAverage, decay
from policies.head_policy import HeadPolicy
from policies.trainer import Settings, Trainer, learning_rate
from robot.conformance.policy import PolicyConformance
from robot.contract import Policy
from robot.episodes.loading.order import Shuffled
from robot.episodes.loading.windows import Windows
from robot.errors import ConfigError, SpecError
from tests.policies.worlds import HEADS, SPECS, act, demonstrations, diffusion

Make = Callable[..., HeadConfig]
both = pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)


def head_of(config: HeadConfig) -> AbstractHead:
    torch.manual_seed(0)
    return config.build(SPECS, demonstrations().stats)


def batch_of(config: HeadConfig, size: int = 16, first: int = 0) -> dict[str, torch.Tensor]:
    windows = Windows(demonstrations(), config.n_obs_steps, config.horizon)
    return {key: torch.from_numpy(value) for key, value in windows.batch(np.arange(first, first + size)).items()}


def ready(config: HeadConfig) -> Policy:
    head = head_of(config).eval().requires_grad_(False)
    head.prepare()
    return HeadPolicy(head)


class TestDiffusionPolicy(PolicyConformance):
    def make(self) -> Policy:
        return ready(diffusion())


class TestPrefixPolicy(PolicyConformance):
    def make(self) -> Policy:
        return ready(diffusion(prefix_max=3))


class TestACTPolicy(PolicyConformance):
    def make(self) -> Policy:
        return ready(act())


@both
def test_the_loss_reaches_every_parameter(make: Make) -> None:
    config = make()
    head = head_of(config)
    head.loss(batch_of(config))[0].backward()
    still = [name for name, value in head.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert still == []


@both
def test_learns_a_small_task(make: Make) -> None:
    """Every chunk of an episode, in physical units."""
    # One demonstration is learned by heart: a level of the U-Net is enough for it, and dropout would not help.
    config = make(**({"down_dims": [32]} if make is diffusion else {"dropout": 0.0}))
    data = demonstrations(episodes=1)
    windows = Windows(data, config.n_obs_steps, config.horizon)
    order = Shuffled(len(windows), 0)
    steps = 300
    torch.manual_seed(0)
    trainer = Trainer(config.build(SPECS, data.stats), config, Settings(steps, 64, 0, 3e-3), torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(steps):
        trainer.advance(windows.batch(order.at(64 * step + np.arange(64))))
    torch.set_num_threads(threads)
    trainer.head.load_state_dict(trainer.model())
    batch = {key: torch.from_numpy(value) for key, value in windows.batch(np.arange(len(windows))).items()}
    with torch.inference_mode():
        predicted = trainer.head.eval().predict(batch, torch.Generator().manual_seed(0))
    error = (predicted - batch["action"]).abs()[~batch["action_is_pad"]].mean()
    spread = (batch["action"] - batch["action"].mean((0, 1))).abs().mean()
    assert error < 0.15 * spread


def test_padding_is_outside_the_loss_of_act() -> None:
    """What padded actions are changes nothing; what valid ones are does."""
    config = act(dropout=0.0)
    head = head_of(config).eval()
    batch = batch_of(config, first=12, size=8)
    pad = batch["action_is_pad"]
    assert pad.any()
    assert not pad.all()

    def loss(actions: torch.Tensor) -> float:
        torch.manual_seed(1)
        return float(head.loss({**batch, "action": actions})[0].detach())

    moved = torch.where(pad.unsqueeze(-1), batch["action"] + 5, batch["action"])
    assert loss(moved) == pytest.approx(loss(batch["action"]), rel=1e-6)
    assert loss(batch["action"] + 5 * ~pad.unsqueeze(-1)) != pytest.approx(loss(batch["action"]), rel=0.1)


def test_the_loss_of_act_is_a_mean_over_valid_actions() -> None:
    """With a decoder that answers zero, L1 is the mean size of the valid normalised actions, whatever is padded."""
    config = act(kl_weight=0.0)
    head: Any = head_of(config)
    torch.nn.init.zeros_(head.to_action.weight)
    torch.nn.init.zeros_(head.to_action.bias)
    batch = batch_of(config, first=12, size=8)
    expected = head.action(batch["action"])[~batch["action_is_pad"]].abs().mean()
    torch.testing.assert_close(head.loss(batch)[0], expected)


def test_act_without_style_answers_alike_whatever_is_drawn() -> None:
    config = act()
    head = head_of(config).eval()
    batch = batch_of(config)
    first, second = (head.predict(batch, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_diffusion_draws() -> None:
    config = diffusion()
    head = head_of(config).eval()
    batch = batch_of(config)
    first, second = (head.predict(batch, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert not torch.allclose(first, second)


def continuation(method: Method, firm: int, rows: int = 6) -> Continuation:
    planned = np.linspace(-0.5, 0.5, 2 * rows).reshape(rows, 2)
    return Continuation(planned, np.repeat([1.0, 0.0], [firm, rows - firm]), method)


@pytest.mark.parametrize("method", [Method.prefix, Method.constant])
def test_firm_rows_come_out_as_they_went_in(method: Method) -> None:
    policy = ready(diffusion(prefix_max=3))
    assert isinstance(policy, HeadPolicy)
    observation = TestPrefixPolicy().observation(policy)
    told = continuation(method, firm=3)
    chunk = policy.continue_from(observation, told)
    np.testing.assert_allclose(chunk.actions[:3], told.rows[:3], atol=1e-6)
    policy.reset(0)
    again = policy.continue_from(observation, told)
    np.testing.assert_array_equal(chunk.actions, again.actions)
    policy.reset(0)
    # What follows depends on them.
    other = policy.continue_from(observation, Continuation(-told.rows, told.weights, method))
    assert not np.allclose(chunk.actions[3:], other.actions[3:], atol=1e-4)


def test_guidance_goes_through_the_network() -> None:
    """What it does is tested on networks with a formula; here it only has to do something, the same every time."""
    policy = ready(diffusion())
    assert isinstance(policy, HeadPolicy)
    observation, told = TestDiffusionPolicy().observation(policy), continuation(Method.guided, 3)
    chunks = [policy.act(observation).actions]
    for _ in range(2):
        policy.reset(0)
        chunks.append(policy.continue_from(observation, told).actions)
    np.testing.assert_array_equal(chunks[1], chunks[2])
    assert not np.allclose(chunks[0], chunks[1], atol=1e-3)


@both
def test_what_a_head_cannot_go_on_from_is_refused(make: Make) -> None:
    policy = ready(make())
    assert isinstance(policy, HeadPolicy)
    assert policy.methods.keys() == ({Method.guided, Method.constant} if make is diffusion else set())
    observation = TestDiffusionPolicy().observation(policy)
    with pytest.raises(ConfigError, match="cannot go on from rows"):
        policy.continue_from(observation, continuation(Method.prefix, 2))


@pytest.mark.parametrize(
    ("rows", "weights", "says"),
    [
        (np.zeros((4, 3)), np.ones(4), r"rows \(4, 3\)"),
        (np.zeros((4, 2)), np.ones(5), r"weights \(5,\)"),
        (np.zeros((4, 2)), np.full(4, 1.5), r"in \[0, 1\]"),
        (np.zeros((4, 2)), np.full(4, np.nan), r"in \[0, 1\]"),
        (np.full((4, 2), np.nan), np.ones(4), "not finite"),
    ],
)
def test_plans_that_do_not_fit_are_refused(rows: np.ndarray, weights: np.ndarray, says: str) -> None:
    policy = ready(diffusion())
    assert isinstance(policy, HeadPolicy)
    with pytest.raises(SpecError, match=says):
        policy.continue_from(TestDiffusionPolicy().observation(policy), Continuation(rows, weights, Method.constant))


def test_the_prefix_is_outside_the_loss() -> None:
    """A network that answers zero is blamed for the rows after the prefix only, and is shown the prefix as it is."""
    config = diffusion(prefix_max=7)
    head: Any = head_of(config)
    torch.nn.init.zeros_(head.unet.to_action.weight)
    torch.nn.init.zeros_(head.unet.to_action.bias)
    seen: list[torch.Tensor] = []
    head.unet.down[0][0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].transpose(1, 2)))
    batch = batch_of(config)
    loss = head.loss(batch)[0]
    actions, marks = head.action(batch["action"]), seen[0][..., -1] > 0
    torch.testing.assert_close(loss, actions[~marks].square().mean())
    torch.testing.assert_close(seen[0][..., :-1][marks], actions[marks])
    lengths = marks.sum(1)
    assert (marks == (torch.arange(8) < lengths[:, None])).all()
    assert lengths.min() < 2
    assert lengths.max() > 5


def test_without_prefixes_a_head_is_what_it_was() -> None:
    """Numbers from before there were prefixes: the same weights, the same draws, the same chunk."""
    head = head_of(diffusion())
    torch.manual_seed(3)
    assert float(head.loss(batch_of(diffusion()))[0].detach()) == pytest.approx(0.24997037649, rel=1e-5)
    batch = {key: value[:1] for key, value in batch_of(diffusion()).items()}
    head.eval().requires_grad_(False)
    head.prepare()
    with torch.inference_mode():
        chunk = head.predict(batch, torch.Generator().manual_seed(0))
    assert chunk.flatten()[:3].tolist() == pytest.approx([-0.236534, -0.307858, -0.181915], abs=1e-5)


def test_positions_are_sines_then_cosines() -> None:
    expected = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.84147, 0.01, 0.5403, 0.99995]]])
    torch.testing.assert_close(sinusoids(2, 4), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (diffusion(horizon=10, down_dims=[8, 16, 32]), r"multiple of 4"),
        (diffusion(down_dims=[12, 16]), r"multiple of policy.n_groups"),
        (diffusion(down_dims=[]), r"down_dims"),
        (diffusion(kernel_size=4), r"odd"),
        (diffusion(inference_timesteps=101), r"inference_timesteps is 101"),
        (diffusion(n_action_steps=9), r"n_action_steps 9"),
        (diffusion(prefix_max=8), r"prefix_max is 8, expected at least 0 and less than policy.horizon, 8"),
        (diffusion(prefix_max=-1), r"prefix_max is -1"),
        (act(width=33), r"n_heads"),
        (act(decoder_layers=0), r"decoder_layers is 0"),
        (act(dropout=1.0), r"dropout"),
        (act(n_obs_steps=0), r"n_obs_steps 0"),
    ],
)
def test_impossible_sizes_are_refused(config: HeadConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.build(SPECS, demonstrations().stats)


def test_actions_that_are_not_finite_are_refused() -> None:
    policy = HeadPolicy(act().build(SPECS, None).eval().requires_grad_(False))  # normalisation is NaN
    with pytest.raises(SpecError, match="not finite"):
        policy.act(TestACTPolicy().observation(policy))


def test_decay_follows_its_formula() -> None:
    assert decay(0, 0.75) == 0.0
    assert decay(15, 0.75) == pytest.approx(1 - 1 / 8)  # 16^-0.75 = 1/8
    assert decay(10**9, 0.75) == 0.9999


def test_the_average_is_the_recursion() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(layer, power=0.75)
    expected = 0.0
    for update, value in enumerate([4.0, 1.0, -2.0, 8.0]):
        torch.nn.init.constant_(layer.weight, value)
        average.update()
        d = 1 - (1 + update) ** -0.75
        expected = d * expected + (1 - d) * value
    assert float(average.parameters()["weight"]) == pytest.approx(expected, rel=1e-6)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
