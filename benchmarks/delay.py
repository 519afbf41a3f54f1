"""Success against inference delay, for every way to play chunks, on Lift and NutAssemblySquare.

A delay of d means that d control steps pass between an observation and the first row of the chunk that answers it. It
is injected: the world waits for nothing but steps, so that the figures do not depend on this machine. Every cell runs
the same episodes. `realtime prefix` plays a head that was trained with prefixes of up to ten rows, all others one that
was trained without. What is missing in `.cache/delay` is recorded, built and trained first, on one CPU thread (about
fifteen minutes where that core is free, resumable).

    python -m benchmarks.delay                                          # everything
    python -m benchmarks.delay --tasks lift --modes asynchronous --delays 0 5 --episodes 20
    python -m benchmarks.delay --lines .cache/delay/lines.jsonl --docs  # goes on where it was; docs/delay.png and table

With `--lines FILE`, cells that the file holds are not run again, and new ones are added to it.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from policies.base import AbstractHead
from policies.checkpoint import load_head
from policies.continuing import Method
from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.base import Ask, ExecutionConfig
from policies.execution.ensembling import EnsemblingConfig
from policies.execution.realtime import RealtimeConfig
from policies.execution.simulated import SimulatedPlay
from policies.execution.synchronous import SynchronousConfig
from policies.head_policy import HeadPolicy, kept_of
from policies.success import wilson
from robot.contract import ActionChunk, Environment, Observation
from robot.loop import ObservationHistory
from robot.sim import make
from robot.sim.config import EnvConfig

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "delay"
DELAYS = (0, 1, 2, 3, 4, 5, 6, 8, 10)
EPISODES, SEED = 40, 700_000
AT_ONCE = 20
"""Worlds that are stepped together and share one call of the network."""
BAR_DELAY, BAR = 5, 0.95
"""At this delay the best asynchronous mode has to keep this part of its success without delay."""


@dataclass(frozen=True)
class Task:
    """What a task's heads are made from."""

    horizon: int
    demonstrations: int
    steps: dict[str, int]
    """Training steps by head."""


TASKS = {
    "lift": Task(200, 240, {"plain": 3000, "prefix": 6000}),
    "nut_assembly_square": Task(400, 240, {"plain": 6000, "prefix": 6000}),
}


@dataclass(frozen=True)
class Mode:
    """A way to play, and the head that it plays."""

    execution: ExecutionConfig
    head: str = "plain"


MODES = {
    "synchronous": Mode(SynchronousConfig()),
    "asynchronous": Mode(AsynchronousConfig()),
    "asynchronous, no blend": Mode(AsynchronousConfig(blend_rows=0)),
    "ensembling": Mode(EnsemblingConfig()),
    "realtime guided": Mode(RealtimeConfig(method=Method.guided)),
    "realtime constant": Mode(RealtimeConfig(method=Method.constant)),
    "realtime prefix": Mode(RealtimeConfig(method=Method.prefix), "prefix"),
}
REFERENCE = "synchronous"


@dataclass(frozen=True)
class Cell:
    """What came of one mode at one delay."""

    task: str
    mode: str
    delay: int
    episodes: int
    successes: int
    steps: float
    """Mean control steps of an episode; one that fails lasts to its horizon."""
    roughness: float
    """Root mean square of the change of the command from one control step to the next, without the gripper."""
    starved: float
    """Mean control steps that no row was planned for."""

    @property
    def rate(self) -> float:
        """Share of episodes that succeeded."""
        return self.successes / self.episodes


def prepare(task: str, head: str) -> Path:
    """The run folder of a head, recorded, built and trained as far as it is not."""
    folder, recipe = CACHE / task, TASKS[task]
    episodes, dataset, run = folder / "episodes", folder / "dataset", folder / head
    if not dataset.exists():
        # Noise that nobody can foresee makes late rows of a chunk unlearnable, and teaches a feedback that is unstable
        # where it comes late: the expert is not disturbed.
        wanted = ["quality=clean", f"episodes={recipe.demonstrations}", "workers=1"]
        verb("record", f"env={task}", *wanted, f"out={episodes}")
        verb("build", f"episodes={episodes}", f"out={dataset}")
    steps = recipe.steps[head]
    if not (run / "checkpoints" / f"step_{steps:08d}").exists():
        chunks = ["policy.horizon=24", "policy.n_action_steps=4", f"policy.prefix_max={10 if head == 'prefix' else 0}"]
        wanted = ["policy=diffusion", f"steps={steps}", "threads=1", *chunks]
        verb("train", f"task={task}", f"dataset={dataset}", f"out={run}", *wanted)
    return run


