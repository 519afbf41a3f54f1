"""Objects that a task leaves out: robosuite drops them ten metres away and computes their contacts with the floor.

NutAssemblySquare's other nut costs a third of its physics that way, until the end of the episode. Once such an object
lies still, MuJoCo may let it sleep: it keeps its place, and nothing is left to compute. (PickPlaceCan's other objects
tremble where they lie, and so stay awake.) All that takes part in the task stays awake, because success checks look at
contacts, and there are none between sleepers.
"""

from typing import Any

import mujoco

STILL = 1e-8
"""Velocity below which an object that was left out may sleep [m/s and rad/s]; at rest it is far below."""


def let_left_out_objects_sleep(arena: Any) -> None:
    """Change the model of a robosuite environment so; without effect where MuJoCo cannot (before 3.4)."""
    model = arena.sim.model._model
    left_out = [model.body(item.root_body).id for item in _left_out(arena)]
    if not left_out or not hasattr(mujoco.mjtEnableBit, "mjENBL_SLEEP"):
        return
    model.tree_sleep_policy[:] = int(mujoco.mjtSleepPolicy.mjSLEEP_NEVER)
    model.tree_sleep_policy[model.body_treeid[left_out]] = int(mujoco.mjtSleepPolicy.mjSLEEP_ALLOWED)
    model.opt.sleep_tolerance = STILL
    model.opt.enableflags = int(model.opt.enableflags) | int(mujoco.mjtEnableBit.mjENBL_SLEEP)


def _left_out(arena: Any) -> list[Any]:
    """robosuite's objects of which the task uses one other."""
    if not getattr(arena, "single_object_mode", 0):
        return []
    objects = getattr(arena, "nuts", None) or arena.objects
    return [item for item in objects if item.name != arena.obj_to_use]
