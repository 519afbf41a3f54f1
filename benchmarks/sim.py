"""Control steps a second on one core: Armature's stepping against robosuite's `env.step` and against raw `mj_step`.

All three run the same actions from the same seeds in turn, so that whatever else the machine does falls on all of them.
`mj_step` gets the state that each of our steps begins from, its torques and its number of substeps. Figures are medians
over steps of the processor time of the one thread; observations are read in every step. Lift and NutAssemblySquare with
OSC_POSE are measured at length, every other task and controller briefly. `python -m benchmarks.sim Lift Door` measures
these tasks only.

Differences from robosuite's trajectories are rounding (1e-14) until something collides: there MuJoCo's solver stops at
its tolerance, and rounding decides after which iteration. For scale, robosuite is also run against itself with torques
disturbed by 1e-14 of their size.
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
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robot.sim import make
from robot.sim.config import TASK_NAMES, EnvConfig
from robot.sim.controllers import ACTION_SPACES
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.tasks import Task, task
from robot.sim.world import build, seeded

AT_LENGTH = (("lift", "OSC_POSE"), ("nut_assembly_square", "OSC_POSE"))
BLOCKS, STEPS = 8, 100
BRIEF_BLOCKS, BRIEF_STEPS = 3, 30
TOLERANCE, DISTURBANCE = 1e-6, 1e-14
START_UP = "import time; t = time.perf_counter(); import robot.sim as s; from robot.sim.config import EnvConfig; \
s.make(EnvConfig()).reset(seed=0); print(time.perf_counter() - t)"


def emit(name: str, value: float, unit: str, better: str, **reference: Any) -> None:
    line = {"name": name, "value": value, "unit": unit, "better": better, "against": None, "other": None, "ratio": None}
    if reference:
        line.update(reference, ratio=value / reference["other"])
    print(json.dumps(line), flush=True)


Trace = list[tuple[np.ndarray, np.ndarray, float]]


class Race:
    """One task and controller in our hands and in robosuite's."""

    def __init__(self, known: Task, controller: str) -> None:
        config = EnvConfig(task=known.name, controller=controller, horizon=10**6, success_hold=10**6)
        self.environment: RobosuiteEnvironment = make(config)
        assert self.environment.stepper is not None
        self.arena = build(config, known)
        self._scratch = mujoco.MjData(self.environment.model)

    def actions(self, block: int, steps: int) -> np.ndarray:
        """Random ones, (steps, A)."""
        return np.random.default_rng(block).uniform(-1.0, 1.0, (steps, *self.environment.specs.action.shape))

    def ours(self, block: int, steps: int) -> tuple[list[float], list[float], Trace]:
        """Seconds of each of our steps and of `mj_step` from the same state, and the trajectory."""
        environment = self.environment
        environment.reset(seed=block)
        model, kind = environment.model, mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(model, kind))
        spent, raw, trace = [], [], []
        for index, action in enumerate(self.actions(block, steps)):
            mujoco.mj_getState(model, environment.data, state, kind)
            mujoco.mj_setState(model, self._scratch, state, kind)
            if index % 2:  # whoever comes second finds the caches warm
                raw.append(self._raw())
            begin = time.thread_time()
            _, reward, *_ = environment.step(action)
            spent.append(time.thread_time() - begin)
            if not index % 2:
                raw.append(self._raw())
            trace.append((environment.data.qpos.copy(), environment.data.qvel.copy(), reward))
        return spent, raw, trace

    def _raw(self) -> float:
        begin = time.thread_time()
        mujoco.mj_step(self.environment.model, self._scratch, nstep=self.environment.n_substeps)
        return time.thread_time() - begin

    def disturbed(self, block: int, steps: int) -> Trace:
        """robosuite's trajectory with torques that are a little wrong."""
        arena, rng = self.arena, np.random.default_rng(0)
        control = arena._pre_action

        def imprecise(action: np.ndarray, policy_step: bool = False) -> None:
            control(action, policy_step)
            arena.sim.data.ctrl[:] *= 1.0 + DISTURBANCE * rng.normal(size=arena.sim.data.ctrl.shape)

        arena._pre_action = imprecise
        try:
            return self.theirs(block, steps)[1]
        finally:
            del arena._pre_action

    def theirs(self, block: int, steps: int) -> tuple[list[float], Trace]:
        """Seconds of each of robosuite's steps, and the trajectory."""
        with seeded(block):
            self.arena.reset()
        spent, trace = [], []
        for action in self.actions(block, steps):
            begin = time.thread_time()
            _, reward, *_ = self.arena.step(action)
            spent.append(time.thread_time() - begin)
            trace.append((self.arena.sim.data.qpos.copy(), self.arena.sim.data.qvel.copy(), reward))
        return spent, trace


