"""What a command line selects."""

import pytest

from policies.continuing import Method
from policies.deploy import DeployConfig
from policies.evaluate import EvaluateConfig
from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.registry import EXECUTIONS, described
from policies.execution.synchronous import SynchronousConfig
from robot.config import load, options
from robot.errors import ConfigError
from robot.sim.config import ENV_SCHEMAS


def deployed(*overrides: str) -> DeployConfig:
    return load("deploy", DeployConfig, ["checkpoint=expert:lift", *overrides], {"execution": EXECUTIONS})


def evaluated(*overrides: str) -> EvaluateConfig:
    groups = {"env": ENV_SCHEMAS, "execution": EXECUTIONS}
    return load("evaluate", EvaluateConfig, list(overrides), groups)


def test_every_execution_can_be_selected_and_has_the_defaults_of_its_class() -> None:
    assert options("execution") == sorted(EXECUTIONS)
    for name, schema in EXECUTIONS.items():
        for chosen in (deployed(f"execution={name}").execution, evaluated(f"execution={name}").execution):
            assert type(chosen) is schema
            assert chosen == schema()


def test_an_arm_flows_and_an_evaluation_waits_for_nothing() -> None:
    assert type(deployed().execution) is AsynchronousConfig
    assert type(evaluated().execution) is SynchronousConfig
    assert evaluated().delay == 0


def test_keys_are_those_of_what_is_selected() -> None:
    config = deployed("execution=realtime", "execution.method=prefix", "execution.beta=2").execution
    assert described(config) == {"name": "realtime", "method": "prefix", "beta": 2.0, "prior_std": 1.0}
    assert config.method is Method.prefix  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"execution.decay"):
        deployed("execution=realtime", "execution.decay=1")
    with pytest.raises(ConfigError, match="max_observation_age_s is 0"):
        deployed("max_observation_age_s=0")
