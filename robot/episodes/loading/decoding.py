"""Decoding all pictures of a dataset, once: what the cache has not yet is made by several processes side by side."""

import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from tqdm import tqdm

from robot.episodes.episode import Pictures
from robot.episodes.loading.cache import FrameCache, entry_bytes, is_whole, written
from robot.episodes.loading.content import identities
from robot.episodes.loading.frames import Frames
from robot.episodes.rows import RowSource
from robot.errors import ArmatureError, DatasetError, WorkerError
from robot.processes import cause_of_end, end, started_quietly
from robot.specs import ArraySpec

Size = tuple[int, int]
"""Height and width of a picture."""

_WORTH_A_PROCESS = 1000
"""Pictures that take about as long to decode as a process takes to start."""


@dataclass(frozen=True)
class Task:
    """What one episode lacks.

    Attributes:
        episode: Its number in the source.
        length: Its frames.
        paths: Where the pictures of each key go.
        size: What they are resized to.
    """

    episode: int
    length: int
    paths: dict[str, Path]
    size: Size | None


def decoded(
    source: RowSource,
    lengths: np.ndarray,
    keys: Sequence[str] | None = None,
    size: Size | None = None,
    workers: int | None = None,
    cache: FrameCache | None = None,
) -> dict[str, Frames]:
    """The pictures of a source, decoded; only what no earlier call has decoded takes time.

    Args:
        source: Where they come from; crosses to worker processes where there are any.
        lengths: Frames of each episode, shape (E,).
        keys: Which pictures; all by default.
        size: What they are resized to by averaging over areas; as they are by default.
        workers: Processes that decode; 0 decodes in this one. By default one for each processor, fewer for little.
        cache: Where they are kept.

    Returns:
        Pictures by key. They stay on the disk as long as one of them is held.

    Raises:
        DatasetError: Pictures cannot be read, differ in number from the rows or in shape from their spec, or the disk
            is too small, which is told before anything is decoded.
        WorkerError: A worker process died or failed.
    """
    pictures = source.schema.pictures
    keys = list(pictures) if keys is None else list(keys)
    for key in keys:
        if key not in pictures:
            raise DatasetError(f"The dataset has no pictures {key!r}; it has {', '.join(pictures) or 'none'}.")
    if not keys:
        return {}
    if len(lengths) != len(source):
        raise DatasetError(f"The source has {len(source)} episodes, the dataset {len(lengths)}.")
    cache = cache or FrameCache()
    shapes = {key: (*(size or pictures[key].shape[:2]), 3) for key in keys}
    paths = {key: _paths(source, key, size, cache) for key in keys}
    sizes = {
        path: entry_bytes((int(length), *shapes[key]))
        for key in keys
        for path, length in zip(paths[key], lengths, strict=True)
    }
    lease, missing = cache.lease(sizes)
    tasks = _tasks(paths, lengths, set(missing), size)
    if tasks:
        _decode(source, tasks, workers)
        if any(_paths(source, key, size, cache) != own for key, own in paths.items()):
            for path in missing:
                path.unlink(missing_ok=True)
            raise DatasetError("The dataset was replaced while its pictures were decoded. Run the same command again.")
    return {key: Frames(paths[key], lengths, shapes[key], lease) for key in keys}


def entries_of(source: RowSource, size: Size | None, cache: FrameCache) -> list[Path]:
    """Where the decoded pictures of a source are, or would be."""
    return [path for key in source.schema.pictures for path in _paths(source, key, size, cache)]


def _paths(source: RowSource, key: str, size: Size | None, cache: FrameCache) -> list[Path]:
    shape = source.schema.pictures[key].shape
    return [cache.path(identity, shape, size) for identity in identities(source, key, cache.root)]


def _tasks(paths: dict[str, list[Path]], lengths: np.ndarray, missing: set[Path], size: Size | None) -> list[Task]:
    tasks = []
    for number, length in enumerate(lengths.tolist()):
        wanted = {key: own[number] for key, own in paths.items() if own[number] in missing}
        if wanted:
            tasks.append(Task(number, length, wanted, size))
            missing -= set(wanted.values())  # episodes of equal content share an entry
    return tasks


