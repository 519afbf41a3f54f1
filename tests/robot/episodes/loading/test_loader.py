import gc
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robot.episodes.loading.batches import Batches, Form
from robot.episodes.loading.cache import FrameCache
from robot.episodes.loading.loader import Loader
from robot.episodes.loading.mixture import Mixture, Part
from robot.errors import DatasetError, WorkerError
from tests.robot.episodes.loading.pictures import FRONT, held_by, picture_dataset

ROOT = Path(__file__).parents[4]


def made(folder: Path, lengths: tuple[int, ...] = (7, 5, 9)) -> Batches:
    parts = [Part("a", picture_dataset(lengths, 1), 2.0), Part("b", picture_dataset((8, 8), 7), 1.0, np.arange(16.0))]
    return Batches.of(Mixture(parts), Form(2, 4, 6), 3, FrameCache(folder))


@pytest.fixture(scope="module")
def batches(tmp_path_factory) -> Batches:
    return made(tmp_path_factory.mktemp("frames"))


def gone(process: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(processes: list[int]) -> None:
    deadline = time.monotonic() + 20
    while not all(gone(process) for process in processes):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.02)


@pytest.mark.parametrize(("workers", "prefetch", "first"), [(0, 2, 0), (1, 1, 0), (2, 2, 5), (3, 1, 1000)])
def test_batches_do_not_depend_on_who_makes_them(workers, prefetch, first, batches):
    with Loader(batches, first, workers, prefetch) as loader:
        for step in range(first, first + 12):
            batch, expected = next(loader), batches.batch(step)
            assert list(batch) == list(expected)
            for key, value in expected.items():
                np.testing.assert_array_equal(batch[key], value)
                assert batch[key].dtype == value.dtype


def test_a_batch_stays_until_the_next_is_asked_for(batches):
    with Loader(batches, 0, 1, 2) as loader:
        batch = next(loader)
        time.sleep(0.3)  # the worker goes on as far as it may
        np.testing.assert_array_equal(batch[FRONT], batches.batch(0)[FRONT])
        next(loader)
        next(loader)


def test_no_more_is_made_ahead_than_was_asked_for(batches, monkeypatch):
    drawn = []
    monkeypatch.setattr(Batches, "draw", lambda self, step, draw=Batches.draw: drawn.append(step) or draw(self, step))
    with Loader(batches, 0, 2, 3) as loader:
        next(loader)
        assert drawn == list(range(7))  # the one in our hands, and three for each worker
        next(loader)
        assert drawn == list(range(8))


def test_a_loader_that_is_closed_has_no_processes_and_no_memory(batches):
    before = len(held_by(os.getpid()))
    with Loader(batches, workers=2) as loader:
        next(loader)
        processes = [worker.process.pid for worker in loader._workers]
    wait_until_gone(processes)
    loader.close()
    with pytest.raises(WorkerError, match="it was closed"):
        next(loader)
    del loader
    gc.collect()
    assert len(held_by(os.getpid())) <= before
    assert not [path for path in Path("/dev/shm").iterdir() if "armature" in path.name]


def test_a_loader_that_is_forgotten_ends_its_workers(batches):
    loader = Loader(batches, workers=1)
    next(loader)
    processes = [worker.process.pid for worker in loader._workers]
    del loader
    gc.collect()
    wait_until_gone(processes)


def test_a_dead_worker_is_told_of(batches):
    with Loader(batches, workers=2, prefetch=1) as loader:
        next(loader)
        first, second = [worker.process.pid for worker in loader._workers]
        os.kill(second, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"Worker 1 of the loader ended .*signal SIGKILL.*memory.*fewer workers"):
            list(itertools.islice(loader, 5))
        wait_until_gone([first])
        with pytest.raises(WorkerError, match=r"has ended: Worker 1"):
            next(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_vanish_are_told_of(workers, tmp_path):
    batches = made(tmp_path)
    shutil.rmtree(tmp_path)
    with Loader(batches, workers=workers) as loader, pytest.raises(DatasetError, match="are gone from"):
        next(loader)


@pytest.mark.parametrize("numbers", [(-1, 0, 1), (0, -1, 1), (0, 0, 0)])
def test_impossible_loaders_are_refused(numbers, batches):
    with pytest.raises(DatasetError, match="first >= 0, workers >= 0 and prefetch >= 1"):
        Loader(batches, *numbers)


SCRIPT = """
import sys, time
from pathlib import Path
from robot.episodes.loading.loader import Loader
from tests.robot.episodes.loading.test_loader import made
if __name__ == "__main__":
    with Loader(made(Path(sys.argv[1])), workers=2) as loader:
        next(loader)
        print(*[worker.process.pid for worker in loader._workers], flush=True)
        for batch in loader:
            time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_training_that_ends(number, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "frames"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    # As a terminal does: the whole group, of which the workers must not mind.
    for one in [process.pid, *(workers if number == signal.SIGINT else [])]:
        os.kill(one, number)
    _, errors = process.communicate(timeout=60)
    wait_until_gone(workers)
    if number == signal.SIGINT:
        assert errors.decode().strip().splitlines()[-1] == "KeyboardInterrupt"
        assert errors.decode().count("Traceback") == 1


def test_memory_does_not_grow_with_the_dataset(tmp_path):
    """Forty megabytes of pictures are gone through several times; of files nothing stays in the process."""
    (tmp_path / "script.py").write_text(MEMORY)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "frames"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # decoded by the first
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    grown = int(done.stdout.split()[-1])
    assert grown < 12e6, done.stdout


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from robot.episodes.loading.batches import *
from robot.episodes.loading.loader import Loader
from tests.robot.episodes.loading.pictures import SourceOfKnown, dataset_of, picture_source

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile")))

if __name__ == "__main__":
    source = SourceOfKnown(picture_source([50] * 9, size=(128, 128)))
    dataset = dataset_of(source)
    batches = Batches.of(Mixture.of(dataset), Form(2, 4, 32), 0, FrameCache(Path(sys.argv[1])))
    loader = Loader(batches)
    next(loader)
    before = resident()
    for _ in range(60):
        next(loader)
    print(resident() - before)
"""
