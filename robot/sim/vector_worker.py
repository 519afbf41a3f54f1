"""The worker processes of a vector environment: each has some environments, and steps them when a byte arrives.

Arrays are in shared memory (`robot.sim.batch`). A message is one byte, after some of which comes a body of JSON or
pixels: a step costs a byte in each direction.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, cast

import numpy as np

from robot import errors
from robot.contract import Environment, Observation
from robot.errors import ArmatureError, WorkerError
from robot.processes import cause_of_end, end, started_quietly
from robot.sim.batch import Batch, write_row
from robot.sim.config import EnvConfig
from robot.sim.states import Storing, from_text, to_text

STEP, RESET, RENDER, STATES = b"s", b"r", b"p", b"q"
"""What a worker is asked for."""
DONE, ANSWER, FAILED = b".", b"+", b"!"
"""What it replies."""
_WITH_BODY = (RESET, ANSWER, FAILED)
NEXT_STEP, SAME_STEP = "NextStep", "SameStep"

Info = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a worker process does.

    Attributes:
        config: The world.
        world: Makes it; a function of a module, or a `functools.partial` of one.
        first: Number of its first environment.
        count: How many it has.
        n: How many all workers have together.
        autoreset: Value of Gymnasium's `AutoresetMode`.
    """

    config: EnvConfig
    world: Callable[[EnvConfig], Environment]
    first: int
    count: int
    n: int
    autoreset: str


class Worker:
    """The vector environment's side of one worker process."""

    def __init__(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(job, theirs), daemon=True)
        self.first, self.own = job.first, slice(job.first, job.first + job.count)
        self.name = f"environment {job.first}" if job.count == 1 else f"environments {job.first} to {self.own.stop - 1}"
        with started_quietly():
            self.process.start()
        theirs.close()

    def send(self, operation: bytes, body: bytes = b"") -> None:
        """Ask for something."""
        # Where the worker has died, `receive` says so.
        with contextlib.suppress(OSError):
            _put(self.connection, operation, body)

    def give(self, fd: int) -> None:
        """Hand a file descriptor over."""
        with contextlib.suppress(OSError):
            send_handle(self.connection, fd, self.process.pid)

    def receive(self) -> bytes | ArmatureError:
        """The reply, or why the worker refuses.

        Raises:
            WorkerError: It failed or died.
        """
        try:
            kind, body = _take(self.connection)
        except (EOFError, OSError) as error:
            raise WorkerError(
                f"The worker of {self.name} ended ({cause_of_end(self.process)}), perhaps for lack of memory; the "
                "other workers were stopped. Make a new vector environment, with fewer workers if memory is short."
            ) from error
        if kind != FAILED:
            return body
        refusal = json.loads(body)
        error_class = getattr(errors, refusal["kind"], None) if refusal["kind"] else None
        if error_class is None:
            trace = refusal["message"].strip()
            raise WorkerError(
                f"The worker of {self.name} failed ({trace.splitlines()[-1]}); the other workers were stopped. "
                f"A defect in the world:\n{trace}"
            )
        refused: ArmatureError = error_class(refusal["message"])
        return refused


