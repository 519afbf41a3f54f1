"""`armature episodes quality`: what each demonstration is worth, and which to look at first."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot.config import load
from robot.episodes import atomic
from robot.episodes.curation import sources
from robot.episodes.curation.assessment import FEWEST, Assessment, Settings, assess
from robot.episodes.curation.demonstrations import Demonstrations
from robot.episodes.curation.measures import MEASURES
from robot.episodes.episode import ACTIONS
from robot.errors import ArmatureError, ConfigError, unknown_name

_WIDEST = 10


@dataclass(kw_only=True)
class QualityConfig:
    """See `configs/episodes_quality.yaml`."""

    episodes: str | None
    dataset: str | None
    label: str
    states: list[str] | None
    k: int
    radius: float | None
    frames: int
    outlier: float
    duplicate: float
    worst: int
    json: str | None
    out: str | None

    def __post_init__(self) -> None:
        if (self.episodes is None) == (self.dataset is None):
            raise ConfigError("Give either episodes=FOLDER (of episodes) or dataset=FOLDER (a LeRobotDataset v3).")
        if self.label not in ACTIONS:
            raise unknown_name("label", self.label, ACTIONS)
        for key, least in (("k", 1), ("frames", 2), ("worst", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"{key} is {getattr(self, key)}, expected at least {least}.")
        for key in ("outlier", "duplicate", "radius"):
            value = getattr(self, key)
            if value is not None and not value >= 0:
                raise ConfigError(f"{key} is {value}, expected a number that is not negative.")

    @property
    def settings(self) -> Settings:
        """What the numbers depend on."""
        radius = np.inf if self.radius is None else self.radius
        return Settings(self.k, radius, self.frames, self.outlier, self.duplicate)


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("episodes_quality", QualityConfig, overrides)
    assessment = assess(_demonstrations(config), config.settings)
    print(table(assessment))
    print()
    print(ranking(assessment, config.worst))
    print()
    print(totals(assessment))
    for path in _written(config, assessment):
        print(f"Wrote {path}")
    return 0


def _demonstrations(config: QualityConfig) -> Demonstrations:
    if config.episodes is not None:
        return sources.of_folder(Path(config.episodes), config.label, config.states)
    assert config.dataset is not None
    return sources.of_dataset_folder(Path(config.dataset), config.states)


def _written(config: QualityConfig, assessment: Assessment) -> list[Path]:
    source = {"source": config.episodes or config.dataset, "settings": {"k": config.k, "label": config.label}}
    text = json.dumps({**source, **assessment.to_json()}, indent=1)
    wanted = [] if config.json is None else [Path(config.json)]
    try:
        if config.out is not None:
            from robot.episodes.curation import plots  # matplotlib takes a second to import

            wanted += [Path(config.out) / "quality.json", *plots.save_all(assessment, Path(config.out), config.outlier)]
        for path in wanted:
            if path.suffix != ".png":
                atomic.write_text(path, text)
    except OSError as error:
        raise ArmatureError(f"{error.filename or config.out} cannot be written: {error.strerror}.") from error
    return wanted


def table(assessment: Assessment) -> str:
    """A line for each episode: frames, success, score, every measure; `*` marks what stands out."""
    names = assessment.told
    header = ["episode", "frames", "ok", "score", *names]
    lines = [header]
    for i, name in enumerate(assessment.demonstrations.names):
        success = assessment.demonstrations.success[i]
        cells = [name, str(assessment.demonstrations.lengths[i]), "-" if np.isnan(success) else "ny"[int(success)]]
        cells.append(f"{assessment.score[i]:+.2f}")
        lines.append(cells + [_cell(assessment, key, i) for key in names])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(assessment: Assessment, name: str, i: int) -> str:
    value = assessment.values[name][i]
    mark = "*" if MEASURES[name].text and assessment.badness[name][i] > assessment.outlier else " "
    return ("-" if np.isnan(value) else format(value, MEASURES[name].form)) + mark


def ranking(assessment: Assessment, worst: int) -> str:
    """Which episodes to look at, and why, in words."""
    named = [i for i in assessment.order if assessment.reasons[i]]
    if not named:
        few = f" (of fewer than {FEWEST} episodes none is typical)" if len(assessment.score) < FEWEST else ""
        return f"Nothing stands out{few}."
    lines = [f"Look at ({min(worst, len(named))} of {len(named)} that stand out):"]
    for i in named[:worst]:
        lines.append(f"  {assessment.demonstrations.names[i]}: {'; '.join(assessment.reasons[i])}")
    return "\n".join(lines)


def totals(assessment: Assessment) -> str:
    """The whole, in words."""
    whole, demonstrations = assessment.totals, assessment.demonstrations
    lines = [
        f"{len(demonstrations)} episodes, {whole['frames']:.0f} frames, {whole['copies']:.0f} copies"
        + ("." if np.isnan(whole["success_rate"]) else f", {whole['success_rate']:.0%} succeeded."),
    ]
    tasks = len(set(demonstrations.tasks))
    if tasks > 1:
        lines.append(
            f"{tasks} tasks, compared within each; {whole['compared']:.0%} of the frames have enough to compare with."
        )
    if assessment.spreads.k:
        lines += [
            f"Action divergence {whole['divergence']:.2f} among the {assessment.spreads.k} most similar states of "
            f"other episodes, {whole['distance']:.2f} std away; {whole['divergence_at_zero']:.2f} extrapolated to "
            "equal states (0: experts agree; 1: the state tells nothing of the action).",
            f"Transition diversity {whole['diversity']:.2f}; system noise {whole['noise']:.2f}, extrapolated to equal "
            f"states and actions {whole['noise_at_zero']:.2f}.",
        ]
    else:
        lines.append(
            "A single episode (or copies of one) has nothing to be compared with: no divergence, no diversity."
        )
    lines.append(
        f"Coverage: {whole['different_starts']:.1f} different starts, {whole['different_episodes']:.1f} different "
        f"episodes, {whole['occupied']:.0%} of the cells along three principal axes, {whole['state_dimensions']:.1f} "
        f"independent dimensions. Starts vary in {_start_variation(assessment)}."
    )
    return "\n".join(lines)


def _start_variation(assessment: Assessment) -> str:
    spread, elements = assessment.coverage.start_spread, assessment.demonstrations.elements
    starts = np.array([states[0] for states in assessment.demonstrations.states])
    varies = [i for i in np.argsort(-spread) if spread[i] > 1e-6 * max(1.0, float(np.abs(starts[:, i]).max()))]
    if not varies:
        return "nothing"
    shown = [f"{_short(elements[i])} (std {spread[i]:.3g})" for i in varies[:_WIDEST]]
    more = f" and {len(varies) - _WIDEST} more" if len(varies) > _WIDEST else ""
    return ", ".join(shown) + more


def _short(element: str) -> str:
    """`ee_x` of `observation.state:ee_x`; `observation.state[3]` where it has no name."""
    key, _, name = element.partition(":")
    return f"{key}[{name}]" if name.isdigit() else name
