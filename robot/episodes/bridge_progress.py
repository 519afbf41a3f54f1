"""The line that shows how a recording goes: rates, what was dropped, what waits, and how long the disk will last."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from robot.episodes.bridge_log import STATUS_TOPIC
from robot.episodes.bridge_session import ARMING, Session
from robot.episodes.bridge_take import Take
from robot.episodes.episode import IMAGES, Result, topic_of
from robot.episodes.recorder import Count

GB = 1e9
EARLY = 4
"""A disk with less than so many times the least is warned of."""
FORMAT = "{desc} {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
EVERY_S = 0.25
EVERY_IN_A_FILE_S = 10.0
_PICTURES = topic_of(IMAGES)


class Disk:
    """How much room there is, and how much there has to be."""

    def __init__(self, folder: Path, least_gb: float) -> None:
        self._folder, self.least_gb = folder, least_gb
        self._measure: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free

    @property
    def left_gb(self) -> float:
        """Room [GB]."""
        return self._measure(self._folder) / GB

    @property
    def is_short(self) -> bool:
        """Whether no episode may begin."""
        return self.left_gb < self.least_gb

    @property
    def is_ending(self) -> bool:
        """Whether the episode that goes on has to end, so that it can be completed."""
        return self.left_gb < self.least_gb / EARLY

    def complaint(self) -> str:
        """What to do."""
        return (
            f"{self._folder} has {self.left_gb:.2f} GB of room left, and min_free_gb is {self.least_gb}. Make room, or "
            "choose another disk with out=."
        )


class Progress:
    """A bar of episodes on standard error, and lines about each."""

    def __init__(self, total: int, done: int, by: str, disk: Disk) -> None:
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc="recording", mininterval=0, leave=False, bar_format=FORMAT)
        self._every_s = EVERY_S if is_terminal else EVERY_IN_A_FILE_S
        self._disk, self._by = disk, by
        self._seen: tuple[float, Mapping[str, Count]] | None = None
        self._next_s = 0.0
        self._is_warned = False

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.write(text, file=sys.stderr)

    def show(self, session: Session, prompt: str) -> None:
        """Draw the line anew, if it is time or the user is asked something."""
        now_s = time.monotonic()
        if now_s < self._next_s and not prompt:
            return
        self._next_s = now_s + self._every_s
        take = session.running
        text = prompt or (self._waiting() if take is None else self._going(take, now_s))
        if take is None:
            self._seen = None
        self._bar.set_postfix_str(text, refresh=True)

    def tell(self, take: Take, result: Result) -> None:
        """A line about an episode that is complete, or gone."""
        if take.is_discarded:
            self.say(f"Episode {take.number} discarded after {take.seconds:.1f} s.")
            return
        self._bar.update(1)
        counts = take.recorder.counts()
        pictures = "".join(f", {name} {count.written}" for name, count in _cameras(counts).items())
        missing = {topic: count.dropped + count.missing for topic, count in counts.items()}
        lost = ", ".join(f"{count} of {topic}" for topic, count in missing.items() if count)
        outcome = "success" if result.success_final else "no success"
        self.say(
            f"Episode {take.number}: {take.seconds:.1f} s, {outcome} ({take.why}); {_states(counts).written} "
            f"states{pictures}; {f'missing {lost}' if lost else 'none missing'}."
        )

    def _waiting(self) -> str:
        start = "waits for the arm to be armed" if self._by == ARMING else "space begins an episode"
        return f"{start} | {self._disk.left_gb:.1f} GB left"

    def _going(self, take: Take, now_s: float) -> str:
        counts = take.recorder.counts()
        before = self._seen
        self._seen = now_s, counts
        parts = [f"episode {take.number} {take.seconds:.1f} s"]
        if before is not None and now_s > before[0]:
            parts += self._rates(before[1], counts, now_s - before[0])
        lost = sum(count.dropped + count.missing for count in counts.values())
        parts += [f"missing {lost}", f"queue {sum(count.depth for count in counts.values())}"]
        return " | ".join([*parts, f"{self._disk.left_gb:.1f} GB left"])

    def _rates(self, before: Mapping[str, Count], now: Mapping[str, Count], seconds: float) -> list[str]:
        def rate(name: str, old: Count, new: Count) -> str:
            return f"{name} {(new.received - old.received) / seconds:.0f} Hz"

        parts = [rate("state", _states(before), _states(now))]
        old = _cameras(before)
        parts += [rate(name, old.get(name, Count()), count) for name, count in _cameras(now).items()]
        speed = (sum(c.size for c in now.values()) - sum(c.size for c in before.values())) / seconds
        self._warn(speed)
        return parts

    def _warn(self, bytes_per_s: float) -> None:
        left_gb = self._disk.left_gb
        if self._is_warned or bytes_per_s <= 0 or left_gb >= EARLY * self._disk.least_gb:
            return
        self._is_warned = True
        minutes = max(0.0, left_gb - self._disk.least_gb) * GB / bytes_per_s / 60
        self.say(f"The disk has {left_gb:.1f} GB left, enough for some {minutes:.0f} minutes at this rate.")


def _states(counts: Mapping[str, Count]) -> Count:
    return counts.get(STATUS_TOPIC, Count())


def _cameras(counts: Mapping[str, Count]) -> dict[str, Count]:
    return {topic.removeprefix(_PICTURES): count for topic, count in counts.items() if topic.startswith(_PICTURES)}
