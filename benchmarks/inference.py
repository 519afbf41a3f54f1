"""The time of one chunk on a CPU, batch 1, against LeRobot's policies on inputs of the same size.

Prints a JSON object a line: the median and the 99th percentile of each default head. LeRobot runs in an environment of
its own, `.cache/lerobot`, which is made when it is missing.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from policies.act import ACTConfig
from policies.base import HeadConfig
from policies.diffusion import DiffusionConfig
from policies.head_policy import HeadPolicy
from robot.contract import EnvironmentSpecs
from robot.specs import ArraySpec

ROOT = Path(__file__).resolve().parent.parent
LEROBOT = ROOT / ".cache" / "lerobot"
REQUIREMENT = "lerobot==0.4.4"
STATE, ENVIRONMENT_STATE, ACTION = 18, 12, 7
WARM_UP, CALLS = 20, 200
REFERENCE_CALLS = {"diffusion": (2, 20), "act": (WARM_UP, CALLS)}
"""Warm-up and calls of LeRobot's heads: one chunk of its diffusion takes seconds."""
HEADS: dict[str, HeadConfig] = {"diffusion": DiffusionConfig(), "act": ACTConfig()}

REFERENCE = """
import sys, time, torch, numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
head, threads, warm_up, calls, state, environment, action = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
features = dict(
    input_features={"observation.state": PolicyFeature(FeatureType.STATE, (state,)),
                    "observation.environment_state": PolicyFeature(FeatureType.ENV, (environment,))},
    output_features={"action": PolicyFeature(FeatureType.ACTION, (action,))}, device="cpu")
if head == "act":
    policy, steps = ACTPolicy(ACTConfig(**features)), None
else:
    config = DiffusionConfig(**features, noise_scheduler_type="DDIM", num_inference_steps=10)
    policy, steps = DiffusionPolicy(config), config.n_obs_steps
policy.eval()
shape = (1,) if steps is None else (1, steps)
sizes = {"observation.state": state, "observation.environment_state": environment}
batch = {key: torch.zeros(*shape, size) for key, size in sizes.items()}
predict = policy.predict_action_chunk if head == "act" else policy.diffusion.generate_actions
taken = []
with torch.inference_mode():
    for _ in range(warm_up + calls):
        begin = time.perf_counter()
        predict(batch)
        taken.append(1e3 * (time.perf_counter() - begin))
print(*np.percentile(taken[warm_up:], (50, 99)))
"""


def specs() -> EnvironmentSpecs:
    keys = {"observation.state": STATE, "observation.environment_state": ENVIRONMENT_STATE}
    return EnvironmentSpecs(
        observation={key: ArraySpec(key, (size,)) for key, size in keys.items()},
        action=ArraySpec("action", (ACTION,), low=-1.0, high=1.0),
        action_space="ee_delta",
        dt_s=0.05,
        robot="Panda",
        task="lift",
    )


def ours(config: HeadConfig, threads: int) -> tuple[float, float]:
    """Median and 99th percentile of one `act` [ms]."""
    torch.set_num_threads(threads)
    head = config.build(specs(), _unit_statistics()).eval().requires_grad_(False)
    head.prepare()
    policy = HeadPolicy(head)
    observation = {
        key: np.zeros((config.n_obs_steps, *spec.shape), np.float32) for key, spec in specs().observation.items()
    }
    taken = []
    for _ in range(WARM_UP + CALLS):
        begin = time.perf_counter()
        policy.act(observation)
        taken.append(1e3 * (time.perf_counter() - begin))
    median, tail = np.percentile(taken[WARM_UP:], (50, 99))
    return float(median), float(tail)


def _unit_statistics() -> dict[str, dict[str, np.ndarray]]:
    named = {**specs().observation, "action": specs().action}
    values = {"min": -1.0, "max": 1.0, "mean": 0.0, "std": 1.0}
    return {key: {name: np.full(spec.shape, value) for name, value in values.items()} for key, spec in named.items()}


def lerobot(head: str, threads: int) -> tuple[float, float] | None:
    """The same of LeRobot's default policy, or None where it cannot be had."""
    python = LEROBOT / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(LEROBOT)], check=True, stdout=sys.stderr)
            install = [str(python), "-m", "pip", "install", "--quiet", REQUIREMENT]
            subprocess.run(install, check=True, stdout=sys.stderr)
        numbers = [threads, *REFERENCE_CALLS[head], STATE, ENVIRONMENT_STATE, ACTION]
        command = [str(python), "-c", REFERENCE, head, *map(str, numbers)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        median, tail = map(float, output.split()[-2:])
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()
        print(f"no reference for {head}: {reason[-1] if reason else error!r}", file=sys.stderr)
        return None
    return median, tail


def main() -> None:
    for name, config in HEADS.items():
        for threads in (1, 2):
            mine, theirs = ours(config, threads), lerobot(name, threads)
            for index, percentile in enumerate(("p50", "p99")):
                other = theirs[index] if theirs else None
                line = {
                    "name": f"chunk {name} cpu {threads} thread{'s' * (threads > 1)} {percentile}",
                    "value": round(mine[index], 3),
                    "unit": "ms",
                    "better": "lower",
                    "against": "lerobot" if theirs else None,
                    "other": round(other, 3) if other else None,
                    "ratio": round(mine[index] / other, 4) if other else None,
                }
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
