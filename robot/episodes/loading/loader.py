"""Batches in their order, made ahead by worker processes that fill slots in shared memory.

What comes out does not depend on the number of workers: this process draws the windows of every batch, worker
`step % workers` copies them into slot `step % slots`. A message is one number in each direction, or JSON where a worker
has failed.
"""

import json
import multiprocessing
import os
import traceback
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np

from robot.episodes.loading.batches import Batches
from robot.episodes.loading.memory import Layout, allocated, layout_of, mapped
from robot.episodes.loading.order import Shuffled
from robot.episodes.loading.windows import Windows
from robot.errors import ArmatureError, DatasetError, WorkerError
from robot.processes import anonymous_memory, cause_of_end, end, started_quietly

_COUNTS, _INDICES = ".counts", ".indices"
"""What a worker is to do, beside the arrays of a slot."""


@dataclass(frozen=True)
class Job:
    """What a worker process needs besides the shared memory.

    Attributes:
        windows: Of each dataset, without their columns.
        columns: Layout of the columns of each dataset, one after the other in the first memory.
        batch_size: Windows of a batch.
        slots: How many batches fit into the second memory.
    """

    windows: tuple[Windows, ...]
    columns: tuple[Layout, ...]
    batch_size: int
    slots: int


class Loader:
    """Iterates over the batches of a training, from any step, without end.

    The arrays of a batch are views that stay as they are until the next batch is asked for. Use it as a context manager
    or close it: workers are gone then. They also end when this process does, and their memory with them.
    """

    def __init__(self, batches: Batches, first: int = 0, workers: int = 0, prefetch: int = 2) -> None:
        """Begin to make batches.

        Args:
            batches: What they hold.
            first: Number of the first one.
            workers: Processes that make them; 0 makes each in this process when it is asked for.
            prefetch: Batches that each worker makes ahead.

        Raises:
            DatasetError: A number makes no sense, or there is not enough memory for the slots.
            WorkerError: A worker cannot be started.
        """
        if first < 0 or workers < 0 or prefetch < 1:
            raise DatasetError(
                f"A loader wants first >= 0, workers >= 0 and prefetch >= 1, got {first}, {workers} and {prefetch}."
            )
        self._batches, self._next, self._asked = batches, first, first
        self._slots = workers * prefetch + 1  # one is in the hands of whoever trains
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _stop, self._workers)
        self._why_closed = ""
        self._memory = [allocated(batches.layout)] if not workers else self._start(workers)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch: arrays of `Batches.layout`.

        Raises:
            WorkerError: A worker died or failed; all have been stopped.
            DatasetError: Decoded pictures were removed.
        """
        if self._why_closed:
            raise WorkerError(f"The loader has ended: {self._why_closed}. Make a new one.")
        step, self._next = self._next, self._next + 1
        if not self._workers:
            out = self._memory[0]
            self._batches.fill(*self._batches.draw(step), out)
            return out
        try:
            while self._asked < step + self._slots:
                self._ask(self._asked)
                self._asked += 1
            self._workers[step % len(self._workers)].receive(step)
        except ArmatureError as error:
            self._end(str(error))
            raise
        slot = self._memory[step % self._slots]
        return {key: slot[key] for key in self._batches.layout}

    def close(self) -> None:
        """End the workers; may be called twice."""
        if not self._why_closed:
            self._end("it was closed")

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end(self, why: str) -> None:
        self._why_closed = why
        self._finalizer()

    def _ask(self, step: int) -> None:
        slot = self._memory[step % self._slots]
        slot[_COUNTS][:], slot[_INDICES][:] = self._batches.draw(step)
        self._workers[step % len(self._workers)].ask(step)

    def _start(self, workers: int) -> list[dict[str, np.ndarray]]:
        """Start workers, and give them the columns and the slots."""
        windows = self._batches.windows
        layouts = tuple(layout_of(own.columns) for own in windows)
        bare = tuple(own.with_columns({}) for own in windows)
        job = Job(bare, layouts, self._batches.batch_size, self._slots)
        columns, slots = anonymous_memory("armature-columns"), anonymous_memory("armature-batches")
        try:
            joined = {f"{n} {key}": array for n, own in enumerate(windows) for key, array in own.columns.items()}
            for name, array in mapped(columns, layout_of(joined))[0].items():
                array[...] = joined[name]
            memory = mapped(slots, slot_layout(self._batches), self._slots)
            for number in range(workers):
                self._workers.append(_Worker(number, job))
            for worker in self._workers:
                worker.give(columns, slots)
            return memory
        except OSError as error:
            self._end("it could not begin")
            raise DatasetError(f"The loader cannot begin: {error.strerror}. Use workers=0.") from error
        except BaseException:
            self._end("it could not begin")
            raise
        finally:
            os.close(columns)
            os.close(slots)


def slot_layout(batches: Batches) -> Layout:
    """The arrays of a batch, and what tells a worker how to fill them."""
    own: Layout = {_COUNTS: ((len(batches.windows),), "int64"), _INDICES: ((batches.batch_size,), "int64")}
    return {**own, **batches.layout}


class _Worker:
    """The loader's side of one worker process."""

    def __init__(self, number: int, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(job, theirs), daemon=True)
        self._number = number
        with started_quietly():
            self.process.start()
        theirs.close()

    def give(self, *descriptors: int) -> None:
        try:
            for descriptor in descriptors:
                send_handle(self.connection, descriptor, self.process.pid)
        except OSError as error:
            raise self._death("before its first batch") from error

    def ask(self, step: int) -> None:
        try:
            self.connection.send_bytes(step.to_bytes(8, "little"))
        except OSError as error:
            raise self._death(f"before batch {step}") from error

    def receive(self, step: int) -> None:
        try:
            reply = self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death(f"at batch {step}") from error
        if len(reply) != 8:
            refusal = json.loads(reply)
            kind = DatasetError if refusal["is_known"] else WorkerError
            raise kind(refusal["message"])
        if int.from_bytes(reply, "little") != step:
            raise WorkerError(f"Worker {self._number} made another batch than {step}: a defect.")

    def _death(self, when: str) -> WorkerError:
        return WorkerError(
            f"Worker {self._number} of the loader ended {when} ({cause_of_end(self.process)}), perhaps for lack of "
            "memory; the other workers were stopped. Run the same command again, with fewer workers if memory is short."
        )


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        end(worker.process)
        worker.connection.close()


