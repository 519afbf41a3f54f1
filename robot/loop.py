"""The run loop: one policy, one environment, one episode.

The same loop records demonstrations and evaluates checkpoints, so that neither can see an observation or an action
that the other would not.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot.contract import ActionChunk, Environment, Observation, Policy


class ObservationHistory:
    """The newest observations, stacked oldest first; the first one of an episode is repeated to fill the stack."""

    def __init__(self, n_obs_steps: int) -> None:
        self._frames: deque[Observation] = deque(maxlen=n_obs_steps)

    def reset(self) -> None:
        """Forget the last episode."""
        self._frames.clear()

    def push(self, observation: Observation) -> None:
        """Add the newest observation."""
        if not self._frames:
            self._frames.extend([observation] * (self._frames.maxlen or 1))
        else:
            self._frames.append(observation)

    def stacked(self) -> Observation:
        """Arrays of shape (n_obs_steps, ...) by key."""
        return {key: np.stack([frame[key] for frame in self._frames]) for key in self._frames[-1]}


class ChunkPlayer:
    """Plays a policy one action at a time: asks for a chunk, plays its first `n_action_steps` rows, asks again."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._history = ObservationHistory(policy.specs.n_obs_steps)
        self._chunk: ActionChunk | None = None
        self._next_row = 0
        self.inference_s: list[float] = []

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode."""
        self._policy.reset(seed)
        self._history.reset()
        self._chunk = None
        self.inference_s = []

    def act(self, observation: Observation) -> np.ndarray:
        """The action for this control step, shape (A,)."""
        self._history.push(observation)
        if self._chunk is None or self._next_row == self._policy.specs.n_action_steps:
            begin = time.perf_counter()
            self._chunk = self._policy.act(self._history.stacked())
            self.inference_s.append(time.perf_counter() - begin)
            self._next_row = 0
        action = self._chunk.actions[self._next_row]
        self._next_row += 1
        return action


@dataclass(frozen=True)
class Step:
    """One control step as it happened.

    Attributes:
        index: Number of the step in its episode, from 0.
        t_ns: When the action was sent, CLOCK_MONOTONIC [ns].
        observation: What the policy saw before it acted.
        device: The action that the policy or the device asked for.
        commanded: The action that was sent, after any disturbance.
        reward: Reward of the transition.
        terminated: Whether the task ended here.
        truncated: Whether time ran out here.
        success: Whether the task is fulfilled after this step.
    """

    index: int
    t_ns: int
    observation: Observation
    device: np.ndarray
    commanded: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: bool


@dataclass(frozen=True)
class Outcome:
    """How an episode went.

    Attributes:
        steps: Control steps taken.
        success_final: Whether the task was fulfilled after the last step.
        success_sticky: Whether it was fulfilled after any step.
        episode_return: Sum of rewards.
        inference_s: Duration of each inference [s].
    """

    steps: int
    success_final: bool
    success_sticky: bool
    episode_return: float
    inference_s: list[float] = field(default_factory=list)


Disturbance = Callable[[np.ndarray], np.ndarray]
"""Maps the action that was asked for to the one that is sent; both inside the action's spec."""


def rollout(
    environment: Environment,
    policy: Policy,
    seed: int,
    disturbance: Disturbance | None = None,
    on_step: Callable[[Step], None] | None = None,
    options: dict[str, Any] | None = None,
) -> Outcome:
    """Run one episode to its end.

    Args:
        environment: Decides when the episode ends.
        policy: Is reset with the same seed as the environment.
        seed: Of the initial state and of everything that the policy draws.
        disturbance: Noise on the way to the robot. What was asked for and what was sent are both reported, so that
            a dataset can teach the first from states that the second leads to (DART, Laskey et al. 2017).
        on_step: Called after every step.
        options: Of the environment's reset, e.g. `{"state": ...}` for a stored initial state.
    """
    player = ChunkPlayer(policy)
    player.reset(seed)
    observation, _ = environment.reset(seed=seed, options=options)
    index, episode_return, sticky, success, over = 0, 0.0, False, False, False
    while not over:
        device = player.act(observation)
        commanded = device if disturbance is None else disturbance(device)
        t_ns = time.monotonic_ns()
        following, reward, terminated, truncated, info = environment.step(commanded)
        success = bool(info["success"])
        sticky |= success
        episode_return += reward
        if on_step is not None:
            on_step(Step(index, t_ns, observation, device, commanded, reward, terminated, truncated, success))
        observation, index, over = following, index + 1, terminated or truncated
    return Outcome(index, success, sticky, episode_return, player.inference_s)
