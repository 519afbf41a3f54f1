"""A head as a policy: arrays in, action chunk out, checked on both sides."""

from collections.abc import Sequence

import numpy as np
import torch

from policies.base import AbstractHead, Kept
from policies.continuing import Continuation, ContinuingPolicy, Method
from robot.contract import ActionChunk, Observation, PolicySpecs
from robot.errors import SpecError


class HeadPolicy(ContinuingPolicy):
    """Runs a head on one observation history at a time."""

    def __init__(self, head: AbstractHead, device: str = "cpu") -> None:
        self.specs = head.specs
        self._head = head
        self._device = torch.device(device)
        self._generator = torch.Generator()
        self._low, self._high = head.specs.environment.action.bounds()
        self.reset(0)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: equal seeds draw equal noise."""
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    @property
    def methods(self) -> dict[Method, int]:
        """What the head can go on from."""
        return self._head.methods

    def act(self, observation: Observation) -> ActionChunk:
        """The next chunk, clipped into the action's spec.

        Raises:
            SpecError: A key is missing, an array does not fit its spec, or the network's actions are not finite.
        """
        with torch.inference_mode():
            return self._chunk(self._head.predict(self._tensors(observation), self._generator))

    def continue_from(self, observation: Observation, continuation: Continuation) -> ActionChunk:
        """The next chunk, going on from rows that are planned already.

        Raises:
            SpecError: As `act` says, or the rows do not fit the head.
            ConfigError: The head does not know the method.
        """
        # Gradients may be wanted on the way, which inference mode forbids for good.
        with torch.no_grad():
            kept = kept_of([continuation], self.specs)
            return self._chunk(self._head.predict_after(self._tensors(observation), self._generator, kept))

    def _tensors(self, observation: Observation) -> dict[str, torch.Tensor]:
        return {key: self._checked(key, observation) for key in self.specs.environment.observation}

    def _chunk(self, predicted: torch.Tensor) -> ActionChunk:
        actions = predicted[0].cpu().numpy()
        if not np.isfinite(actions).all():
            raise SpecError("The policy's actions are not finite. The checkpoint is broken; use another one.")
        dtype = self.specs.environment.action.dtype
        return ActionChunk(np.clip(actions, self._low, self._high).astype(dtype), self.specs.environment.dt_s)

    def _checked(self, key: str, observation: Observation) -> torch.Tensor:
        if key not in observation:
            raise SpecError(f"Observation lacks {key!r}; it has: {', '.join(sorted(observation)) or 'nothing'}.")
        history = np.asarray(observation[key])
        spec = self.specs.environment.observation[key]
        if history.shape != (self.specs.n_obs_steps, *spec.shape):
            raise SpecError(
                f"{key!r} has shape {history.shape}, expected {(self.specs.n_obs_steps, *spec.shape)}: "
                f"{self.specs.n_obs_steps} observations, oldest first."
            )
        for frame in history:
            spec.validate(frame)
        return torch.from_numpy(np.ascontiguousarray(history, np.float32)).unsqueeze(0).to(self._device)


def kept_of(continuations: Sequence[Continuation], specs: PolicySpecs) -> Kept:
    """Continuations of one method as a batch, filled up to the horizon with rows that are not kept.

    Raises:
        SpecError: The rows are of another width, or not finite, or the weights are not theirs.
    """
    first = continuations[0]
    size = (len(continuations), specs.horizon)
    rows, weights = np.zeros((*size, *specs.environment.action.shape), np.float32), np.zeros(size, np.float32)
    for index, one in enumerate(continuations):
        n = min(len(one.rows), specs.horizon)
        inside = (one.weights >= 0) & (one.weights <= 1)
        if one.rows.shape[1:] != rows.shape[2:] or one.weights.shape != one.rows.shape[:1] or not inside.all():
            raise SpecError(
                f"A chunk cannot go on from rows {one.rows.shape} with weights {one.weights.shape}; expected "
                f"(N, {rows.shape[2]}) and (N,) in [0, 1]."
            )
        if not np.isfinite(one.rows).all():
            raise SpecError("A chunk cannot go on from rows that are not finite.")
        rows[index, :n], weights[index, :n] = one.rows[:n], one.weights[:n]
    return Kept(torch.from_numpy(rows), torch.from_numpy(weights), first.method, first.beta, first.prior_std)
