"""`armature evaluate`: how often a checkpoint succeeds, on initial states that never change."""

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from policies import checkpoint, success
from policies.evaluation import EpisodeRecord, Evaluation, World, run_episodes
from policies.execution.base import ExecutionConfig
from policies.execution.registry import EXECUTIONS, described
from robot.config import load
from robot.episodes.atomic import write_text
from robot.errors import ConfigError
from robot.sim import make
from robot.sim.config import ENV_SCHEMAS, EnvConfig
from robot.sim.evaluation_sets import EvaluationSet

FILE = "evaluation.json"


@dataclass(kw_only=True)
class EvaluateConfig:
    """Keys of `configs/evaluate.yaml`.

    Attributes:
        env: The world to evaluate in; its specs must be those that the policy was trained on.
        execution: How chunks are played.
        checkpoint: A run, whose newest checkpoint is taken, or one checkpoint.
        episodes: Number of episodes.
        seed: Episode i begins from `seed + i`.
        states: File of an evaluation set (see `robot.sim.evaluation_sets`); episode i begins at its state i, and the
            seed only decides what the policy draws. Empty: the seed places everything.
        workers: Processes that run episodes; the result does not depend on their number.
        video_episodes: Of how many episodes, from the first, a video is made.
        device: torch's name of the device that the policy runs on.
        delay: Control steps that pass from an observation to the chunk that answers it, whatever inference takes.
    """

    env: EnvConfig = field(default_factory=EnvConfig)
    execution: ExecutionConfig = MISSING
    checkpoint: str = MISSING
    episodes: int = 50
    seed: int = 100_000
    states: str = ""
    workers: int = 2
    video_episodes: int = 3
    device: str = "cpu"
    delay: int = 0

    def __post_init__(self) -> None:
        for key, least in (("episodes", 1), ("seed", 0), ("workers", 1), ("video_episodes", 0), ("delay", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected at least {least}.")


def main(overrides: list[str]) -> int:
    """Evaluate, write `evaluation.json` beside the checkpoints, and print the success rates."""
    config = load("evaluate", EvaluateConfig, overrides, {"env": ENV_SCHEMAS, "execution": EXECUTIONS})
    result = evaluate(config, partial(make, config.env))
    final, sticky = result["success_final"], result["success_sticky"]
    print(f"success at the end  {_percent(final)}\nsuccess at any time {_percent(sticky)}")
    print(f"inference           p50 {result['inference_ms']['p50']:.1f} ms, p99 {result['inference_ms']['p99']:.1f} ms")
    if result["video_error"]:
        print(f"no videos: {result['video_error']}")
    print(f"{run_of(config.checkpoint) / FILE}")
    return 0


def evaluate(config: EvaluateConfig, world: World) -> dict[str, Any]:
    """Run the episodes and write the result.

    Args:
        config: What to run.
        world: Makes an environment; is called in every worker process.

    Raises:
        CheckpointError: The checkpoint does not load, or is of an environment with other specs.
        StateError: The evaluation set is missing, damaged, or of another world.
        ConfigError: It has fewer states than there are episodes.
        ArmatureError: A worker process died.
    """
    folder = checkpoint.locate(config.checkpoint)
    description = checkpoint.describe(folder)
    out = run_of(config.checkpoint)
    states = _states(config)
    job = Evaluation(
        folder,
        config.device,
        world,
        out / "videos",
        config.seed,
        config.video_episodes,
        Path(config.states) if states is not None else None,
        config.execution,
        config.delay,
    )
    records = run_episodes(job, config.episodes, config.workers)
    result = {
        "checkpoint": str(folder),
        "step": description.step,
        "dataset": description.dataset,
        "env": asdict(config.env),
        "execution": described(config.execution),
        "delay": config.delay,
        "seed": config.seed,
        "states": None if states is None else {"file": config.states, "sha256": states.digest()},
        **summary(records),
        "per_episode": [record.to_json(description.specs.dt_s) for record in records],
    }
    write_text(out / FILE, json.dumps(result, indent=1) + "\n")
    return result


def _states(config: EvaluateConfig) -> EvaluationSet | None:
    if not config.states:
        return None
    states = EvaluationSet.load(Path(config.states))
    if len(states) < config.episodes:
        raise ConfigError(
            f"episodes is {config.episodes}, but {config.states} has {len(states)} states; take at most that."
        )
    return states


def run_of(path: str | Path) -> Path:
    """The run folder of a checkpoint; a checkpoint outside a run is its own."""
    folder = checkpoint.locate(path)
    return folder.parent.parent if folder.parent.name == "checkpoints" else folder


def summary(records: list[EpisodeRecord]) -> dict[str, Any]:
    """Rates with intervals, means, and percentiles of the inference time."""
    inference_ms = np.concatenate([record.inference_ms for record in records])
    return {
        "episodes": len(records),
        "success_final": success.summary([record.success_final for record in records]),
        "success_sticky": success.summary([record.success_sticky for record in records]),
        "mean_return": float(np.mean([record.episode_return for record in records])),
        "mean_steps": float(np.mean([record.steps for record in records])),
        "inference_ms": {f"p{q}": float(np.percentile(inference_ms, q)) for q in (50, 99)},
        "video_error": next((record.video_error for record in records if record.video_error), ""),
    }


def _percent(value: dict[str, Any]) -> str:
    low, high = value["wilson_95"]
    return f"{value['rate']:.1%} (95 % interval {low:.1%} to {high:.1%})"
