"""The dirt of Wipe: where what is left of it lies."""

from typing import Any

import mujoco
import numpy as np


class Dirt:
    """The markers of a robosuite Wipe environment that have not been wiped yet, without a loop over a hundred names."""

    def __init__(self, arena: Any) -> None:
        """Find the markers' bodies."""
        model, self._data = arena.sim.model._model, arena.sim.data._data
        self._arena = arena
        self._markers = list(arena.model.mujoco_arena.markers)
        names = [marker.root_body for marker in self._markers]
        self._bodies = np.array([mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in names])
        self._seen: tuple[Any, ...] = ()
        self._left = self._bodies

    def positions(self) -> np.ndarray:
        """Of the markers that are left, in the world [m], (k, 3)."""
        wiped = self._arena.wiped_markers
        seen = tuple(map(id, wiped))
        if seen != self._seen:
            gone = set(seen)
            self._left = self._bodies[[id(marker) not in gone for marker in self._markers]]
            self._seen = seen
        return self._data.xpos[self._left]
