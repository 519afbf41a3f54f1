"""Proxy actions in the simulated world, against the actions that were really sent."""

import numpy as np
import pytest
import torch

from policies import inverse_dynamics
from policies.inverse_dynamics import InverseDynamicsConfig
from robot.episodes.dataset import Dataset
from robot.loop import rollout

pytestmark = pytest.mark.slow


def demonstrations(seeds, quality="noisy") -> Dataset:
    from robot import sim
    from robot.sim.config import EnvConfig
    from robot.sim.experts.quality import QUALITIES

    config = EnvConfig(task="lift")
    environment, episodes = sim.make(config), []
    for seed in seeds:
        steps = []
        rollout(environment, sim.expert("lift", environment.specs), seed, QUALITIES[quality].noise(seed), steps.append)
        columns = {key: np.array([step.observation[key] for step in steps]) for key in environment.specs.observation}
        episodes.append({**columns, "action": np.array([step.commanded for step in steps])})
    environment.close()
    return Dataset.from_episodes(environment.specs, episodes)


def test_proxies_are_near_the_actions_that_were_sent():
    torch.set_num_threads(1)
    keys = ["observation.state"]
    model, validation = inverse_dynamics.train(demonstrations(range(50)), keys, InverseDynamicsConfig())
    unseen = demonstrations(range(100, 110))
    found = [model.predict(states) for states in inverse_dynamics.states_of(unseen, keys)]
    errors = np.concatenate([mean for mean, _ in found]) - unseen.columns["action"]
    stds = np.concatenate([std for _, std in found])
    share = np.square(errors).mean(axis=0) / unseen.columns["action"].var(axis=0)
    assert share[:3].max() < 0.15  # translation
    assert share[6] < 0.2  # gripper
    assert validation.within_two_std > 0.85
    # What it calls uncertain is where it errs.
    normalised = errors / model.of_action.spread.numpy()
    is_uncertain = (stds > 0.5 * model.of_action.spread.numpy()).any(axis=1)
    assert np.square(normalised[is_uncertain]).mean() > 3 * np.square(normalised[~is_uncertain]).mean()
