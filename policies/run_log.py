"""What a training says while it runs: a progress bar, `metrics.jsonl` and TensorBoard."""

import json
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from robot.episodes.atomic import write_text


class RunLog:
    """Writes scalars of a run; lines of steps that a resumed run takes again are dropped."""

    def __init__(self, run: Path, step: int, steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run.mkdir(parents=True, exist_ok=True)
        path = run / "metrics.jsonl"
        _truncate(path, step)
        self._file = path.open("a")
        self._board = SummaryWriter(run / "tensorboard", purge_step=step)
        self._bar = tqdm(total=steps, initial=step, unit="step", desc="train", mininterval=0.5, dynamic_ncols=True)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        self._board.close()
        self._file.close()

    def advance(self) -> None:
        """One step was taken."""
        self._bar.update()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Log the scalars of a step."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        self._bar.set_postfix(loss=f"{scalars['loss']:.4g}", refresh=False)


def _truncate(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if _step_of(line) <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that an interruption cut short
