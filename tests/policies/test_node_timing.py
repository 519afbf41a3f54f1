"""When the node observes, sends and calls, on a clock that only moves when somebody waits."""

from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policies import node as module
from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.base import ExecutionConfig
from policies.execution.ensembling import EnsemblingConfig
from policies.execution.synchronous import SynchronousConfig
from policies.node import EpisodeResult, NodeSettings, PolicyNode
from robot.bridge.schema import Mode
from robot.contract import ActionChunk, Observation
from robot.control.latency import Latency
from robot.errors import SafetyError
from tests.policies.execution.players import TICK, Indicator

MS = 1_000_000
DT = 50 * MS
STATE_NS = 4 * MS

every = pytest.mark.parametrize(
    "config",
    [SynchronousConfig(), AsynchronousConfig(blend_rows=0), EnsemblingConfig()],
    ids=lambda c: type(c).__name__,
)


class Clock:
    """Time, a bridge that shows when it was, and a worker that takes its time."""

    def __init__(self, thought_ns: int, is_simulated: bool = True) -> None:
        self.now, self.thought_ns = 10**12, thought_ns
        self.frozen_at: int | None = None
        self.calls: list[int] = []
        self.chunks: list[tuple[int, np.ndarray]] = []
        self.disarmed: list[int] = []
        self.schema: Any = SimpleNamespace(require=lambda specs: None, arm=SimpleNamespace(is_simulated=is_simulated))

    # What a client does.
    def now_ns(self) -> int:
        return self.now

    def state(self) -> Any:
        self.calls.append(self.now)
        self.now += STATE_NS - self.now % STATE_NS
        t_ns = self.now if self.frozen_at is None else min(self.now, self.frozen_at)
        is_armed = len(self.disarmed) == 0
        return SimpleNamespace(
            t_ns=t_ns,
            mode=Mode.ARMED if is_armed else Mode.DISARMED,
            success=False,
            values={"dq": np.zeros(7)},
            observation=lambda: {TICK: np.array([t_ns / DT], np.float64)},
        )

    def send_chunk(self, chunk: ActionChunk, t0_ns: int) -> int:
        self.calls.append(self.now)
        self.chunks.append((t0_ns, chunk.actions))
        return len(self.chunks)

    def home(self, seed: int) -> None:
        self.calls.append(self.now)

    arm = reset = lambda self: None

    def disarm(self) -> None:
        self.disarmed.append(self.now)

    # What a worker and the standard library do.
    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        return Late(self, function(*arguments))

    def monotonic(self) -> float:
        return self.now / 1e9

    def sleep(self, seconds: float) -> None:
        self.now += round(1e9 * seconds)

    def wait(self, futures: "list[Late]", timeout: float) -> Any:
        (future,) = futures
        self.now = min(max(self.now, future.ready), self.now + round(1e9 * timeout))
        return namedtuple("Waited", "done")({future} if future.done() else set())


class Late(Future):
    """A result that is there after a while."""

    def __init__(self, clock: Clock, value: Any) -> None:
        super().__init__()
        self._clock, self._value, self.ready = clock, value, clock.now + clock.thought_ns

    def done(self) -> bool:
        return self._clock.now >= self.ready

    def result(self, timeout: float | None = None) -> Any:
        assert self.done()
        return self._value


class Watch(Indicator):
    """Rows that carry the time that they belong to, in ticks of the bridge's clock."""

    def act(self, observation: Observation) -> ActionChunk:
        seen = float(observation[TICK][-1, 0])
        rows = np.zeros((self.specs.horizon, 3))
        rows[:, 0] = seen + np.arange(self.specs.horizon)
        return ActionChunk(rows, self.specs.environment.dt_s)


def drive(
    monkeypatch: pytest.MonkeyPatch,
    clock: Clock,
    config: ExecutionConfig,
    latency: Latency | None = None,
    on_tick: Callable[[int], None] | None = None,
) -> EpisodeResult:
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "wait", clock.wait)
    policy = Watch(16, 6)
    settings = NodeSettings(hold_s=0.5, latency=latency or Latency.none())
    bridge: Any = clock
    node = PolicyNode(bridge, policy, config.build(policy), bridge, settings)
    node.warm_up()
    return node.run(seed=0, limit_s=3.0, on_tick=on_tick)


@every
@pytest.mark.parametrize("thought_ms", [0, 18, 130])
def test_the_bridge_is_never_left_without_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, config: ExecutionConfig, thought_ms: int
) -> None:
    clock = Clock(thought_ms * MS)
    result = drive(monkeypatch, clock, config)
    assert result.ticks == 60
    assert max(np.diff(clock.calls)) <= 20 * MS


@pytest.mark.parametrize("config", [AsynchronousConfig(blend_rows=0), EnsemblingConfig()])
@pytest.mark.parametrize("seen_after_s", [0.0, 0.03, 0.12])
@pytest.mark.parametrize("action_s", [0.0, 0.02, 0.08])
@pytest.mark.parametrize("thought_ms", [0, 60])
def test_rows_act_when_what_they_answer_was_true(
    monkeypatch: pytest.MonkeyPatch, config: ExecutionConfig, seen_after_s: float, action_s: float, thought_ms: int
) -> None:
    """A row is sent early by what the arm takes, for the moment that the sensors showed late."""
    clock = Clock(thought_ms * MS)
    drive(monkeypatch, clock, config, Latency({"state": seen_after_s}, action_s))
    early_ns = (seen_after_s + action_s) * 1e9
    assert len(clock.chunks) > 8
    # By then nothing is planned with the first chunk, whose observation stood for what it was until all began.
    for begin_ns, rows in clock.chunks[len(clock.chunks) // 2 :]:
        belongs_ns = rows[0, 0] * DT
        # The state is up to a publishing period younger than its tick.
        assert -1 <= (belongs_ns - (begin_ns + early_ns)) / MS <= 2 * STATE_NS / MS + 1


@every
def test_an_old_observation_stops_the_arm(monkeypatch: pytest.MonkeyPatch, config: ExecutionConfig) -> None:
    clock = Clock(18 * MS)

    def freeze(tick: int) -> None:
        if tick == 20:
            clock.frozen_at = clock.now

    result = drive(monkeypatch, clock, config, on_tick=freeze)
    assert clock.frozen_at is not None
    assert "max_observation_age_s" in result.fault
    assert not result.success_final
    assert 0.1e9 < clock.disarmed[0] - clock.frozen_at <= 0.1e9 + DT + 2 * STATE_NS


def test_on_a_real_arm_it_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(18 * MS, is_simulated=False)

    def freeze(tick: int) -> None:
        clock.frozen_at = clock.frozen_at or clock.now

    with pytest.raises(SafetyError, match=r"0\.1\d+ s old, expected at most 0.1 s"):
        drive(monkeypatch, clock, AsynchronousConfig(), on_tick=freeze)
    assert len(clock.disarmed) == 1
