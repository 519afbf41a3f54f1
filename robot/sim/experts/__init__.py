"""Scripted experts by task. A new one is a file here and an entry in the table."""

import importlib

from robot.contract import EnvironmentSpecs, Policy
from robot.errors import unknown_name
from robot.sim.tasks import task

EXPERTS = {
    "door": "robot.sim.experts.door:DoorExpert",
    "lift": "robot.sim.experts.lift:LiftExpert",
    "nut_assembly_square": "robot.sim.experts.nut_assembly_square:NutAssemblySquareExpert",
    "pick_place_can": "robot.sim.experts.pick_place_can:PickPlaceCanExpert",
    "stack": "robot.sim.experts.stack:StackExpert",
    "tool_hang": "robot.sim.experts.tool_hang:ToolHangExpert",
}
"""Expert by name of its task, as module:class."""


def expert(name: str, specs: EnvironmentSpecs) -> Policy:
    """The scripted expert for a task. Raises `UnknownNameError`."""
    known = task(name).name
    if known not in EXPERTS:
        raise unknown_name("task with a scripted expert", name, EXPERTS)
    module, _, attribute = EXPERTS[known].partition(":")
    built: Policy = getattr(importlib.import_module(module), attribute)(specs)
    return built
