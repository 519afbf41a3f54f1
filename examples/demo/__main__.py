"""Collect, build, train, evaluate, and drive the arm: each step is the `armature` command that a user would type.

Everything lands in a new folder under `runs/demo/`, so that a second demo never touches the first.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from examples.demo.report import Results, table, write_report

PATIENT = "arm.limits.silence_s=0.5"
"""Five times the silence that stops an arm otherwise: the machine that a demo runs on may be anybody's, and busy."""


class StepFailedError(Exception):
    """A step of the demo ended with an error, which it has already printed."""

    def __init__(self, verb: str, status: int) -> None:
        super().__init__(f"`armature {verb}` ended with status {status}; its message stands above.")
        self.status = status


def main() -> int:
    """Run the demo; the exit status of the first step that failed, or 0."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--policy", default="diffusion", help="policy head to train (diffusion, act)")
    parser.add_argument("--episodes", type=int, default=50, help="demonstrations to collect")
    parser.add_argument("--steps", type=int, help="training steps (default: the policy's own)")
    parser.add_argument("--out", type=Path, help="folder for everything (default: a new one under runs/demo)")
    arguments = parser.parse_args()
    out = arguments.out or Path("runs/demo") / time.strftime("%Y%m%d-%H%M%S")
    try:
        durations = run_steps(out, arguments.policy, arguments.episodes, arguments.steps)
    except StepFailedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("demo: interrupted; what was finished is in", out, file=sys.stderr)
        return 130
    results = Results.read(out, durations)
    (out / "demo.json").write_text(json.dumps(dict(results.rows()), indent=2) + "\n")
    print("\n" + table(results.rows()))
    print(f"\nReport with curves and video: {write_report(results, out)}")
    return 0


def run_steps(out: Path, policy: str, episodes: int, steps: int | None) -> dict[str, float]:
    """Run the five steps; wall time of each [s]."""
    data, run = [f"episodes={out}/episodes", f"out={out}/dataset"], f"{out}/policy"
    train = [f"policy={policy}", f"dataset={out}/dataset", f"out={run}", *([f"steps={steps}"] if steps else [])]
    durations = {}
    durations["record"] = armature("record", "env=lift", "source=expert", f"episodes={episodes}", f"out={out}/episodes")
    durations["build"] = armature("build", *data)
    durations["train"] = armature("train", *train)
    durations["evaluate"] = armature("evaluate", f"checkpoint={run}", "episodes=50")
    durations["deploy"] = through_the_bridge(run)
    return durations


def armature(verb: str, *overrides: str) -> float:
    """Run one verb as a process of its own, its output going to the terminal; its duration [s]."""
    print(f"\n$ armature {' '.join([verb, *overrides])}", flush=True)
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "robot.cli", verb, *overrides])
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # In a terminal the verb got the same Ctrl-C and is saving what it has; nothing here may cut that short.
        process.wait(timeout=60)
        raise
    if status:
        raise StepFailedError(verb, status)
    return time.monotonic() - begin


def through_the_bridge(run: str) -> float:
    """Start the twin's bridge, drive it with the checkpoint for ten episodes, stop it; duration of the driving [s]."""
    print(f"\n$ armature bridge arm=twin task=lift {PATIENT} &", flush=True)
    bridge = subprocess.Popen(
        [sys.executable, "-m", "robot.cli", "bridge", "arm=twin", "task=lift", PATIENT],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert bridge.stdout is not None
        ready = bridge.stdout.readline()
        if not ready:
            raise StepFailedError("bridge", bridge.wait())
        print(ready, end="", flush=True)
        duration = armature("deploy", f"checkpoint={run}", "episodes=10")
    finally:
        # Ctrl-C in a terminal reaches the bridge by itself; a second one would interrupt its own clean stop.
        if bridge.poll() is None:
            bridge.send_signal(signal.SIGINT)
        rest, _ = bridge.communicate(timeout=30)
        print(rest, end="", flush=True)
    return duration


if __name__ == "__main__":
    sys.exit(main())
