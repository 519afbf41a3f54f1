import numpy as np
import pytest

from robot.episodes.curation import assessment
from robot.episodes.curation.assessment import Settings, assess
from robot.episodes.curation.demonstrations import Demonstrations, of_dataset, of_rows
from robot.episodes.curation.measures import MEASURES
from robot.episodes.curation.weights import Sampler, window_weights
from robot.episodes.dataset import Dataset
from robot.errors import DatasetError, UnknownNameError
from tests.robot.episodes.curation.worlds import SPECS, STATE, drive


def mixture(*kinds, count=12):
    """Episodes of several kinds in turn, as one dataset; kinds are arguments of `drive`."""
    rngs = [np.random.default_rng(number) for number in range(len(kinds))]
    episodes = [drive(rng, **kind) for _ in range(count) for rng, kind in zip(rngs, kinds, strict=True)]
    return Dataset.from_episodes(SPECS, episodes)


def test_blundering_and_failing_episodes_score_below_clean_ones():
    data = mixture({}, {"blunder": 0.15}, {"idle": 95, "frames": 100})
    scores = assess(of_dataset(data)).score.reshape(-1, 3)
    clean, blundering, failing = scores.T
    assert np.median(clean) > np.median(blundering) + 0.3
    # Nearly every clean one scores above nearly every blundering one.
    assert (clean[:, None] > blundering[None, :]).mean() > 0.9
    assert failing.max() < min(clean.min(), blundering.min())


def test_what_is_wrong_is_said():
    rng = np.random.default_rng(0)
    episodes = [drive(rng) for _ in range(12)]
    episodes += [drive(rng, idle=30), drive(rng, blunder=0.6), drive(rng, frames=12), episodes[3]]
    found = assess(of_dataset(Dataset.from_episodes(SPECS, episodes)))
    texts = ["; ".join(lines) for lines in found.reasons]
    assert "stands still" in texts[12]
    assert "acts unlike" in texts[13]
    assert texts[14].startswith("failed")
    assert texts[15] == "is a copy of episode 3"
    assert sum(bool(text) for text in texts[:12]) <= 2
    assert set(found.order[:4].tolist()) >= {12, 13, 14}
    assert found.totals["copies"] == 1
    assert found.totals["success_rate"] == pytest.approx(14 / 15)


def test_units_do_not_change_the_assessment():
    data = mixture({}, {"blunder": 0.2}, count=6)
    ours = of_dataset(data)
    # Millimetres, and an action in another unit with its limits.
    spec = SPECS.action
    action = type(spec)("action", (3,), low=-7.0, high=7.0, names=spec.names)
    specs = type(SPECS)(SPECS.observation, action, "ee_delta", SPECS.dt_s, "Point", "go")
    theirs = Demonstrations(
        specs, ours.names, ours.elements, [1000 * s for s in ours.states], [7 * a for a in ours.actions], ours.success
    )
    first, second = assess(ours), assess(theirs)
    np.testing.assert_allclose(second.score, first.score, atol=1e-6)
    assert second.totals["divergence_at_zero"] == pytest.approx(first.totals["divergence_at_zero"], abs=1e-6)
    for name in first.values:
        np.testing.assert_allclose(second.values[name], first.values[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_copies_change_no_total_and_no_score_of_others():
    rng = np.random.default_rng(4)
    episodes = [drive(rng, push=0.01) for _ in range(10)]
    ours, theirs = (
        assess(of_dataset(Dataset.from_episodes(SPECS, episodes + copies))) for copies in ([], [episodes[0]] * 3)
    )
    np.testing.assert_allclose(theirs.score[:10], ours.score, atol=1e-9)
    for name in ("divergence", "diversity", "noise", "divergence_at_zero", "occupied", "different_episodes"):
        assert theirs.totals[name] == pytest.approx(ours.totals[name], rel=1e-9), name


def test_badness_by_hand():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 30.0])
    # Median 3.5, absolute deviations 2.5 1.5 .5 .5 1.5 26.5: their median is 1.5.
    z = assessment.badness_of("toggles", values, np.arange(6))
    np.testing.assert_allclose(z, (values - 3.5) / (1.4826 * 1.5))
    np.testing.assert_allclose(assessment.badness_of("ldlj", values, np.arange(6)), -z)


