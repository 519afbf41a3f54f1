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
from robot.sim.controllers import robosuite_config
from robot.sim.tasks import Task

ROBOTS = ("Panda", "Sawyer", "IIWA", "UR5e", "Kinova3", "Jaco")
"""robosuite's arms that stand on a fixed base."""

THIN_MESHES = ("head_1", "head_4")
"""Meshes of robosuite's without a volume that MuJoCo could compute."""

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
        ConfigError: The number of arms does not fit the task, or the control rate is above the simulation's.
    """
    robosuite = import_robosuite()
    robots = _robots(config, task)
    # A rate of its own would leave robosuite's controllers and ours at odds about the length of a period.
    if config.control_hz * robosuite.macros.SIMULATION_TIMESTEP > 1.0:
        limit = 1.0 / robosuite.macros.SIMULATION_TIMESTEP
        raise ConfigError(f"env.control_hz is {config.control_hz}, physics runs at {limit:.0f} Hz; take at most that.")
    with seeded(MODEL_SEED), _thin_meshes():
        arena = robosuite.make(
            task.robosuite_name,
            robots=robots,
            controller_configs=[robosuite_config(robot, config) for robot in robots],
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            hard_reset=False,
            ignore_done=True,
            control_freq=config.control_hz,
            horizon=config.horizon,
            lite_physics=config.lite_physics,
            reward_shaping=config.reward_shaping,
        )
        arena.reset()
    return arena


def _robots(config: EnvConfig, task: Task) -> list[str]:
    """The robot of each arm: one, or two for a task of two arms."""
    robots = config.robot.split("+")
    for robot in robots:
        if robot not in ROBOTS:
            raise unknown_name("robot", robot, ROBOTS)
    if task.arms == 2 and len(robots) == 1:
        robots = robots * 2
    if len(robots) != task.arms:
        example = "Panda" if task.arms == 1 else "Panda or Panda+UR5e"
        raise ConfigError(f"env.robot is {config.robot}, {task.name} takes {task.arms} arm(s), for example {example}.")
    return robots


@contextlib.contextmanager
def _thin_meshes() -> Iterator[None]:
    """Load meshes that MuJoCo finds too thin to have a volume as it suggests itself: as shells.

    Sawyer's head is one. It is seen and never touched, so its inertia counts for nothing.
    """
    from robosuite.models.base import MujocoXML

    load = MujocoXML.__init__

    def forgiving(self: Any, *args: Any, **kwargs: Any) -> None:
        load(self, *args, **kwargs)
        for mesh in self.asset.iter("mesh"):
            if mesh.get("name", "").endswith(THIN_MESHES):
                mesh.set("inertia", "shell")

    MujocoXML.__init__ = forgiving
    try:
        yield
    finally:
        MujocoXML.__init__ = load
