"""Bridges that do not exist, as `armature watch` sees them."""

from dataclasses import replace
from typing import Any

import numpy as np

from robot.bridge.client import BridgeState
from robot.bridge.schema import INDEX, BridgeSchema
from robot.bridge.screen import Sight
from robot.specs import ArraySpec, Layout
from tests.robot.bridge.test_schema import schema as small_schema


def schema() -> BridgeSchema:
    small = small_schema()
    measured = Layout(
        (
            *(ArraySpec(name, (len(small.limits.joint_low_rad),), "float64") for name in ("q", "dq")),
            *(ArraySpec("ee_pos", (3,), "float64"), ArraySpec("ee_rot6d", (6,), "float64")),
            *(ArraySpec("gripper", (2,), "float64"), small.arm.state.specs[-1]),
        )
    )
    return replace(small, arm=replace(small.arm, state=measured))


def state(of: BridgeSchema, values: dict[str, Any] | None = None, **status: float) -> BridgeState:
    """Standing still in the middle of everything, but for what is given."""
    flat = np.zeros(of.layout.size)
    views = of.layout.views(flat)
    limits = of.limits
    views["q"][:] = np.add(limits.joint_low_rad, limits.joint_high_rad) / 2
    views["ee_pos"][:] = np.add(limits.workspace_low_m, limits.workspace_high_m) / 2
    views["ee_rot6d"][:] = 1, 0, 0, 0, 1, 0
    for name, value in {"t_ns": 1e12, "command_age_s": -1.0, "clearance_m": -1.0, "seed": -1.0, **status}.items():
        views["status"][INDEX[name]] = value
    for name, value in (values or {}).items():
        views[name][:] = value
    return BridgeState(of, flat)


def sight(values: dict[str, Any] | None = None, **status: float) -> Sight:
    of = schema()
    return Sight("tcp://127.0.0.1:5555", of, state(of, values, **status), state_hz=500.0)
