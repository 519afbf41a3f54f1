"""Batch k of a training, for any k: which windows it holds, and how its arrays are filled.

`draw` decides and is cheap; `fill` copies and may happen in another process. Neither depends on anything but k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot.episodes.episode import is_picture
from robot.episodes.loading.cache import FrameCache
from robot.episodes.loading.decoding import Size, decoded
from robot.episodes.loading.frames import Frames
from robot.episodes.loading.memory import Layout, allocated
from robot.episodes.loading.mixture import Mixture, Part
from robot.episodes.loading.order import Interleaved, Order, Shuffled, Weighted
from robot.episodes.loading.windows import Windows, batched
from robot.errors import DatasetError


@dataclass(frozen=True)
class Form:
    """What a batch looks like.

    Attributes:
        n_obs_steps: Observations of a window.
        horizon: Actions of a window.
        batch_size: Windows of a batch.
        keys: Observations that are wanted; all if None.
        stride: Frames from one observation of a window to the next.
        size: Height and width that pictures are resized to when they are decoded; as they are if None.
    """

    n_obs_steps: int
    horizon: int
    batch_size: int
    keys: tuple[str, ...] | None = None
    stride: int = 1
    size: Size | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DatasetError(f"A batch has batch_size >= 1 windows, got {self.batch_size}.")


class Batches:
    """The batches of a training on a mixture.

    The share of a dataset holds in every batch, up to rounding. Within a dataset every window comes once an epoch of
    this dataset, or as often as its weight says. Windows of one dataset stand together in a batch.

    Attributes:
        layout: Arrays of one batch by name, with their shapes and dtypes (see `Windows.layout`).
        batch_size: Windows in a batch.
        windows: Those of each dataset.
    """

    def __init__(self, windows: Sequence[Windows], orders: Sequence[Order], shares: np.ndarray, batch_size: int):
        """Batches of some windows in some orders; `of` makes both from a mixture."""
        self.windows, self.batch_size = tuple(windows), batch_size
        self.layout: Layout = batched(self.windows[0].layout, batch_size)
        for own in self.windows:
            if batched(own.layout, batch_size) != self.layout:
                raise DatasetError(f"Windows of a mixture differ: {own.layout}, expected {self.windows[0].layout}.")
        self._orders, self._interleaved = tuple(orders), Interleaved(shares)
        self._within = np.arange(batch_size)

    @classmethod
    def of(cls, mixture: Mixture, form: Form, seed: int, cache: FrameCache | None = None) -> "Batches":
        """The batches of a mixture. Decodes pictures that are wanted and not decoded yet.

        Raises:
            DatasetError: The form does not fit the datasets, or pictures cannot be decoded.
        """
        windows = [
            Windows(
                part.dataset,
                form.n_obs_steps,
                form.horizon,
                keys=form.keys,
                frames=_frames(part, form, cache),
                stride=form.stride,
                tasks=mixture.tasks,
            )
            for part in mixture.parts
        ]
        orders = [_order(part, seed, number) for number, part in enumerate(mixture.parts)]
        return cls(windows, orders, mixture.shares, form.batch_size)

    @property
    def has_pictures(self) -> bool:
        """Whether a batch holds pictures."""
        return any(dtype == "uint8" for _, dtype in self.layout.values())

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Which windows batch `step` holds.

        Returns:
            How many of each dataset, int64, shape (D,), and the windows, those of the first dataset first, int64,
            shape (B,).

        Raises:
            IndexError: The step is negative.
        """
        if step < 0:
            raise IndexError(f"Batches are numbered from 0, got {step}.")
        positions = step * self.batch_size + self._within
        if len(self._orders) == 1:
            return np.array([self.batch_size]), self._orders[0].at(positions)
        numbers, own = self._interleaved.at(positions)
        parts = [order.at(own[numbers == number]) for number, order in enumerate(self._orders)]
        return np.array([len(part) for part in parts]), np.concatenate(parts)

    def fill(self, counts: np.ndarray, indices: np.ndarray, out: Mapping[str, np.ndarray]) -> None:
        """Copy what `draw` chose into arrays of `layout`."""
        if len(self.windows) == 1:
            self.windows[0].fill(indices, out)
            return
        start = 0
        for windows, count in zip(self.windows, counts.tolist(), strict=True):
            own = slice(start, start + count)
            windows.fill(indices[own], {key: array[own] for key, array in out.items()})
            start += count

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Batch `step` in new arrays."""
        out = allocated(self.layout)
        self.fill(*self.draw(step), out)
        return out


def _frames(part: Part, form: Form, cache: FrameCache | None) -> dict[str, Frames]:
    specs, source = part.dataset.specs.observation, part.dataset.source
    wanted = [key for key in form.keys or specs if key in specs and is_picture(specs[key])]
    if not wanted:
        return {}
    if source is None:
        raise DatasetError(f"{part.name} says that it has pictures ({', '.join(wanted)}), but not where they are.")
    return decoded(source, part.dataset.episode_lengths, wanted, form.size, cache=cache)


def _order(part: Part, seed: int, number: int) -> Order:
    if part.weights is not None:
        return Weighted(part.weights, seed, [number])
    return Shuffled(len(part.dataset), seed, [number])
