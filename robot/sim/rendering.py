"""Pictures of the world by MuJoCo's own renderer, without a window and without a say at import.

MuJoCo picks its OpenGL library when it is first imported, and fails later if that was the wrong one. Here the choice is
made when the first picture is asked for: MUJOCO_GL if it is set, else the first library that this machine has.
"""

import ctypes
import importlib
import os
from typing import Any

import mujoco
import numpy as np

from robot.errors import RenderingError

LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
"""MuJoCo's name of a backend that needs no display, and the library that it loads; best first."""

FIX = "sudo apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"


class Camera:
    """A camera beside the table that sees arm and objects.

    Shadows and reflections are off: in software they cost more than all else.
    """

    LOOK_AT_M, DISTANCE_M, AZIMUTH_DEG, ELEVATION_DEG = (-0.15, 0.0, 0.98), 1.25, 145.0, -22.0

    def __init__(self, model: Any, data: Any, height: int = 256, width: int = 256) -> None:
        """Open an OpenGL context.

        Raises:
            RenderingError: There is no OpenGL library that MuJoCo can render with.
        """
        self._model, self._data = model, data
        self._pixels = np.empty((height, width, 3), np.uint8)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._gl = _open_context(width, height)
        self._gl.make_current()
        try:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except mujoco.FatalError as error:
            self._gl.free()
            raise RenderingError(_sentence(error)) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._view = mujoco.MjvCamera()
        self._view.lookat[:] = self.LOOK_AT_M
        self._view.distance = self.DISTANCE_M
        self._view.azimuth, self._view.elevation = self.AZIMUTH_DEG, self.ELEVATION_DEG
        self._option = mujoco.MjvOption()
        # robosuite's group 0 holds the shapes that collide; they hide the ones that are meant to be seen.
        self._option.geomgroup[0] = 0
        self._option.sitegroup[:] = 0

    def picture(self) -> np.ndarray:
        """RGB, uint8, (height, width, 3), row 0 on top."""
        self._gl.make_current()
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._view, everything, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()

    def close(self) -> None:
        """Free the context."""
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _open_context(width: int, height: int) -> Any:
    backend = os.environ.get("MUJOCO_GL", "").strip().lower() or _present()
    try:
        return importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
    # The backends raise what they like: ImportError, AttributeError from PyOpenGL, RuntimeError, EGLError.
    except Exception as error:
        raise RenderingError(_sentence(error)) from error


def _present() -> str:
    for backend, library in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return backend
    if os.environ.get("DISPLAY"):
        return "glfw"
    raise RenderingError(f"MuJoCo finds no OpenGL library to render with. Install one: `{FIX}`.")


def _sentence(error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"MuJoCo cannot render with the OpenGL it finds ({reason}). Install a library that works: `{FIX}`."
