"""The policy node on a bridge with a fake arm, and the verb deploy on the twin."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.base import ExecutionConfig
from policies.execution.ensembling import EnsemblingConfig
from policies.execution.synchronous import SynchronousConfig
from policies.node import NodeSettings, PolicyNode
from robot.bridge.client import BridgeClient
from robot.bridge.schema import Mode
from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.errors import BridgeError, SafetyError


class Upwards(Policy):
    """Moves slowly up, after some thought; row i carries its number in the gripper command."""

    def __init__(self, environment: EnvironmentSpecs, thought_s: float, horizon: int, n_action_steps: int) -> None:
        self.specs = PolicySpecs(environment, n_obs_steps=2, horizon=horizon, n_action_steps=n_action_steps)
        self.thought_s, self.calls = thought_s, 0

    def reset(self, seed: int | None = None) -> None:
        self.calls = 0

    def act(self, observation: Observation) -> ActionChunk:
        assert observation["observation.state"].shape == (2, 18)
        self.calls += 1
        time.sleep(self.thought_s)
        rows = np.zeros((self.specs.horizon, 7))
        rows[:, 2] = 0.1
        return ActionChunk(rows, 0.05)


PATIENT = "arm.limits.silence_s=0.5"
"""Where machines are busy, a node in a test may be away for longer than 0.1 s."""


def node_of(
    client: BridgeClient, policy: Policy, worker: ThreadPoolExecutor, config: ExecutionConfig | None = None
) -> PolicyNode:
    execution = (config or AsynchronousConfig(blend_rows=0)).build(policy)
    return PolicyNode(client, policy, execution, worker, NodeSettings(hold_s=0.5))


def start(arm: str, *overrides: str) -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, "-m", "robot.cli", "bridge", f"arm={arm}", "port=0", PATIENT, *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[1]


def stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    process, endpoint = start("fake")
    yield endpoint
    stop(process)


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def client(endpoint: str) -> Iterator[BridgeClient]:
    with BridgeClient(endpoint, "node") as connected:
        connected.acquire()
        yield connected


@pytest.mark.parametrize(
    ("thought_s", "horizon", "n_action_steps"), [(0.0, 1, 1), (0.0, 16, 8), (0.13, 16, 8), (0.13, 8, 8)]
)
def test_slow_thought_never_leaves_the_arm_without_rows(
    client: BridgeClient, worker: ThreadPoolExecutor, thought_s: float, horizon: int, n_action_steps: int
) -> None:
    policy = Upwards(client.schema.arm.environment, thought_s, horizon, n_action_steps)
    node = node_of(client, policy, worker)
    node.warm_up()
    before = client.state()
    result = node.run(seed=0, limit_s=2.0)
    after = client.state()
    assert after.mode == Mode.DISARMED
    # A single row is over before it arrives if this machine stalls for 50 ms.
    assert after.status("rejected") - before.status("rejected") <= (0 if horizon > 1 else 2)
    assert after.status("refused") == before.status("refused")
    assert result.ticks == 40
    assert not result.success_sticky
    # The tick a single row ends at is also the tick its successor is asked for.
    assert result.starved_ticks <= (3 if horizon > 1 else 40)
    assert result.chunks == len(result.inference_s)
    # The last inference may outlast the episode.
    assert policy.calls - result.chunks in (0, 1)
    if thought_s:
        assert result.dropped_rows >= 2 * (result.chunks - 1)
        assert np.median(result.observation_age_s[1:]) >= thought_s
    travelled = after.values["ee_pos"][2] - 0.1
    assert travelled == pytest.approx(2.0 * 20 * 0.1 * 0.05 * (1 - np.exp(-1)), rel=0.2)


@pytest.mark.parametrize("config", [SynchronousConfig(), EnsemblingConfig(), AsynchronousConfig()])
def test_every_execution_drives(client: BridgeClient, worker: ThreadPoolExecutor, config: ExecutionConfig) -> None:
    """Slow thought costs a synchronous node time, and the others freshness."""
    policy = Upwards(client.schema.arm.environment, 0.08, horizon=16, n_action_steps=4)
    node = node_of(client, policy, worker, config)
    node.warm_up()
    result = node.run(seed=0, limit_s=1.5)
    assert not result.fault
    if isinstance(config, SynchronousConfig):
        assert 5 <= result.starved_ticks <= 20
        assert result.dropped_rows == 0
    else:
        assert result.starved_ticks <= 3
        assert result.dropped_rows >= result.chunks - 1
    assert result.chunks > (8 if isinstance(config, EnsemblingConfig) else 3)


def test_a_policy_for_another_arm_is_refused(client: BridgeClient, worker: ThreadPoolExecutor) -> None:
    policy = Upwards(replace(client.schema.arm.environment, robot="Panda"), 0.0, 8, 4)
    with pytest.raises(BridgeError, match="robot is Fake, expected Panda"):
        node_of(client, policy, worker)


def test_a_stop_ends_the_episode_of_a_simulated_arm_and_the_work_with_a_real_one(
    endpoint: str, client: BridgeClient, worker: ThreadPoolExecutor
) -> None:
    node = node_of(client, Upwards(client.schema.arm.environment, 0.0, 8, 4), worker)

    def press(tick: int) -> None:
        if tick == 5:
            with BridgeClient(endpoint, "button") as other:
                other.estop()

    result = node.run(seed=0, limit_s=2.0, on_tick=press)
    assert "ESTOP" in result.fault
    assert result.ticks == 5
    assert client.state().mode == Mode.DISARMED
    assert not node.run(seed=1, limit_s=0.5).fault
    client.schema = replace(client.schema, arm=replace(client.schema.arm, is_simulated=False))
    with pytest.raises(SafetyError, match="ESTOP"):
        node.run(seed=0, limit_s=2.0, on_tick=press)
    assert client.state().mode == Mode.FAULT
    client.reset()


def test_an_arm_that_somebody_stops_ends_its_episode(
    endpoint: str, client: BridgeClient, worker: ThreadPoolExecutor
) -> None:
    node = node_of(client, Upwards(client.schema.arm.environment, 0.0, 8, 4), worker)

    def stop_it(tick: int) -> None:
        if tick == 5:
            with BridgeClient(endpoint, "button") as other:
                other.stop()

    result = node.run(seed=0, limit_s=2.0, on_tick=stop_it)
    assert "another client sent stop" in result.fault
    assert not node.run(seed=1, limit_s=0.5).fault


def deploy(endpoint: str, out: Path, *overrides: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "robot.cli",
        "deploy",
        "checkpoint=expert:lift",
        f"bridge={endpoint}",
        f"out={out}",
    ]
    return subprocess.Popen([*command, *overrides], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_expert_drives_the_twin_and_every_way_out_is_clean(tmp_path: Path) -> None:
    bridge, endpoint = start("twin")
    try:
        _episodes_are_reported(endpoint, tmp_path)
        _ctrl_c_releases_the_arm(endpoint, tmp_path / "interrupted")
        _a_bridge_that_dies_is_said(bridge, endpoint, tmp_path / "died")
    finally:
        stop(bridge)


def _episodes_are_reported(endpoint: str, out: Path) -> None:
    process = deploy(endpoint, out, "episodes=2")
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "2 of 2 succeeded" in printed
    report = json.loads((out / "deployment.json").read_text())
    assert report["success_final"] == report["success_sticky"]
    assert report["success_final"]["count"] == report["episodes"] == len(report["per_episode"]) == 2
    assert 0 < report["lateness_ms"]["p50"] <= report["lateness_ms"]["p99"]
    assert report["lateness_ms"]["rate_hz"] == 500
    assert 0 < report["inference_ms"]["p50"] <= report["inference_ms"]["p99"]
    assert report["commands"]["rejected"] == 0
    assert report["commands"]["clamped"] == 0
    assert all(0.5 <= episode["duration_s"] < 10 for episode in report["per_episode"])


def _ctrl_c_releases_the_arm(endpoint: str, out: Path) -> None:
    process = deploy(endpoint, out, "episodes=50")
    with BridgeClient(endpoint, "witness") as witness:
        until = time.monotonic() + 20
        while witness.state().mode != Mode.ARMED and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 130
        assert "Traceback" not in errors
        state = witness.state()
        assert state.status("lease") == 0
        assert state.mode in (Mode.BRAKING, Mode.DISARMED)
    assert not out.exists()


def _a_bridge_that_dies_is_said(bridge: "subprocess.Popen[str]", endpoint: str, out: Path) -> None:
    process = deploy(endpoint, out, "episodes=50")
    with BridgeClient(endpoint, "witness") as witness:
        until = time.monotonic() + 20
        while witness.state().mode != Mode.ARMED and time.monotonic() < until:
            time.sleep(0.01)
    bridge.kill()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "bridge at" in errors or "No bridge answers" in errors
    assert "Traceback" not in errors
