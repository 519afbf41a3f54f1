import numpy as np
import pytest

from robot.episodes.curation import divergence
from robot.episodes.curation.divergence import Frames, spreads
from tests.robot.episodes.curation.worlds import STATE, dataset


def frames_of(data, groups=None):
    count = len(data.episode_lengths)
    states, actions = data.columns[STATE].astype(float), data.columns["action"].astype(float)
    return Frames(states, actions, data.episode_lengths, np.arange(count) if groups is None else np.asarray(groups))


def total(data, name, **settings):
    return divergence.mean(getattr(spreads(frames_of(data), 5, **settings), name))


def two_states(noise, seed=0, episodes=400):
    """Episodes of one frame at one of two states, with an action of -1 or 1 that the state decides, and noise."""
    rng = np.random.default_rng(seed)
    states = rng.choice([-1.0, 1.0], (episodes, 1))
    actions = states + noise * rng.normal(size=states.shape)
    nearly = states + 1e-4 * rng.normal(size=states.shape)  # of equals all would have the same neighbours
    return Frames(nearly, actions, np.ones(episodes, int), np.arange(episodes))


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 2.0])
def test_divergence_is_the_share_of_the_variance_that_the_state_does_not_explain(noise):
    """At equal states the actions differ by noise alone; in all, by 1 + noise^2."""
    found = spreads(two_states(noise), 5)
    expected = noise**2 / (1 + noise**2)
    assert divergence.mean(found.divergence) == pytest.approx(expected, rel=0.1, abs=1e-12)
    assert divergence.mean(found.deviation) == pytest.approx(expected, rel=0.1, abs=1e-12)
    assert found.divergence_at_zero == pytest.approx(expected, rel=0.15, abs=1e-12)


def test_the_one_who_disagrees_is_named_and_the_others_are_not():
    frames = two_states(0.1)
    frames.actions[7] *= -1
    deviation = spreads(frames, 5).deviation
    assert deviation[7] == np.nanmax(deviation)
    assert deviation[7] > 5 * np.partition(deviation, -10)[-10]


def test_extrapolation_to_equal_states_removes_what_distance_adds():
    """A smooth deterministic expert at states that are never near each other, and the same with noise."""
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (600, 3))
    actions = np.stack([np.sin(states.sum(axis=1)), states[:, 0] * states[:, 1]], axis=1)
    still = spreads(Frames(states, actions, np.ones(600, int), np.arange(600)), 8)
    noisy = actions + 0.3 * actions.std(axis=0) * rng.normal(size=actions.shape)
    shaken = spreads(Frames(states, noisy, np.ones(600, int), np.arange(600)), 8)
    assert divergence.mean(still.divergence) > 0.03
    assert still.divergence_at_zero < 0.01
    assert shaken.divergence_at_zero == pytest.approx(0.09 / 1.09, rel=0.35)


def test_experts_who_pass_on_different_sides_diverge():
    one = dataset(24, side=2.0)
    left, right = dataset(12, side=2.0), dataset(12, seed=1, side=-2.0)
    both = frames_of(left), frames_of(right)
    mixed = Frames(
        np.concatenate([f.states for f in both]),
        np.concatenate([f.actions for f in both]),
        np.concatenate([f.lengths for f in both]),
        np.arange(24),
    )
    found = spreads(mixed, 5)
    assert divergence.mean(found.divergence) > 1.5 * total(one, "divergence")
    assert found.divergence_at_zero > 2 * spreads(frames_of(one), 5).divergence_at_zero


def test_divergence_grows_with_blunders():
    values = [total(dataset(blunder=blunder), "divergence") for blunder in (0.0, 0.1, 0.3)]
    assert values[0] < values[1] < values[2]


def test_diversity_and_noise_grow_with_pushes_of_the_world():
    for name in ("diversity", "noise"):
        values = [total(dataset(push=push), name) for push in (0.0, 0.01, 0.03)]
        assert values[0] < values[1] < values[2], name


