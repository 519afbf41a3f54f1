import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.base import ObservationNormaliser
from policies.normalisation import Normalisation, Normaliser
from robot.errors import ConfigError, DatasetError
from robot.specs import ArraySpec
from tests.policies.worlds import GOAL, SPECS, STATE, demonstrations

VECTOR = ArraySpec("x", (3,))


def normaliser(mode: Normalisation, **statistics: list[float]) -> Normaliser:
    return Normaliser(VECTOR, mode, {"x": {name: np.array(value) for name, value in statistics.items()}})


def test_min_max_reaches_minus_one_and_one() -> None:
    scale = normaliser(Normalisation.MIN_MAX, min=[0.0, -3.0, 5.0], max=[10.0, 1.0, 5.0])
    torch.testing.assert_close(scale(torch.tensor([0.0, -3.0, 5.0])), torch.tensor([-1.0, -1.0, 0.0]))
    torch.testing.assert_close(scale(torch.tensor([10.0, 1.0, 5.5])), torch.tensor([1.0, 1.0, 0.5]))


def test_z_score_uses_mean_and_deviation() -> None:
    scale = normaliser(Normalisation.Z_SCORE, mean=[1.0, 2.0, 3.0], std=[2.0, 0.5, 0.0])
    torch.testing.assert_close(scale(torch.tensor([3.0, 1.0, 3.25])), torch.tensor([1.0, -2.0, 0.25]))


@settings(max_examples=50, deadline=None)
@given(
    low=st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
    spread=st.lists(st.floats(0, 100, width=32), min_size=3, max_size=3),
    value=st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
)
def test_restore_undoes_it(low: list[float], spread: list[float], value: list[float]) -> None:
    scale = normaliser(Normalisation.MIN_MAX, min=low, max=[a + b for a, b in zip(low, spread, strict=True)])
    x = torch.tensor(value)
    torch.testing.assert_close(scale.restore(scale(x)), x, rtol=1e-4, atol=1e-3)


def test_a_missing_statistic_is_named() -> None:
    with pytest.raises(DatasetError, match=r"'max' of 'x'.*armature build"):
        normaliser(Normalisation.MIN_MAX, min=[0.0, 0.0, 0.0])


@pytest.mark.parametrize("bad", [[0.0, 1.0], [0.0, 1.0, np.nan]])
def test_a_statistic_that_does_not_fit_is_refused(bad: list[float]) -> None:
    with pytest.raises(DatasetError, match="expected"):
        normaliser(Normalisation.MIN_MAX, min=bad, max=[1.0, 1.0, 1.0])


def test_without_statistics_nothing_is_finite_until_loaded() -> None:
    assert Normaliser(VECTOR, Normalisation.MIN_MAX, None)(torch.zeros(3)).isnan().all()


def test_observations_keep_the_order_of_the_specs() -> None:
    scale = ObservationNormaliser(SPECS.observation, Normalisation.MIN_MAX, demonstrations().stats)
    out = scale({GOAL: torch.zeros(1, 3), STATE: torch.zeros(1, 2)})
    assert [vector.shape[-1] for vector in out] == [2, 3]


def test_images_are_refused_by_name() -> None:
    key = "observation.images.front"
    with pytest.raises(ConfigError, match=key):
        ObservationNormaliser({key: ArraySpec(key, (8, 8, 3), "uint8")}, Normalisation.MIN_MAX, None)
