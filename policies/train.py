"""`armature train`: a dataset in, checkpoints out. Knows of heads only what `policies.base` says."""

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
from omegaconf import MISSING

from policies import checkpoint
from policies.base import HeadConfig
from policies.registry import HEADS, name_of
from policies.run_log import RunLog
from policies.trainer import Settings, Trainer
from robot.config import load
from robot.episodes.atomic import write_text
from robot.episodes.dataset import Dataset
from robot.episodes.loading.windows import BatchOrder, Windows
from robot.errors import ArmatureError, CheckpointError, ConfigError


@dataclass(kw_only=True)
class TrainConfig:
    """Keys of `configs/train.yaml`.

    Attributes:
        policy: The head and its recipe.
        task: Names the default folders.
        dataset: Folder of the dataset.
        out: Folder of the run; `runs/<task>/<policy>` if None.
        steps: Training steps; the learning rate falls to zero at the last one.
        batch_size: Windows in a batch.
        lr: Peak learning rate.
        seed: Of weights, order of the data and noise.
        device: torch's name of the device.
        threads: CPU threads; 0 leaves torch's choice, all cores. With one, results do not depend on their number.
        log_every: Steps from one log line to the next.
        save_every: Steps from one checkpoint to the next; the last step always has one.
        keep: Checkpoints that are kept, the newest.
        resume: Whether to continue what `out` holds; otherwise it is replaced.
    """

    policy: HeadConfig = MISSING
    task: str = "lift"
    dataset: str = MISSING
    out: str | None = None
    steps: int = 2000
    batch_size: int = 64
    lr: float = MISSING
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    log_every: int = 50
    save_every: int = 500
    keep: int = 2
    resume: bool = True

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "log_every", "save_every", "keep"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected at least 1.")
        if self.seed < 0 or self.threads < 0:
            raise ConfigError(f"seed and threads must not be negative, got {self.seed} and {self.threads}.")
        if not self.lr > 0:
            raise ConfigError(f"lr is {self.lr}, expected more than 0.")

    @property
    def run(self) -> Path:
        """Folder of the run."""
        return Path(self.out or f"runs/{self.task}/{name_of(self.policy)}")

    @property
    def settings(self) -> Settings:
        """What the arithmetic depends on."""
        return Settings(self.steps, self.batch_size, self.seed, self.lr)


def main(overrides: list[str]) -> int:
    """Train, or continue a training; 0 when its last step is done."""
    config = load("train", TrainConfig, overrides, {"policy": HEADS})
    with stop_requests() as is_stopped:
        step = train(config, Dataset.open(config.dataset), is_stopped)
    if step < config.steps:
        print(f"Stopped after step {step} of {config.steps}, which is saved. The same command resumes.")
        raise KeyboardInterrupt
    print(f"Trained {config.run}. Next: armature evaluate checkpoint={config.run}")
    return 0


