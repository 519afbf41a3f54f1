from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.contract import EnvironmentSpecs
from robot.episodes.episode import Channel, Episode, Event, Header, PictureChannel, Result
from robot.episodes.resample import MaxSkew, Resampling, Span, resample, schema, spans
from robot.errors import ConfigError, DatasetError, EpisodeError, UnknownNameError
from robot.specs import ArraySpec

STATE, FRONT = "observation.state", "observation.images.front"
MS = 1_000_000


def specs(dt_s: float = 0.1) -> EnvironmentSpecs:
    observation = {STATE: ArraySpec(STATE, (1,)), FRONT: ArraySpec(FRONT, (2, 2, 3), "uint8")}
    return EnvironmentSpecs(observation, ArraySpec("action", (1,)), "ee_pose", dt_s, "fake", "reach")


def vectors(times_ms, values=None, dtype=np.float32) -> Channel:
    values = range(len(times_ms)) if values is None else values
    return Channel(ArraySpec("any", (1,)), np.array(times_ms, np.int64) * MS, np.array(values, dtype)[:, None])


def pictures(times_ms) -> PictureChannel:
    """Picture k is filled with k."""
    frames = np.arange(len(times_ms), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return PictureChannel(specs().observation[FRONT], np.array(times_ms, np.int64) * MS, frames)


def timed(state, front, action, events=(), **result) -> Episode:
    """An episode whose channels have these times [ms]; each value is the number of its sample."""
    ended = Result(**{"steps": 0, "success_final": False, "success_sticky": False, "terminated": False,
                      "truncated": True, **result})  # fmt: skip
    channels = {"/observation/state": vectors(state), "/action/device": vectors(action)}
    cameras = {FRONT: {"latency_s": 0.03}}
    header = Header(specs(), "leader", "time", {}, cameras=cameras)
    return Episode(header, ended, channels, {"/observation/images/front": pictures(front)}, tuple(events))


def shown(rows) -> list[int]:
    return [int(picture[0, 0, 0]) for picture in rows.pictures[FRONT]]


def column(rows, key: str) -> list:
    return np.asarray(rows.columns[key]).reshape(len(rows), -1)[:, 0].tolist()


EVERY = [*range(0, 1000, 100)]


def test_rows_lie_on_the_clock_from_the_first_common_moment_to_the_last():
    episode = timed(state=[*range(0, 995, 10)], front=[5, 38, 71, 104, 137, 170, 203, 236, 300, 420], action=EVERY)
    found = spans(episode, Resampling(gaps="keep"))
    assert found == (Span(5 * MS, 5, True),)  # from 5 ms, when the camera has begun, in steps of 100 ms up to 420 ms
    rows = resample(episode, Resampling(), found[0])
    # Rows are at 5, 105, 205, 305, 405 ms; of each the newest sample at or before.
    assert column(rows, STATE) == [0, 10, 20, 30, 40]
    assert shown(rows) == [0, 3, 6, 8, 8]
    # The commands in the middles of the periods: 55, 155, 255, 355, 455 ms.
    assert column(rows, "action") == [0, 1, 2, 3, 4]


def test_the_nearest_sample_may_be_of_the_future_but_never_the_command():
    episode = timed(state=EVERY, front=[0, 60, 151, 260, 349, 500, 600, 700], action=[0, 149, 151, 350, 700])
    rows = resample(episode, Resampling(align="nearest"), Span(0, 6))
    # Rows at 0, 100, ... 500 ms. 100 lies 40 behind 60 and 51 before 151; 200 lies 49 behind 151 and 60 before 260.
    assert shown(rows) == [0, 1, 2, 3, 4, 5]
    assert shown(resample(episode, Resampling(), Span(0, 6))) == [0, 1, 2, 3, 4, 5]
    rows = resample(timed(EVERY, [0, 95, 204, 290, 410], EVERY), Resampling(align="nearest"), Span(0, 5))
    assert shown(rows) == [0, 1, 2, 3, 4]
    rows = resample(timed(EVERY, [0, 95, 204, 290, 410], EVERY), Resampling(align="previous"), Span(0, 5))
    assert shown(rows) == [0, 1, 1, 3, 3]


def test_the_command_of_a_row_is_the_one_in_force_in_the_middle_of_its_period():
    # Middles of the periods: 50, 150, 250, 350 ms. One command at 49, one at 151 (too late for the row of 100), two in
    # one period, one at exactly 350.
    episode = timed(EVERY, EVERY, [0, 49, 151, 220, 230, 350])
    rows = resample(episode, Resampling(), Span(0, 4))
    assert column(rows, "action") == [1, 1, 4, 5]


def test_a_latency_moves_pictures_back():
    episode = timed(EVERY, [0, 25, 129, 131, 230, 330, 430], EVERY)
    # With 30 ms of latency they are of -30, -5, 99, 101, 200, 300, 400 ms.
    assert shown(resample(episode, Resampling(compensate_latency=True), Span(0, 5))) == [1, 2, 4, 5, 6]
    assert shown(resample(episode, Resampling(), Span(0, 5))) == [0, 1, 3, 4, 5]


def test_a_dropped_picture_shows_as_skew_and_never_as_a_shift():
    whole = timed(EVERY, EVERY, EVERY)
    dropped = timed(EVERY, [at for at in EVERY if at not in (300, 400)], EVERY)
    how = Resampling(skews=True, gaps="keep")
    full, less = (resample(episode, how, spans(episode, how)[0]) for episode in (whole, dropped))
    kept = [number for number in range(10) if number not in (3, 4)]
    assert [kept[number] for number in shown(less)] == [0, 1, 2, 2, 2, 5, 6, 7, 8, 9]
    assert shown(full) == list(range(10))
    assert column(less, f"skew.{FRONT}") == pytest.approx([0, 0, 0, -0.1, -0.2, 0, 0, 0, 0, 0])
    far = np.quantile([0] * 8 + [0.1, 0.2], 0.99)
    assert less.origin["skew_s"][FRONT] == pytest.approx({"min": -0.2, "max": 0.0, "mean": -0.03, "p99": far})
    for key in (STATE, "action"):
        assert column(less, key) == column(full, key)


def test_skew_is_bounded_and_episodes_refused_or_cut():
    dropped = timed(EVERY, [0, 100, 200, 500, 600, 700, 800, 900], EVERY)
    said = (
        rf"{FRONT} is 0\.200 s off its row at 0\.40 s, more than 0\.150 s, in 1 of 10 rows\. Cut there with gaps=split"
    )
    with pytest.raises(EpisodeError, match=said):
        spans(dropped, Resampling())
    assert spans(dropped, Resampling(max_skew_s=MaxSkew(pictures=0.2))) == (Span(0, 10, True),)
    assert spans(dropped, Resampling(gaps="keep")) == (Span(0, 10, True),)
    first, second = spans(dropped, Resampling(gaps="split"))
    assert (first, second) == (Span(0, 4, False), Span(500 * MS, 5, True))
    assert shown(resample(dropped, Resampling(), second)) == [3, 4, 5, 6, 7]
    assert column(resample(dropped, Resampling(), first), "next.truncated") == [False, False, False, True]


def test_fast_channels_may_miss_a_sample_within_half_a_row():
    state = [at for at in range(0, 901, 2) if at not in range(101, 140)]
    assert spans(timed(state, EVERY, EVERY), Resampling()) == (Span(0, 10, True),)
    state = [at for at in range(0, 901, 2) if at not in range(141, 240)]
    with pytest.raises(EpisodeError, match=r"observation\.state is 0\.060 s off its row at 0\.20 s, more than 0\.050"):
        spans(timed(state, EVERY, EVERY), Resampling())


def test_success_counts_from_its_event_on_and_the_result_has_the_last_word():
    events = [Event(250 * MS, "success"), Event(460 * MS, "failure"), Event(700 * MS, "success")]
    episode = timed(EVERY, EVERY, EVERY, events, success_final=False, terminated=True, truncated=False)
    rows = resample(episode, Resampling(), Span(0, 10))
    # Row k ends at 100 (k + 1) ms.
    assert column(rows, "next.success") == [False, False, True, True, False, False, True, True, True, False]
    assert column(rows, "next.reward") == [0, 0, 1, 1, 0, 0, 1, 1, 1, 0]
    assert column(rows, "next.terminated") == [False] * 9 + [True]
    assert not any(column(rows, "next.truncated"))
    assert rows.columns["next.reward"].dtype == np.float32
    assert rows.columns["next.success"].dtype == bool


def test_other_rates_and_no_drift():
    episode = timed(range(0, 10_000, 5), range(0, 10_000, 33), range(0, 10_000, 10))
    rows = resample(episode, Resampling(fps=30, gaps="keep"), spans(episode, Resampling(fps=30, gaps="keep"))[0])
    assert schema(episode.header, Resampling(fps=30)).specs.dt_s == 1 / 30
    times_ms = np.arange(len(rows)) * 1000 / 30
    np.testing.assert_array_equal(column(rows, STATE), np.floor(times_ms / 5 + 1e-6))
    np.testing.assert_array_equal(column(rows, "action"), np.floor((times_ms + 1000 / 60) / 10 + 1e-5))


def test_further_channels_become_columns():
    episode = timed(EVERY, EVERY, EVERY)
    measured = Channel(ArraySpec("q", (2,), "float64"), np.arange(0, 1000, 2) * MS, np.arange(1000.0).reshape(500, 2))
    header = Header(specs(), "leader", "time", {"/measured/q": measured.spec})
    episode = Episode(header, episode.result, {**episode.channels, "/measured/q": measured}, episode.pictures)
    how = Resampling(channels=("/measured/q", "/action/device"))
    extras = schema(header, how).extras
    assert (extras["measured.q"].dtype, extras["action.device"].shape) == ("float64", (1,))
    rows = resample(episode, how, spans(episode, how)[0])
    assert rows.columns["measured.q"][3].tolist() == [300.0, 301.0]
    assert column(rows, "action.device") == column(rows, "action")
    with pytest.raises(UnknownNameError, match="channel '/measured/dq'"):
        schema(header, Resampling(channels=("/measured/dq",)))


def test_absent_channels_are_named():
    episode = timed(EVERY, EVERY, EVERY)
    with pytest.raises(EpisodeError, match=r"no /action/applied; it has /action/device, .*Choose another label"):
        spans(episode, Resampling(label="applied"))
    with pytest.raises(EpisodeError, match=r"no /observation/images/front"):
        spans(Episode(episode.header, episode.result, episode.channels, {}), Resampling())


def test_channels_without_a_common_moment_give_nothing():
    assert spans(timed([0, 100], [300, 400], EVERY), Resampling()) == ()


@pytest.mark.parametrize(
    "how",
    [{"label": "intended"}, {"align": "linear"}, {"gaps": "ignore"}, {"fps": -1}, {"max_skew_s": {"vectors": -1.0}}],
)
def test_wrong_options_are_refused(how):
    with pytest.raises(ConfigError):
        Resampling(**{key: MaxSkew(**value) if isinstance(value, dict) else value for key, value in how.items()})


def stepped(steps: int = 4) -> Episode:
    times = [7, 8, 11, 30][:steps]
    channels = {
        "/observation/state": vectors(times), "/action/device": vectors(times, range(10, 10 + steps)),
        "/action/commanded": vectors(times, range(20, 20 + steps)),
        "/step": Channel(ArraySpec("step", (4,), "float64"), np.array(times) * MS,
                         np.array([[k / 2, k == 3, k == 3, 0] for k in range(steps)], np.float64)),
    }  # fmt: skip
    header = Header(specs(), "expert")
    return Episode(
        header, Result(steps, True, True, True, False), channels, {"/observation/images/front": pictures(times)}
    )


def test_steps_are_rows_whatever_their_times():
    episode = stepped()
    assert spans(episode, Resampling()) == (Span(0, 4, True),)
    rows = resample(episode, Resampling(label="commanded", skews=True), Span(0, 4))
    assert column(rows, STATE) == [0, 1, 2, 3] == shown(rows)
    assert column(rows, "action") == [20, 21, 22, 23]
    assert column(rows, "next.reward") == [0, 0.5, 1, 1.5]
    assert column(rows, "next.success") == [False, False, False, True]
    assert column(rows, f"skew.{STATE}") == [0, 0, 0, 0]
    with pytest.raises(DatasetError, match="rate of their world, 10 Hz, not fps=20"):
        schema(episode.header, Resampling(fps=20))


def test_a_label_says_how_steps_ended():
    episode = stepped()
    failed = replace(episode, result=replace(episode.result, success_final=False))
    rows = resample(failed, Resampling(), Span(0, 4))
    assert column(rows, "next.success") == [False] * 4
    assert column(rows, "next.reward") == [0, 0.5, 1, 1.5], "as the world gave it"
    ending = episode.channels["/step"].values * [1, 0, 1, 1]
    told = {**episode.channels, "/step": replace(episode.channels["/step"], values=ending)}
    rows = resample(replace(episode, channels=told), Resampling(), Span(0, 4))
    assert column(rows, "next.success") == [False, False, False, True]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    fps=st.sampled_from([7, 10, 30]),
    drops=st.floats(0, 0.3),
)
def test_every_row_has_the_newest_samples_and_says_their_skew(seed, fps, drops):
    rng = np.random.default_rng(seed)

    def times(period_ms: float) -> np.ndarray:
        exact = (
            rng.uniform(0, 50)
            + np.arange(0, 2000, period_ms)
            + rng.uniform(-0.3, 0.3, int(np.ceil(2000 / period_ms))) * period_ms
        )
        kept = exact[rng.uniform(size=len(exact)) > drops] if len(exact) > 3 else exact
        return np.unique(np.maximum(kept, 0).astype(int))

    state, front, action = times(2), times(33), times(50)
    episode = timed(state, front, action)
    how = Resampling(fps=fps, skews=True, gaps="keep")
    for span in spans(episode, how):
        rows = resample(episode, how, span)
        start = max(state[0], front[0], action[0])
        for row in range(len(rows)):
            at = start + Fraction(row * 1000, fps)
            expected = max(k for k in range(len(state)) if state[k] <= at)
            assert column(rows, STATE)[row] == expected
            assert column(rows, f"skew.{STATE}")[row] == pytest.approx(float(state[expected] - at) / 1000, abs=1e-6)
            assert shown(rows)[row] == max(k for k in range(len(front)) if front[k] <= at)
            assert column(rows, "action")[row] == max(
                k for k in range(len(action)) if action[k] <= at + Fraction(500, fps)
            )
        assert start + len(rows) * 1000 / fps > min(state[-1], front[-1], action[-1])
