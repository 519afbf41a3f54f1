"""Whole datasets to look at and to damage: a disc that an arm of two joints pushes about, seen by two cameras."""

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.rows import Held, Rows, Schema
from robot.specs import ArraySpec

STATE, GOAL, FRONT, WRIST = (
    "observation.state", "observation.environment_state", "observation.images.front", "observation.images.wrist"
)  # fmt: skip
FPS, HEIGHT, WIDTH = 10, 48, 64
LENGTHS = (24, 30, 27)


def schema(robot: str = "disc", task: str = "push the disc", cameras: tuple[str, ...] = (FRONT, WRIST)) -> Schema:
    observation = {
        STATE: ArraySpec(STATE, (2,), low=-1.0, high=1.0, unit="m m", names=("x", "y")),
        GOAL: ArraySpec(GOAL, (1,), names=("goal",)),
        **{key: ArraySpec(key, (HEIGHT, WIDTH, 3), "uint8", 0, 255) for key in cameras},
    }
    action = ArraySpec("action", (3,), low=-1.0, high=1.0, names=("a", "b", "grip"))
    extras = {
        "next.reward": ArraySpec("next.reward", (), "float32"),
        "next.success": ArraySpec("next.success", (), "bool"),
        "remark": ArraySpec("remark", (), "str"),
    }
    return Schema(EnvironmentSpecs(observation, action, "ee_delta", 1 / FPS, robot, task), extras, {"lab": "here"})


def episode(number: int, length: int, cameras: tuple[str, ...] = (FRONT, WRIST)) -> Rows:
    rng = np.random.default_rng(number)
    phase, speed = rng.uniform(0, 6), rng.uniform(0.15, 0.25)
    angle = phase + speed * np.arange(length)
    state = 0.7 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.002, (length, 2))
    action = np.stack([-np.sin(angle), np.cos(angle), np.where(np.arange(length) > length // 2, 1.0, -1.0)], 1) * 0.8
    columns = {
        STATE: state.astype(np.float32),
        GOAL: np.full((length, 1), number / 8, np.float32),
        "action": action.astype(np.float32),
        "next.reward": (-np.abs(state[:, 0])).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
        "remark": np.array([f"row {k}" for k in range(length)]),
    }
    pictures = {key: _pictures(state, number, 10 * view) for view, key in enumerate(cameras)}
    origin = {"file": f"episode-{number:06d}.mcap", "seed": number, "source": "expert", "quality": "good"}
    return Rows(columns, pictures, f"push disc {number % 2}", origin, ("train",) if number else ("train", "first"))


def source(lengths: tuple[int, ...] = LENGTHS, first: int = 0, **changes) -> Held:
    found = schema(**changes)
    cameras = tuple(found.pictures)
    return Held(found, [episode(first + number, length, cameras) for number, length in enumerate(lengths)])


def _pictures(state: np.ndarray, number: int, view: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    background = np.stack([60 + x + view, 150 - y, np.full_like(x, 40 + 30 * (number % 4))], -1).astype(np.uint8)
    pictures = []
    for u, v in state:
        disc = (x - WIDTH / 2 - 28 * u) ** 2 + (y - HEIGHT / 2 - 20 * v) ** 2 < 80
        pictures.append(np.where(disc[..., None], np.uint8(240), background))
    return np.stack(pictures)
