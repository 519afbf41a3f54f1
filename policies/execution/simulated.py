"""An execution in a world that waits: inference takes as many control steps as it is told to, on no clock at all."""

import dataclasses
import time

import numpy as np

from policies.continuing import ContinuingPolicy
from policies.execution.base import Ask, Execution
from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy
from robot.errors import ConfigError

RELATIVE = ("ee_delta", "ee_delta_position", "joint_delta", "joint_velocity", "joint_torque")
"""Action spaces in which zero means to stay; in the others the last goal does."""


class SimulatedPlay:
    """One episode of an execution whose chunks are ready `delay` ticks after they were asked for.

    At every tick: `ask`, then `answer` if a chunk is wanted, then `next_row`.

    Attributes:
        starved: Ticks of this episode that no row was planned for.
    """

    def __init__(self, execution: Execution, delay: int) -> None:
        """Nothing is played yet.

        Args:
            execution: Decides; is told the delay as though it had been measured before.
            delay: Control steps from an observation to its chunk; 0: it is there at once.
        """
        if delay < 0:
            raise ConfigError(f"delay is {delay}, expected 0 or more control steps.")
        self._execution, self._delay = execution, delay
        self._hold = holding(execution.specs.environment)
        execution.delay.add(delay)
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._tick, self.starved = 0, 0
        self._waiting: ActionChunk | None = None
        self._ready = 0
        self._last: np.ndarray | None = None

    def ask(self) -> Ask | None:
        """What is wanted of the policy at this tick, answering the observation of this tick."""
        if self._tick == 0:
            return Ask(0)
        if self._waiting is not None and self._tick >= self._ready:
            self._execution.deliver(self._waiting, self._tick)
            self._waiting = None
        return self._execution.ask(self._tick)

    def answer(self, chunk: ActionChunk) -> None:
        """The chunk that was asked for at this tick; it is not looked at before it is ready."""
        if self._tick == 0:
            self._execution.begin(chunk)
        elif self._delay == 0:
            self._execution.deliver(chunk, self._tick)
        else:
            self._waiting, self._ready = chunk, self._tick + self._delay

    def next_row(self) -> np.ndarray:
        """What plays at this tick, (A,); the next tick begins."""
        row = self._execution.row(self._tick)
        if row is None:
            assert self._last is not None
            self.starved += 1
            row = np.where(self._hold, self._last, 0).astype(self._last.dtype)
        self._tick, self._last = self._tick + 1, row
        return row


def holding(specs: EnvironmentSpecs) -> np.ndarray:
    """Which elements of the last action have to be repeated for the arm to stay; the others are zero then. (A,) bool.

    All of an absolute action; of a relative one only the grippers' commands.
    """
    n = specs.action.shape[0]
    if specs.action_space not in RELATIVE:
        return np.ones(n, np.bool_)
    return np.array([name.endswith("gripper") for name in specs.action.names or [""] * n])


class ExecutedPolicy(Policy):
    """A policy that is played like that, as a policy whose chunks are one row long.

    Attributes:
        play: How it goes.
        inference_s: What each inference of this episode took in truth [s].
    """

    def __init__(self, policy: Policy, execution: Execution, delay: int) -> None:
        """Nothing is played yet.

        Args:
            policy: What is played.
            execution: How; built for this policy.
            delay: Control steps from an observation to its chunk.
        """
        self.specs = dataclasses.replace(policy.specs, horizon=1, n_action_steps=1)
        self._policy = policy
        self.play = SimulatedPlay(execution, delay)
        self.inference_s: list[float] = []

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode."""
        self._policy.reset(seed)
        self.inference_s = []
        self.play.reset()

    def act(self, observation: Observation) -> ActionChunk:
        """The action of this control step. To be called at each one, in order."""
        ask = self.play.ask()
        if ask is not None:
            begin = time.perf_counter()
            chunk = answered(self._policy, observation, ask)
            self.inference_s.append(time.perf_counter() - begin)
            self.play.answer(chunk)
        return ActionChunk(self.play.next_row()[None], self.specs.environment.dt_s)


def answered(policy: Policy, observation: Observation, ask: Ask) -> ActionChunk:
    """The chunk that is asked for."""
    if ask.continuation is None:
        return policy.act(observation)
    assert isinstance(policy, ContinuingPolicy)
    return policy.continue_from(observation, ask.continuation)
