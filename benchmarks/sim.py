"""Control steps a second on one core: Armature's stepping against robosuite's `env.step` and against raw `mj_step`.

All three run the same actions from the same seeds in turn, so that whatever else the machine does falls on all of them.
`mj_step` gets the state that each of our steps begins from, its torques and its number of substeps. Figures are medians
over steps of the processor time of the one thread.

Differences from robosuite's trajectories are rounding (1e-14) until something collides: there MuJoCo's solver stops at
its tolerance, and rounding decides after which iteration. For scale, robosuite is also run against itself with joint
velocities that begin 1e-15 rad/s apart.
"""

import json
import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import mujoco
import numpy as np

from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.tasks import task
from robot.sim.world import build, seeded

BLOCKS, STEPS = 8, 100
TOLERANCE = 1e-6
START_UP = "import time; t = time.perf_counter(); import robot.sim as s; from robot.sim.config import EnvConfig; \
s.make(EnvConfig()).reset(seed=0); print(time.perf_counter() - t)"


def emit(name: str, value: float, unit: str, better: str, **reference: Any) -> None:
    line = {"name": name, "value": value, "unit": unit, "better": better, "against": None, "other": None, "ratio": None}
    if reference:
        line.update(reference, ratio=value / reference["other"])
    print(json.dumps(line), flush=True)


def actions_of(block: int) -> np.ndarray:
    return np.random.default_rng(block).uniform(-1.0, 1.0, (STEPS, 7))


Trace = list[tuple[np.ndarray, np.ndarray, float]]


def ours(environment: RobosuiteEnvironment, block: int, scratch: Any) -> tuple[list[float], list[float], Trace]:
    """Seconds of each of our steps and of `mj_step` from the same state, and the trajectory."""
    environment.reset(seed=block)
    model, kind = environment.model, mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, kind))
    spent, raw, trace = [], [], []
    for index, action in enumerate(actions_of(block)):
        mujoco.mj_getState(model, environment.data, state, kind)
        mujoco.mj_setState(model, scratch, state, kind)
        if index % 2:  # whoever comes second finds the caches warm
            raw.append(raw_seconds(model, scratch, environment.n_substeps))
        begin = time.thread_time()
        _, reward, *_ = environment.step(action)
        spent.append(time.thread_time() - begin)
        if not index % 2:
            raw.append(raw_seconds(model, scratch, environment.n_substeps))
        trace.append((environment.data.qpos.copy(), environment.data.qvel.copy(), reward))
    return spent, raw, trace


def raw_seconds(model: Any, data: Any, substeps: int) -> float:
    begin = time.thread_time()
    mujoco.mj_step(model, data, nstep=substeps)
    return time.thread_time() - begin


def theirs(arena: Any, block: int, nudge: float = 0.0) -> tuple[list[float], Trace]:
    with seeded(block):
        arena.reset()
    arena.sim.data.qvel[:7] += nudge
    spent, trace = [], []
    for action in actions_of(block):
        begin = time.thread_time()
        _, reward, *_ = arena.step(action)
        spent.append(time.thread_time() - begin)
        trace.append((arena.sim.data.qpos.copy(), arena.sim.data.qvel.copy(), reward))
    return spent, trace


def apart(one: Trace, other: Trace) -> list[list[float]]:
    """Largest difference of qpos, qvel and reward at each step."""
    steps = zip(one, other, strict=True)
    return [[float(np.max(np.abs(a - b))) for a, b in zip(*pair, strict=True)] for pair in steps]


def start_up(cache: str | None) -> float:
    """Seconds from a new process's first line to the first observation; with an empty cache of numba's, if given."""
    variables = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    done = subprocess.run([sys.executable, "-c", START_UP], env=variables, capture_output=True, text=True, check=True)
    return float(done.stdout)


def report_differences(differences: np.ndarray, nudged: np.ndarray) -> None:
    """Of qpos, qvel and reward (columns) over all steps (rows)."""
    for kind, summary in (("largest", np.max), ("median", np.median)):
        for column, name in enumerate(("qpos [rad or m]", "qvel [rad/s or m/s]", "reward")):
            ours, scale = float(summary(differences[:, column])), float(summary(nudged[:, column]))
            reference = {"against": "robosuite nudged by 1e-15", "other": scale} if scale > 0 else {}
            emit(f"Lift, {kind} difference from robosuite in {name}", ours, "1", "lower", **reference)
    same, nudged_same = (
        int((np.max(rows.reshape(BLOCKS, -1), axis=1) <= TOLERANCE).sum()) for rows in (differences, nudged)
    )
    name = f"Lift, seeds of {BLOCKS} that stay within {TOLERANCE:g} of robosuite for {STEPS} steps"
    reference = {"against": "robosuite nudged by 1e-15", "other": nudged_same} if nudged_same else {}
    emit(name, same, "seeds", "higher", **reference)


def main() -> int:
    config = EnvConfig(horizon=10 * STEPS, success_hold=10 * STEPS)
    environment, arena = make(config), build(config, task(config.task))
    scratch = mujoco.MjData(environment.model)
    for block in range(2):  # warm up: caches, branch predictors, robosuite's own numba functions
        ours(environment, block, scratch)
        theirs(arena, block)
    spent: dict[str, list[float]] = {"ours": [], "robosuite": [], "mj_step": []}
    differences, nudged = [], []
    for block in range(BLOCKS):
        seconds, raw, our_trace = ours(environment, block, scratch)
        spent["ours"] += seconds
        spent["mj_step"] += raw
        seconds, their_trace = theirs(arena, block)
        spent["robosuite"] += seconds
        differences += apart(our_trace, their_trace)
        nudged += apart(their_trace, theirs(arena, block, nudge=1e-15)[1])
    rate = {name: 1.0 / statistics.median(seconds) for name, seconds in spent.items()}
    emit("Lift, control steps", rate["ours"], "1/s", "higher", against="robosuite", other=rate["robosuite"])
    emit("Lift, control steps", rate["ours"], "1/s", "higher", against="raw mj_step", other=rate["mj_step"])
    report_differences(np.array(differences), np.array(nudged))
    emit("Lift, import, make and reset, compiled before", start_up(None), "s", "lower")
    with tempfile.TemporaryDirectory() as empty:
        emit("Lift, import, make and reset, nothing compiled yet", start_up(empty), "s", "lower")
    return 0


if __name__ == "__main__":
    sys.exit(main())