def verb(*words: str) -> None:
    """Run one verb of `armature`; what it says goes to standard error."""
    print(f"$ armature {' '.join(words)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "robot.cli", *words], check=True, stdout=sys.stderr, cwd=ROOT)


class Player:
    """One episode: a world, what was seen of it, and the execution that acts in it."""

    def __init__(self, world: Environment, play: SimulatedPlay, n_obs_steps: int, seed: int) -> None:
        self._world, self._play = world, play
        self._history = ObservationHistory(n_obs_steps)
        self._history.push(world.reset(seed=seed)[0])
        self._last: np.ndarray | None = None
        self.is_over = self.succeeded = False
        self.steps, self.changes = 0, [0.0]

    @property
    def starved(self) -> int:
        """Control steps without a plan."""
        return self._play.starved

    def ask(self) -> tuple[Observation, Ask] | None:
        """What is wanted of the policy now."""
        ask = self._play.ask()
        return None if ask is None else (self._history.stacked(), ask)

    def answer(self, chunk: ActionChunk) -> None:
        """Take the chunk that was asked for."""
        self._play.answer(chunk)

    def step(self) -> None:
        """Act for one control step."""
        action = self._play.next_row()
        if self._last is not None:
            self.changes.append(float(np.square(action - self._last)[:-1].sum()))
        observation, _, terminated, truncated, info = self._world.step(action)
        self._history.push(observation)
        self._last, self.steps = action, self.steps + 1
        self.is_over, self.succeeded = terminated or truncated, bool(info["success"])


class Stage:
    """The worlds of a task and the heads that act in them."""

    def __init__(self, task: str) -> None:
        self._task = task
        config = EnvConfig(task=task, horizon=TASKS[task].horizon)
        self._worlds = [make(config) for _ in range(AT_ONCE)]
        self._heads: dict[str, AbstractHead] = {}

    def close(self) -> None:
        """Free the worlds."""
        for world in self._worlds:
            world.close()

    def run(self, name: str, delay: int, episodes: int) -> Cell:
        """Run a cell."""
        mode = MODES[name]
        if mode.head not in self._heads:
            self._heads[mode.head] = load_head(prepare(self._task, mode.head))[0]
        head = self._heads[mode.head]
        policy = HeadPolicy(head)
        players: list[Player] = []
        for first in range(0, episodes, AT_ONCE):
            seeds = range(SEED + first, SEED + min(first + AT_ONCE, episodes))
            batch = [
                Player(world, SimulatedPlay(mode.execution.build(policy), delay), policy.specs.n_obs_steps, seed)
                for world, seed in zip(self._worlds, seeds, strict=False)
            ]
            play(batch, head, torch.Generator().manual_seed(SEED + first))
            players += batch
        return Cell(
            self._task,
            name,
            delay,
            episodes,
            sum(player.succeeded for player in players),
            float(np.mean([player.steps for player in players])),
            float(np.sqrt(np.mean(np.concatenate([player.changes for player in players])))),
            float(np.mean([player.starved for player in players])),
        )


def play(players: Sequence[Player], head: AbstractHead, generator: torch.Generator) -> None:
    """Run episodes to their ends in lock-step; all chunks that are wanted at a step come from one call."""
    while running := [player for player in players if not player.is_over]:
        wanted = [(player, asked) for player in running if (asked := player.ask()) is not None]
        for is_free in (True, False):
            group = [(player, *asked) for player, asked in wanted if (asked[1].continuation is None) == is_free]
            if group:
                for (player, _, _), chunk in zip(group, infer(head, group, generator), strict=True):
                    player.answer(chunk)
        for player in running:
            player.step()


def infer(
    head: AbstractHead, group: Sequence[tuple[Player, Observation, Ask]], generator: torch.Generator
) -> list[ActionChunk]:
    """A chunk for each, clipped as `HeadPolicy` clips it."""
    environment = head.specs.environment
    tensors = {
        key: torch.from_numpy(np.stack([observation[key] for _, observation, _ in group]).astype(np.float32))
        for key in environment.observation
    }
    continuations = [ask.continuation for _, _, ask in group if ask.continuation is not None]
    with torch.no_grad():
        if continuations:
            predicted = head.predict_after(tensors, generator, kept_of(continuations, head.specs))
        else:
            predicted = head.predict(tensors, generator)
    low, high = environment.action.bounds()
    actions = np.clip(predicted.numpy(), low, high).astype(environment.action.dtype)
    return [ActionChunk(rows, environment.dt_s) for rows in actions]


def emit(name: str, value: float, against: str, other: float | None, unit: str, better: str) -> None:
    ratio = value / other if other else None
    line = {"name": name, "value": value, "unit": unit, "better": better}
    line |= {"against": None if other is None else against, "other": other, "ratio": ratio}
    print(json.dumps(line), flush=True)


def report(cells: Iterable[Cell]) -> bool:
    """Print every cell against its mode without delay, then the bar of each task; whether all bars are met."""
    found = {(cell.task, cell.mode, cell.delay): cell for cell in cells}
    for (task, mode, delay), cell in found.items():
        still = found.get((task, mode, 0))
        low, high = wilson(cell.successes, cell.episodes)
        name = f"{task}, {mode}, delay {delay}"
        interval = f"success of {cell.episodes} episodes (95% interval {low:.2f}-{high:.2f})"
        emit(f"{name}, {interval}", cell.rate, "delay 0", still.rate if still else None, "1", "higher")
        emit(f"{name}, control steps", cell.steps, "delay 0", still.steps if still else None, "steps", "lower")
    is_met = True
    for task in dict.fromkeys(cell.task for cell in found.values()):
        best = best_at(found, task)
        if best is not None:
            emit(f"{task}, best asynchronous mode at delay {BAR_DELAY} ({best[0].mode})",
                 best[0].rate, "delay 0", best[1].rate, "1", "higher")  # fmt: skip
            is_met &= best[0].rate >= BAR * best[1].rate
    return is_met


def best_at(found: dict[tuple[str, str, int], Cell], task: str) -> tuple[Cell, Cell] | None:
    """The mode that succeeds most often at the bar's delay, the quicker one where two do: that cell and its delay 0."""
    pairs = [
        (found[task, mode, BAR_DELAY], found[task, mode, 0])
        for mode in MODES
        if mode != REFERENCE and {(task, mode, BAR_DELAY), (task, mode, 0)} <= found.keys()
    ]
    return max(pairs, key=lambda pair: (pair[0].rate, -pair[0].steps), default=None)


def document(cells: Sequence[Cell]) -> None:
    """Draw docs/delay.png, and put the tables between the marks of docs/execution.md."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = [task for task in TASKS if any(cell.task == task for cell in cells)]
    figure, axes = plt.subplots(2, len(tasks), figsize=(6 * len(tasks), 7), sharex=True, squeeze=False)
    for column, task in enumerate(tasks):
        for mode in MODES:
            own = sorted((cell for cell in cells if (cell.task, cell.mode) == (task, mode)), key=lambda c: c.delay)
            at = [cell.delay for cell in own]
            low, high = zip(*(wilson(cell.successes, cell.episodes) for cell in own), strict=True) if own else ((), ())
            (line,) = axes[0][column].plot(at, [cell.rate for cell in own], marker="o", ms=3, label=mode)
            axes[0][column].fill_between(at, low, high, color=line.get_color(), alpha=0.08)
            axes[1][column].plot(at, [cell.steps for cell in own], marker="o", ms=3, color=line.get_color())
        axes[0][column].set(title=task, ylim=(0, 1.02), ylabel="success, 95% interval")
        axes[1][column].set(
            ylim=(0, None), xlabel="inference delay [control steps of 50 ms]", ylabel="mean control steps"
        )
    axes[0][0].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "delay.png", dpi=90)
    page = ROOT / "docs" / "execution.md"
    before, mark, rest = page.read_text().partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end -->")
    page.write_text(before + mark + "\n".join(tables(cells, tasks)) + "\n" + end + after)


def tables(cells: Sequence[Cell], tasks: Sequence[str]) -> list[str]:
    """Lines of Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout
    n = sorted({cell.episodes for cell in cells})
    lines = [
        f"Commit {commit.strip()}, {time.strftime('%Y-%m-%d')}, {platform.machine()} CPU, torch {torch.__version__}, "
        f"one thread; {' or '.join(map(str, n))} episodes a cell, seeds from {SEED}, the same in every cell.",
        "",
    ]
    delays = sorted({cell.delay for cell in cells})
    for task in tasks:
        lines += [f"**{task}**: successes of {n[-1]}, mean control steps in brackets", ""]
        lines += [f"| delay | {' | '.join(map(str, delays))} |", f"|---|{'---|' * len(delays)}"]
        for mode in MODES:
            own = {cell.delay: cell for cell in cells if (cell.task, cell.mode) == (task, mode)}
            shown = [f"{own[d].successes} ({own[d].steps:.0f})" if d in own else "" for d in delays]
            lines.append(f"| {mode} | {' | '.join(shown)} |")
        lines.append("")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-delay", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--delays", nargs="+", type=int, default=list(DELAYS))
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--lines", type=Path, help="file of cells that are done, one a line")
    parser.add_argument("--docs", action="store_true", help="draw docs/delay.png and fill docs/execution.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    known: list[Cell] = []
    if chosen.lines and chosen.lines.exists():
        known = [Cell(**json.loads(line)) for line in chosen.lines.read_text().splitlines()]
    done = {(cell.task, cell.mode, cell.delay, cell.episodes): cell for cell in known}
    cells: list[Cell] = []
    for task in chosen.tasks:
        keys = [(task, mode, delay, chosen.episodes) for delay in chosen.delays for mode in chosen.modes]
        stage = None if all(key in done for key in keys) else Stage(task)
        for key in keys:
            if key not in done:
                assert stage is not None
                done[key] = stage.run(*key[1:])
                print(done[key], file=sys.stderr, flush=True)
                if chosen.lines:
                    with chosen.lines.open("a") as file:
                        file.write(json.dumps(asdict(done[key])) + "\n")
            cells.append(done[key])
        if stage is not None:
            stage.close()
    if chosen.docs:
        document(list(done.values()))
    return 0 if report(cells) else 1


if __name__ == "__main__":
    sys.exit(main())