class StopRequest:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self._requested = False

    def __call__(self) -> bool:
        """Asked between steps."""
        return self._requested

    def request(self, signum: int, frame: FrameType | None) -> None:
        """First Ctrl-C: finish the step and save. The second one ends the process as usual."""
        self._requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block, Ctrl-C asks instead of interrupting: a step is taken whole or not at all."""
    request = StopRequest()
    before = signal.signal(signal.SIGINT, request.request)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)


def train(config: TrainConfig, dataset: Dataset, is_stopped: Callable[[], bool]) -> int:
    """Train until the last step or until `is_stopped()`, and save; returns the step that was reached.

    Raises:
        ConfigError: The config fits neither the dataset nor the run that it resumes.
        CheckpointError: A checkpoint cannot be read or written.
        ArmatureError: The loss is not finite.
    """
    device = _prepare_torch(config)
    trainer = Trainer(config.policy.build(dataset.specs, dataset.stats), config.policy, config.settings, device)
    description = checkpoint.Description(config.policy, dataset.specs, dataset.identity, 0)
    wall_before = _resume(config, trainer, description)
    windows = Windows(dataset, config.policy.n_obs_steps, config.policy.horizon)
    order = BatchOrder(len(windows), config.batch_size, config.seed)
    begin = time.perf_counter() - wall_before
    loss, scalars, saved = float("nan"), {}, trainer.step
    with RunLog(config.run, trainer.step, config.steps) as log:
        while trainer.step < config.steps and not is_stopped():
            lr = trainer.lr
            scalars = trainer.advance(windows.batch(order.indices(trainer.step)))
            log.advance()
            is_last = trainer.step == config.steps
            if trainer.step % config.log_every == 0 or is_last:
                values = {name: float(value) for name, value in scalars.items()}
                loss = _finite(values["loss"], trainer.step)
                log.write(trainer.step, {**values, "lr": lr, "wall_s": time.perf_counter() - begin})
            if trainer.step % config.save_every == 0 or is_last:
                _save(config, trainer, description, scalars, begin)
                saved = trainer.step
        if trainer.step != saved:
            _save(config, trainer, description, scalars, begin)
    if trainer.step == config.steps and not math.isnan(loss):  # nan: all steps were done before
        _summarise(config, trainer, time.perf_counter() - begin, loss)
    return trainer.step


def _prepare_torch(config: TrainConfig) -> torch.device:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    try:
        device = torch.device(config.device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={config.device} cannot be used: {str(error).splitlines()[0]} Try device=cpu."
        ) from error
    return device


def _resume(config: TrainConfig, trainer: Trainer, description: checkpoint.Description) -> float:
    """Load the newest checkpoint of the run, if there is one; returns the seconds that were spent on it."""
    found = checkpoint.all_of(config.run)
    if not found:
        return 0.0
    if not config.resume:
        shutil.rmtree(config.run)
        return 0.0
    state = checkpoint.load_training(found[-1])
    _check_same(config, found[-1], state.numbers["settings"], description)
    trainer.load(state, checkpoint.read_tensors(found[-1] / "model.safetensors"))
    return float(state.numbers["wall_s"])


def _check_same(
    config: TrainConfig, folder: Path, settings: dict[str, float], description: checkpoint.Description
) -> None:
    """Refuse to mix two trainings in one run."""
    saved = checkpoint.describe(folder)
    then = {
        **checkpoint.plain(saved.config),
        **settings,
        "policy": name_of(saved.config),
        "dataset": saved.dataset[:12],
    }
    now = {
        **checkpoint.plain(config.policy),
        **asdict(config.settings),
        "policy": name_of(config.policy),
        "dataset": description.dataset[:12],
    }
    keys = [key for key in {**now, **then} if now.get(key) != then.get(key)]
    if keys:
        lines = "; ".join(f"{key} was {then.get(key)}, now {now.get(key)}" for key in keys)
        raise CheckpointError(
            f"{config.run} holds another training: {lines}. Train into another folder (out=...), "
            "or begin anew here with resume=false, which deletes what it holds."
        )


def _save(
    config: TrainConfig,
    trainer: Trainer,
    description: checkpoint.Description,
    scalars: dict[str, torch.Tensor],
    begin: float,
) -> None:
    _finite(float(scalars["loss"]), trainer.step)
    state = trainer.state()
    numbers = {**state.numbers, "settings": asdict(config.settings), "wall_s": time.perf_counter() - begin}
    described = checkpoint.Description(description.config, description.specs, description.dataset, trainer.step)
    state = checkpoint.TrainingState(state.tensors, numbers)
    checkpoint.save(config.run, described, trainer.model(), state, config.keep)


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise ArmatureError(
            f"The loss is {loss} at step {step}. The last checkpoint is from before. Lower the learning rate (lr=...), "
            "or look for extreme values in the dataset."
        )
    return loss


def _summarise(config: TrainConfig, trainer: Trainer, wall_s: float, loss: float) -> None:
    parameters = sum(parameter.numel() for parameter in trainer.head.parameters())
    summary = {"steps": trainer.step, "wall_s": wall_s, "final_loss": loss, "parameters": parameters}
    write_text(config.run / "summary.json", json.dumps(summary, indent=1))
