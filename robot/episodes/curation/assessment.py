"""What is the matter with each episode, in numbers and in words, and which to look at first."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from robot.episodes.curation import coverage, divergence, measures
from robot.episodes.curation.coverage import Coverage
from robot.episodes.curation.demonstrations import Demonstrations, of_dataset
from robot.episodes.curation.divergence import Spreads
from robot.episodes.curation.measures import EITHER, HIGH, LOW, MEASURES, NEITHER
from robot.episodes.dataset import Dataset

OUTLIER = 3.5
"""Modified z-score beyond which a value is named: Iglewicz, Hoaglin, "How to Detect and Handle Outliers", 1993."""
FAILED = 2.0
"""What a failure takes from the score: more than any success loses that is typical otherwise."""
FEWEST = 5
"""Of fewer episodes no value is typical, so none is an outlier."""


@dataclass(frozen=True)
class Settings:
    """What an assessment depends on.

    Attributes:
        k: Neighbours from other episodes.
        radius: Farthest that one may be [standard deviations]; beyond it a frame tells nothing of agreement.
        frames: About how many frames are compared, evenly over each episode.
        outlier: Modified z-score beyond which a value is named.
        duplicate: Below which difference two episodes are copies [standard deviations].
    """

    k: int = 5
    radius: float = np.inf
    frames: int = 20_000
    outlier: float = OUTLIER
    duplicate: float = 0.01


@dataclass(frozen=True)
class Assessment:
    """Of E episodes.

    Attributes:
        demonstrations: What was assessed.
        values: Each measure by name, (E,).
        typical: Median of each measure.
        badness: Modified z-score of each measure towards its bad side, (E,); 0 where nothing is known.
        score: (E,); 0 is typical, higher is better: minus the mean badness, clipped to +-3.5, less 2 for a failure.
        groups: See `coverage.groups_of_copies`.
        reasons: For each episode why to look at it, worst first; empty where nothing stands out.
        spreads: Of each frame.
        coverage: Of the whole.
        outlier: Badness beyond which a value is named.
    """

    demonstrations: Demonstrations
    values: dict[str, np.ndarray]
    typical: dict[str, float]
    badness: dict[str, np.ndarray]
    score: np.ndarray
    groups: np.ndarray
    reasons: list[list[str]]
    spreads: Spreads
    coverage: Coverage
    outlier: float

    @property
    def told(self) -> list[str]:
        """Measures that are worth a column: all but those that are zero for every episode."""
        return [name for name, values in self.values.items() if np.nansum(np.abs(values)) > 0]

    @property
    def order(self) -> np.ndarray:
        """Episodes from the one to look at first: those with reasons, then the others, each from the least score."""
        has_none = np.array([not reasons for reasons in self.reasons])
        return np.lexsort((self.score, has_none))

    @property
    def totals(self) -> dict[str, float]:
        """Measures of the whole; copies of an episode count once."""
        sizes = np.bincount(self.groups)
        weights = 1.0 / sizes[self.groups]
        frames = np.repeat(weights, self.demonstrations.lengths)
        of_frames = ("divergence", "diversity", "noise", "distance", "novelty")
        return {
            "episodes": float(len(self.demonstrations)),
            "frames": float(self.demonstrations.lengths.sum()),
            "copies": float(len(self.groups) - len(sizes)),
            "success_rate": divergence.mean(self.demonstrations.success, weights),
            **{name: divergence.mean(getattr(self.spreads, name), frames) for name in of_frames},
            "divergence_at_zero": self.spreads.divergence_at_zero,
            "noise_at_zero": self.spreads.noise_at_zero,
            "neighbours": float(self.spreads.k),
            "compared": float(np.mean(~np.isnan(self.spreads.divergence))),
            "occupied": self.coverage.occupied,
            "evenness": self.coverage.evenness,
            "state_dimensions": self.coverage.dimensions,
            "different_starts": self.coverage.starts,
            "different_episodes": self.coverage.episodes,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is not known is null."""
        episodes = [
            {
                "name": name,
                "frames": int(self.demonstrations.lengths[i]),
                "success": _plain(self.demonstrations.success[i]),
                "score": _plain(self.score[i]),
                "group": int(self.groups[i]),
                "reasons": self.reasons[i],
                **{key: _plain(values[i]) for key, values in self.values.items()},
            }
            for i, name in enumerate(self.demonstrations.names)
        ]
        starts = dict(zip(self.demonstrations.elements, map(_plain, self.coverage.start_spread), strict=True))
        return {
            "totals": {name: _plain(value) for name, value in self.totals.items()},
            "typical": {name: _plain(value) for name, value in self.typical.items()},
            "initial_state_std": starts,
            "ranking": [self.demonstrations.names[i] for i in self.order],
            "episodes": episodes,
        }