def stop(workers: list[Worker]) -> None:
    """End worker processes at once, whatever they are doing."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        end(worker.process)
        worker.connection.close()


def work(job: Job, connection: Connection) -> None:
    """Make the environments, take the shared memory, and serve until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environments: list[Environment] = []
    try:
        if _tell(connection, lambda: _begin(job, environments)):
            crew = _Crew(job, environments, recv_handle(connection))
            while True:
                _tell(connection, partial(crew.answer, *_take(connection)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # nobody listens any more
    finally:
        for environment in environments:
            environment.close()


def _begin(job: Job, environments: list[Environment]) -> bytes:
    environments.extend(job.world(job.config) for _ in range(job.count))
    return json.dumps(environments[0].specs.to_json()).encode()


def _tell(connection: Connection, answer: Callable[[], bytes]) -> bool:
    """Send the answer, or why there is none; returns whether there was one."""
    try:
        body = answer()
        kind = ANSWER if body else DONE
    except ArmatureError as error:
        kind, body = FAILED, _failure(type(error).__name__, str(error))
    except Exception:  # goes to the other side whole, which stops every worker and raises it
        kind, body = FAILED, _failure("", traceback.format_exc())
    _put(connection, kind, body)
    return kind != FAILED


def _put(connection: Connection, kind: bytes, body: bytes) -> None:
    # A connection's own messages cost two reads and two allocations each; a step needs neither.
    os.write(connection.fileno(), kind)
    if kind in _WITH_BODY:
        connection.send_bytes(body)


def _take(connection: Connection) -> tuple[bytes, bytes]:
    kind = os.read(connection.fileno(), 1)
    if not kind:
        raise EOFError
    return kind, connection.recv_bytes() if kind in _WITH_BODY else b""


def _failure(kind: str, message: str) -> bytes:
    return json.dumps({"kind": kind, "message": message}).encode()


class _Crew:
    """The environments of one worker."""

    def __init__(self, job: Job, environments: list[Environment], fd: int) -> None:
        self._job, self._environments = job, environments
        self._batch = Batch(environments[0].specs, job.n, fd)
        os.close(fd)
        self._over = [False] * job.count

    def answer(self, operation: bytes, body: bytes) -> bytes:
        """Do what a message asks for."""
        if operation == STEP:
            return _infos([self._step(own) for own in range(self._job.count)])
        if operation == RESET:
            return self._reset_some(json.loads(body))
        if operation == RENDER:
            return self._render()
        return json.dumps([to_text(cast(Storing, one).stored_state()) for one in self._environments]).encode()

    def _step(self, own: int) -> Info:
        """Step one environment, or reset it where an episode has ended; what its info holds besides success."""
        index, batch = self._job.first + own, self._batch
        if self._over[own] and self._job.autoreset == NEXT_STEP:
            return self._reset(own)
        observation, reward, terminated, truncated, info = self._environments[own].step(batch.action[index])
        if (terminated or truncated) and self._job.autoreset == SAME_STEP:
            write_row(batch.final_observation, index, observation)
            batch.final_success[index] = bool(info.get("success", False))
            rest = {**self._reset(own), "final_info": _besides_success(info)}
            self._over[own] = False
        else:
            self._see(index, observation, info)
            rest = _besides_success(info)
            self._over[own] = terminated or truncated
        batch.reward[index] = reward
        batch.terminated[index], batch.truncated[index] = terminated, truncated
        return rest

    def _reset_some(self, wanted: dict[str, Any]) -> bytes:
        infos: list[Info] = [{} for _ in self._environments]
        for own, is_wanted in enumerate(wanted["mask"]):
            if is_wanted:
                state = wanted["states"][own]
                options = None if state is None else {"state": from_text(state)}
                infos[own] = self._reset(own, wanted["seeds"][own], options)
        return _infos(infos)

    def _reset(self, own: int, seed: int | None = None, options: dict[str, Any] | None = None) -> Info:
        index, batch = self._job.first + own, self._batch
        observation, info = self._environments[own].reset(seed=seed, options=options)
        self._see(index, observation, info)
        self._over[own] = False
        batch.reward[index], batch.terminated[index], batch.truncated[index] = 0.0, False, False
        return _besides_success(info)

    def _see(self, index: int, observation: Observation, info: Info) -> None:
        write_row(self._batch.observation, index, observation)
        self._batch.success[index] = bool(info.get("success", False))

    def _render(self) -> bytes:
        pictures = [np.ascontiguousarray(environment.render(), np.uint8) for environment in self._environments]
        head = json.dumps([picture.shape for picture in pictures]).encode()
        return head + b"\n" + b"".join(picture.tobytes() for picture in pictures)


def _besides_success(info: Info) -> Info:
    return {key: value for key, value in info.items() if key != "success"}


def _infos(infos: list[Info]) -> bytes:
    """Nothing in most steps, so that most steps cost no more than a byte."""
    return json.dumps(infos, default=_plain).encode() if any(infos) else b""


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"An info holds {type(value).__name__}, which does not cross to another process; expected JSON.")
