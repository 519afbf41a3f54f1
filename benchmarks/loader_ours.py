"""One process that loads with Armature, for `benchmarks.loader`: prints samples a second and the memory of loading.

It imports no more than a training without torch would, and so do its workers, which import it too.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robot.episodes.loading.loader import Loader

N_OBS_STEPS, HORIZON, BATCH_SIZE = 2, 16, 64
WARM_UP, LEAST_S = 50, 2.0


def measure(folder: str, workers: int, in_floats: bool) -> dict[str, Any]:
    """Load batches for some seconds."""
    from robot.episodes.dataset import Dataset
    from robot.episodes.loading.batches import Batches, Form
    from robot.episodes.loading.loader import Loader
    from robot.episodes.loading.memory import size_of
    from robot.episodes.loading.mixture import Mixture

    form = Form(N_OBS_STEPS, HORIZON, BATCH_SIZE)
    batches = Batches.of(Mixture.of(Dataset.open(folder)), form, seed=0)
    with Loader(batches, workers=workers) as loader:
        take: Callable[[], Any] = floats(loader) if in_floats else loader.__next__
        for _ in range(WARM_UP):
            take()
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < LEAST_S:
            take()
            count += 1
        took = time.perf_counter() - begin
        memory = resident(["self", *(str(worker.process.pid) for worker in loader._workers)])
    return {"samples_s": count * BATCH_SIZE / took, "memory": memory, "batch_bytes": size_of(batches.layout)}


def floats(loader: "Loader") -> Callable[[], None]:
    """Takes a batch and makes of it what LeRobot gives: tensors, pictures float32 (B, T, C, H, W) in [0, 1]."""
    import torch

    torch.set_num_threads(1)

    def take() -> None:
        for array in next(loader).values():
            tensor = torch.from_numpy(array)
            if tensor.dtype == torch.uint8:
                tensor.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    return take


def resident(processes: list[str]) -> dict[str, int]:
    """Bytes by kind, over some processes; what they share counts for each of them."""
    total: dict[str, int] = {}
    for process in processes:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("Rss"):
                name, value = line.split(":")
                total[name] = total.get(name, 0) + 1024 * int(value.split()[0])
    return total


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "float")))
