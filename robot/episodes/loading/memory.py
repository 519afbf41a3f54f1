"""Arrays side by side in memory that several processes map: columns that workers read, slots that they fill.

The memory has no name and goes to other processes as a file descriptor: nothing is left behind however anybody dies.
"""

import math
import mmap
import os
from collections.abc import Mapping

import numpy as np

Layout = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of arrays by name, in order."""

_CACHE_LINE = 64


def layout_of(arrays: Mapping[str, np.ndarray]) -> Layout:
    """The layout that holds some arrays."""
    return {name: (array.shape, array.dtype.str) for name, array in arrays.items()}


def size_of(layout: Layout) -> int:
    """Bytes that the arrays of a layout take."""
    return sum(_padded(shape, dtype) for shape, dtype in layout.values())


def allocated(layout: Layout) -> dict[str, np.ndarray]:
    """Arrays of a layout in memory of this process alone."""
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in layout.items()}


def mapped(fd: int, layout: Layout, count: int = 1) -> list[dict[str, np.ndarray]]:
    """`count` times the arrays of a layout in the memory behind a descriptor, which may be closed afterwards.

    Memory that is too short is made long enough.

    Raises:
        OSError: There is not enough memory.
    """
    size = max(1, count * size_of(layout))
    if os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)
    buffer = np.frombuffer(mmap.mmap(fd, size), np.uint8)
    found, start = [], 0
    for _ in range(count):
        arrays = {}
        for name, (shape, dtype) in layout.items():
            stop = start + math.prod(shape) * np.dtype(dtype).itemsize
            arrays[name] = buffer[start:stop].view(dtype).reshape(shape)
            start += _padded(shape, dtype)
        found.append(arrays)
    return found


def _padded(shape: tuple[int, ...], dtype: str) -> int:
    return -(-math.prod(shape) * np.dtype(dtype).itemsize // _CACHE_LINE) * _CACHE_LINE
