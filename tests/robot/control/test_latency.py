"""The file of delays: written whole, read strictly."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.control.latency import LONGEST_S, Latency
from robot.errors import ConfigError

seconds = st.floats(0, LONGEST_S)
WHOLE: dict[str, Any] = {"version": 1, "observation_s": {"state": 0.001}, "action_s": 0.02, "residual_s": 0.001}


@given(st.dictionaries(st.text(min_size=1), st.floats(-LONGEST_S, LONGEST_S), max_size=4), seconds, seconds)
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, observation: dict[str, float], action_s: float, residual_s: float
) -> None:
    path = tmp_path_factory.mktemp("latency") / "latency.json"
    latency = Latency(observation, action_s, residual_s)
    latency.save(path, {"date": "today"})
    assert Latency.load(path) == latency


def test_none_compensates_nothing() -> None:
    assert Latency.none() == Latency({}, 0.0, 0.0)


def test_the_file_is_for_people_too(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "latency.json"
    Latency({"state": 0.001, "wrist": 0.04}, 0.02, 0.002).save(path, {"bridge": "tcp://127.0.0.1:5555"})
    assert json.loads(path.read_text()) == {
        "version": 1,
        "observation_s": {"state": 0.001, "wrist": 0.04},
        "action_s": 0.02,
        "residual_s": 0.002,
        "about": {"bridge": "tcp://127.0.0.1:5555"},
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[1]", "version None, expected 1"),
        (json.dumps({**WHOLE, "version": 2}), "version 2, expected 1"),
        (json.dumps({**WHOLE, "observation_s": 0.1}), "observation_s"),
        (json.dumps({**WHOLE, "observation_s": {"wrist": "soon"}}), "observation_s.wrist"),
        (json.dumps({**WHOLE, "action_s": True}), "action_s"),
        (json.dumps({**WHOLE, "action_s": math.nan}), "action_s"),
        (json.dumps({**WHOLE, "action_s": -0.01}), "before it is commanded"),
        (json.dumps({**WHOLE, "action_s": 20}), "action_s is 20"),
        (json.dumps({key: value for key, value in WHOLE.items() if key != "residual_s"}), "residual_s"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=said) as caught:
        Latency.load(path)
    assert "armature calibrate latency" in str(caught.value)


def test_a_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*armature calibrate latency"):
        Latency.load(tmp_path / "latency.json")


@pytest.mark.parametrize("value", [math.nan, math.inf, 3.0])
def test_a_delay_is_a_number_of_sensible_size(value: float) -> None:
    with pytest.raises(ConfigError, match=r"observation_s\.wrist"):
        Latency({"wrist": value})
