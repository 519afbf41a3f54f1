"""Which measures an episode is judged by: what they are called, which side of them is bad, and what counts as equal."""

from dataclasses import dataclass

import numpy as np

from robot.episodes.curation import divergence, smoothness
from robot.episodes.curation.demonstrations import Demonstrations
from robot.episodes.curation.divergence import Frames, Spreads
from robot.episodes.curation.neighbours import Scale

HIGH, LOW, EITHER, NEITHER = "high", "low", "either", "neither"


@dataclass(frozen=True)
class Measure:
    """One column of the report.

    Attributes:
        bad: Which side is bad: `HIGH`, `LOW`, `EITHER`, or `NEITHER`: it is shown, and judges nothing.
        floor: Difference that is no matter, in the measure's unit: the scale of outliers is never smaller.
        form: How a value is printed.
        text: What is the matter where it stands out on that side (`NEITHER`: is high), in words; `{}` is the value,
            `{typical}` the median. Empty where that is not worth a look.
    """

    bad: str
    floor: float
    form: str
    text: str


MEASURES = {
    "deviation": Measure(
        HIGH, 0.02, ".2f", "acts unlike other episodes at similar states (deviation {}, typical {typical})"
    ),
    "divergence": Measure(NEITHER, 0.02, ".2f", ""),
    "diversity": Measure(NEITHER, 0.02, ".2f", ""),
    "noise": Measure(NEITHER, 0.02, ".2f", ""),
    "novelty": Measure(NEITHER, 0.05, ".2f", "goes where no other episode goes ({} std away, typical {typical})"),
    "sparc": Measure(LOW, 0.1, ".2f", "moves jerkily (spectral arc length {}, typical {typical})"),
    "ldlj": Measure(LOW, 0.5, ".1f", "moves jerkily (log dimensionless jerk {}, typical {typical})"),
    "path_ratio": Measure(HIGH, 0.05, ".2f", "takes detours (path ratio {}, typical {typical})"),
    "idle": Measure(HIGH, 0.03, ".0%", "stands still for {} of the time (typical {typical})"),
    "duration_s": Measure(EITHER, 0.0, ".1f", "takes {} s (typical {typical} s)"),
    "saturation": Measure(HIGH, 0.03, ".0%", "asks for more than the limits in {} of the rows (typical {typical})"),
    "toggles": Measure(HIGH, 1.0, ".0f", "changes its mind with the gripper: {} times (typical {typical})"),
    "clamps": Measure(HIGH, 1.0, ".0f", "was clamped by safety limits in {} cycles (typical {typical})"),
    "refusals": Measure(HIGH, 1.0, ".0f", "had {} commands that were late or refused (typical {typical})"),
    "drops": Measure(HIGH, 1.0, ".0f", "lost {} messages or pictures (typical {typical})"),
    "interventions": Measure(HIGH, 1.0, ".0f", "needed {} interventions (typical {typical})"),
    "faults": Measure(HIGH, 1.0, ".0f", "had {} faults (typical {typical})"),
    "jitter_ms": Measure(HIGH, 2.0, ".1f", "was recorded unevenly (jitter {} ms, typical {typical})"),
    "skew_ms": Measure(HIGH, 2.0, ".1f", "has channels far apart in time (skew {} ms, typical {typical})"),
}
"""In the order in which they are shown."""


def frames_of(demonstrations: Demonstrations, groups: np.ndarray) -> Frames:
    """All frames, one after the other."""
    states, actions = np.concatenate(demonstrations.states), np.concatenate(demonstrations.actions)
    tasks = np.unique(demonstrations.tasks, return_inverse=True)[1] if demonstrations.tasks else None
    return Frames(states, actions, demonstrations.lengths, groups, tasks)


def of_episodes(demonstrations: Demonstrations, spreads: Spreads, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Each measure of `MEASURES` that anything is known of, (E,); NaN where an episode has none.

    Args:
        demonstrations: What to measure.
        spreads: Of their frames.
        kept: Episodes that decide what is typical: one of each group of copies.
    """
    lengths = demonstrations.lengths
    found = {
        name: divergence.of_episodes(getattr(spreads, name), lengths)
        for name in ("deviation", "divergence", "diversity", "noise", "novelty")
    }
    found |= _motion(demonstrations, kept) | _actions(demonstrations)
    found["duration_s"] = lengths * demonstrations.specs.dt_s
    found |= {name: values for name, values in demonstrations.facts.items() if name in MEASURES}
    return {name: found[name] for name in MEASURES if name in found and not np.isnan(found[name]).all()}


def _motion(demonstrations: Demonstrations, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Smoothness of the tool, or of the scaled states where no element is called one."""
    dt_s, paths = demonstrations.specs.dt_s, demonstrations.path()
    if paths is None:
        scale = Scale.of(np.concatenate([demonstrations.states[i] for i in kept]))
        paths = [scale(states) for states in demonstrations.states]
    speeds = [smoothness.speed(path, dt_s) for path in paths]
    every = np.concatenate([speeds[i] for i in kept])
    typical = float(np.quantile(every, 0.9)) if len(every) else 0.0
    return {
        "sparc": np.array([smoothness.spectral_arc_length(part, dt_s) for part in speeds]),
        "ldlj": np.array([smoothness.log_dimensionless_jerk(path, dt_s) for path in paths]),
        "path_ratio": np.array([smoothness.path_length_ratio(path) for path in paths]),
        "idle": np.array([smoothness.idle_share(part, typical) for part in speeds]),
    }


def _actions(demonstrations: Demonstrations) -> dict[str, np.ndarray]:
    spec, gripper = demonstrations.specs.action, demonstrations.gripper
    low, high = (bound.ravel() for bound in spec.bounds())
    shares = [smoothness.saturated_share(actions, low, high, gripper) for actions in demonstrations.actions]
    found = {"saturation": np.array(shares)}
    if gripper:
        every = np.concatenate(demonstrations.actions)
        least, greatest = every.min(axis=0), every.max(axis=0)
        counts = [
            sum(smoothness.toggles(actions[:, i], least[i], greatest[i]) for i in gripper)
            for actions in demonstrations.actions
        ]
        found["toggles"] = np.array(counts, np.float64)
    return found
