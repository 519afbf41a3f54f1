"""How late the control loop is, against a loop that sleeps for what is left of its period.

Prints a JSON object a line. The loops do the same work in each cycle, at the same time, while one process for each
core computes (Python arithmetic and matrix products in turn), then with the cores idle. Ours asks for SCHED_FIFO as the
bridge does, and again without; the reference is the ordinary process that such loops are, and once has SCHED_FIFO too.
Lateness of ours is measured from the beat's grid; that of the reference from one period after its last cycle began, so
that its drift does not count against it. Bursts are cycles that begin within half a period of the one before; a third
loop, which makes up for what it missed, shows what they look like. Then the real-time process itself, with the fake
arm and the twin, driven by chunks; `cycle time` is what it needs of a period of 2 ms.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

RATE_HZ = 500
PERIOD_NS = round(1e9 / RATE_HZ)
ROUNDS, ROUND_S = 5, 5.0
BRIDGE_S = 10.0
PRIORITY = 80
WORK = 16
"""Products of 24 x 24 matrices and Python around them: about 0.08 ms, half of a cycle of the bridge."""

BUSY = """
import os, numpy as np
os.sched_setaffinity(0, {CORE})
a, x = np.random.default_rng(0).random((128, 128)), 0.0
while True:
    for i in range(20000):
        x += i * 1e-9
    a = a @ a / np.abs(a @ a).max()
