"""Demonstrations that fail in the ways that demonstrations fail, for datasets of mixed quality.

What goes wrong is part of the demonstrator and not of the way to the robot: the action that was asked for is the wrong
one too, so that a dataset labelled with either shows the failure. The seed of an episode says which way it is, and how
much, how early: five episodes in a row fail in five ways.

A few succeed by luck: of the seeds 0 to 39, 5 on Lift, and none on Stack, PickPlaceCan and Door.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from robot.contract import ActionChunk, Observation, Policy
from robot.errors import ConfigError
from robot.sim.experts.base import ENVIRONMENT_STATE, STATE
from robot.specs import Specs

GRIPPER = "gripper"


class Fault(ABC):
    """One way to fail, for one episode."""

    def see(self, observation: Observation) -> Observation:
        """What the demonstrator takes for the present observation."""
        return observation

    @abstractmethod
    def do(self, action: np.ndarray) -> np.ndarray:
        """What it does in place of `action` (7,), an `ee_delta`; called once in each control step."""


class Misjudges(Fault):
    """Takes the tool to be 3 to 6 cm aside of where it is, and up to 3 cm lower: closes beside or above things."""

    ASIDE_M, ABOVE_M = (0.03, 0.06), (0.0, 0.03)

    def __init__(self, rng: np.random.Generator, specs: Specs) -> None:
        angle, aside = rng.uniform(-np.pi, np.pi), rng.uniform(*self.ASIDE_M)
        shift = np.array([aside * np.cos(angle), aside * np.sin(angle), -rng.uniform(*self.ABOVE_M)])
        self._shifts = {}
        for key, sign, suffix in ((STATE, 1.0, "ee_{}"), (ENVIRONMENT_STATE, -1.0, "_d{}")):
            names = specs[key].names
            moved = np.zeros(len(names), np.float32)
            for axis, letter in enumerate("xyz"):
                ending = suffix.format(letter)
                moved[[name.endswith(ending) for name in names]] = sign * shift[axis]
            self._shifts[key] = moved

    def see(self, observation: Observation) -> Observation:
        """The tool elsewhere, and therefore everything elsewhere relative to it."""
        return {**observation, **{key: observation[key] + moved for key, moved in self._shifts.items()}}

    def do(self, action: np.ndarray) -> np.ndarray:
        """As it sees fit."""
        return action


class Drops(Fault):
    """Lets go 0.15 to 0.5 s after it began to close (at 20 Hz), and cannot be brought to close again."""

    HELD_STEPS = (3, 10)

    def __init__(self, rng: np.random.Generator, specs: Specs) -> None:
        self._left = int(rng.integers(*self.HELD_STEPS, endpoint=True))

    def do(self, action: np.ndarray) -> np.ndarray:
        """Open from some time on."""
        self._left -= action[-1] > 0.0
        return np.append(action[:-1], -1.0) if self._left < 0 else action


class NeverCloses(Fault):
    """Goes where things are and forgets to close its fingers around them."""

    def __init__(self, rng: np.random.Generator, specs: Specs) -> None:
        """Nothing to draw."""

    def do(self, action: np.ndarray) -> np.ndarray:
        """Open all the time."""
        return np.append(action[:-1], -1.0)


class GivesUp(Fault):
    """Hesitates more and more in the first two seconds of an episode, and then stays where it is."""

    BEGIN_STEPS, END_STEPS = (5, 20), (5, 20)

    def __init__(self, rng: np.random.Generator, specs: Specs) -> None:
        begin = int(rng.integers(*self.BEGIN_STEPS, endpoint=True))
        end = begin + int(rng.integers(*self.END_STEPS, endpoint=True))
        self._will = iter(np.append(np.ones(begin), np.linspace(1.0, 0.0, end - begin)))
        self._last: float | None = None

    def do(self, action: np.ndarray) -> np.ndarray:
        """Slower and slower, the fingers at last as they were."""
        will = next(self._will, 0.0)
        if will > 0.0 or self._last is None:
            self._last = float(action[-1])
        return np.append(will * action[:-1], self._last)


class Strays(Fault):
    """Turns away at some moment of the first two seconds, and heads somewhere else."""

    BEGIN_STEPS, SPEED = (5, 35), (0.1, 0.4)

    def __init__(self, rng: np.random.Generator, specs: Specs) -> None:
        self._left = int(rng.integers(*self.BEGIN_STEPS, endpoint=True))
        direction = rng.normal(size=3) * [1.0, 1.0, 0.5]
        self._heading = rng.uniform(*self.SPEED) * direction / np.abs(direction).max()
        self._pull = 0.0

    def do(self, action: np.ndarray) -> np.ndarray:
        """Into the new direction, which it takes within half a second."""
        self._left -= 1
        if self._left >= 0:
            return action
        self._pull = min(1.0, self._pull + 0.1)
        move = (1.0 - self._pull) * action[:3] + self._pull * self._heading
        return np.concatenate([move, (1.0 - self._pull) * action[3:-1], action[-1:]])


FAULTS: dict[str, Callable[[np.random.Generator, Specs], Fault]] = {
    "misjudges": Misjudges,
    "drops": Drops,
    "never_closes": NeverCloses,
    "gives_up": GivesUp,
    "strays": Strays,
}
"""Ways to fail, by name; seeds take turns."""


class FailingExpert(Policy):
    """An expert with one fault in each episode."""

    def __init__(self, expert: Policy) -> None:
        """Wrap an expert that acts in `ee_delta`. Raises `ConfigError` for another."""
        space = expert.specs.environment.action_space
        if space != "ee_delta" or expert.specs.environment.action.names[-1] != GRIPPER:
            raise ConfigError(f"Failing demonstrations are in ee_delta with a gripper, this expert acts in {space}.")
        self.specs = expert.specs
        self._expert = expert
        self.reset(0)

    def reset(self, seed: int | None = None) -> None:
        """What goes wrong in the next episode; None draws it."""
        self._expert.reset(seed)
        rng = np.random.default_rng(seed)
        turn = int(rng.integers(len(FAULTS))) if seed is None else seed
        self.fault = list(FAULTS)[turn % len(FAULTS)]
        self._fault = FAULTS[self.fault](rng, self.specs.environment.observation)

    def act(self, observation: Observation) -> ActionChunk:
        """See `Expert.act`."""
        chunk = self._expert.act(self._fault.see(observation))
        action = np.clip(self._fault.do(chunk.actions[0].astype(np.float64)), -1.0, 1.0)
        return ActionChunk(action.astype(np.float32)[None], chunk.dt_s)
