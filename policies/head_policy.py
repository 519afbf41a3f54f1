"""A head as a policy: arrays in, action chunk out, checked on both sides."""

import numpy as np
import torch

from policies.base import AbstractHead
from robot.contract import ActionChunk, Observation, Policy
from robot.errors import SpecError


class HeadPolicy(Policy):
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

    def act(self, observation: Observation) -> ActionChunk:
        """The next chunk, clipped into the action's spec.

        Raises:
            SpecError: A key is missing, an array does not fit its spec, or the network's actions are not finite.
        """
        tensors = {key: self._checked(key, observation) for key in self.specs.environment.observation}
        with torch.inference_mode():
            actions = self._head.predict(tensors, self._generator)[0].cpu().numpy()
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
