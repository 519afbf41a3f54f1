"""How good demonstrations are to be, by name."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robot.contract import Policy
from robot.loop import Disturbance
from robot.sim.experts.failing import FailingExpert
from robot.sim.experts.noise import action_noise


def _undisturbed(seed: int) -> Disturbance:
    return np.array


@dataclass(frozen=True)
class Quality:
    """What makes the demonstrations of an expert good or bad.

    Attributes:
        noise: Disturbance of an episode on the way to the robot, by its seed.
        demonstrator: Of an expert, who demonstrates.
        fails: Whether most of its episodes are meant to fail.
    """

    noise: Callable[[int], Disturbance]
    demonstrator: Callable[[Policy], Policy] = lambda expert: expert
    fails: bool = False


QUALITIES = {
    "clean": Quality(_undisturbed),
    "noisy": Quality(action_noise),
    "failing": Quality(_undisturbed, FailingExpert, fails=True),
}
"""`clean`: the expert undisturbed. `noisy`: blows on the way to the robot, from which it recovers. `failing`: it does
one thing wrong; see `robot.sim.experts.failing`.
"""
