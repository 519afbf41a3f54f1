import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot.errors import SpecError
from robot.specs import ArraySpec, Layout, difference, specs_from_json, specs_to_json

ACTION = ArraySpec("action", (3,), low=-1.0, high=(1.0, 2.0, math.inf), unit="m", frame="base", names=("x", "y", "z"))


def test_validate_returns_what_is_inside() -> None:
    value = np.array([-1.0, 2.0, 1e6], np.float32)
    assert ACTION.validate(value) is value


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0001])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_validate_refuses_nan_and_what_is_outside_and_names_the_element(bad: float, at: int) -> None:
    value = np.zeros(3, np.float32)
    value[at] = bad
    with pytest.raises(SpecError, match=f"'action' is out of range: {'xyz'[at]} is"):
        ACTION.validate(value)


def test_unbounded_still_means_finite() -> None:
    free = ArraySpec("q", (1,))
    assert free.validate(np.array([1e30], np.float32)) == np.float32(1e30)
    for bad in (math.nan, math.inf):
        with pytest.raises(SpecError, match="finite"):
            free.validate(np.array([bad], np.float32))


def test_shape_and_dtype_are_named() -> None:
    with pytest.raises(SpecError, match=r"'action' has shape \(2,\), expected \(3,\)"):
        ACTION.validate(np.zeros(2))
    with pytest.raises(SpecError, match="dtype complex128, expected float32"):
        ACTION.validate(np.zeros(3, complex))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": (0.0, 0.0)}, "low has 2 values"),
        ({"names": ("a",)}, "1 names for 3"),
        ({"low": 1.0, "high": 0.0}, "not below"),
        ({"low": math.nan}, "not below"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ArraySpec("x", (3,), **arguments)


bounds = st.tuples(st.floats(-100, 100), st.floats(0, 100)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(bound=bounds, seed=st.one_of(st.none(), st.integers(0, 99)))
def test_generated_values_are_valid(bound: tuple[float, float], seed: int | None) -> None:
    spec = ArraySpec("x", (4,), "float64", low=bound[0], high=bound[1])
    rng = None if seed is None else np.random.default_rng(seed)
    assert spec.validate(spec.generate_value(rng)).dtype == np.float64


@given(arrays(np.float64, 3, elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_validate_agrees_with_a_loop_over_elements(value: np.ndarray) -> None:
    low, high = ACTION.bounds()
    inside = all(math.isfinite(v) and lo <= v <= hi for v, lo, hi in zip(value, low, high, strict=True))
    try:
        ACTION.validate(value)
        assert inside
    except SpecError:
        assert not inside


def test_json_keeps_everything_and_stays_json() -> None:
    specs = {"action": ACTION, "q": ArraySpec("q", (2,), "float64", unit="rad")}
    text = json.dumps(specs_to_json(specs), allow_nan=False)
    assert specs_from_json(json.loads(text)) == specs
    with pytest.raises(SpecError, match="Not a spec"):
        ArraySpec.from_json({"key": "x"})


def test_difference_is_empty_only_where_arrays_fit() -> None:
    specs = {"action": ACTION}
    assert difference(specs, {"action": ArraySpec("action", (3,), unit="m", frame="base", names=("x", "y", "z"))}) == []
    assert difference(specs, {}) == ["action: missing"]
    assert difference({}, specs) == ["action: not expected"]
    assert difference(specs, {"action": ArraySpec("action", (7,), unit="m", frame="base")}) == [
        "action: shape is (7,), expected (3,)",
        "action: names is (), expected ('x', 'y', 'z')",
    ]


def test_layout_views_share_the_flat_vector() -> None:
    layout = Layout((ArraySpec("q", (2,)), ArraySpec("pose", (2, 2))))
    flat = np.arange(6.0)
    views = layout.views(flat)
    views["pose"][1, 0] = 9.0
    assert flat.tolist() == [0, 1, 2, 3, 9, 5]
    assert views["q"].tolist() == [0, 1]
    assert Layout.from_json(layout.to_json()).digest() == layout.digest()
    with pytest.raises(SpecError, match=r"shape \(6,\)"):
        layout.views(np.zeros(5))
    other = Layout((ArraySpec("pose", (2, 2)), ArraySpec("q", (2,))))
    assert other.digest() != layout.digest()
