"""Episodes of an evaluation, spread over processes. Each is a function of its seed alone."""

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from policies.checkpoint import load_policy
from policies.execution.base import ExecutionConfig
from policies.execution.simulated import ExecutedPolicy
from policies.execution.synchronous import SynchronousConfig
from robot.contract import Environment, EnvironmentSpecs
from robot.errors import ArmatureError, CheckpointError, RenderingError
from robot.loop import Step, rollout
from robot.sim.evaluation_sets import EvaluationSet

World = Callable[[], Environment]


@dataclass(frozen=True)
class Evaluation:
    """What a worker needs to know.

    Attributes:
        folder: The checkpoint.
        device: torch's name of the device.
        world: Makes the environment; crosses to the workers, so it is a function of a module or a partial of one.
        videos: Folder of the videos.
        seed: Episode i begins from `seed + i`.
        video_episodes: The first so many episodes are filmed.
        states: File of an evaluation set; episode i begins at its state i. None: at what the seed gives.
        execution: How chunks are played.
        delay: Control steps from an observation to the chunk that answers it.
    """

    folder: Path
    device: str
    world: World
    videos: Path
    seed: int
    video_episodes: int
    states: Path | None = None
    execution: ExecutionConfig = field(default_factory=SynchronousConfig)
    delay: int = 0


@dataclass(frozen=True)
class EpisodeRecord:
    """How one episode went.

    Attributes:
        seed: Of its initial state and of the policy.
        steps: Control steps.
        success_final: Whether the task was fulfilled after the last step.
        success_sticky: Whether it was fulfilled after any step.
        episode_return: Sum of rewards.
        inference_ms: Duration of each inference [ms].
        video: Path of the video, empty where there is none.
        video_error: Why there is none although one was wanted.
    """

    seed: int
    steps: int
    success_final: bool
    success_sticky: bool
    episode_return: float
    inference_ms: list[float]
    video: str = ""
    video_error: str = ""

    def to_json(self, dt_s: float) -> dict[str, Any]:
        """Plain JSON for control periods of `dt_s`; of the inference times only their mean."""
        data = {**asdict(self), "duration_s": self.steps * dt_s}
        data["inference_ms"] = float(np.mean(self.inference_ms))
        return data


def run_episodes(job: Evaluation, episodes: int, workers: int) -> list[EpisodeRecord]:
    """Run the episodes and return their records in order.

    Raises:
        CheckpointError: The checkpoint does not load or does not fit the world.
        ArmatureError: A worker process died.
    """
    if workers == 1:
        return _run_here(job, episodes)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, episodes), context, initializer=_begin, initargs=(job,))
    try:
        futures: list[Future[EpisodeRecord]] = [pool.submit(_run, index) for index in range(episodes)]
        with tqdm(total=episodes, unit="episode", desc="evaluate", dynamic_ncols=True) as bar:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                bar.update()
                wins = sum(one.result().success_final for one in futures if one.done() and not one.cancelled())
                bar.set_postfix(success=f"{wins}/{done}")
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise ArmatureError(
            "A worker process of the evaluation died, perhaps for want of memory. Try fewer workers."
        ) from error
    finally:
        # Without waiting for what is queued: after an error or Ctrl-C only the running episodes end.
        pool.shutdown(wait=True, cancel_futures=True)


def _run_here(job: Evaluation, episodes: int) -> list[EpisodeRecord]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker process
    try:
        stage = _Stage(job)
        return [stage.run(index) for index in tqdm(range(episodes), unit="episode", desc="evaluate")]
    finally:
        torch.set_num_threads(threads)


_stages: list["_Stage"] = []
"""The stage of this process, if it is a worker."""


def _begin(job: Evaluation) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
    torch.set_num_threads(1)  # one core for each worker, and sums that do not depend on the number of cores
    _stages.append(_Stage(job))


def _run(index: int) -> EpisodeRecord:
    return _stages[0].run(index)


class _Stage:
    """World and policy of a worker, made when the first episode wants them, so that errors reach the caller."""

    def __init__(self, job: Evaluation) -> None:
        self._job = job

    @cached_property
    def policy(self) -> ExecutedPolicy:
        """The policy of the checkpoint, as it is to be played."""
        policy = load_policy(self._job.folder, self._job.device)
        return ExecutedPolicy(policy, self._job.execution.build(policy), self._job.delay)

    @cached_property
    def environment(self) -> Environment:
        """The world, which fits the policy."""
        environment = self._job.world()
        check_same_world(self._job.folder, self.policy.specs.environment, environment.specs)
        return environment

    @cached_property
    def states(self) -> EvaluationSet | None:
        """The states that episodes begin at, if they do not begin from seeds."""
        return None if self._job.states is None else EvaluationSet.load(self._job.states)

    def run(self, index: int) -> EpisodeRecord:
        """Run episode `index`."""
        film = _Film(self.environment) if index < self._job.video_episodes else None
        seed = self._job.seed + index
        options = None if self.states is None else {"state": self.states[index]}
        outcome = rollout(self.environment, self.policy, seed, on_step=film, options=options)
        video, video_error = "", ""
        if film is not None:
            dt_s = self.policy.specs.environment.dt_s
            video, video_error = film.save(self._job.videos / f"episode_{seed}.mp4", dt_s)
        return EpisodeRecord(
            seed=seed,
            steps=outcome.steps,
            success_final=outcome.success_final,
            success_sticky=outcome.success_sticky,
            episode_return=float(outcome.episode_return),
            inference_ms=[1e3 * seconds for seconds in self.policy.inference_s],
            video=video,
            video_error=video_error,
        )


def check_same_world(folder: Path, expected: EnvironmentSpecs, got: EnvironmentSpecs) -> None:
    """Raise `CheckpointError` where a policy of `expected` would not understand the world `got`."""
    lines = expected.unmet(got)
    if lines:
        raise CheckpointError(
            f"{folder} was trained in another world than this one: {'; '.join(lines)}. "
            "Evaluate it in its own (env=..., env.control_hz=..., env.robot=...)."
        )


class _Film:
    """Pictures of an episode, as long as the machine can render them."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._frames: list[np.ndarray] = []
        self._error = ""

    def __call__(self, step: Step) -> None:
        if self._error:
            return
        try:
            self._frames.append(self._environment.render())
        except RenderingError as error:
            self._error = str(error)

    def save(self, path: Path, dt_s: float) -> tuple[str, str]:
        """Write the video; returns its path and, if there is none, the reason."""
        if self._error or not self._frames:
            return "", self._error or "the episode had no pictures"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, self._frames, round(1 / dt_s))
        return str(path), ""


def write_mp4(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Write RGB pictures, uint8 (H, W, 3) with even H and W, as H.264; the file appears when it is complete."""
    import av

    part = path.with_suffix(".part.mp4")
    height, width = frames[0].shape[:2]
    with av.open(str(part), "w") as container:
        stream = container.add_stream("h264", rate=fps, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    part.replace(path)
