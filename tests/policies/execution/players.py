"""A policy whose rows say what they are, so that what plays can be told from what should."""

from dataclasses import replace

import numpy as np

from policies.continuing import Continuation, ContinuingPolicy, Method
from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.specs import ArraySpec

TICK = "observation.tick"
SPECS = EnvironmentSpecs(
    observation={TICK: ArraySpec(TICK, (1,))},
    action=ArraySpec("action", (3,), names=("tick", "asked", "gripper")),
    action_space="ee_delta",
    dt_s=0.05,
    robot="Clock",
    task="tell the time",
)


class Indicator(Policy):
    """Row i of the answer to tick k is (k + i, k, 1): the tick it belongs to, the one it answers, a closed gripper."""

    def __init__(self, horizon: int, n_action_steps: int, specs: EnvironmentSpecs = SPECS) -> None:
        self.specs = PolicySpecs(specs, n_obs_steps=1, horizon=horizon, n_action_steps=n_action_steps)
        self.answered: list[int] = []

    def reset(self, seed: int | None = None) -> None:
        self.answered = []

    def act(self, observation: Observation) -> ActionChunk:
        tick = int(observation[TICK][-1, 0])
        self.answered.append(tick)
        rows = np.ones((self.specs.horizon, 3))
        rows[:, 0], rows[:, 1] = tick + np.arange(self.specs.horizon), tick
        return ActionChunk(rows, self.specs.environment.dt_s)


class ContinuingIndicator(Indicator, ContinuingPolicy):
    """An indicator that remembers what it was asked to go on from, and does so where it is told firmly."""

    def reset(self, seed: int | None = None) -> None:
        super().reset(seed)
        self.continuations: list[Continuation] = []

    @property
    def methods(self) -> dict[Method, int]:
        return dict.fromkeys(Method, self.specs.horizon)

    def continue_from(self, observation: Observation, continuation: Continuation) -> ActionChunk:
        self.continuations.append(continuation)
        chunk = self.act(observation)
        firm = np.flatnonzero(continuation.weights >= 1)
        chunk.actions[firm] = continuation.rows[firm]
        return replace(chunk)


def observed(tick: int) -> Observation:
    """What is seen at a tick, stacked."""
    return {TICK: np.array([[tick]], np.float32)}
