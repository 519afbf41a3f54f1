"""Chunks that go on from what is planned already: what is asked of a policy, and a policy that can do it."""

from abc import abstractmethod
from dataclasses import dataclass
from enum import Enum

import numpy as np

from robot.contract import ActionChunk, Observation, Policy


class Method(Enum):
    """How a chunk is made to go on from rows that are planned already; named as the command line spells it."""

    prefix = "prefix"
    """The network is given rows as they will be, as it was in training (training-time real-time chunking)."""
    guided = "guided"
    """Each denoising step is drawn towards the rows, through the network's Jacobian (real-time chunking)."""
    constant = "constant"
    """The same as though the Jacobian were the identity: as fast as an unguided chunk."""


@dataclass(frozen=True)
class Continuation:
    """What a chunk goes on from.

    Attributes:
        rows: What is planned so far, (N, A) in physical units; row 0 belongs to the newest observation's moment.
        weights: How firmly each row is kept, (N,) in [0, 1]; `prefix` keeps those of weight 1 and no others.
        method: How.
        beta: Strongest pull on a predicted row, for `guided`.
        prior_std: Spread of normalised actions that `guided` expects where the network is not sure yet.
    """

    rows: np.ndarray
    weights: np.ndarray
    method: Method
    beta: float = 5.0
    prior_std: float = 1.0


class ContinuingPolicy(Policy):
    """A policy whose chunks can be made to go on from what is planned already."""

    @property
    @abstractmethod
    def methods(self) -> dict[Method, int]:
        """By method that it knows: the most rows that it can keep as they are."""

    @abstractmethod
    def continue_from(self, observation: Observation, continuation: Continuation) -> ActionChunk:
        """The next chunk, like `act`.

        Raises:
            SpecError: What is observed or planned does not fit.
        """
