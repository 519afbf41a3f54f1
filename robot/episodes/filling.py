"""A folder that attempts fill until it holds as many episodes as wanted; for whoever makes attempts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from robot.contract import EnvironmentSpecs
from robot.episodes import atomic, folder
from robot.episodes.collecting import Attempt, Collectors, Job
from robot.errors import EpisodeError

SUCCESS, ALL = "success", "all"
KEEPS = (SUCCESS, ALL)
"""Which attempts become episodes."""
HOPELESS_FAILURES = 50
"""Failures in a row after which nobody expects a success any more."""
SUMMARY = "summary.json"


@dataclass
class Filling:
    """How far a folder is. Attempts enter it in the order of their numbers, whichever worker finishes when.

    Attributes:
        out: The folder.
        wanted: Number of episodes that it is to hold.
        keep: One of `KEEPS`.
        episodes: Episodes that it holds.
        attempts: Attempts that were made for them; the next one has this number.
        successes: How many of these fulfilled the task.
    """

    out: Path
    wanted: int
    keep: str
    episodes: int = 0
    attempts: int = 0
    successes: int = 0

    def __post_init__(self) -> None:
        self._next_number = folder.next_number(self.out)

    @property
    def is_short(self) -> bool:
        """Whether episodes are still missing."""
        return self.episodes < self.wanted

    def count(self, attempt: int, success: bool, is_held: bool) -> None:
        """Take an attempt of an earlier run into account, whose episode the folder holds or has put aside."""
        self.attempts = max(self.attempts, attempt + 1)
        self.successes += success
        self.episodes += is_held

    def run(
        self,
        job: Job,
        workers: int,
        words: tuple[str, str],
        check: Callable[[EnvironmentSpecs], None] = lambda specs: None,
        note: Callable[[Attempt], None] = lambda attempt: None,
    ) -> None:
        """Make what is missing.

        Args:
            job: Of the workers.
            workers: How many processes at most.
            words: What the bar says is being done, and what to do where nothing succeeds.
            check: Looks at the specs of what is recorded before the first attempt counts, and may raise.
            note: Is told of every attempt before its file is moved or removed.

        Raises:
            EpisodeError: A worker failed, or `HOPELESS_FAILURES` attempts in a row did.
        """
        doing, advice = words
        with Collectors(job, min(workers, self.wanted - self.episodes)) as collectors:
            check(collectors.specs())  # the bar begins when the workers do, for the sake of its ETA
            failures = 0
            with tqdm(total=self.wanted, initial=self.episodes, unit="episode", desc=doing) as bar:
                for attempt in collectors.attempts(self.attempts):
                    note(attempt)
                    is_kept = self._settle(attempt)
                    bar.set_postfix_str(f"success {self.successes}/{self.attempts}", refresh=not is_kept)
                    bar.update(is_kept)
                    if not self.is_short:
                        return
                    failures = 0 if attempt.success else failures + 1
                    if failures >= HOPELESS_FAILURES and self.keep == SUCCESS:
                        raise EpisodeError(f"The last {failures} attempts all failed. {advice}")

    def wall_s(self, now_s: float) -> float:
        """Time that filling took, this run's `now_s` and what the summary says of the earlier ones [s].

        Raises:
            EpisodeError: The summary is damaged.
        """
        path = self.out / SUMMARY
        if not path.exists():
            return now_s
        try:
            return now_s + float(json.loads(path.read_text())["wall_s"])
        except (ValueError, KeyError, TypeError) as error:
            raise EpisodeError(f"{path} is damaged ({error!r}). Delete it; the episodes do not need it.") from error

    def _settle(self, attempt: Attempt) -> bool:
        """Keep an attempt or drop it."""
        self.attempts = attempt.number + 1
        self.successes += attempt.success
        is_kept = attempt.success or self.keep == ALL
        if is_kept:
            attempt.path.rename(folder.episode_path(self.out, self._next_number))
            atomic.fsync(self.out)
            self._next_number += 1
            self.episodes += 1
        else:
            attempt.path.unlink()
        return is_kept
