"""Bridge settings as the command line makes them, for tests."""

import copy
from functools import cache
from typing import Any

from hardware.arms import ARM_SCHEMAS, ARMS
from hardware.bridge import BridgeConfig
from robot import config
from robot.control.limits import Limits, limits_from_mapping
from robot.sim.config import ENV_SCHEMAS


@cache
def _loaded(overrides: tuple[str, ...]) -> BridgeConfig:
    return config.load("bridge", BridgeConfig, list(overrides), {"arm": ARM_SCHEMAS, "env": ENV_SCHEMAS})


def settings(*overrides: str) -> BridgeConfig:
    return copy.deepcopy(_loaded(overrides))


def limits(arm: str = "fake", **changed: Any) -> Limits:
    return limits_from_mapping(ARMS[arm][1], {**settings(f"arm={arm}").arm.limits, **changed})
