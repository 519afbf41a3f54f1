"""`armature deploy`: drive the arm behind a bridge with a checkpoint, and report what happened."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from tqdm import tqdm

from policies.execution.base import ExecutionConfig
from policies.execution.registry import EXECUTIONS, described
from policies.node import EpisodeResult, NodeSettings, PolicyNode
from policies.success import summary
from robot import config
from robot.bridge.client import BridgeClient
from robot.contract import EnvironmentSpecs, Policy
from robot.control.latency import Latency
from robot.episodes.atomic import write_text
from robot.errors import ConfigError

COUNTERS = ("stale_rows", "clamped", "rejected", "refused", "starved", "overruns", "skipped_periods")
EXPERT = "expert:"


@dataclass(kw_only=True)
class DeployConfig:
    """Keys of `configs/deploy.yaml`.

    Attributes:
        checkpoint: Run folder, checkpoint, or `expert:<task>`.
        execution: How chunks are played while the next one is made.
        bridge: Address of the bridge's control channel.
        keys: Secret key file for a bridge that wants one.
        episodes: How many.
        seed: Of the first scene.
        limit_s: Longest episode [s].
        hold_s: How long the task has to stay fulfilled [s].
        max_observation_age_s: An observation that is older stops the arm [s].
        latency: File of `armature calibrate latency`; empty where nothing is to be compensated.
        device: Where the policy runs.
        threads: Threads of the policy on a CPU.
        out: Folder of `deployment.json`; beside the checkpoint if empty.
    """

    execution: ExecutionConfig = MISSING
    checkpoint: str
    bridge: str
    keys: str
    episodes: int
    seed: int
    limit_s: float
    hold_s: float
    max_observation_age_s: float
    latency: str
    device: str
    threads: int
    out: str

    def __post_init__(self) -> None:
        for key in ("episodes", "limit_s", "hold_s", "max_observation_age_s", "threads"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected more than 0.")


def main(overrides: list[str]) -> int:
    """Run the episodes; 0 once all have been run, whether they succeeded or not."""
    settings = config.load("deploy", DeployConfig, overrides, {"execution": EXECUTIONS})
    latency = Latency.load(settings.latency) if settings.latency else Latency.none()
    # Left in reverse: the arm stops and the lease is released before the worker is waited for.
    with contextlib.ExitStack() as stack:
        worker = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="policy"))
        policy = None if settings.checkpoint.startswith(EXPERT) else _load(settings)
        client = stack.enter_context(BridgeClient(settings.bridge, name="deploy", keys=settings.keys))
        if policy is None:
            policy = _expert(settings.checkpoint.removeprefix(EXPERT), client.schema.arm.environment)
        execution = settings.execution.build(policy)
        driving = NodeSettings(settings.hold_s, settings.max_observation_age_s, latency)
        node = PolicyNode(client, policy, execution, worker, driving)
        node.warm_up()
        client.acquire()
        before = client.state()
        results = _run(node, settings)
        after = client.state()
        status = {name: after.status(name) - before.status(name) for name in COUNTERS}
        late = {name: after.status(name) for name in ("late_p50_us", "late_p99_us", "late_max_us", "busy_p99_us")}
        report = _report(settings, results, status, late, client.schema.arm.rate_hz)
    path = _folder(settings) / "deployment.json"
    write_text(path, json.dumps(report, indent=2) + "\n")
    print(_sentence(report, path))
    return 0


def _load(settings: DeployConfig) -> Policy:
    import torch

    from policies.checkpoint import load_policy

    torch.set_num_threads(settings.threads)
    return load_policy(settings.checkpoint, settings.device)


def _expert(task: str, specs: EnvironmentSpecs) -> Policy:
    from robot.sim import expert

    return expert(task, specs)


def _run(node: PolicyNode, settings: DeployConfig) -> list[EpisodeResult]:
    results: list[EpisodeResult] = []
    with tqdm(total=settings.episodes, unit="episode", desc="deploy") as bar:
        for index in range(settings.episodes):
            results.append(node.run(settings.seed + index, settings.limit_s))
            bar.set_postfix_str(f"{sum(result.success_final for result in results)} succeeded")
            bar.update()
    return results


def _report(
    settings: DeployConfig,
    results: list[EpisodeResult],
    status: dict[str, float],
    late: dict[str, float],
    rate_hz: float,
) -> dict[str, Any]:
    inference = [value for result in results for value in result.inference_s]
    age = [value for result in results for value in result.observation_age_s]
    return {
        "checkpoint": settings.checkpoint,
        "execution": described(settings.execution),
        "latency": settings.latency,
        "episodes": len(results),
        "seed": settings.seed,
        "success_final": summary([result.success_final for result in results]),
        "success_sticky": summary([result.success_sticky for result in results]),
        "lateness_ms": {
            "p50": late["late_p50_us"] / 1000,
            "p99": late["late_p99_us"] / 1000,
            "max": late["late_max_us"] / 1000,
            "busy_p99": late["busy_p99_us"] / 1000,
            "rate_hz": rate_hz,
            "overruns": round(status["overruns"]),
            "skipped_periods": round(status["skipped_periods"]),
        },
        "inference_ms": _percentiles(inference),
        "observation_age_ms": _percentiles(age),
        "commands": {
            "chunks": sum(result.chunks for result in results),
            "stale": round(status["stale_rows"]),
            "clamped": round(status["clamped"]),
            "rejected": round(status["rejected"] + status["refused"]),
            "dropped_by_node": sum(result.dropped_rows for result in results),
        },
        "starved": {
            "ticks": sum(result.starved_ticks for result in results),
            "cycles": round(status["starved"]),
        },
        "per_episode": [_plain(result) for result in results],
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99]).tolist()
    return {"p50": p50 * 1000, "p99": p99 * 1000, "max": max(seconds) * 1000}


def _plain(result: EpisodeResult) -> dict[str, Any]:
    fields = asdict(result)
    for name in ("inference_s", "observation_age_s"):
        fields.pop(name)
    return fields


def _folder(settings: DeployConfig) -> Path:
    if settings.out:
        return Path(settings.out)
    if settings.checkpoint.startswith(EXPERT):
        return Path("runs") / settings.checkpoint.removeprefix(EXPERT) / "expert"
    from policies.evaluate import run_of

    return run_of(settings.checkpoint)


def _sentence(report: dict[str, Any], path: Path) -> str:
    final, late, commands = report["success_final"], report["lateness_ms"], report["commands"]
    low, high = final["wilson_95"]
    return (
        f"{final['count']} of {report['episodes']} succeeded ({final['rate']:.0%}, 95% interval {low:.0%}-{high:.0%}); "
        f"loop lateness p50 {late['p50']:.3f} ms, p99 {late['p99']:.3f} ms at {late['rate_hz']:.0f} Hz; "
        f"inference p50 {report['inference_ms']['p50']:.1f} ms, p99 {report['inference_ms']['p99']:.1f} ms; "
        f"{commands['stale']} stale, {commands['clamped']} clamped, {commands['rejected']} rejected; {path}"
    )
