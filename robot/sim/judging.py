"""Reward and success: robosuite's, read after every control step.

robosuite's checks walk through contacts by name, which costs up to a tenth of a control step. Almost always a cheaper
question settles it: a cube that lies on the table is not stacked. Each task whose check is slow has such a necessary
condition here, implied by robosuite's own; only where it holds is robosuite asked.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from robot.sim.tasks import Task
from robot.sim.wiping import Dirt

Verdict = tuple[float, bool]
"""Reward of the last control step, and whether the task is fulfilled now."""

SUCCESS_ONLY = ("lift", "stack", "door", "tool_hang", "two_arm_peg_in_hole", "two_arm_handover", "two_arm_transport")
"""Tasks whose sparse reward is 1 while they are fulfilled, else 0. The others count parts or add conditions."""

Condition = Callable[[], bool]


def judge(arena: Any, task: Task) -> Callable[[], Verdict]:
    """A function that judges the present state of a robosuite environment; called once in each control step."""
    may_succeed = CONDITIONS[task.name](arena) if task.name in CONDITIONS and not arena.reward_shaping else lambda: True

    def by_success() -> Verdict:
        success = may_succeed() and bool(arena._check_success())
        return float(success), success

    def by_reward() -> Verdict:
        if not may_succeed():
            return 0.0, False
        # The reward first: it updates what the success check of some tasks reads.
        return float(arena.reward(None)), bool(arena._check_success())

    return by_success if task.name in SUCCESS_ONLY and not arena.reward_shaping else by_reward


def _position(arena: Any, body: str) -> np.ndarray:
    return arena.sim.data._data.body(body).xpos


def _stack(arena: Any) -> Condition:
    """The upper cube is more than 4 cm above the table."""
    cube, height = _position(arena, arena.cubeA.root_body), float(arena.table_offset[2]) + 0.04
    return lambda: bool(cube[2] > height)


def _pick_place(arena: Any) -> Condition:
    """An object is at the height of the bin's inside."""
    objects = [_position(arena, item.root_body) for item in arena.objects]
    low = float(arena.bin2_pos[2])
    edge = float(arena.bin2_pos[1]) - float(arena.bin_size[1]) / 2.0
    return lambda: any(low < pos[2] < low + 0.1 and pos[1] > edge for pos in objects)


def _nut_assembly(arena: Any) -> Condition:
    """A nut is around a peg."""
    nuts = [_position(arena, nut.root_body) for nut in arena.nuts]
    pegs = [_position(arena, "peg1"), _position(arena, "peg2")]
    pairs = list(zip(nuts, pegs, strict=True))
    return lambda: any(abs(nut[0] - peg[0]) < 0.03 and abs(nut[1] - peg[1]) < 0.03 for nut, peg in pairs)


def _tool_hang(arena: Any) -> Condition:
    """The hole of the tool is about the hook: no farther from its end than the hook is long, and the hole wide."""
    data = arena.sim.data._data
    hole, end, corner = (
        data.site(name).xpos for name in ("tool_hole1_center", "frame_hang_site", "frame_intersection_site")
    )
    wide = float(arena.tool_args["inner_radius_1"])
    return lambda: float(np.sum((hole - end) ** 2)) <= float(np.sum((corner - end) ** 2)) + wide**2


def _two_arm_lift(arena: Any) -> Condition:
    """The pot is high: without its other condition, that it is level."""
    return lambda: bool(arena._check_success())


def _two_arm_peg_in_hole(arena: Any) -> Condition:
    """The peg is near the hole, whose middle is 10 cm from the body's, and the peg at most 14 cm from it along itself
    and 6 cm across.
    """
    peg, hole = _position(arena, arena.peg.root_body), _position(arena, arena.hole.root_body)
    reach = (0.1 + float(np.hypot(0.14, 0.06))) ** 2
    return lambda: float(np.sum((peg - hole) ** 2)) <= reach


def _two_arm_handover(arena: Any) -> Condition:
    """The lowest end of the hammer is as high as the threshold: robosuite's height, to more than float32's rounding."""
    data = arena.sim.data._data
    handle, upright = data.geom_xpos[arena.hammer_handle_geom_id], data.xmat[arena.hammer_body_id]
    table = data.site_xpos[arena.table_top_id]
    reach = float(arena.hammer.handle_length / 2 + 2 * arena.hammer.head_halfsize)
    least = float(arena.height_threshold + arena.hammer.top_offset[2]) - 1e-5
    return lambda: bool(handle[2] - table[2] - reach * upright[8] > least)


def _two_arm_transport(arena: Any) -> Condition:
    """The payload and the trash are each within a bin's diagonal of where they belong."""
    payload, trash = _position(arena, "payload_root"), _position(arena, "trash_main")
    target, waste = _position(arena, "transport_target_bin_root"), _position(arena, "transport_trash_bin_root")
    reach = float(np.sum(np.square(arena.transport.bin_size)))

    def both_near() -> bool:
        return float(np.sum((payload - target) ** 2)) < reach and float(np.sum((trash - waste) ** 2)) < reach

    return both_near


def _wipe(arena: Any) -> Condition:
    """Some dirt is as near to a corner of the wiper as the opposite corner is, and 2 cm; or none is left."""
    model, data = arena.sim.model._model, arena.sim.data._data
    robot = arena.robots[0]
    names = robot.gripper[robot.arms[0]].important_geoms["corners"]
    corners = [model.geom(name).id for name in names]
    places = model.geom_pos[corners]
    reach = float(np.linalg.norm(places - places[0], axis=1).max()) + 0.02
    corner, dirt = data.geom_xpos[corners[0]], Dirt(arena)

    def touches_dirt() -> bool:
        left = dirt.positions()
        return len(left) == 0 or float(((left - corner) ** 2).sum(axis=1).min()) <= reach**2

    return touches_dirt


CONDITIONS: dict[str, Callable[[Any], Condition]] = {
    "stack": _stack,
    "pick_place_can": _pick_place,
    "pick_place": _pick_place,
    "nut_assembly_square": _nut_assembly,
    "nut_assembly": _nut_assembly,
    "wipe": _wipe,
    "tool_hang": _tool_hang,
    "two_arm_lift": _two_arm_lift,
    "two_arm_peg_in_hole": _two_arm_peg_in_hole,
    "two_arm_handover": _two_arm_handover,
    "two_arm_transport": _two_arm_transport,
}
"""What success, or a part of it, implies, by task: a function of the robosuite environment makes the test."""
