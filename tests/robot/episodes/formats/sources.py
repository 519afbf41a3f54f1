"""Sources of rows with every kind of column and pictures that move, for tests of whoever writes a format."""

import hashlib
from pathlib import Path

import cv2
import numpy as np

from robot.contract import EnvironmentSpecs
from robot.episodes.rows import Held, Rows, Schema
from robot.specs import ArraySpec

FRONT, WRIST, STATE = "observation.images.front", "observation.images.wrist", "observation.state"


def specs(front: tuple[int, int] = (64, 64), wrist: tuple[int, int] = (48, 64), fps: int = 20) -> EnvironmentSpecs:
    observation = {
        STATE: ArraySpec(STATE, (3,), names=("x", "y", "z"), unit="m", frame="base"),
        FRONT: ArraySpec(FRONT, (*front, 3), "uint8"),
        WRIST: ArraySpec(WRIST, (*wrist, 3), "uint8"),
    }
    return EnvironmentSpecs(observation, ArraySpec("action", (2,)), "ee_delta", 1 / fps, "fake", "")


EXTRAS = {
    spec.key: spec
    for spec in (
        ArraySpec("next.reward", ()),
        ArraySpec("grid", (4, 5), "float64"),
        ArraySpec("cube", (2, 3, 2), "uint8"),
        ArraySpec("word", (), "str"),
        ArraySpec("flags", (3,), "bool"),
        ArraySpec("stamp", (1,), "int64"),
    )
}
SCHEMA = Schema(specs(), EXTRAS, {"env_args": {"name": "fake"}})
VECTORS = Schema(
    EnvironmentSpecs({STATE: SCHEMA.specs.observation[STATE]}, SCHEMA.specs.action, "ee_delta", 0.05, "fake", "")
)


def film(length: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A textured picture that a disc wanders over, with the noise of a sensor: uint8, (T, H, W, 3)."""
    coarse = rng.integers(40, 210, (5, 5, 3), dtype=np.uint8)
    ground = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    frames = np.zeros((length, height, width, 3), np.uint8)
    phase, colour = rng.uniform(0, 6), tuple(int(value) for value in rng.integers(0, 255, 3))
    for k in range(length):
        frame = ground.copy()
        x = width * (0.5 + 0.35 * np.sin(phase + k / 7))
        y = height * (0.5 + 0.35 * np.cos(phase + k / 11))
        cv2.circle(frame, (int(x), int(y)), height // 6, colour, -1, cv2.LINE_AA)
        noise = rng.normal(0, 2, frame.shape)
        frames[k] = np.clip(frame + noise, 0, 255).astype(np.uint8)
    return frames


def episode(length: int, seed: int, schema: Schema = SCHEMA) -> Rows:
    """Episode `seed`; every third one has a task for each row."""
    rng = np.random.default_rng(seed)
    columns = {}
    for key, spec in schema.columns.items():
        columns[key] = _values(spec, length, rng)
    pictures = {key: film(length, *spec.shape[:2], rng) for key, spec in schema.pictures.items()}
    task = tuple(f"task {k % 2}" for k in range(length)) if seed % 3 == 0 else f"task {seed % 2}"
    return Rows(columns, pictures, task, {"file": f"episode-{seed:06d}.mcap", "seed": seed}, ("train",))


def _values(spec: ArraySpec, length: int, rng: np.random.Generator) -> np.ndarray:
    shape = (length, *spec.shape)
    if spec.dtype == "str":
        return np.array([f"word {k} ü" for k in range(length)], object).reshape(shape)
    if spec.dtype == "bool":
        return rng.uniform(size=shape) > 0.5
    if spec.dtype in ("int64", "uint8"):
        return rng.integers(0, 200 if spec.dtype == "uint8" else 2**60, shape).astype(spec.dtype)
    return rng.normal(size=shape).astype(spec.dtype)


def held(lengths: tuple[int, ...] = (20, 7, 30, 1, 44), schema: Schema = SCHEMA, first: int = 0) -> Held:
    return Held(schema, [episode(length, first + number, schema) for number, length in enumerate(lengths)])


def files(root: Path) -> dict[str, str]:
    """Digest of every file of a folder by its name."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
