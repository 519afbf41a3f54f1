import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.success import summary, wilson


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # Reference values: scipy.stats.binomtest(count, total).proportion_ci(method="wilson").
    [(10, 10, 0.722467, 1.0), (9, 10, 0.595850, 0.982124), (0, 50, 0.0, 0.071348), (47, 50, 0.837829, 0.979385)],
)
def test_reference_values(count: int, total: int, low: float, high: float) -> None:
    assert wilson(count, total) == pytest.approx((low, high), abs=2e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_interval_holds_the_rate(successes: list[bool]) -> None:
    result = summary(successes)
    low, high = result["wilson_95"]
    assert result["count"] == sum(successes)
    assert 0 <= low <= result["rate"] + 1e-12
    assert result["rate"] <= high + 1e-12
    assert high <= 1
