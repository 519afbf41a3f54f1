"""Worlds as `armature record` makes them, and episodes in which something happens."""

from collections.abc import Callable

from robot.config import load
from robot.contract import Policy
from robot.episodes.record import RecordConfig
from robot.sim.config import ENV_SCHEMAS
from robot.sim.environment import RobosuiteEnvironment


def as_recorded(task: str) -> RobosuiteEnvironment:
    """The world of `configs/env/<task>.yaml`, its horizon included."""
    return RobosuiteEnvironment(load("record", RecordConfig, [f"env={task}"], {"env": ENV_SCHEMAS}).env)


def run_with_a_mishap(
    world: RobosuiteEnvironment,
    policy: Policy,
    seed: int,
    is_time: Callable[[], bool],
    mishap: Callable[[], None],
) -> None:
    """An episode in which `mishap` happens once, as soon as `is_time`; it has to end with success all the same."""
    observation, info = world.reset(seed=seed)
    over = happened = False
    while not over:
        action = policy.act({key: array[None] for key, array in observation.items()}).actions[0]
        observation, _, terminated, truncated, info = world.step(action)
        over = terminated or truncated
        if is_time() and not happened:
            happened = True
            mishap()
    assert happened
    assert info["success"]
