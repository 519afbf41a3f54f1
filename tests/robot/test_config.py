from dataclasses import dataclass

import pytest

from robot.config import described, load, options
from robot.errors import ConfigError, UnknownNameError
from robot.sim.config import ENV_SCHEMAS, EnvConfig


@dataclass(kw_only=True)
class Small:
    """A schema for `configs/record.yaml` as far as these tests need it."""

    env: EnvConfig
    source: str
    episodes: int
    seed: int
    workers: int
    quality: str
    keep: str
    codec: str
    out: str


def load_record(*overrides: str) -> Small:
    return load("record", Small, list(overrides), {"env": ENV_SCHEMAS})


def test_overrides_arrive_with_their_types() -> None:
    config = load_record("env=lift", "episodes=3", "env.horizon=7")
    assert isinstance(config, Small)
    assert isinstance(config.env, EnvConfig)
    assert (config.episodes, config.env.horizon) == (3, 7)
    assert config.out == "data/lift/episodes"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("episods=3", "Unknown config key 'episods'. Did you mean 'episodes'"),
        ("env.horizn=3", "Did you mean 'env.horizon'"),
        ("env=lfit", "Unknown env 'lfit'. Did you mean 'lift'"),
        ("+env.extra=1", "Unknown config key"),
    ],
)
def test_unknown_names_suggest_the_nearest(override: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_record(override)
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["episodes=many", "episodes", "=3"])
def test_values_of_the_wrong_kind_are_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        load_record(override)


def test_interpolation_cannot_run_code() -> None:
    with pytest.raises(ConfigError):
        load_record("out=${eval:1+1}")


def test_every_group_has_its_options_and_help_names_them() -> None:
    assert "lift" in options("env")
    text = described("record")
    assert "episodes: 50" in text
    assert "env: lift  # one of: door, lift, nut_assembly, " in text
