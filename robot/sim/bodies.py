"""Which bodies of a robosuite world belong to its arms."""

import re

import mujoco
import numpy as np

_OF_AN_ARM = re.compile(r"(robot|gripper|\w*mount)\d+_")


def arm_bodies(model: mujoco.MjModel) -> np.ndarray:
    """For each body whether it is part of an arm, its gripper or its mount: bool, (nbody,).

    What a gripper holds for good, as in TwoArmPegInHole, is an object.
    """
    return np.array([bool(_OF_AN_ARM.match(model.body(body).name)) for body in range(model.nbody)])
