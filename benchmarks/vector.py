"""Vector environments: steps a second of one worker and of two, beside a bare loop and Gymnasium's AsyncVectorEnv.

All of them run the same number of environments with the same actions, in many short turns one after the other. Whatever
else the machine does only takes away, and from two workers more than from one: figures are of the best turn of each.
A step counts once for each environment, and includes reading the observation. Memory is resident memory of this process
and of each worker.

    python -m benchmarks.vector                     # the ratios
    python -m benchmarks.vector --steps 1000000     # only so many steps of one vector environment, and its memory
"""

import json
import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.vector import VectorEnvironment

TASKS = ("lift", "nut_assembly_square")
N, TURNS, TURN_STEPS = 4, 40, 25
MB = 2**20


def emit(name: str, value: float, unit: str, better: str, **reference: Any) -> None:
    line = {"name": name, "value": value, "unit": unit, "better": better, "against": None, "other": None, "ratio": None}
    if reference:
        line.update(reference, ratio=value / reference["other"])
    print(json.dumps(line), flush=True)


class Loop:
    """n environments one after the other in this process, reset in the step after an end."""

    def __init__(self, config: EnvConfig, n: int) -> None:
        self._environments: list[RobosuiteEnvironment] = [make(config) for _ in range(n)]
        self._over = [False] * n

    def reset(self, seed: int) -> None:
        """Begin an episode in each."""
        for index, environment in enumerate(self._environments):
            environment.reset(seed=seed + index)
        self._over = [False] * len(self._environments)

    def step(self, actions: np.ndarray) -> None:
        """Step each, or reset it."""
        for index, (environment, action) in enumerate(zip(self._environments, actions, strict=True)):
            if self._over[index]:
                environment.reset()
                self._over[index] = False
            else:
                _, _, terminated, truncated, _ = environment.step(action)
                self._over[index] = terminated or truncated

    def close(self) -> None:
        """Close each."""
        for environment in self._environments:
            environment.close()


def turn(environment: Any, n: int, number: int) -> float:
    """Steps a second over one turn; the reset is not counted."""
    actions = np.random.default_rng(number).uniform(-1.0, 1.0, (TURN_STEPS, n, *_shape(environment))).astype(np.float32)
    environment.reset(seed=100 * number)
    environment.step(actions[0])
    begin = time.perf_counter()
    for batch in actions:
        environment.step(batch)
    return n * TURN_STEPS / (time.perf_counter() - begin)


def _shape(environment: Any) -> tuple[int, ...]:
    return (7,) if isinstance(environment, Loop) else environment.single_action_space.shape


def rates(n: int, makers: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Steps a second of each in its best turn; every second round runs in the opposite order."""
    contestants = {name: maker() for name, maker in makers.items()}
    measured: dict[str, list[float]] = {name: [] for name in makers}
    try:
        for number in range(TURNS + 1):
            order = list(contestants)[:: 1 if number % 2 else -1]
            for name in order:
                rate = turn(contestants[name], n, number)
                if number:  # the first turn warms up
                    measured[name].append(rate)
    finally:
        for environment in contestants.values():
            environment.close()
    return {name: max(found) for name, found in measured.items()}


def compare(task: str) -> None:
    config = EnvConfig(task=task)
    found = rates(
        N,
        {
            "loop": partial(Loop, config, N),
            "one": partial(VectorEnvironment, config, N, workers=1),
            "two": partial(VectorEnvironment, config, N, workers=2),
        },
    )
    name = f"{task}, {N} environments"
    emit(f"{name}, two workers", found["two"], "steps/s", "higher", against="one worker", other=found["one"])
    emit(f"{name}, one worker", found["one"], "steps/s", "higher", against="bare loop", other=found["loop"])
    overhead_us = 1e6 * N * (1.0 / found["one"] - 1.0 / found["loop"])
    emit(f"{name}, one worker, more than the loop for each step of all", overhead_us, "us", "lower")
    # Gymnasium has a process for each environment, so that only two of them are a fair comparison on two cores.
    pair = rates(
        2,
        {
            "ours": partial(VectorEnvironment, config, 2, workers=2),
            "gymnasium": partial(
                AsyncVectorEnv,
                [partial(make, config)] * 2,
                shared_memory=True,
                context="spawn",
                autoreset_mode=AutoresetMode.NEXT_STEP,
            ),
        },
    )
    reference = {"against": "AsyncVectorEnv", "other": pair["gymnasium"]}
    emit(f"{task}, 2 environments, two workers", pair["ours"], "steps/s", "higher", **reference)


def resident_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / MB


def endure(steps: int, n: int = N) -> None:
    """Resident memory of this process and its workers at the start, after a tenth, and at the end of many steps."""
    rng = np.random.default_rng(0)
    with VectorEnvironment(EnvConfig(), n, workers=2) as environment:
        environment.reset(seed=0)
        watched = {"parent": os.getpid()}
        for number, worker in enumerate(environment._workers, 1):
            watched[f"worker {number}"] = worker.process.pid or 0
        begin, rounds = time.perf_counter(), steps // n
        marks = {0: "at the start", rounds // 10: "after a tenth", rounds - 1: "at the end"}
        sizes: dict[str, dict[str, float]] = {}
        for index in range(rounds):
            if index in marks:
                sizes[marks[index]] = {name: resident_mb(process) for name, process in watched.items()}
            environment.step(rng.uniform(-1.0, 1.0, (n, 7)))
        seconds = time.perf_counter() - begin
    for name in watched:
        for when, size in sizes.items():
            reference = {"against": "after a tenth", "other": sizes["after a tenth"][name]}
            emit(f"lift, {steps} steps, memory of {name} {when}", size[name], "MB", "lower", **reference)
    emit(f"lift, {steps} steps, {n} environments, two workers", steps / seconds, "steps/s", "higher")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=0, help="run so many steps and report memory")
    steps = parser.parse_args().steps
    if steps:
        endure(steps)
    else:
        for task in TASKS:
            compare(task)
        endure(20_000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
