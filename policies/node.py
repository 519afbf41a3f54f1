"""The policy node: infers the next chunk while the present one plays, on the bridge's clock.

Ticks lie on a grid of the policy's period. Row i of a chunk that answers the observation of tick k belongs to the
time from tick k + i on; rows whose time has passed when the chunk is ready are dropped, so that late inference costs
freshness but never shifts actions in time. As in Black et al. 2025 ("Real-time execution of action chunking flow
policies"), a chunk is asked for early enough for its successor to be there before its rows run out.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.schema import STANDSTILL_RADPS, Mode
from robot.contract import ActionChunk, Observation, Policy
from robot.control.plan import MAX_ROWS
from robot.control.safety import Fault
from robot.errors import BridgeError, SafetyError
from robot.loop import ObservationHistory

LATE_PART = 0.2
"""A row that began less than this part of a period ago is still played, from the pose of that moment."""
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
        starved_ticks: Ticks that no row was planned for.
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


class DelayEstimate:
    """A high quantile of inference times that forgets: rises at once, falls by a tenth of the difference each time."""

    def __init__(self) -> None:
        self.value_s = 0.0

    def add(self, duration_s: float) -> None:
        """Count one inference."""
        self.value_s = max(duration_s, self.value_s + 0.1 * (duration_s - self.value_s))

    def periods(self, dt_s: float) -> int:
        """Rows that will have passed when the next chunk is ready."""
        return max(0, math.ceil(self.value_s / dt_s - LATE_PART))


@dataclass(frozen=True)
class _Request:
    """An inference under way: for which tick, on what, begun when."""

    tick: int
    t_observed_ns: int
    begun_s: float
    future: "Future[ActionChunk]"


class PolicyNode:
    """Plays a policy on the arm behind a bridge, one episode at a time."""

    def __init__(self, client: BridgeClient, policy: Policy, worker: ThreadPoolExecutor, hold_s: float) -> None:
        """Check that policy and bridge fit.

        Args:
            client: Connected; holds the lease while episodes run.
            policy: Its `act` is called in `worker` only.
            worker: One thread.
            hold_s: How long the task has to stay fulfilled until an episode ends [s].

        Raises:
            BridgeError: The bridge's specs are not the policy's.
        """
        client.schema.require(policy.specs.environment)
        self._client, self._policy, self._worker, self._hold_s = client, policy, worker, hold_s
        self._dt_s = policy.specs.environment.dt_s
        self._dt_ns = round(self._dt_s * 1e9)
        self._history = ObservationHistory(policy.specs.n_obs_steps)
        self._delay = DelayEstimate()
        self._pending: _Request | None = None

    def warm_up(self) -> None:
        """Infer twice on the present observation, so that the first chunk of an episode is not the slow one."""
        self._history.reset()
        self._history.push(self._client.state().observation())
        for _ in range(2):
            self._infer(self._client.state(), 0)

    def run(self, seed: int, limit_s: float, on_tick: Callable[[int], None] | None = None) -> EpisodeResult:
        """Begin the scene of `seed`, drive until the task is fulfilled or `limit_s` is over, and come to rest.

        Raises:
            BridgeError: The bridge fell silent or refused.
            SafetyError: The bridge latched a stop, on an arm that is not simulated.
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
        chunk = self._infer(state, 0, result)
        self._client.arm()
        try:
            self._play(chunk, result, limit_s, on_tick)
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
        return result

    def _play(
        self, chunk: ActionChunk, result: EpisodeResult, limit_s: float, on_tick: Callable[[int], None] | None
    ) -> None:
        """Tick until the episode is over. An inference may be under way then."""
        start_ns = self._client.now_ns()
        planned_ns = self._send(chunk, start_ns, start_ns, start_ns, result)
        next_request = self._ticks_until_next(0, len(chunk.actions))
        held, needed = 0, max(1, round(self._hold_s / self._dt_s))
        for tick in range(1, math.ceil(limit_s / self._dt_s) + 1):
            tick_ns = start_ns + tick * self._dt_ns
            while self._client.now_ns() < tick_ns:
                if self._pending is None:
                    time.sleep(max(0.0, (tick_ns - self._client.now_ns()) / 1e9))
                elif self._is_done(self._pending, tick_ns):
                    planned_ns, next_request = self._dispatch(self._pending, start_ns, result)
                    self._pending = None
            state = self._require_armed(self._client.state())
            self._history.push(self._needed(state))
            result.starved_ticks += planned_ns < tick_ns
            held = held + 1 if state.success else 0
            result.success_final, result.success_sticky = state.success, result.success_sticky or state.success
            result.ticks, result.duration_s = tick, tick * self._dt_s
            if on_tick is not None:
                on_tick(tick)
            if held >= needed:
                return
            if self._pending is None and tick >= next_request:
                self._pending = self._request(tick, state)

    def _needed(self, state: BridgeState) -> Observation:
        """What the policy was trained on, of what the bridge gives."""
        observation = state.observation()
        return {key: observation[key] for key in self._policy.specs.environment.observation}

    def _request(self, tick: int, state: BridgeState) -> _Request:
        future = self._worker.submit(self._policy.act, self._history.stacked())
        return _Request(tick, state.t_ns, time.monotonic(), future)

    def _is_done(self, request: _Request, until_ns: int) -> bool:
        left_s = (until_ns - self._client.now_ns()) / 1e9
        return bool(wait([request.future], timeout=max(0.0, left_s)).done)

    def _dispatch(self, request: _Request, start_ns: int, result: EpisodeResult) -> tuple[int, int]:
        """Send a chunk that is ready; until when rows are planned now, and the tick of the next request."""
        chunk = request.future.result()
        self._count(time.monotonic() - request.begun_s, result)
        answered_ns = start_ns + request.tick * self._dt_ns
        planned_ns = self._send(chunk, answered_ns, request.t_observed_ns, self._client.now_ns(), result)
        return planned_ns, request.tick + self._ticks_until_next(1, len(chunk.actions))

    def _send(self, chunk: ActionChunk, answered_ns: int, observed_ns: int, now_ns: int, result: EpisodeResult) -> int:
        """Send the rows whose time has not passed; when the last of them ends [ns].

        If all have passed the last one is played now, as UMI does: an old action is better than none.
        """
        over = max(0, math.ceil((now_ns - answered_ns) / self._dt_ns - LATE_PART))
        first = min(over, len(chunk.actions) - 1)
        begin_ns = answered_ns + first * self._dt_ns if over == first else now_ns
        rows = chunk.actions[first : first + MAX_ROWS]
        self._client.send_chunk(ActionChunk(self._inside(rows), chunk.dt_s), begin_ns)
        result.chunks += 1
        result.dropped_rows += first
        result.observation_age_s.append((max(begin_ns, now_ns) - observed_ns) / 1e9)
        return begin_ns + len(rows) * self._dt_ns

    def _inside(self, rows: np.ndarray) -> np.ndarray:
        low, high = self._policy.specs.environment.action.bounds()
        return rows.clip(low, high)

    def _ticks_until_next(self, least: int, horizon: int) -> int:
        """Ticks from one request to the next: the rows meant to be played, fewer if the successor would come late."""
        return max(least, min(self._policy.specs.n_action_steps, horizon - self._delay.periods(self._dt_s)))

    def _infer(self, state: BridgeState, tick: int, result: EpisodeResult | None = None) -> ActionChunk:
        """Infer now, reading states meanwhile so that the lease stays ours."""
        request = self._request(tick, state)
        while not request.future.done():
            self._client.state()
        self._count(time.monotonic() - request.begun_s, result)
        return request.future.result()

    def _count(self, duration_s: float, result: EpisodeResult | None) -> None:
        self._delay.add(duration_s)
        if result is not None:
            result.inference_s.append(duration_s)

    def _require_armed(self, state: BridgeState) -> BridgeState:
        if state.mode == Mode.ARMED:
            return state
        if state.mode in (Mode.FAULT, Mode.STOPPING):
            raise SafetyError(
                f"The bridge latched a stop: {Fault(int(state.status('fault'))).name}. Find its cause first."
            )
        raise BridgeError("The arm was disarmed during the episode: the lease expired, or another client sent stop.")

    def _rest(self) -> None:
        until = time.monotonic() + REST_S
        while time.monotonic() < until:
            state = self._client.state()
            if state.mode == Mode.DISARMED and (np.abs(state.values["dq"]) <= STANDSTILL_RADPS).all():
                return
        raise BridgeError(f"The arm did not come to rest within {REST_S} s.")
