import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robot.bridge.schema import INDEX, STATUS, WORDS, BridgeSchema, Outcome, state_layout
from robot.contract import ArmSpecs, EnvironmentSpecs
from robot.control.action_spaces import ee_delta, ee_pose
from robot.control.limits import PoseLimits
from robot.errors import BridgeError, SafetyError
from robot.specs import ArraySpec, Layout
from tests.robot.control.test_safety import LIMITS


def schema() -> BridgeSchema:
    state = ArraySpec("observation.state", (2,), names=("x", "y"), unit="m", frame="base")
    environment = EnvironmentSpecs({state.key: state}, ee_delta(), "ee_delta", 0.05, "Arm", "Do it.")
    measured = Layout((ArraySpec("q", (2,), "float64"), state))
    arm = ArmSpecs("Arm", environment, measured, ee_pose(), "ee_pose", 500.0, "abc", True)
    ends = {name: f"tcp://127.0.0.1:{port}" for port, name in enumerate(("control", "command", "state", "estop"), 1)}
    return BridgeSchema(2**63 + 5, arm, PoseLimits.from_mapping(LIMITS), ends, 0.5)


def test_survives_json() -> None:
    assert BridgeSchema.from_json(json.loads(json.dumps(schema().to_json()))) == schema()


def test_state_is_status_target_and_what_is_measured() -> None:
    layout = state_layout(schema().arm)
    views = layout.views(np.arange(layout.size, dtype=np.float64))
    assert views["status"][INDEX["t_ns"]] == 0
    assert views["target"][0] == len(STATUS)
    assert views["observation.state"].tolist() == [layout.size - 2, layout.size - 1]


@pytest.mark.parametrize("key", ["boot_id", "arm", "limits", "endpoints", "lease_ttl_s", "status", "digest"])
def test_a_missing_part_is_an_error(key: str) -> None:
    data: dict[str, Any] = schema().to_json()
    del data[key]
    with pytest.raises(BridgeError, match=key):
        BridgeSchema.from_json(data)


def test_limits_that_are_incomplete_are_an_error() -> None:
    data = schema().to_json()
    del data["limits"]["brake_s"]
    with pytest.raises(SafetyError, match="brake_s"):
        BridgeSchema.from_json(data)


def test_another_layout_is_an_error() -> None:
    data = schema().to_json()
    data["arm"]["state"][0]["shape"] = [3]
    with pytest.raises(BridgeError, match="lays its state out differently"):
        BridgeSchema.from_json(data)


def test_another_versions_status_is_named() -> None:
    data = schema().to_json()
    data["status"] = [*STATUS[:-1], "tide"]
    data["digest"] = "of theirs"
    with pytest.raises(BridgeError, match="has tide more and seed less than this side has"):
        BridgeSchema.from_json(data)


def test_a_policy_for_another_model_of_the_arm_is_refused() -> None:
    got = schema()
    got.require(got.arm.environment)
    got.require(got.arm.environment, "abc")
    with pytest.raises(BridgeError, match="model of the arm is abc, expected abd"):
        got.require(got.arm.environment, "abd")


def test_a_bridge_may_give_more_than_a_policy_wants() -> None:
    wanted = schema().arm.environment
    extra = {**wanted.observation, "observation.more": ArraySpec("observation.more", (1,))}
    given = replace(wanted, observation=extra, task="in other words")
    assert wanted.unmet(given) == []
    assert given.unmet(wanted) == ["observation.more: missing"]


def test_every_outcome_has_words() -> None:
    assert set(WORDS) == set(Outcome)