def assess(demonstrations: Demonstrations, settings: Settings | None = None) -> Assessment:
    """Measure every episode and say what stands out."""
    settings = settings or Settings()
    groups = coverage.groups_of_copies(demonstrations.states, demonstrations.actions, settings.duplicate)
    frames = measures.frames_of(demonstrations, groups)
    spreads = divergence.spreads(frames, settings.k, settings.radius, settings.frames)
    kept = np.unique(groups, return_index=True)[1]  # copies do not move what is typical
    values = measures.of_episodes(demonstrations, spreads, kept)
    typical = {name: float(np.nanmedian(column[kept])) for name, column in values.items()}
    badness = {name: badness_of(name, column, kept) for name, column in values.items()}
    reasons = [
        [*_facts(demonstrations, groups, i), *_outliers(values, typical, badness, i, settings.outlier)]
        for i in range(len(demonstrations))
    ]
    return Assessment(
        demonstrations=demonstrations,
        values=values,
        typical=typical,
        badness=badness,
        score=_score(badness, demonstrations.success),
        groups=groups,
        reasons=reasons,
        spreads=spreads,
        coverage=coverage.coverage(demonstrations.states, groups),
        outlier=settings.outlier,
    )


def scores_of(dataset: Dataset) -> np.ndarray:
    """The score of each episode of a dataset under the default settings, (E,)."""
    return assess(of_dataset(dataset)).score


def badness_of(name: str, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Modified z-scores towards the bad side: 0.6745 (x - median) / MAD, and 0 where a value is not known.

    Where more than half of the values are equal the MAD is zero; 1.2533 times the mean absolute deviation, which has
    the same expectation for Gaussian values, then stands in. Neither is taken to be below the measure's floor.
    Durations are compared by their ratio: twice as long is as far away as half as long.

    Args:
        name: Of the measure.
        values: Shape (E,).
        kept: Episodes that decide what is typical.
    """
    measure = MEASURES[name]
    values, floor = (np.log2(values), 0.1) if measure.bad == EITHER else (values, measure.floor)
    known = values[kept][~np.isnan(values[kept])]
    if len(known) < FEWEST:
        return np.zeros(len(values))
    away = known - np.median(known)
    scale = 1.4826 * np.median(np.abs(away)) or 1.2533 * np.abs(away).mean()
    z = np.nan_to_num((values - np.median(known)) / max(scale, floor))
    return {HIGH: z, LOW: -z, EITHER: np.abs(z) - 0.6745, NEITHER: z}[measure.bad]


def _score(badness: dict[str, np.ndarray], success: np.ndarray) -> np.ndarray:
    judged = [np.clip(z, -OUTLIER, OUTLIER) for name, z in badness.items() if MEASURES[name].bad != NEITHER]
    return -np.mean(judged, axis=0) - FAILED * (success == 0)


def _facts(demonstrations: Demonstrations, groups: np.ndarray, i: int) -> list[str]:
    first = int(np.flatnonzero(groups == groups[i])[0])
    lines = ["failed"] if demonstrations.success[i] == 0 else []
    return lines + ([f"is a copy of episode {demonstrations.names[first]}"] if first != i else [])


def _outliers(
    values: dict[str, np.ndarray],
    typical: dict[str, float],
    badness: dict[str, np.ndarray],
    i: int,
    threshold: float,
) -> list[str]:
    named = {name: z[i] for name, z in badness.items() if MEASURES[name].text and z[i] > threshold}
    lines = []
    for name in sorted(named, key=lambda name: -named[name]):
        measure = MEASURES[name]
        lines.append(
            measure.text.format(format(values[name][i], measure.form), typical=format(typical[name], measure.form))
        )
    return lines


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
