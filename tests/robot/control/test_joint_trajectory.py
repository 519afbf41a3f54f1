import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from robot.control.joint_trajectory import JointTrajectory
from robot.errors import SpecError

N = 3
MS = 1_000_000
NOW = 10**12
WAY = JointTrajectory(N)
seeds = st.integers(0, 2**31)


def moment(way: JointTrajectory, t_ns: int) -> np.ndarray:
    out = np.full((3, N), np.nan)
    way.sample(t_ns, *out)
    return out


def times(rng: np.random.Generator, count: int) -> np.ndarray:
    return NOW + np.cumsum(rng.integers(5 * MS, 200 * MS, count))


def planned(start: np.ndarray, times_ns: np.ndarray, waypoints: np.ndarray, now_ns: int = NOW) -> JointTrajectory:
    WAY.plan(now_ns, start[0], start[1], start[2], times_ns, waypoints)
    return WAY


def path(way: JointTrajectory, times_ns: np.ndarray) -> np.ndarray:
    return np.array([moment(way, int(t)) for t in times_ns])


@settings(deadline=None)
@given(seeds, st.integers(1, 12))
def test_passes_every_waypoint_on_time_and_rests_at_the_last(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    start, waypoints, at = rng.normal(size=(3, N)), rng.normal(size=(count, N)), times(rng, count)
    way = planned(start, at, waypoints)
    np.testing.assert_array_equal(moment(way, NOW), start)
    np.testing.assert_array_equal(moment(way, NOW - MS), start)
    np.testing.assert_allclose(path(way, at)[:, 0], waypoints, atol=1e-12)
    rest = np.stack([waypoints[-1], np.zeros(N), np.zeros(N)])
    np.testing.assert_array_equal(moment(way, way.end_ns), rest)
    np.testing.assert_array_equal(moment(way, way.end_ns + 10**9), rest)
    assert way.end_ns == at[-1]
    assert not way.is_over(way.end_ns - 1)
    assert way.is_over(way.end_ns)


@settings(deadline=None)
@given(seeds)
def test_velocity_and_acceleration_are_derivatives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    way = planned(rng.normal(size=(3, N)), times(rng, 6), rng.normal(size=(6, N)))
    h_ns = 1000
    for t in rng.integers(NOW + h_ns, way.end_ns - h_ns, 20):
        before, now, after = path(way, np.array([t - h_ns, t, t + h_ns]))
        # A knot between the two may cost half a step of the highest jerk, here below 1e7 / s³.
        np.testing.assert_allclose((after[:2] - before[:2]) / (2e-9 * h_ns), now[1:], rtol=1e-4, atol=20.0)


@settings(deadline=None)
@given(seeds, st.integers(1, 6))
@example(2133, 3)
def test_a_stream_of_plans_has_no_step_in_acceleration(seed: int, plans: int) -> None:
    """Plans begin anywhere in the ones before, often a moment before a waypoint."""
    rng = np.random.default_rng(seed)
    state, now = rng.normal(size=(3, N)), NOW
    for _ in range(plans):
        count = int(rng.integers(1, 8))
        at = now + np.cumsum(rng.integers(5 * MS, 200 * MS, count))
        way = planned(state, at, rng.normal(size=(count, N)), now)
        np.testing.assert_array_equal(moment(way, now), state)
        for knot in (now, *at[:-1].tolist(), way.end_ns):
            nearest = np.array([knot - 1000, knot - 1, knot + 1, knot + 1000])
            moments = path(way, np.maximum(nearest, now))
            across, beside = np.abs(moments[2] - moments[1]), np.abs(moments[[1, 3]] - moments[[0, 2]]).max(axis=0)
            # What changes in 2 ns is to what changes in 999 ns beside it as the one time to the other; or no more than
            # its derivative explains, which may pass through zero beside it.
            most = np.abs(moments).max(axis=0)
            explained = 2e-9 * np.vstack([most[1:], np.zeros(N)])
            assert (across <= 0.01 * beside + explained + 1e-9 * (1 + most)).all()
        now = int(rng.integers(now + 1, way.end_ns))
        state = moment(way, now)


@settings(deadline=None)
@given(seeds, st.integers(1, 12), st.sampled_from([1.0, 1e-3, 30.0]))
def test_monotone_waypoints_are_never_overshot(seed: int, count: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    steps = scale * rng.exponential(size=(count, N)) ** 3 * rng.choice([0.0, 1.0, 1.0], (count, N))
    direction = np.array([1.0, -1.0, 1.0])
    start = np.array([rng.normal(size=N), np.zeros(N), np.zeros(N)])
    way = planned(start, times(rng, count), start[0] + direction * np.cumsum(steps, axis=0))
    q = path(way, np.linspace(NOW, way.end_ns, 400).astype(np.int64))[:, 0]
    assert (direction * np.diff(q, axis=0) >= -1e-12 * scale).all()


@settings(deadline=None)
@given(seeds)
def test_turns_back_exactly_at_the_waypoint(seed: int) -> None:
    rng = np.random.default_rng(seed)
    waypoints = rng.normal(size=(8, N))
    way = planned(np.zeros((3, N)), times(rng, 8), waypoints)
    q = path(way, np.linspace(NOW, way.end_ns, 600).astype(np.int64))[:, 0]
    points = np.vstack([np.zeros(N), waypoints])
    assert (q.max(axis=0) <= points.max(axis=0) + 1e-12).all()
    assert (q.min(axis=0) >= points.min(axis=0) - 1e-12).all()


def test_equal_waypoints_are_held() -> None:
    waypoints = np.array([[0.1] * N, [0.5] * N, [0.5] * N, [0.9] * N])
    way = planned(np.zeros((3, N)), NOW + 50 * MS * np.arange(1, 5), waypoints)
    held = path(way, np.linspace(NOW + 100 * MS, NOW + 150 * MS, 20).astype(np.int64))
    np.testing.assert_allclose(held[:, 0], 0.5, atol=1e-15)
    np.testing.assert_allclose(held[:, 1:], 0.0, atol=1e-12)


def test_rest_to_rest_is_the_way_of_least_jerk() -> None:
    """Flash and Hogan 1985: x = 10 u³ - 15 u⁴ + 6 u⁵."""
    way = planned(np.zeros((3, N)), np.array([NOW + 800 * MS]), np.full((1, N), 2.0))
    for u in (0.1, 0.5, 0.83):
        got = moment(way, NOW + round(u * 800) * MS)
        np.testing.assert_allclose(got[0], 2.0 * (10 * u**3 - 15 * u**4 + 6 * u**5), atol=1e-14)
        np.testing.assert_allclose(got[1], 2.0 * (30 * u**2 - 60 * u**3 + 30 * u**4) / 0.8, atol=1e-13)
        np.testing.assert_allclose(got[2], 2.0 * (60 * u - 180 * u**2 + 120 * u**3) / 0.64, atol=1e-12)


def test_a_parabola_is_followed_exactly_until_it_has_to_rest() -> None:
    """Uneven waypoints on q = t + t² / 2, begun with its velocity and acceleration."""
    t = np.array([0.05, 0.08, 0.15, 0.2, 0.29, 0.35, 0.4])
    start = np.array([[0.0] * N, [1.0] * N, [1.0] * N])
    way = planned(start, NOW + (1e9 * t).astype(np.int64), np.repeat((t + t * t / 2)[:, None], N, axis=1))
    for now in (0.01, 0.06, 0.12, 0.18, 0.25, 0.32):
        got = moment(way, NOW + int(1e9 * now))
        np.testing.assert_allclose(got, np.repeat([[now + now * now / 2], [1 + now], [1.0]], N, axis=1), atol=1e-9)


def test_waypoints_at_20_hz_give_a_smooth_motion_back() -> None:
    """0.3 rad at 0.5 Hz, planned anew every 130 ms in its middle, with the 16 waypoints that are left."""

    def sine(t: np.ndarray | float) -> np.ndarray:
        phase = np.pi * np.asarray(t)[..., None] + np.array([0.0, 0.7, 1.9])
        return 0.3 * np.stack([np.sin(phase), np.pi * np.cos(phase), -(np.pi**2) * np.sin(phase)], axis=-2)

    state, errors = sine(0.0), []
    for begin_ms in range(0, 4000, 130):
        at_ms = 50 * (begin_ms // 50 + 1 + np.arange(16))
        way = planned(state, NOW + MS * at_ms, sine(at_ms / 1000)[:, 0], NOW + MS * begin_ms)
        played = np.arange(begin_ms, begin_ms + 130)
        errors.append(path(way, NOW + MS * played) - sine(played / 1000))
        state = moment(way, NOW + MS * (begin_ms + 130))
    q, dq, ddq = np.abs(np.concatenate(errors)).max(axis=(0, 2))
    assert q < 1e-3
    assert dq < 0.1
    assert ddq < 8.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"times_ns": np.array([NOW, NOW + 1])}, "do not increase"),
        ({"times_ns": np.array([NOW + 5, NOW + 5])}, "do not increase"),
        ({"times_ns": np.array([NOW + 5])}, "shape"),
        ({"waypoints": np.zeros((2, N + 1))}, "shape"),
        ({"waypoints": np.zeros((0, N)), "times_ns": np.zeros(0, np.int64)}, "1 to 128"),
        ({"waypoints": np.zeros((129, N)), "times_ns": NOW + 1 + np.arange(129)}, "1 to 128"),
        ({"waypoints": np.array([[0.0] * N, [np.nan] * N])}, "not finite"),
        ({"dq": np.full(N, np.inf)}, "state to start from"),
        ({"ddq": np.zeros(N - 1)}, "state to start from"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change: dict[str, Any], reason: str) -> None:
    rng = np.random.default_rng(0)
    way = planned(rng.normal(size=(3, N)), times(rng, 3), rng.normal(size=(3, N)))
    at = np.linspace(NOW, way.end_ns, 50).astype(np.int64)
    before = path(way, at)
    given = {"q": np.zeros(N), "dq": np.zeros(N), "ddq": np.zeros(N), "times_ns": NOW + MS * np.array([1, 2])}
    with pytest.raises(SpecError, match=reason):
        way.plan(NOW, **{**given, "waypoints": np.zeros((2, N)), **change})
    np.testing.assert_array_equal(path(way, at), before)


def test_planning_and_sampling_keep_no_memory() -> None:
    out, start, at, waypoints = np.zeros((3, N)), np.zeros((3, N)), NOW + MS * np.arange(1, 17), np.ones((16, N))
    rows = tuple(out)

    def cycles(count: int) -> None:
        for k in range(count):
            if k % 50 == 0:
                planned(start, at, waypoints)
            WAY.sample(NOW + k, *rows)

    cycles(100)
    tracemalloc.start()
    cycles(100)
    before = tracemalloc.get_traced_memory()[0]
    cycles(1000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000