def test_one_odd_value_among_equals_is_an_outlier():
    z = assessment.badness_of("toggles", np.array([1.0] * 19 + [9.0]), np.arange(20))
    assert z[-1] > 3.5
    assert not z[:-1].any()


def test_a_difference_below_the_floor_is_none():
    z = assessment.badness_of("path_ratio", np.array([1.0] * 19 + [1.02]), np.arange(20))
    assert z[-1] < 1


def test_durations_are_bad_both_ways_and_by_their_ratio():
    durations = 2.0 ** np.array([0.0, 0.0, 0.1, -0.1, 0.0, 0.1, -0.1, 2.0, -2.0])
    z = assessment.badness_of("duration_s", durations, np.arange(9))
    assert z[-1] == pytest.approx(z[-2])
    assert z[-1] > 3.5


def test_few_episodes_have_no_outliers():
    rng = np.random.default_rng(0)
    data = Dataset.from_episodes(SPECS, [drive(rng), drive(rng), drive(rng, idle=50)])
    assert assess(of_dataset(data)).reasons == [[], [], []]


def test_one_episode_is_assessed():
    found = assess(of_dataset(mixture({}, count=1)))
    assert found.spreads.k == 0
    assert found.to_json()["totals"]["divergence"] is None
    assert "deviation" not in found.values


def test_values_that_are_not_known_judge_nobody():
    data = mixture({}, count=8)
    known = of_dataset(data)
    facts = {"jitter_ms": np.array([np.nan] * 7 + [40.0]), "drops": np.full(8, np.nan)}
    found = assess(Demonstrations(**{**vars(known), "facts": facts}))
    assert "drops" not in found.values
    assert np.isfinite(found.score).all()


def test_states_may_be_chosen():
    data = mixture({}, count=3)
    assert of_dataset(data, [STATE]).elements == tuple(f"{STATE}:{name}" for name in ("x", "y", "goal_x", "goal_y"))
    with pytest.raises(UnknownNameError, match="observation"):
        of_dataset(data, ["observation.stat"])


def test_a_value_that_is_not_finite_names_its_episode_and_row():
    episode = drive(np.random.default_rng(0))
    episode["action"][4, 1] = np.nan
    with pytest.raises(DatasetError, match=r"Episode b: the action of row 4 is not finite\. .* relabel"):
        of_rows(SPECS, [("a", drive(np.random.default_rng(1))), ("b", episode)])


def test_nothing_to_measure_is_said():
    with pytest.raises(DatasetError, match="no episode"):
        of_rows(SPECS, [])


def test_settings_reach_the_measures():
    data = of_dataset(mixture({}, count=12))
    assert assess(data, Settings(k=3)).spreads.k == 3
    assert assess(data, Settings(radius=1e-6)).totals["compared"] < 0.05
    assert assess(data, Settings(frames=60)).totals["compared"] < 0.5


def test_better_episodes_are_sampled_more_often():
    data = mixture({}, {"blunder": 0.3}, count=8)
    weights = window_weights(data, Sampler("quality", temperature=0.2))
    of_episode = weights[data.episode_starts].reshape(-1, 2)
    assert np.median(of_episode[:, 0]) > 1.5 * np.median(of_episode[:, 1])
    assert weights.sum() == pytest.approx(1)


def test_tools_are_found_by_name():
    from robot.specs import ArraySpec

    def path_of(*names):
        spec = ArraySpec(STATE, (len(names),), names=names)
        specs = type(SPECS)({STATE: spec}, SPECS.action, "ee_delta", 0.05, "Point", "go")
        columns = {STATE: np.arange(2.0 * len(names)).reshape(2, -1), "action": np.zeros((2, 3))}
        path = of_rows(specs, [("0", columns)]).path()
        return None if path is None else path[0][0].tolist()

    assert path_of("q1", "ee_x", "ee_y", "ee_z", "cube_x", "cube_y", "cube_z") == [1, 2, 3]
    left, right = [f"robot0_ee_{axis}" for axis in "xyz"], [f"robot1_ee_{axis}" for axis in "xyz"]
    assert path_of(*left, "q", *right) == [0, 1, 2, 4, 5, 6]
    assert path_of("x", "y", "z", "roll") == [0, 1, 2]
    assert path_of("cube_x", "cube_y", "cube_z") is None
    assert path_of("x", "v") is None


def test_every_text_takes_its_numbers():
    for measure in MEASURES.values():
        measure.text.format(format(1.5, measure.form), typical=format(2.5, measure.form))
