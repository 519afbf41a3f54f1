"""The door to robosuite: imported quietly and seeded."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from robot.errors import ConfigError, unknown_name
from robot.sim.config import EnvConfig
from robot.sim.tasks import Task

MODEL_SEED = 0
"""Seed of what robosuite draws while it builds a model (the cube's size): every environment gets the same model."""


def import_robosuite() -> Any:
    """The `robosuite` package, without its remarks about optional packages.

    robosuite sets its logger up while it is imported, so only a disabled one stays silent. It also points MUJOCO_GL at
    EGL whether or not there is one; rendering chooses for itself.
    """
    backend = os.environ.get("MUJOCO_GL")
    logger = logging.getLogger("robosuite_logs")
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            # Its docstrings hold invalid escapes, which Python remarks on whenever it compiles them.
            warnings.simplefilter("ignore")
            import robosuite
    finally:
        logger.disabled = False
        os.environ.pop("MUJOCO_GL", None)
        if backend is not None:
            os.environ["MUJOCO_GL"] = backend
    logger.setLevel(logging.ERROR)
    return robosuite


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which robosuite 1.5.1 draws from, and put it back afterwards."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


def build(config: EnvConfig, task: Task) -> Any:
    """The robosuite environment of a task, without cameras or renderer, reset once.

    Raises:
        UnknownNameError: The robot or the controller does not exist in robosuite.
        ConfigError: The control rate is above the simulation's.
    """
    robosuite = import_robosuite()
    if config.robot not in robosuite.ALL_ROBOTS:
        raise unknown_name("robot", config.robot, robosuite.ALL_ROBOTS)
    # A rate of its own would leave robosuite's controllers and ours at odds about the length of a period.
    if config.control_hz * robosuite.macros.SIMULATION_TIMESTEP > 1.0:
        limit = 1.0 / robosuite.macros.SIMULATION_TIMESTEP
        raise ConfigError(f"env.control_hz is {config.control_hz}, physics runs at {limit:.0f} Hz; take at most that.")
    with seeded(MODEL_SEED):
        arena = robosuite.make(
            task.robosuite_name,
            robots=config.robot,
            controller_configs=_controller(config),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            hard_reset=False,
            ignore_done=True,
            control_freq=config.control_hz,
            horizon=config.horizon,
        )
        arena.reset()
    return arena


def _controller(config: EnvConfig) -> dict[str, Any]:
    from robosuite.controllers import (
        ALL_PART_CONTROLLERS,
        load_composite_controller_config,
        load_part_controller_config,
    )

    whole = load_composite_controller_config(robot=config.robot)
    arms = whole["body_parts"].get("arms", whole["body_parts"])
    for name, part in arms.items():
        if part["type"] == config.controller:
            continue
        if config.controller not in ALL_PART_CONTROLLERS:
            raise unknown_name("controller", config.controller, ALL_PART_CONTROLLERS)
        arms[name] = {**load_part_controller_config(default_controller=config.controller), "gripper": part["gripper"]}
    return whole
