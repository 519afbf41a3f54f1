"""`armature train`: a dataset in, checkpoints out. Knows of heads only what `policies.base` says."""

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from omegaconf import MISSING

from policies import checkpoint
from policies.base import HeadConfig
from policies.registry import HEADS, name_of
from policies.run_log import RunLog
from policies.trainer import Settings, Trainer
from robot.config import load
from robot.episodes.atomic import write_text
from robot.episodes.curation.weights import UNIFORM, Sampler, described, window_weights
from robot.episodes.dataset import Dataset
from robot.episodes.loading.batches import Batches, Form
from robot.episodes.loading.loader import Loader
from robot.episodes.loading.mixture import Mixture, Part
from robot.errors import ArmatureError, CheckpointError, ConfigError, WorkerError


@dataclass(kw_only=True)
class TrainConfig:
    """Keys of `configs/train.yaml`.

    Attributes:
        policy: The head and its recipe.
        task: Names the default folders.
        dataset: Folder of a dataset; or a list of folders, which count by their frames; or the share of samples by
            folder.
        observations: Keys of what the policy sees; empty: all.
        out: Folder of the run; `runs/<task>/<policy>` if None.
        steps: Training steps; the learning rate falls to zero at the last one.
        batch_size: Windows in a batch.
        lr: Peak learning rate.
        seed: Of weights, order of the data and noise.
        sampler: How often a window is visited (see `robot.episodes.curation.weights`).
        sampler_temperature: Of the softmax over the episodes' values.
        sampler_k: Episodes that `topk` keeps: a share below 1, else a number.
        workers: Processes that make batches; 0 makes them between the steps. None: 2 where there are pictures, else 0.
        device: torch's name of the device.
        threads: CPU threads; 0 leaves torch's choice, all cores. With one, results do not depend on their number.
        log_every: Steps from one log line to the next.
        save_every: Steps from one checkpoint to the next; the last step always has one.
        keep: Checkpoints that are kept, the newest.
        resume: Whether to continue what `out` holds; otherwise it is replaced.
    """

    policy: HeadConfig = MISSING
    task: str = "lift"
    dataset: Any = MISSING
    observations: list[str] = field(default_factory=list)
    out: str | None = None
    steps: int = 2000
    batch_size: int = 64
    lr: float = MISSING
    seed: int = 0
    sampler: str = UNIFORM
    sampler_temperature: float = 0.1
    sampler_k: float = 0.1
    workers: int | None = None
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
        for key in ("seed", "threads", "workers"):
            if (getattr(self, key) or 0) < 0:
                raise ConfigError(f"{key} must not be negative, got {getattr(self, key)}.")
        if not self.lr > 0:
            raise ConfigError(f"lr is {self.lr}, expected more than 0.")
        self.how_to_sample()

    def how_to_sample(self) -> Sampler:
        """The sampler and its numbers.

        Raises:
            ConfigError: There is none of this name, or a number makes no sense.
        """
        return Sampler(self.sampler, self.sampler_temperature, self.sampler_k)

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
    mixture = opened(config)
    if config.sampler != UNIFORM:
        for part in mixture.parts:
            print(f"{part.name}: {described(part.dataset, config.how_to_sample())}")
    training = prepare(config, mixture)  # decodes pictures, which Ctrl-C interrupts at once
    with stop_requests() as is_stopped:
        step = training.run(is_stopped)
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


def opened(config: TrainConfig) -> Mixture:
    """The datasets that a config names, with its weights.

    Raises:
        ConfigError: `dataset` is neither a folder nor folders, or an observation does not exist.
        DatasetError: A folder holds no dataset, datasets do not mix, or nothing says which episodes are better.
    """
    named, sampler = config.dataset, config.how_to_sample()
    if isinstance(named, str):
        named = [named]
    if not named or not isinstance(named, list | dict) or not all(isinstance(name, str) for name in named):
        raise ConfigError(
            f"dataset is {named!r}, expected a folder, a list of folders (dataset=[data/a,data/b]), or shares of the "
            "samples by folder (dataset={data/a:0.7,data/b:0.3})."
        )
    datasets = {name: Dataset.open(name) for name in named}
    if config.observations:
        datasets = {name: dataset.showing(config.observations) for name, dataset in datasets.items()}
    shares = named if isinstance(named, dict) else {name: len(dataset) for name, dataset in datasets.items()}
    for name, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf:
            raise ConfigError(f"The share of {name} in dataset is {share!r}, expected a number above zero.")
    return Mixture(
        [Part(name, own, float(shares[name]), window_weights(own, sampler)) for name, own in datasets.items()]
    )