def test_noise_blames_the_world_and_not_the_expert():
    """An expert who acts at random in a world that obeys: next states differ at equal states, not at equal actions."""
    actions = np.random.default_rng(0).choice([-1.0, 1.0], (600, 1))
    states = np.concatenate([[[1.0]], actions[:-1]])  # the next state is the action
    found = spreads(Frames(states, actions, np.full(30, 20), np.arange(30)), 5)
    # The change is the action less the state: half of its variance is left at a known state, none at a known action.
    assert divergence.mean(found.diversity) == pytest.approx(0.5, abs=0.06)
    assert divergence.mean(found.noise) == 0.0


def test_units_do_not_matter():
    frames, rng = frames_of(dataset(push=0.01, blunder=0.1)), np.random.default_rng(5)
    changed = Frames(
        frames.states * 10 ** rng.uniform(-3, 3, 4) * [1, -1, 1, -1] + [0, 5, -3, 1],
        frames.actions * [1000, -0.01, 1] + [1, 2, 3],
        frames.lengths,
        frames.groups,
    )
    ours, theirs = spreads(frames, 5), spreads(changed, 5)
    for name in ("divergence", "deviation", "diversity", "noise", "distance", "novelty"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-5, err_msg=name)
    assert theirs.divergence_at_zero == pytest.approx(ours.divergence_at_zero, rel=1e-5)


def test_copies_change_nothing():
    frames = frames_of(dataset(12, push=0.01))
    ends = np.cumsum(frames.lengths)
    again = [np.concatenate([rows, rows[: ends[1]], rows[: ends[0]]]) for rows in (frames.states, frames.actions)]
    lengths = np.concatenate([frames.lengths, frames.lengths[:2], frames.lengths[:1]])
    copied = Frames(*again, lengths, np.array([*range(12), 0, 1, 0]))
    ours, theirs = spreads(frames, 5), spreads(copied, 5)
    for name in ("divergence", "deviation", "noise", "distance"):
        np.testing.assert_allclose(getattr(theirs, name)[: ends[-1]], getattr(ours, name), rtol=1e-9, err_msg=name)
        weighted = divergence.mean(getattr(theirs, name), copied.weights)
        assert weighted == pytest.approx(divergence.mean(getattr(ours, name)), rel=1e-9)
    assert theirs.noise_at_zero == pytest.approx(ours.noise_at_zero, rel=1e-9)


def test_a_radius_leaves_lonely_frames_out():
    frames = two_states(0.1)
    frames.states[3] = 40.0
    found = spreads(frames, 5, radius=0.5)
    assert np.isnan(found.divergence[3])
    assert np.isnan(found.divergence).sum() == 1
    assert found.distance[3] > 5


def test_fewer_frames_give_about_the_same():
    data = dataset(40, blunder=0.1)
    assert total(data, "divergence", most=len(data) // 3) == pytest.approx(total(data, "divergence"), rel=0.3)
    assert np.isnan(spreads(frames_of(data), 5, most=200).divergence).sum() >= len(data) - 250


def test_one_episode_has_nothing_to_differ_from():
    found = spreads(frames_of(dataset(1)), 5)
    assert found.k == 0
    assert np.isnan(divergence.mean(found.divergence))


def test_episodes_of_one_frame_have_no_transitions():
    found = spreads(two_states(0.1, episodes=6), 3)
    assert np.isnan(found.noise).all()
    assert not np.isnan(found.divergence).any()


def test_an_action_that_never_varies_agrees():
    frames = two_states(0.0)
    frames.actions[:] = 0.5
    assert divergence.mean(spreads(frames, 5).divergence) == 0.0


def test_means_of_episodes_skip_what_is_not_known():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    np.testing.assert_array_equal(divergence.of_episodes(values, np.array([3, 1])), [2.0, np.nan])


def test_tasks_that_want_opposite_things_do_not_diverge():
    """The same states, opposite actions, one task each."""
    states = np.random.default_rng(0).normal(size=(60, 1))
    signs = np.repeat([1.0, -1.0], 30)[:, None]
    lengths, groups = np.ones(60, int), np.arange(60)
    apart = spreads(Frames(states, signs, lengths, groups, np.repeat([0, 1], 30)), 5)
    mixed = spreads(Frames(states, signs, lengths, groups), 5)
    assert divergence.mean(apart.divergence) == 0.0
    assert divergence.mean(mixed.divergence) > 0.5
