"""Reward and success: robosuite's, read after every control step."""

from collections.abc import Callable
from typing import Any

from robot.sim.tasks import Task

Verdict = tuple[float, bool]
"""Reward of the last control step, and whether the task is fulfilled now."""

SUCCESS_ONLY = ("lift", "stack", "door", "tool_hang", "two_arm_peg_in_hole", "two_arm_handover", "two_arm_transport")
"""Tasks whose sparse reward is 1 while they are fulfilled, else 0. The others count parts or add conditions."""


def judge(arena: Any, task: Task) -> Callable[[], Verdict]:
    """A function that judges the present state of a robosuite environment; called once in each control step."""
    if task.name in SUCCESS_ONLY and not arena.reward_shaping:

        def by_success() -> Verdict:
            success = bool(arena._check_success())
            return float(success), success

        return by_success

    def by_reward() -> Verdict:
        # The reward first: it updates what the success check of some tasks reads.
        return float(arena.reward(None)), bool(arena._check_success())

    return by_reward
