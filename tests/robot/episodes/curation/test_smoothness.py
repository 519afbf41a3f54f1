import math

import numpy as np
import pytest

from robot.episodes.curation import smoothness

DT_S = 0.01


def minimum_jerk(duration_s=1.0, length=1.0, dt_s=DT_S):
    """Positions of a straight motion from rest to rest, in three dimensions."""
    tau = np.linspace(0, 1, round(duration_s / dt_s) + 1)
    along = length * (10 * tau**3 - 15 * tau**4 + 6 * tau**5)
    return along[:, None] * np.array([0.6, 0.0, 0.8])


def sparc_by_integration(speeds, dt_s):
    """The definition on a grid of frequencies, with the Fourier integral as a plain sum."""
    hertz = np.linspace(0, 10, 20_001)
    times = np.arange(len(speeds)) * dt_s
    magnitude = np.array([abs((speeds * np.exp(-2j * math.pi * f * times)).sum()) for f in hertz]) / speeds.sum()
    last = np.flatnonzero(magnitude >= 0.05)[-1]
    slope = np.diff(magnitude[: last + 1]) / np.diff(hertz[: last + 1])
    return -(np.sqrt(1 / hertz[last] ** 2 + slope**2) * np.diff(hertz[: last + 1])).sum()


def test_sparc_equals_its_integral():
    for positions in (minimum_jerk(), minimum_jerk(2.0) + 0.02 * np.sin(np.arange(201) / 6)[:, None]):
        speeds = smoothness.speed(positions, DT_S)
        expected = sparc_by_integration(speeds, DT_S)
        assert smoothness.spectral_arc_length(speeds, DT_S) == pytest.approx(expected, rel=0.01)


def test_a_smooth_reach_has_the_sparc_of_the_literature():
    assert smoothness.spectral_arc_length(smoothness.speed(minimum_jerk(), DT_S), DT_S) == pytest.approx(
        -1.41, abs=0.03
    )


def test_a_minimum_jerk_motion_has_the_jerk_of_its_closed_form():
    """Peak speed 15/8 L/T, integral of jerk^2 720 L^2/T^5: 720 / (15/8)^2 = 204.8."""
    assert smoothness.log_dimensionless_jerk(minimum_jerk(1.0, dt_s=1e-3), 1e-3) == pytest.approx(
        -math.log(204.8), abs=0.02
    )


@pytest.mark.parametrize(("duration_s", "length"), [(0.5, 1.0), (1.0, 0.01), (4.0, 30.0)])
def test_smoothness_depends_neither_on_amplitude_nor_on_duration(duration_s, length):
    dt_s = DT_S * duration_s
    ours, theirs = minimum_jerk(), minimum_jerk(duration_s, length, dt_s)
    assert smoothness.log_dimensionless_jerk(theirs, dt_s) == pytest.approx(
        smoothness.log_dimensionless_jerk(ours, DT_S), rel=1e-6
    )
    assert smoothness.path_length_ratio(theirs) == pytest.approx(smoothness.path_length_ratio(ours))
    # The arc length is taken below 10 Hz, which duration moves against the motion: equal up to that.
    assert smoothness.spectral_arc_length(smoothness.speed(theirs, dt_s), dt_s) == pytest.approx(
        smoothness.spectral_arc_length(smoothness.speed(ours, DT_S), DT_S), abs=0.1
    )


def test_tremor_stops_and_detours_are_seen():
    smooth = minimum_jerk(2.0)
    t = np.arange(len(smooth)) * DT_S
    tremor = smooth + 0.01 * np.sin(2 * math.pi * 4 * t)[:, None]
    stopping = np.concatenate([minimum_jerk(0.5), minimum_jerk(0.5) + minimum_jerk()[-1], minimum_jerk(0.5) + 2])
    for worse in (tremor, stopping):
        for measure in (
            lambda p: smoothness.spectral_arc_length(smoothness.speed(p, DT_S), DT_S),
            lambda p: smoothness.log_dimensionless_jerk(p, DT_S),
        ):
            assert measure(worse) < measure(smooth) - 0.1
    around = smooth + 0.3 * np.sin(8 * math.pi * t / t[-1])[:, None] * [0, 1, 0]
    assert smoothness.path_length_ratio(around) > 1.5 > 1.001 > smoothness.path_length_ratio(smooth)


def test_going_and_returning_is_no_detour():
    there = minimum_jerk()
    assert smoothness.path_length_ratio(np.concatenate([there, there[::-1]])) == pytest.approx(1.0)


def test_a_half_circle_by_hand():
    angle = np.linspace(0, math.pi, 2001)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert smoothness.path_length_ratio(circle) == pytest.approx(math.pi / (8 * math.sin(math.pi / 8)), rel=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 3, 50])
def test_what_does_not_move_is_not_measured(rows):
    still = np.ones((rows, 3))
    speeds = smoothness.speed(still, DT_S)
    assert math.isnan(smoothness.spectral_arc_length(speeds, DT_S))
    assert math.isnan(smoothness.log_dimensionless_jerk(still, DT_S))
    assert math.isnan(smoothness.path_length_ratio(still))


def test_idle_share_by_hand():
    speeds = np.array([0.0, 0.04, 0.06, 1.0])
    assert smoothness.idle_share(speeds, 1.0) == 0.5
    assert math.isnan(smoothness.idle_share(speeds, 0.0))


def test_saturation_by_hand():
    actions = np.array([[1.0, 0.0, 1.0], [0.5, -2.0, 1.0], [0.2, 9.0, -1.0], [-0.9995, 0.0, 1.0]])
    low, high = np.array([-1, -np.inf, -1]), np.array([1, np.inf, 1])
    assert smoothness.saturated_share(actions, low, high, without=(2,)) == 0.5
    assert smoothness.saturated_share(actions, low, high) == 1.0
    assert math.isnan(smoothness.saturated_share(actions, low, high, without=(0, 2)))


def test_toggles_ignore_hesitation_about_the_middle():
    assert smoothness.toggles(np.array([-1, -1, 1, 1, -1.0]), -1, 1) == 2
    assert smoothness.toggles(np.array([-1, 0.1, -0.1, 0.15, -1, 0.0, 1, 0.19, 1.0]), -1, 1) == 1
    assert smoothness.toggles(np.zeros(5), 0, 0) == 0