"""


def work(a: np.ndarray) -> None:
    for _ in range(WORK):
        a = a @ a
        a /= sum(abs(float(x)) for x in a[0])


def ours(seconds: float, priority: int) -> dict[str, Any]:
    """Run the pacer as the real-time process does; [us] but for counts."""
    from hardware.pacing import Pacer
    from hardware.privileges import become_real_time

    a, began = np.random.default_rng(0).random((24, 24)), []
    work(a)
    granted = become_real_time(priority, -1)
    pacer = Pacer(RATE_HZ)
    end = time.monotonic_ns() + int(seconds * 1e9)
    late: list[int] = []
    while (woke := pacer.wait()) < end:
        began.append(woke)
        late.append(woke - pacer._due_ns)
        work(a)
    granted.close()
    return {"late": late, "began": began}


def naive(seconds: float, priority: int) -> dict[str, Any]:
    """The loop that most scripts have: sleep for what is left of the period."""
    a, began = np.random.default_rng(0).random((24, 24)), []
    work(a)
    if priority:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    late: list[int] = []
    end = time.monotonic_ns() + int(seconds * 1e9)
    last = time.monotonic_ns()
    while last < end:
        work(a)
        time.sleep(max(0.0, (PERIOD_NS - (time.monotonic_ns() - last)) / 1e9))
        now = time.monotonic_ns()
        late.append(now - last - PERIOD_NS)
        began.append(last := now)
    return {"late": late, "began": began}


def catching_up(seconds: float, priority: int) -> dict[str, Any]:
    """A loop with absolute deadlines that makes up for what it missed."""
    a, began = np.random.default_rng(0).random((24, 24)), []
    work(a)
    if priority:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    due = time.monotonic_ns()
    end = due + int(seconds * 1e9)
    late: list[int] = []
    while due < end:
        work(a)
        due += PERIOD_NS
        time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
        began.append(time.monotonic_ns())
        late.append(began[-1] - due)
    return {"late": late, "began": began}


LOOPS = {"ours": ours, "time.sleep": naive, "catching up": catching_up}


@contextmanager
def busy_cores(is_busy: bool) -> Iterator[None]:
    cores = sorted(os.sched_getaffinity(0)) if is_busy else []
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    processes = [
        subprocess.Popen([sys.executable, "-c", BUSY.replace("CORE", str(core))], env={**os.environ, **one})
        for core in cores
    ]
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start(name: str, priority: int, env: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.loop", name, str(priority)]
    # Ours has a session of its own, as the bridge gives it; the others run where they were started.
    is_ours = name == "ours"
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, start_new_session=is_ours)


def rounds(is_busy: bool, priorities: dict[str, int]) -> dict[str, dict[str, np.ndarray]]:
    """Both loops side by side, some times; lateness [us], and how many cycles followed within half a period."""
    gathered: dict[str, dict[str, list[Any]]] = {name: {"late": [], "bursts": [], "rate": []} for name in LOOPS}
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with busy_cores(is_busy):
        for turn in range(ROUNDS):
            # Who starts first changes, in case it matters.
            names = list(LOOPS)[:: 1 if turn % 2 else -1]
            running = {name: start(name, priorities[name], env) for name in names}
            for name, process in running.items():
                result = json.loads(process.communicate()[0])
                began = np.array(result["began"])
                gathered[name]["late"] += result["late"]
                gathered[name]["bursts"].append(int((np.diff(began) < PERIOD_NS / 2).sum()))
                gathered[name]["rate"].append((len(began) - 1) / (began[-1] - began[0]) * 1e9)
    return {name: {key: np.array(value) for key, value in of.items()} for name, of in gathered.items()}


def compare(case: str, is_busy: bool, priority: int, priority_of_other: int) -> None:
    found = rounds(is_busy, {"ours": priority, "time.sleep": priority_of_other, "catching up": priority_of_other})
    mine, other = found["ours"], found["time.sleep"]
    for label, percent in (("p50", 50), ("p99", 99), ("p99.9", 99.9), ("max", 100)):
        pair = [max(float(np.percentile(of["late"], percent)) / 1000, 0.0) for of in (mine, other)]
        tell(f"loop lateness, {case}, {label}", pair[0], "us", "lower", pair[1])
    for name in ("time.sleep", "catching up"):
        bursts = int(found[name]["bursts"].sum())
        tell(f"loop bursts, {case}", int(mine["bursts"].sum()), "cycles", "lower", bursts, name)
    off = [abs(1 - float(of["rate"].mean()) / RATE_HZ) * 100 for of in (mine, other)]
    tell(f"loop cycles lost, {case}", off[0], "%", "lower", off[1])


def tell(
    name: str, value: float, unit: str, better: str, other: float | None = None, name_of_other: str = "time.sleep"
) -> None:
    against = None if other is None else name_of_other
    ratio = value / other if other else None
    line = {"name": name, "value": value, "unit": unit, "better": better}
    print(json.dumps({**line, "against": against, "other": other, "ratio": ratio}), flush=True)


def bridge(arm: str, case: str, is_busy: bool, priority: int) -> None:
    """The real-time process, armed and driven by a chunk every 50 ms."""
    from hardware.arms import ARM_SCHEMAS
    from hardware.bridge import BridgeConfig, RealtimeProcess
    from hardware.shared_memory import SharedMemory
    from robot import config
    from robot.bridge.schema import arm_specs_from_json
    from robot.sim.config import ENV_SCHEMAS

    overrides = [f"arm={arm}", f"priority={priority}"]
    settings = config.load("bridge", BridgeConfig, overrides, {"arm": ARM_SCHEMAS, "env": ENV_SCHEMAS})
    memory = SharedMemory.create()
    memory.states.wake_fd = os.eventfd(0, os.EFD_NONBLOCK)
    process = RealtimeProcess(settings, memory)
    try:
        ready = process.ready([])
        assert ready is not None
        with gateway(memory), busy_cores(is_busy):
            grown = driven(memory, process._process.pid, arm_specs_from_json(ready["arm"]))
            report = process.end(memory)
    finally:
        process.end(memory)
        memory.close()
    if report.get("ended") != "asked to":
        raise SystemExit(f"The real-time process with arm={arm} ended by itself: {report}")
    for key in ("late_p50_us", "late_p99_us", "late_p999_us", "late_max_us", "busy_p50_us", "busy_p99_us"):
        what, label = key.removesuffix("_us").split("_")
        word = {"late": "lateness", "busy": "cycle time"}[what]
        tell(f"bridge {word}, {arm}, {case}, {label.replace('p999', 'p99.9')}", report[key], "us", "lower")
    skipped = 100 * report["skipped_periods"] / (report["cycles"] + report["skipped_periods"])
    tell(f"bridge periods skipped, {arm}, {case}", skipped, "%", "lower")
    tell(f"bridge memory grown, {arm}, {case}", grown, "KiB", "lower")


@contextmanager
def gateway(memory: Any) -> Iterator[None]:
    """Signs of life of a gateway and of a client that holds the lease."""
    from hardware.shared_memory import Word

    over = threading.Event()

    def show_life() -> None:
        while not over.wait(0.005):
            now_ns = time.monotonic_ns()
            # A second ahead: what is measured is the loop, and not how often this thread gets a core.
            memory.words[Word.GATEWAY_ALIVE_NS] = memory.words[Word.LEASE_ALIVE_NS] = now_ns + 10**9
            memory.words[Word.LEASE_UNTIL_NS] = now_ns + 10**9

    memory.words[Word.LEASE_SESSION] = 1
    thread = threading.Thread(target=show_life)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def driven(memory: Any, pid: int, specs: Any) -> float:
    """Drive for a while; by how much the process grew in the second half of it [KiB]."""
    from hardware.shared_memory import Command, Kind
    from robot.bridge.schema import INDEX, Mode, state_layout

    memory.commands.push(Command(Kind.ARM, 1, 1))
    halfway = 0
    chunks = round(BRIDGE_S / 0.05)
    for number in range(chunks):
        rows = np.zeros((8, specs.environment.action.shape[0]))
        rows[:, 0] = 0.3 * np.sin(number / 10)
        memory.commands.push(Command(Kind.CHUNK, 1, number + 2, time.monotonic_ns(), 50_000_000, rows=rows))
        time.sleep(0.05)
        if number == chunks // 2:
            halfway = resident(pid)
    state = np.zeros(state_layout(specs).size)
    memory.states.read(state)
    if state[INDEX["mode"]] != Mode.ARMED or state[INDEX["last_sequence"]] < chunks:
        raise SystemExit(f"The arm was not driven: {dict(zip(INDEX, state.tolist(), strict=False))}")
    return (resident(pid) - halfway) / 1024


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def may_be_first() -> bool:
    """Whether this user gets SCHED_FIFO; asked in a thread, which takes it along when it ends."""
    from hardware.privileges import try_fifo

    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(try_fifo(PRIORITY)))
    thread.start()
    thread.join()
    if reasons[0]:
        print(f"no lines with SCHED_FIFO: {reasons[0]}", file=sys.stderr)
    return not reasons[0]


def main() -> None:
    first = PRIORITY if may_be_first() else 0
    if first:
        compare("cores busy, SCHED_FIFO", True, first, 0)
        compare("cores busy, SCHED_FIFO for both", True, first, first)
    compare("cores busy, without rights", True, 0, 0)
    compare(f"cores idle{', SCHED_FIFO' if first else ''}", False, first, 0)
    for arm in ("fake", "twin"):
        if first:
            bridge(arm, "cores busy, SCHED_FIFO", True, first)
        bridge(arm, "cores busy, without rights", True, 0)
        bridge(arm, f"cores idle{', SCHED_FIFO' if first else ''}", False, first)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(LOOPS[sys.argv[1]](ROUND_S, int(sys.argv[2]))))
    else:
        main()
