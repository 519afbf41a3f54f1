"""Demonstrations of a point in the plane, of known quality."""

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.dataset import Dataset
from robot.specs import ArraySpec

STATE = "observation.state"

SPECS = EnvironmentSpecs(
    observation={STATE: ArraySpec(STATE, (4,), names=("x", "y", "goal_x", "goal_y"), unit="m m m m")},
    action=ArraySpec("action", (3,), low=-1.0, high=1.0, names=("vx", "vy", "gripper")),
    action_space="ee_delta",
    dt_s=0.05,
    robot="Point",
    task="go to the goal",
)


def drive(rng, *, blunder=0.0, push=0.0, side=0.0, idle=0, frames=400):
    """Columns of one episode: a point that goes from the left to a goal on the right.

    Args:
        rng: Draws start, goal and noises.
        blunder: Standard deviation of what is added to the action, by the expert.
        push: Standard deviation of what is added to the position, by the world.
        side: How far it swings to one side of the line first.
        idle: Frames that it waits in the middle.
        frames: It gives up after so many.
    """
    position, goal = np.array([[-0.4, 0.0], [0.4, 0.0]]) + rng.uniform(-0.1, 0.1, (2, 2))
    wait, states, actions, shake = idle, [], [], np.zeros(2)
    for _ in range(frames):
        away = goal - position
        wanted = 1.5 * away + side * np.array([-away[1], away[0]])
        if np.linalg.norm(away) < 0.25 and wait > 0:
            wait, wanted = wait - 1, np.zeros(2)
        shake = 0.5 * shake + blunder * rng.normal(size=2)
        move = np.clip(wanted + shake, -0.999, 0.999)
        states.append([*position, *goal])
        actions.append([*move, 1.0 if np.linalg.norm(away) < 0.1 else -1.0])
        position = position + 0.1 * move + push * rng.normal(size=2)
        if np.linalg.norm(goal - position) < 0.05:
            break
    done = np.zeros(len(states), bool)
    done[-1] = np.linalg.norm(goal - position) < 0.05
    return {
        STATE: np.array(states, np.float32),
        "action": np.array(actions, np.float32),
        "next.reward": done.astype(np.float32),
        "next.success": done,
    }


def dataset(count=20, seed=0, **how) -> Dataset:
    """So many episodes of one kind."""
    rng = np.random.default_rng(seed)
    return Dataset.from_episodes(SPECS, [drive(rng, **how) for _ in range(count)])