def train(config: TrainConfig, data: Dataset | Mixture, is_stopped: Callable[[], bool]) -> int:
    """Train until the last step or until `is_stopped()`, and save; returns the step that was reached.

    Raises:
        ConfigError: The config fits neither the dataset nor the run that it resumes.
        CheckpointError: A checkpoint cannot be read or written.
        WorkerError: A process that makes batches died; the run is saved up to its last step.
        ArmatureError: The loss is not finite.
    """
    return prepare(config, data).run(is_stopped)


def prepare(config: TrainConfig, data: Dataset | Mixture) -> "Training":
    """Everything before the first step: the head, what a resumed run needs, and decoded pictures.

    Raises:
        ConfigError: The config fits neither the dataset nor the run that it resumes.
        CheckpointError: The newest checkpoint of the run cannot be read.
        DatasetError: Pictures cannot be decoded.
    """
    mixture = data if isinstance(data, Mixture) else Mixture.of(data)
    device = _prepare_torch(config)
    trainer = Trainer(config.policy.build(mixture.specs, mixture.stats), config.policy, config.settings, device)
    description = checkpoint.Description(config.policy, mixture.specs, mixture.identity, 0)
    wall_before = _resume(config, trainer, description)
    form = Form(config.policy.n_obs_steps, config.policy.horizon, config.batch_size)
    batches = None if trainer.step == config.steps else Batches.of(mixture, form, config.seed)
    return Training(config, trainer, description, wall_before, batches)


@dataclass(frozen=True)
class Training:
    """A training that is ready to go on.

    Attributes:
        config: What was asked for.
        trainer: Head and optimiser, at the step that was reached before.
        description: What checkpoints say.
        wall_before_s: Seconds that were spent on it before.
        batches: What it learns from; None if all steps are done.
    """

    config: TrainConfig
    trainer: Trainer
    description: checkpoint.Description
    wall_before_s: float
    batches: Batches | None

    def run(self, is_stopped: Callable[[], bool]) -> int:
        """See `train`."""
        if self.batches is None:
            return self.trainer.step
        workers = self.config.workers
        if workers is None:
            workers = 2 if self.batches.has_pictures else 0
        with Loader(self.batches, self.trainer.step, workers) as loader:
            return self._learn(loader, is_stopped)

    def _learn(self, loader: Loader, is_stopped: Callable[[], bool]) -> int:
        config, trainer = self.config, self.trainer
        begin = time.perf_counter() - self.wall_before_s
        loss, scalars, saved = float("nan"), dict[str, torch.Tensor](), trainer.step
        broken: WorkerError | None = None
        with RunLog(config.run, trainer.step, config.steps) as log:
            while trainer.step < config.steps and not is_stopped():
                lr = trainer.lr
                try:
                    arrays = next(loader)
                except WorkerError as error:
                    broken = error
                    break
                scalars = trainer.advance(arrays)
                log.advance()
                is_last = trainer.step == config.steps
                if trainer.step % config.log_every == 0 or is_last:
                    values = {name: float(value) for name, value in scalars.items()}
                    loss = _finite(values["loss"], trainer.step)
                    log.write(trainer.step, {**values, "lr": lr, "wall_s": time.perf_counter() - begin})
                if trainer.step % config.save_every == 0 or is_last:
                    _save(config, trainer, self.description, scalars, begin)
                    saved = trainer.step
            if trainer.step != saved:
                _save(config, trainer, self.description, scalars, begin)
        if broken is not None:
            raise broken
        if trainer.step == config.steps:
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
        "sampler": UNIFORM,
        **checkpoint.plain(saved.config),
        **settings,
        "policy": name_of(saved.config),
        "dataset": saved.dataset[:12],
    }
    now = {
        **checkpoint.plain(config.policy),
        **asdict(config.settings),
        **_sampling(config),
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
    settings = {**asdict(config.settings), **_sampling(config)}
    numbers = {**state.numbers, "settings": settings, "wall_s": time.perf_counter() - begin}
    described = checkpoint.Description(description.config, description.specs, description.dataset, trainer.step)
    state = checkpoint.TrainingState(state.tensors, numbers)
    checkpoint.save(config.run, described, trainer.model(), state, config.keep)


def _sampling(config: TrainConfig) -> dict[str, Any]:
    """What the sampler depends on, for whoever resumes."""
    if config.sampler == UNIFORM:
        return {"sampler": UNIFORM}
    numbers = {"sampler_temperature": config.sampler_temperature, "sampler_k": config.sampler_k}
    return {"sampler": config.sampler, **numbers}


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
