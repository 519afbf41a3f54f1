"""Pictures of the world, by MuJoCo's own renderer without a window."""

import os
from typing import Any

import mujoco
import numpy as np

from robot.errors import RenderingError

FIX = "sudo apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"


class Camera:
    """One camera of a world. Shadows and reflections are off: in software they cost more than all else."""

    def __init__(self, model: Any, data: Any, camera: str = "frontview", height: int = 256, width: int = 256) -> None:
        """Open an OpenGL context.

        Raises:
            RenderingError: There is no OpenGL library that MuJoCo can render with.
        """
        self._data, self._camera = data, camera
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:  # what is raised depends on the backend: ImportError, GLError, FatalError, ...
            raise RenderingError(no_backend(error)) from error
        if not self._renderer._gl_context:
            raise RenderingError(no_backend(None))
        # Geometries for collision (group 0) hide the visual ones; robosuite hides them as well.
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0
        self._option.sitegroup[:] = 0
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def picture(self) -> np.ndarray:
        """RGB, uint8, (height, width, 3), row 0 on top."""
        self._renderer.update_scene(self._data, self._camera, self._option)
        return self._renderer.render()

    def close(self) -> None:
        """Free the context."""
        self._renderer.close()


def no_backend(error: BaseException | None) -> str:
    """One sentence on what is missing and one command that mends it."""
    tried = os.environ.get("MUJOCO_GL") or "no library found"
    reason = f": {type(error).__name__}: {str(error).strip().splitlines()[0]}" if error and str(error).strip() else ""
    return f"MuJoCo found no OpenGL to render with (MUJOCO_GL: {tried}{reason}). Install one: `{FIX}`."
