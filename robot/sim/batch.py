"""What n environments take and give, side by side in memory that their processes share.

The memory has no name and is inherited by file descriptor. Whoever knows the specs and n finds everything in it, so
that no array is ever serialised.
"""

import math
import mmap
import os

import numpy as np

from robot.contract import EnvironmentSpecs, Observation

_CACHE_LINE = 64


class Batch:
    """Arrays whose first axis counts environments.

    Attributes:
        action: float64, (n, A).
        observation: By key, (n, *spec.shape), of the spec's type.
        final_observation: The same: where an episode ended that another has followed within the same step.
        reward: float64, (n,).
        terminated: bool, (n,).
        truncated: bool, (n,).
        success: bool, (n,).
        final_success: bool, (n,): belongs to `final_observation`.
    """

    def __init__(self, specs: EnvironmentSpecs, n: int, fd: int) -> None:
        """Map the memory behind a file descriptor, which is made large enough and may be closed afterwards."""
        keys = specs.observation
        shapes: list[tuple[tuple[int, ...], str]] = [((n, *specs.action.shape), "float64")]
        shapes += [((n, *spec.shape), spec.dtype) for spec in keys.values()] * 2
        shapes += [((n,), "float64"), *[((n,), "bool")] * 4]
        starts = [0]
        for shape, dtype in shapes:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            starts.append(starts[-1] + -(-size // _CACHE_LINE) * _CACHE_LINE)
        if os.fstat(fd).st_size < starts[-1]:
            os.ftruncate(fd, starts[-1])
        buffer = np.frombuffer(mmap.mmap(fd, starts[-1]), np.uint8)
        arrays = [
            buffer[start : start + math.prod(shape) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
            for start, (shape, dtype) in zip(starts[:-1], shapes, strict=True)
        ]
        self.action = arrays[0]
        self.observation: Observation = dict(zip(keys, arrays[1:], strict=False))
        self.final_observation: Observation = dict(zip(keys, arrays[1 + len(keys) :], strict=False))
        self.reward, self.terminated, self.truncated, self.success, self.final_success = arrays[-5:]


def write_row(batch: Observation, index: int, observation: Observation) -> None:
    """Copy the observation of one environment into its row of every array."""
    for key, array in observation.items():
        batch[key][index] = array
