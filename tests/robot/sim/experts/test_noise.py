import numpy as np

from robot.sim.experts.noise import action_noise


def test_noise_is_seeded_bounded_and_leaves_the_intent_alone() -> None:
    intent = np.array([0.9, -0.9, 0.0, 0.0, 0.0, 0.9, 1.0], np.float32)
    kept = intent.copy()
    runs = [np.array([noise(intent) for _ in range(2000)]) for noise in map(action_noise, (1, 1, 2))]
    np.testing.assert_array_equal(intent, kept)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert np.abs(runs[0]).max() <= 1.0
    assert {-1.0, 1.0} == set(runs[0][:, 6].tolist())
    wander = runs[0][:, 3] - np.mean(runs[0][:, 3])
    assert np.corrcoef(wander[1:], wander[:-1])[0, 1] > 0.6