@dataclass
class Result:
    """Median seconds of a step, and how far the trajectories are apart: (steps, qpos qvel reward) each."""

    ours: float
    robosuite: float
    mj_step: float
    differences: np.ndarray
    disturbed: np.ndarray


def run(race: Race, blocks: int, steps: int, *, with_disturbed: bool) -> Result:
    race.ours(0, 10)  # warm up: caches, branch predictors, robosuite's own numba functions
    race.theirs(0, 5)
    spent: dict[str, list[float]] = {"ours": [], "robosuite": [], "mj_step": []}
    differences, disturbed = [], []
    for block in range(blocks):
        seconds, raw, our_trace = race.ours(block, steps)
        spent["ours"] += seconds
        spent["mj_step"] += raw
        seconds, their_trace = race.theirs(block, steps)
        spent["robosuite"] += seconds
        differences += apart(our_trace, their_trace)
        if with_disturbed:
            disturbed += apart(their_trace, race.disturbed(block, steps))
    median = {name: statistics.median(seconds) for name, seconds in spent.items()}
    return Result(median["ours"], median["robosuite"], median["mj_step"], np.array(differences), np.array(disturbed))


def apart(one: Trace, other: Trace) -> list[list[float]]:
    """Largest difference of qpos, qvel and reward at each step."""
    steps = zip(one, other, strict=True)
    return [[float(np.max(np.abs(a - b))) for a, b in zip(*pair, strict=True)] for pair in steps]


def start_up(cache: str | None) -> float:
    """Seconds from a new process's first line to the first observation; with an empty cache of numba's, if given."""
    variables = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    done = subprocess.run([sys.executable, "-c", START_UP], env=variables, capture_output=True, text=True, check=True)
    return float(done.stdout)


def report_differences(name: str, result: Result) -> None:
    for kind, summary in (("largest", np.max), ("median", np.median)):
        for column, quantity in enumerate(("qpos [rad or m]", "qvel [rad/s or m/s]", "reward")):
            ours, scale = float(summary(result.differences[:, column])), float(summary(result.disturbed[:, column]))
            reference = {"against": "robosuite disturbed by 1e-14", "other": scale} if scale > 0 else {}
            emit(f"{name}, {kind} difference from robosuite in {quantity}", ours, "1", "lower", **reference)
    same, disturbed_same = (
        int((np.max(rows.reshape(BLOCKS, -1), axis=1) <= TOLERANCE).sum())
        for rows in (result.differences, result.disturbed)
    )
    title = f"{name}, seeds of {BLOCKS} that stay within {TOLERANCE:g} of robosuite for {STEPS} steps"
    reference = {"against": "robosuite disturbed by 1e-14", "other": disturbed_same} if disturbed_same else {}
    emit(title, same, "seeds", "higher", **reference)


def measure(known: Task, controller: str) -> None:
    at_length = (known.name, controller) in AT_LENGTH
    blocks, steps = (BLOCKS, STEPS) if at_length else (BRIEF_BLOCKS, BRIEF_STEPS)
    result = run(Race(known, controller), blocks, steps, with_disturbed=at_length)
    name = f"{known.robosuite_name} {controller}"
    rate = 1.0 / result.ours
    emit(f"{name}, control steps", rate, "1/s", "higher", against="robosuite", other=1.0 / result.robosuite)
    emit(f"{name}, control steps", rate, "1/s", "higher", against="raw mj_step", other=1.0 / result.mj_step)
    if at_length:
        report_differences(name, result)


def main(names: list[str]) -> int:
    tasks = [task(name) for name in names or TASK_NAMES]
    cases = [(known, controller) for known in tasks for controller in ACTION_SPACES]
    for known, controller in sorted(cases, key=lambda case: (case[0].name, case[1]) not in AT_LENGTH):
        measure(known, controller)
    emit("Lift, import, make and reset, compiled before", start_up(None), "s", "lower")
    with tempfile.TemporaryDirectory() as empty:
        emit("Lift, import, make and reset, nothing compiled yet", start_up(empty), "s", "lower")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
