"""Worker processes that attempt episodes side by side, and hand them over in the order of their seeds."""

import json
import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from robot.contract import Environment, EnvironmentSpecs, Policy
from robot.episodes.episode import Header
from robot.episodes.log import EpisodeWriter
from robot.episodes.pictures import Encoding
from robot.errors import ArmatureError, EpisodeError
from robot.loop import Disturbance, rollout
from robot.processes import cause_of_end, end, started_quietly


class Attempting(Protocol):
    """What a worker process makes for itself, and then makes attempts with."""

    @property
    def environment(self) -> Environment:
        """The world that attempts are made in."""
        ...

    def attempt(self, job: "Job", number: int) -> "Attempt":
        """Make attempt `number` and write its file into `job.folder`. Raises `ArmatureError`."""
        ...


Setup = Callable[[], Attempting]
"""Called once in each worker process: a function of a module, or a `functools.partial` of one."""


@dataclass(frozen=True)
class Job:
    """What every attempt of a recording has in common.

    Attributes:
        setup: Makes the world and the demonstrator.
        folder: Where attempts are written.
        seed: Attempt i begins from `seed + i`.
        source: Name of the demonstrator, for the header.
        quality: Quality of its demonstrations, for the header.
        notes: What else belongs to every episode, for the header, e.g. which world it is.
        encoding: How pictures are written.
    """

    setup: Setup
    folder: Path
    seed: int
    source: str
    quality: str
    notes: dict[str, Any] = field(default_factory=dict)
    encoding: Encoding = field(default_factory=Encoding)


@dataclass(frozen=True)
class Attempt:
    """One finished attempt: its number, its file, and whether the task was fulfilled at its end."""

    number: int
    path: Path
    success: bool


@dataclass(frozen=True)
class Demonstration:
    """Who shows what, and where.

    Attributes:
        environment: The world.
        policy: The demonstrator.
        noise: Disturbance of an episode by its seed.
    """

    environment: Environment
    policy: Policy
    noise: Callable[[int], Disturbance]

    def attempt(self, job: Job, number: int) -> Attempt:
        """Attempt `number` begins from `job.seed + number`."""
        path, seed = job.folder / f"attempt-{number:06d}.mcap", job.seed + number
        specs = self.environment.specs
        header = Header(specs, job.source, seed=seed, attempt=number, quality=job.quality, notes=job.notes)
        with EpisodeWriter(path, header, job.encoding) as writer:
            rollout(self.environment, self.policy, seed, self.noise(seed), writer.write)
            result = writer.finish()
        return Attempt(number, path, result.success_final)


class Collectors:
    """A pool of worker processes. Use it as a context manager: leaving the block ends them all."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        self._workers = [_Worker(job) for _ in range(workers)]

    def specs(self) -> EnvironmentSpecs:
        """Specs of the environment; waits until a worker has made it."""
        while not self._workers[0].specs:
            self._receive()
        return EnvironmentSpecs.from_json(self._workers[0].specs)

    def attempts(self, first: int) -> Iterator[Attempt]:
        """Attempts `first`, `first + 1`, ... without end, in this order whichever worker finishes when.

        Raises:
            EpisodeError: A worker failed or died.
        """
        issued, done = first, dict[int, Attempt]()
        number = first
        while True:
            for worker in self._workers:
                if worker.is_idle:
                    worker.begin(issued)
                    issued += 1
            if number in done:
                yield done.pop(number)
                number += 1
            else:
                done |= {attempt.number: attempt for attempt in self._receive()}

    def _receive(self) -> list[Attempt]:
        """Wait for news from any worker."""
        sources = [item for worker in self._workers for item in (worker.connection, worker.process.sentinel)]
        ready = wait(sources)
        heard = [worker.receive() for worker in self._workers if worker.connection in ready]
        for worker in self._workers:
            if worker.process.sentinel in ready and worker.connection not in ready:
                raise worker.death()
        return [attempt for attempt in heard if attempt is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.end()


class _Worker:
    """The recorder's side of one worker process."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(job, theirs), daemon=True)
        self.specs: dict[str, Any] = {}
        self._attempt: int | None = None
        with started_quietly():
            self.process.start()
        theirs.close()

    @property
    def is_idle(self) -> bool:
        """Whether it has made its world and waits for a number."""
        return bool(self.specs) and self._attempt is None

    def begin(self, number: int) -> None:
        """Ask for an attempt."""
        self._attempt = number
        try:
            self.connection.send_bytes(str(number).encode())
        except OSError as error:
            raise self.death() from error

    def receive(self) -> Attempt | None:
        """The attempt that it has finished; None when it has become ready."""
        try:
            message = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self.death() from error
        if "error" in message:
            raise EpisodeError(f"{self._doing()} failed: {message['error']}")
        if "specs" in message:
            self.specs = message["specs"]
            return None
        self._attempt = None
        return Attempt(message["number"], Path(message["path"]), message["success"])

    def death(self) -> EpisodeError:
        """Why it ended without a word."""
        return EpisodeError(
            f"{self._doing()} ended with its process ({cause_of_end(self.process)}), perhaps for lack of memory. "
            "Finished episodes are kept: run the same command again, with fewer workers if memory is short."
        )

    def end(self) -> None:
        """Make sure that the process is gone."""
        end(self.process)
        self.connection.close()

    def _doing(self) -> str:
        return "Setting up a worker" if self._attempt is None else f"Attempt {self._attempt}"


def _work(job: Job, connection: Connection) -> None:
    """The worker process: attempts what it is told to until the recorder is gone."""

    def tell(**message: Any) -> None:
        connection.send_bytes(json.dumps(message).encode())

    try:
        attempting = job.setup()
        tell(specs=attempting.environment.specs.to_json())
        while True:
            number = int(connection.recv_bytes())
            attempt = attempting.attempt(job, number)
            tell(number=attempt.number, path=str(attempt.path), success=attempt.success)
    except (EOFError, BrokenPipeError):
        return  # the recorder has ended, and nobody else would listen
    except (ArmatureError, OSError) as error:
        tell(error=str(error))
    except Exception:
        tell(error=f"a defect in the demonstrator or the world.\n{traceback.format_exc()}")