def _decode(source: RowSource, tasks: list[Task], workers: int | None) -> None:
    """Do all tasks, with a bar that counts pictures."""
    total = sum(task.length * len(task.paths) for task in tasks)
    if workers is None:
        workers = min(len(os.sched_getaffinity(0)), total // _WORTH_A_PROCESS)
    workers = min(workers, len(tasks))
    with tqdm(total=total, unit="picture", desc="decode") as bar:
        if workers < 2:
            for task in tasks:
                perform(source, task)
                bar.update(task.length * len(task.paths))
            return
        with _crew(source, workers) as crew:
            for task in _performed(crew, tasks):
                bar.update(task.length * len(task.paths))


def perform(source: RowSource, task: Task) -> None:
    """Decode the missing pictures of one episode.

    Raises:
        DatasetError: They cannot be read, or are not what the rows or the spec say.
    """
    rows = None
    for key, path in task.paths.items():
        shape = (task.length, *(task.size or source.schema.pictures[key].shape[:2]), 3)
        if is_whole(path, entry_bytes(shape)):
            continue  # another process was quicker
        rows = rows or source.read(task.episode)
        with written(path, shape) as file:
            for picture in _checked(rows.pictures[key], source.schema.pictures[key], task):
                file.write(np.ascontiguousarray(_resized(picture, task.size)).data)


def _checked(pictures: Pictures, spec: ArraySpec, task: Task) -> Iterator[np.ndarray]:
    """The pictures of an episode, one for each row and as the spec says, or an error."""
    count = 0
    for count, picture in enumerate(pictures, start=1):
        if count > task.length:
            break
        if picture.shape != spec.shape or picture.dtype != np.uint8:
            raise DatasetError(
                f"Picture {count - 1} of {spec.key!r} in episode {task.episode} is {picture.dtype} of shape "
                f"{picture.shape}, expected uint8 of shape {spec.shape}."
            )
        yield picture
    if count != task.length:
        raise DatasetError(
            f"Episode {task.episode} has {task.length} rows and {'more' if count > task.length else count} pictures of "
            f"{spec.key!r}; each row has one. Look with `armature dataset validate`."
        )


def _resized(picture: np.ndarray, size: Size | None) -> np.ndarray:
    if size is None or picture.shape[:2] == size:
        return picture
    import cv2  # some tenths of a second that most processes need not spend

    is_smaller = size[0] <= picture.shape[0] and size[1] <= picture.shape[1]
    cv2.setNumThreads(1)
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)


class _Worker:
    """This side of one decoding process."""

    def __init__(self, source: RowSource) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(source, theirs), daemon=True)
        self.task: Task | None = None
        with started_quietly():
            self.process.start()
        theirs.close()

    def begin(self, task: Task) -> None:
        self.task = task
        paths = {key: str(path) for key, path in task.paths.items()}
        message = {"episode": task.episode, "length": task.length, "paths": paths, "size": task.size}
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise self.death() from error

    def finish(self) -> Task:
        """The task that it has done."""
        assert self.task is not None
        try:
            refusal = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self.death() from error
        if refusal:
            kind = DatasetError if refusal["is_known"] else WorkerError
            raise kind(refusal["message"])
        done, self.task = self.task, None
        return done

    def death(self) -> WorkerError:
        episode = self.task.episode if self.task else "?"
        return WorkerError(
            f"A process that decoded pictures of episode {episode} ended ({cause_of_end(self.process)}), perhaps for "
            "lack of memory. What is decoded is kept: run the same command again."
        )


@contextmanager
def _crew(source: RowSource, count: int) -> Iterator[list[_Worker]]:
    """Decoding processes, which are gone when the block ends."""
    crew: list[_Worker] = []
    try:
        crew += [_Worker(source) for _ in range(count)]
        yield crew
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            end(worker.process)
            worker.connection.close()


def _performed(crew: list[_Worker], tasks: Iterable[Task]) -> Iterator[Task]:
    """Give tasks to whoever is idle; each as it is done."""
    waiting = iter(tasks)
    for worker, task in zip(crew, waiting, strict=False):
        worker.begin(task)
    while busy := {worker.connection: worker for worker in crew if worker.task}:
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]  # wait returns what it was given
            yield worker.finish()
            following = next(waiting, None)
            if following is not None:
                worker.begin(following)


def _work(source: RowSource, connection: Connection) -> None:
    """The worker process: decodes what it is told to until the other side is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # takes what it has begun away
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        paths = {key: Path(path) for key, path in message["paths"].items()}
        size = None if message["size"] is None else (message["size"][0], message["size"][1])
        reply: dict[str, object] = {}
        try:
            perform(source, Task(message["episode"], message["length"], paths, size))
        except (ArmatureError, OSError) as error:
            reply = {"is_known": True, "message": str(error)}
        except Exception:
            reply = {"is_known": False, "message": f"Decoding failed, a defect:\n{traceback.format_exc()}"}
        try:
            connection.send_bytes(json.dumps(reply).encode())
        except OSError:
            return
