"""The measures on demonstrations of known quality: those of the scripted expert in the simulated world."""

import numpy as np
import pytest

from robot.episodes.curation import divergence
from robot.episodes.curation.assessment import assess
from robot.episodes.curation.demonstrations import of_rows
from robot.loop import rollout

pytestmark = pytest.mark.slow
COUNT = 10
FAILURES = 5


@pytest.fixture(scope="module")
def episodes():
    """Columns of episodes by quality, and the specs. `stage` is the action that is shown: what was sent."""
    from robot import sim
    from robot.sim.config import EnvConfig
    from robot.sim.experts.quality import QUALITIES

    config = EnvConfig(task="lift")
    environment = sim.make(config)
    found = {}
    for name, quality in QUALITIES.items():
        found[name] = []
        for seed in range(COUNT if name != "failing" else FAILURES):
            steps = []
            demonstrator = quality.demonstrator(sim.expert(config.task, environment.specs))
            rollout(environment, demonstrator, seed, quality.noise(seed), steps.append)
            columns = {
                key: np.array([step.observation[key] for step in steps]) for key in environment.specs.observation
            }
            columns["action"] = np.array([step.commanded for step in steps])
            columns["next.success"] = np.array([step.success for step in steps])
            found[name].append(columns)
    environment.close()
    return environment.specs, found


def assessed(episodes, *qualities):
    specs, found = episodes
    named = [(f"{quality}{i}", columns) for quality in qualities for i, columns in enumerate(found[quality])]
    return assess(of_rows(specs, named))


def test_blows_and_failures_score_below_clean_demonstrations(episodes):
    found = assessed(episodes, "clean", "noisy", "failing")
    clean, noisy, rest = np.split(found.score, [COUNT, 2 * COUNT])
    failed = rest[found.demonstrations.success[2 * COUNT :] == 0]
    assert len(failed) >= 2
    assert np.median(clean) > np.median(noisy)
    assert (clean[:, None] > noisy[None, :]).mean() > 0.7
    assert failed.max() < min(clean.min(), noisy.min())
    # The failures are what to look at first.
    assert {found.demonstrations.names[i][:4] for i in found.order[: len(failed)]} == {"fail"}


def test_blows_make_actions_diverge_and_paths_longer(episodes):
    clean, noisy = (assessed(episodes, quality) for quality in ("clean", "noisy"))
    assert noisy.totals["divergence"] > 1.3 * clean.totals["divergence"]
    assert noisy.typical["path_ratio"] > clean.typical["path_ratio"]
    assert noisy.typical["ldlj"] < clean.typical["ldlj"]


def test_the_blown_deviate_from_the_others_in_a_mixture(episodes):
    found = assessed(episodes, "clean", "noisy")
    deviation = divergence.of_episodes(found.spreads.deviation, found.demonstrations.lengths)
    assert np.median(deviation[COUNT:]) > 1.5 * np.median(deviation[:COUNT])


def test_nothing_much_stands_out_among_clean_demonstrations(episodes):
    found = assessed(episodes, "clean")
    assert sum(bool(reasons) for reasons in found.reasons) <= 2
    assert found.totals["different_starts"] > 0.8 * COUNT