def _work(job: Job, connection: Connection) -> None:
    """The worker process: fills slots until the other side is gone."""
    try:
        columns, slots = recv_handle(connection), recv_handle(connection)
        batches, memory = _taken_up(job, columns, slots)
        while True:
            message = connection.recv_bytes()
            connection.send_bytes(_done(batches, memory[int.from_bytes(message, "little") % job.slots], message))
    except (EOFError, OSError):
        return  # nobody listens any more


def _taken_up(job: Job, columns: int, slots: int) -> tuple[Batches, list[dict[str, np.ndarray]]]:
    joined: Layout = {f"{n} {key}": form for n, layout in enumerate(job.columns) for key, form in layout.items()}
    arrays = mapped(columns, joined)[0]
    windows = [
        own.with_columns({key: arrays[f"{n} {key}"] for key in layout})
        for n, (own, layout) in enumerate(zip(job.windows, job.columns, strict=True))
    ]
    nothing = [Shuffled(1, 0)] * len(windows)  # the other side draws
    batches = Batches(windows, nothing, np.ones(len(windows)), job.batch_size)
    memory = mapped(slots, slot_layout(batches), job.slots)
    os.close(columns)
    os.close(slots)
    return batches, memory


def _done(batches: Batches, slot: dict[str, np.ndarray], message: bytes) -> bytes:
    """Fill a slot; the message back, or why not."""
    try:
        batches.fill(slot[_COUNTS], slot[_INDICES], slot)
        return message
    except (ArmatureError, OSError) as error:
        return json.dumps({"is_known": True, "message": str(error)}).encode()
    except Exception:
        failure = f"A worker of the loader failed, a defect:\n{traceback.format_exc()}"
        return json.dumps({"is_known": False, "message": failure}).encode()
