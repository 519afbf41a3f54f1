"""The policy node: plays a policy on the arm behind a bridge, by any execution, on the bridge's clock.

Ticks lie on a grid of the policy's period; tick k is when observation k is taken. The row of a tick is sent so that it
acts when that observation was true: early by what the arm takes to follow and by what the sensors take to see
(`robot.control.latency`). What plays at which tick is decided by the execution (`policies.execution`); the node
observes, infers in another thread, and sends what is planned from the first tick whose row can still be played.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from policies.execution.base import Ask, Execution
from policies.execution.simulated import answered
from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.schema import STANDSTILL_RADPS, Mode
from robot.contract import ActionChunk, Observation, Policy
from robot.control.latency import STATE, Latency
from robot.control.plan import MAX_ROWS
from robot.control.safety import Fault
from robot.errors import BridgeError, SafetyError
from robot.loop import ObservationHistory

LATE_PART = 0.2
"""A row that began less than this part of a period ago is still played, from the pose of that moment."""
NAP_S = 0.01
"""Longest wait without a call to the client, which is what shows the bridge that this node lives."""
REST_S = 5.0
"""Longest time until the arm stands still after an episode."""


@dataclass
class EpisodeResult:
    """How one episode went.

    Attributes:
        seed: Of its scene.
        success_final: Whether the task was fulfilled at the end.
        success_sticky: Whether it was fulfilled at any tick.
        duration_s: From the first action to the end.
        ticks: Observations taken.
        chunks: Chunks sent.
        starved_ticks: Ticks before which the plan had run out.
        dropped_rows: Rows whose time had passed when their chunk was ready.
        inference_s: Duration of each inference.
        observation_age_s: Age of the observation behind a chunk when its first row began.
        fault: Why the bridge stopped a simulated arm; empty if it did not.
    """

    seed: int
    success_final: bool = False
    success_sticky: bool = False
    duration_s: float = 0.0
    ticks: int = 0
    chunks: int = 0
    starved_ticks: int = 0
    dropped_rows: int = 0
    inference_s: list[float] = field(default_factory=list)
    observation_age_s: list[float] = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True)
class NodeSettings:
    """How a node drives.

    Attributes:
        hold_s: How long the task has to stay fulfilled until an episode ends [s].
        max_observation_age_s: An observation that is older stops the arm [s].
        latency: Of the robot; what is not known is taken for nothing.
    """

    hold_s: float
    max_observation_age_s: float = 0.1
    latency: Latency = field(default_factory=Latency.none)


@dataclass(frozen=True)
class _Request:
    """An inference under way: of which tick, on what, begun when."""

    tick: int
    t_observed_ns: int
    begun_s: float
    future: "Future[ActionChunk]"


class PolicyNode:
    """Plays a policy on the arm behind a bridge, one episode at a time."""

    def __init__(
        self,
        client: BridgeClient,
        policy: Policy,
        execution: Execution,
        worker: ThreadPoolExecutor,
        settings: NodeSettings,
    ) -> None:
        """Check that policy and bridge fit.

        Args:
            client: Connected; holds the lease while episodes run.
            policy: Is asked in `worker` only.
            execution: Built for this policy.
            worker: One thread.
            settings: How to drive.

        Raises:
            BridgeError: The bridge's specs are not the policy's.
        """
        client.schema.require(policy.specs.environment)
        self._client, self._policy, self._execution, self._worker = client, policy, execution, worker
        self._settings = settings
        self._dt_s = policy.specs.environment.dt_s
        self._dt_ns = round(self._dt_s * 1e9)
        self._seen_after_ns = round(1e9 * settings.latency.observation_s.get(STATE, 0.0))
        # Never negative: a clock that is ahead of the world must not make the node play the future.
        self._early_ns = max(0, self._seen_after_ns + round(1e9 * settings.latency.action_s))
        self._history = ObservationHistory(policy.specs.n_obs_steps)
        self._pending: _Request | None = None
        self._start_ns = 0

    def warm_up(self) -> None:
        """Infer twice as the first chunk of an episode is, and twice as those after it are.

        What runs for the first time is slow, and may hold the interpreter for longer than a bridge tolerates silence.
        """
        self._history.reset()
        self._history.push(self._needed(self._client.state()))
        for _ in range(2):
            self._execution.begin(self._infer(self._client.state(), Ask(0)))
            asks = (self._execution.ask(tick) for tick in range(1, self._policy.specs.horizon + 1))
            ask = next(ask for ask in asks if ask is not None)
            begun = time.monotonic()
            self._infer(self._client.state(), ask)
            passed_ns = round(1e9 * (time.monotonic() - begun)) + self._early_ns
        self._execution.delay.add(self._rows_in(passed_ns))

    def run(self, seed: int, limit_s: float, on_tick: Callable[[int], None] | None = None) -> EpisodeResult:
        """Begin the scene of `seed`, drive until the task is fulfilled or `limit_s` is over, and come to rest.

        Raises:
            BridgeError: The bridge fell silent or refused.
            SafetyError: The bridge stopped or disarmed an arm that is not simulated.
        """
        result = EpisodeResult(seed)
        self._client.home(seed)
        homed_ns = self._client.now_ns()
        state = self._client.state()
        while state.t_ns < homed_ns:
            state = self._client.state()
        self._policy.reset(seed)
        self._history.reset()
        self._history.push(self._needed(state))
        # Nothing moves until the first chunk is there, so the observation is as good then as it was.
        chunk = self._infer(state, Ask(0), result)
        self._client.arm()
        try:
            self._play(chunk, state, result, limit_s, on_tick)
            self._client.disarm()
        except SafetyError as error:
            # Nobody but a human lets a real arm go on after a stop; a simulated one begins its next scene.
            if not self._client.schema.arm.is_simulated:
                raise
            result.fault, result.success_final = str(error), False
            self._client.reset()
        self._rest()
        # The policy must not be reset while it still thinks about the last episode.
        while self._pending is not None and not self._pending.future.done():
            self._client.state()
        self._pending = None
        result.dropped_rows = self._execution.dropped_rows
        return result

    def _play(
        self,
        chunk: ActionChunk,
        state: BridgeState,
        result: EpisodeResult,
        limit_s: float,
        on_tick: Callable[[int], None] | None,
    ) -> None:
        """Tick until the episode is over. An inference may be under way then."""
        self._start_ns = self._client.now_ns() + self._early_ns
        self._execution.begin(chunk)
        self._send(0, state.t_ns, result)
        held, needed = 0, max(1, round(self._settings.hold_s / self._dt_s))
        for tick in range(1, math.ceil(limit_s / self._dt_s) + 1):
            self._wait(tick, result)
            state = self._require_fresh(self._require_armed(self._client.state()))
            self._history.push(self._needed(state))
            result.starved_ticks += self._execution.end < tick
            held = held + 1 if state.success else 0
            result.success_final, result.success_sticky = state.success, result.success_sticky or state.success
            result.ticks, result.duration_s = tick, tick * self._dt_s
            if on_tick is not None:
                on_tick(tick)
            if held >= needed:
                return
            ask = self._execution.ask(tick)
            if ask is not None:
                self._pending = self._request(ask, state)

    def _wait(self, tick: int, result: EpisodeResult) -> None:
        """Until a tick, showing the bridge that this node lives; a chunk that is ready meanwhile is sent at once."""
        while (left_s := (self._tick_ns(tick) - self._client.now_ns()) / 1e9) > 0:
            if self._pending is None:
                time.sleep(min(left_s, NAP_S))
            elif wait([self._pending.future], timeout=min(left_s, NAP_S)).done:
                self._dispatch(self._pending, result)
                self._pending = None
            if left_s > 1.5 * NAP_S:
                self._client.state()

    def _tick_ns(self, tick: int) -> int:
        return self._start_ns + tick * self._dt_ns

    def _needed(self, state: BridgeState) -> Observation:
        """What the policy was trained on, of what the bridge gives."""
        observation = state.observation()
        return {key: observation[key] for key in self._policy.specs.environment.observation}

    def _request(self, ask: Ask, state: BridgeState) -> _Request:
        future = self._worker.submit(answered, self._policy, self._history.stacked(), ask)
        return _Request(ask.tick, state.t_ns, time.monotonic(), future)

    def _dispatch(self, request: _Request, result: EpisodeResult) -> None:
        """Plan with a chunk that is ready, and send what is planned."""
        chunk = request.future.result()
        result.inference_s.append(time.monotonic() - request.begun_s)
        passed_ns = self._client.now_ns() - (self._tick_ns(request.tick) - self._early_ns)
        first = request.tick + self._rows_in(passed_ns)
        self._execution.deliver(chunk, first)
        self._send(first, request.t_observed_ns, result)

    def _rows_in(self, passed_ns: int) -> int:
        """Rows that are over, so much time after the first of them should have begun."""
        return max(0, math.ceil(passed_ns / self._dt_ns - LATE_PART))

    def _send(self, tick: int, observed_ns: int, result: EpisodeResult) -> None:
        """Send the rows from `tick` on, in place of everything from there."""
        begin_ns = self._tick_ns(tick) - self._early_ns
        rows = self._inside(self._execution.rows_from(tick)[:MAX_ROWS])
        self._client.send_chunk(ActionChunk(rows, self._dt_s), begin_ns)
        result.chunks += 1
        true_ns = observed_ns - self._seen_after_ns
        result.observation_age_s.append((max(begin_ns, self._client.now_ns()) - true_ns) / 1e9)

    def _inside(self, rows: np.ndarray) -> np.ndarray:
        low, high = self._policy.specs.environment.action.bounds()
        return rows.clip(low, high)

    def _infer(self, state: BridgeState, ask: Ask, result: EpisodeResult | None = None) -> ActionChunk:
        """Infer now, reading states meanwhile so that the lease stays ours."""
        request = self._request(ask, state)
        while not request.future.done():
            self._client.state()
        if result is not None:
            result.inference_s.append(time.monotonic() - request.begun_s)
        return request.future.result()

    def _require_fresh(self, state: BridgeState) -> BridgeState:
        """Stop the arm rather than act on what was: a sensor that is dead must not look like a world that stands."""
        age_s = (self._client.now_ns() - state.t_ns) / 1e9
        bound_s = self._settings.max_observation_age_s
        if age_s <= bound_s:
            return state
        self._client.disarm()
        raise SafetyError(
            f"The newest observation is {age_s:.3f} s old, expected at most {bound_s} s (max_observation_age_s): a "
            "sensor, the real-time process or the network stalls. The arm was disarmed. See `armature watch`."
        )

    def _require_armed(self, state: BridgeState) -> BridgeState:
        if state.mode == Mode.ARMED:
            return state
        if state.mode in (Mode.FAULT, Mode.STOPPING):
            raise SafetyError(
                f"The bridge latched a stop: {Fault(int(state.status('fault'))).name}. Find its cause first."
            )
        raise SafetyError(
            "The arm came to rest and was disarmed during the episode: this node or the real-time loop was away for "
            "longer than the arm's limits tolerate (silence_s), or another client sent stop."
        )

    def _rest(self) -> None:
        until = time.monotonic() + REST_S
        while time.monotonic() < until:
            state = self._client.state()
            if state.mode == Mode.DISARMED and (np.abs(state.values["dq"]) <= STANDSTILL_RADPS).all():
                return
        raise BridgeError(f"The arm did not come to rest within {REST_S} s.")
