"""Where new demonstrations are wanted: scenes that are far from those that are already shown.

The initial states that a task draws are a cloud; demonstrations are good where some are near. What is far from all of
them is a gap, and farthest-first choice fills the widest gap first (Gonzalez 1985, "Clustering to minimize the maximum
intercluster distance").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot.contract import Environment
from robot.sim.augmentation.demonstration import ENVIRONMENT_STATE
from robot.sim.augmentation.poses import distances, poses_of

COVERAGE, UNIFORM = "coverage", "uniform"
BLOCK, POOL = 32, 4
"""Scenes that are chosen at a time, and how many times as many they are chosen from."""

JUDGES, FIRST_JUDGE = 256, 2**30
"""Scenes that coverage is judged at, and the first of their seeds, which nobody records with."""

Scene = Mapping[str, np.ndarray]
"""Pose (4, 4) of each object."""


@dataclass(frozen=True)
class Metric:
    """How far two scenes are apart [m]: the root of the sum of squares over objects.

    Attributes:
        objects: Those that count.
        symmetry: Of them, see `robot.sim.augmentation.poses.same_turned`.
    """

    objects: tuple[str, ...]
    symmetry: Mapping[str, int]

    def between(self, some: Sequence[Scene], others: Sequence[Scene]) -> np.ndarray:
        """Distances of N scenes from M, shape (N, M)."""
        squares = np.zeros((len(some), len(others)))
        for name in self.objects:
            one, other = (np.stack([scene[name] for scene in scenes]) for scenes in (some, others))
            squares += distances(one, other, self.symmetry.get(name, 1)) ** 2
        return np.sqrt(squares)


@dataclass(frozen=True)
class Coverage:
    """How far a scene that the task draws is from the nearest demonstration [m]: on average, and at worst of many."""

    mean_m: float
    worst_m: float

    def __str__(self) -> str:
        return f"{100 * self.mean_m:.1f} cm on average, {100 * self.worst_m:.1f} cm at worst"


def scenes(environment: Environment, objects: Iterable[str], seeds: Iterable[int]) -> list[Scene]:
    """The scenes that seeds begin with."""
    names, wanted = environment.specs.observation[ENVIRONMENT_STATE].names, tuple(objects)
    found: list[Scene] = []
    for seed in seeds:
        observation, _ = environment.reset(seed=seed)
        found.append({name: poses_of(observation[ENVIRONMENT_STATE], names, name) for name in wanted})
    return found


def coverage(metric: Metric, judges: Sequence[Scene], shown: Sequence[Scene]) -> Coverage:
    """Of demonstrations in these scenes, judged at others."""
    nearest = metric.between(judges, shown).min(axis=1)
    return Coverage(float(nearest.mean()), float(nearest.max()))


def judges(environment: Environment, metric: Metric) -> list[Scene]:
    """The scenes that coverage is judged at."""
    return scenes(environment, metric.objects, range(FIRST_JUDGE, FIRST_JUDGE + JUDGES))


class Plan:
    """From which seed each attempt begins. Equal plans say the same, whoever asks and in which order."""

    def __init__(self, guide: str, seed: int, taken: Iterable[int], metric: Metric, shown: Sequence[Scene]) -> None:
        """Plan.

        Args:
            guide: `coverage` or `uniform`.
            seed: Candidates are `seed`, `seed + 1`, ...
            taken: Seeds that are left out, as those of the sources.
            metric: Of scenes.
            shown: Scenes that are demonstrated already.
        """
        self._guide, self._next, self._taken = guide, seed, frozenset(taken)
        self._metric, self._known = metric, list(shown)
        self._chosen: list[int] = []

    def seed(self, number: int, environment: Environment) -> int:
        """Of attempt `number`, from 0; resets the environment where it has to look at candidates."""
        if self._guide == UNIFORM:
            self._chosen += self._candidates(number + 1 - len(self._chosen))
        while len(self._chosen) <= number:
            self._choose_block(environment)
        return self._chosen[number]

    def _choose_block(self, environment: Environment) -> None:
        seeds = self._candidates(BLOCK * POOL)
        drawn = scenes(environment, self._metric.objects, seeds)
        nearest = self._metric.between(drawn, self._known).min(axis=1)
        for _ in range(BLOCK):
            best = int(np.argmax(nearest))
            self._chosen.append(seeds[best])
            self._known.append(drawn[best])
            nearest = np.minimum(nearest, self._metric.between(drawn, [drawn[best]])[:, 0])

    def _candidates(self, count: int) -> list[int]:
        found: list[int] = []
        while len(found) < count:
            if self._next not in self._taken:
                found.append(self._next)
            self._next += 1
        return found
