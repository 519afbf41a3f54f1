"""The tasks by name. A new one is an entry here, an expert in `experts.py` and a YAML file in `configs/env/`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robot.errors import unknown_name


@dataclass(frozen=True)
class Task:
    """One task of robosuite's.

    Attributes:
        robosuite_name: Name that robosuite knows it by.
        words: What is to be done, in words; goes into datasets.
        objects: Objects whose poses an observation contains: our name to robosuite's name of the body.
        success: Given the robosuite environment, makes a cheap test of whether the task is fulfilled now.
    """

    robosuite_name: str
    words: str
    objects: dict[str, str]
    success: Callable[[Any], Callable[[], bool]]


def _lifted(arena: Any) -> Callable[[], bool]:
    """robosuite's criterion: the cube's centre is more than 4 cm above the table."""
    cube = arena.sim.data._data.body("cube_main").xpos
    height = float(arena.model.mujoco_arena.table_offset[2]) + 0.04
    return lambda: bool(cube[2] > height)


TASKS = {
    "lift": Task(
        robosuite_name="Lift",
        words="Lift the cube from the table.",
        objects={"cube": "cube_main"},
        success=_lifted,
    ),
}


def task(name: str) -> Task:
    """The task of that name. Raises `UnknownNameError`."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
