"""Delays that are put in come out, whatever the gain, drift, noise, sampling and shape of the observation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.control.alignment import STEP_S, along_main_axis, delay, principal
from robot.errors import SpecError

SPAN_S = (-0.1, 0.5)
REFERENCE_S = np.arange(-1.0, 9.0, 0.01)


def way(t: np.ndarray) -> np.ndarray:
    """Three slow sines that do not repeat in eight seconds."""
    return np.sin(2 * np.pi * 0.4 * t) + 0.7 * np.sin(2 * np.pi * 0.73 * t + 1) + 0.4 * np.sin(2 * np.pi * 1.1 * t + 2)


@given(
    st.floats(-0.09, 0.49),
    st.floats(0.1, 5.0),
    st.floats(-3, 3),
    st.floats(-1, 1),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_an_injected_delay_is_recovered(true_s: float, gain: float, offset: float, slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.5, 7.5, 600))
    observed = gain * way(times - true_s) + offset + slope * times + gain * 0.02 * rng.normal(size=600)
    found = delay(times, observed, (REFERENCE_S, way(REFERENCE_S)), SPAN_S)
    assert found.is_inside
    assert found.sign == 1
    assert found.score > 0.98
    assert found.delay_s == pytest.approx(true_s, abs=0.002)


@given(st.floats(-0.09, 0.49))
@settings(max_examples=30, deadline=None)
def test_without_noise_it_is_exact_beyond_the_grid(true_s: float) -> None:
    times = np.arange(0.5, 7.5, 0.005)
    found = delay(times, way(times - true_s), (REFERENCE_S, way(REFERENCE_S)), SPAN_S)
    assert found.delay_s == pytest.approx(true_s, abs=STEP_S / 10)
    assert found.score == pytest.approx(1.0, abs=1e-4)


def test_the_sign_is_later_positive() -> None:
    times = np.arange(0.5, 7.5, 0.01)
    later = delay(times, way(times - 0.2), (REFERENCE_S, way(REFERENCE_S)), SPAN_S)
    assert later.delay_s == pytest.approx(0.2, abs=1e-3)
    opposite = delay(times, -way(times - 0.2), (REFERENCE_S, way(REFERENCE_S)), SPAN_S)
    assert (opposite.sign, later.sign) == (-1, 1)


def test_a_delay_beyond_the_span_is_not_called_inside() -> None:
    times = np.arange(0.5, 7.5, 0.01)
    assert not delay(times, way(times - 0.6), (REFERENCE_S, way(REFERENCE_S)), SPAN_S).is_inside


def test_noise_does_not_correlate() -> None:
    times = np.arange(0.5, 7.5, 0.01)
    noise = np.random.default_rng(0).normal(size=len(times))
    assert delay(times, noise, (REFERENCE_S, way(REFERENCE_S)), SPAN_S).score < 0.3
    assert delay(times, np.ones(len(times)), (REFERENCE_S, way(REFERENCE_S)), SPAN_S).score == 0


@given(st.floats(0.0, 0.2), st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_pictures_of_something_that_moves_tell_its_delay(true_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.arange(0.5, 7.5, 1 / 30) + rng.uniform(-0.002, 0.002, 210)
    x = np.arange(40)
    centre = 20 + 5 * way(times - true_s)
    blob = np.exp(-0.5 * ((x - centre[:, None]) / 6) ** 2)
    pictures = np.concatenate([blob, rng.normal(size=(1, 40)) * np.ones((210, 1))], 1)
    pictures += 0.02 * rng.normal(size=pictures.shape)
    found = delay(times, principal(pictures), (REFERENCE_S, way(REFERENCE_S)), (-0.1, 0.5), degree=3)
    assert found.score > 0.9
    assert found.delay_s == pytest.approx(true_s, abs=0.004)


def test_pictures_of_something_else_do_not() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(0.5, 7.5, 1 / 30)
    pictures = rng.normal(size=(len(times), 60))
    assert delay(times, principal(pictures), (REFERENCE_S, way(REFERENCE_S)), SPAN_S, degree=3).score < 0.5


def test_the_main_axis_keeps_lengths() -> None:
    rng = np.random.default_rng(0)
    axis = np.array([1.0, 2.0, -2.0]) / 3
    s = rng.uniform(-0.02, 0.02, 100)
    found = along_main_axis(0.4 + s[:, None] * axis)
    np.testing.assert_allclose(np.abs(found - found.mean()), np.abs(s - s.mean()), atol=1e-12)
    assert (along_main_axis(np.ones((5, 3))) == 0).all()


@pytest.mark.parametrize(
    ("times", "observed", "reference"),
    [
        (np.arange(9.0), np.arange(8.0), (np.arange(5.0), np.arange(5.0))),
        (np.arange(9.0), np.full(9, np.nan), (np.arange(5.0), np.arange(5.0))),
        (np.arange(9.0), np.arange(9.0), (np.arange(5.0), np.arange(6.0))),
        (np.arange(9.0), np.arange(9.0), (np.zeros(5), np.arange(5.0))),
        (np.arange(4.0), np.ones((4, 3)), (np.arange(5.0), np.arange(5.0))),
    ],
)
def test_what_cannot_be_aligned_is_refused(
    times: np.ndarray, observed: np.ndarray, reference: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(SpecError):
        delay(times, observed, reference, SPAN_S)
