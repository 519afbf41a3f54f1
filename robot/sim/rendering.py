"""Pictures of the world by MuJoCo's own renderer, without a window and without a say at import.

MuJoCo picks its OpenGL library when it is first imported, and fails later if that was the wrong one. Here the choice is
made when the first picture is asked for: MUJOCO_GL if it is set, else the first library that this machine has: EGL
(on the GPU that MUJOCO_EGL_DEVICE_ID counts to where there are several, in software where there is none), OSMesa, GLFW.

A `Renderer` draws every camera of one world from one OpenGL context, in the thread that asks for the first picture.
Worker processes each open their own. A process that was forked after its parent had drawn cannot: OpenGL's libraries do
not survive that, they hang; here it gets an error instead.
"""

import atexit
import ctypes
import importlib
import os
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robot.errors import ConfigError, RenderingError, unknown_name
from robot.sim.camera_config import LARGEST_PICTURE, QUALITIES, PlacedCamera
from robot.sim.cameras import Cameras
from robot.sim.decimation import COLLISION_GROUP, decimated

LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
"""MuJoCo's name of a backend that needs no display, and the library that it loads; best first."""

FIX = "sudo apt-get install -y libegl1 libgl1-mesa-dri libosmesa6"

MAX_GEOMS = 10_000
"""Shapes in a scene; robosuite's own limit."""

NOTHING = -1
"""Segmentation where there is no geom."""


@dataclass(frozen=True)
class Measured:
    """What is where in a picture; row 0 on top.

    Attributes:
        depth: Distance along the optical axis [m], (H, W), float32. Where there is nothing, that of the far clipping
            plane (`Renderer.far_m`).
        segmentation: The geom in each pixel, as a number in MjModel, or `NOTHING`, (H, W), int32.
    """

    depth: np.ndarray
    segmentation: np.ndarray


class Renderer:
    """Draws the cameras of one world.

    Colours, lights, cameras and where things are come from the model and data at every picture. Meshes and textures lie
    in the OpenGL context: after a change of textures call `refresh`.

    Attributes:
        cameras: The cameras by name.
    """

    def __init__(self, model: Any, data: Any, placed: Sequence[PlacedCamera] = (), quality: str = QUALITIES[0]) -> None:
        """Prepare; OpenGL is not touched before the first picture.

        Args:
            model: MjModel.
            data: MjData, whose state is drawn.
            placed: Cameras besides the model's.
            quality: `robosuite`: equal to robosuite's pixels. `fast`: without shadows, reflections and smoothed edges,
                meshes simplified (see `robot.sim.decimation`).

        Raises:
            UnknownNameError: There is no such quality, or no body that a camera is attached to.
            ConfigError: Two cameras have one name.
        """
        if quality not in QUALITIES:
            raise unknown_name("render quality", quality, QUALITIES)
        self.cameras = Cameras(model, data, placed)
        self._model, self._data, self._is_fast = model, data, quality == "fast"
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        if self._is_fast:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option, self._option_without_sites = mujoco.MjvOption(), mujoco.MjvOption()
        for option in (self._option, self._option_without_sites):
            # The shapes that collide hide the ones that are meant to be seen.
            option.geomgroup[COLLISION_GROUP] = 0
        self._option_without_sites.sitegroup[:] = 0
        self._context: _Context | None = None

    def draw(self, camera: str, height: int, width: int) -> np.ndarray:
        """What a camera sees now: RGB, uint8, (height, width, 3), row 0 on top.

        Raises:
            UnknownNameError: There is no such camera.
            ConfigError: There are no pictures of that size.
            RenderingError: There is no OpenGL library that MuJoCo can render with.
        """
        context = self._fitting(camera, height, width)
        self._look(camera, self._option)
        return context.render(self._scene, height, width)[0]

    def measure(self, camera: str, height: int, width: int) -> Measured:
        """What is where in the picture that `draw` gives. Sites (marks without a body) do not count.

        Raises:
            UnknownNameError: There is no such camera.
            ConfigError: There are no pictures of that size.
            RenderingError: There is no OpenGL library that MuJoCo can render with.
        """
        context, scene = self._fitting(camera, height, width), self._scene
        self._look(camera, self._option_without_sites)
        flags = scene.flags.copy()
        # Numbers for colours; and no sky, which would have a depth.
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        try:
            colours, raw = context.render(scene, height, width)
        finally:
            scene.flags[:] = flags
        return Measured(self._metric(raw), self._geoms(colours))

    @property
    def n_geoms(self) -> int:
        """Geoms of the model; segmentations number them from 0."""
        return int(self._model.ngeom)

    @property
    def far_m(self) -> float:
        """Distance of the far clipping plane [m]."""
        return float(np.float32(self._model.vis.map.zfar * self._model.stat.extent))

    def refresh(self) -> None:
        """Take over what has become of the model's textures, and of its cameras and lights since the last step."""
        mujoco.mj_camlight(self._model, self._data)
        if self._context is not None and self._context.is_mine:
            self._context.upload_textures(self._model)

    def close(self) -> None:
        """Free the OpenGL context; the next picture opens another. May be called twice."""
        if self._context is not None:
            self._context.free()
            self._context = None

    def _fitting(self, camera: str, height: int, width: int) -> "_Context":
        """The context of this process, with room for a picture."""
        self.cameras.check(camera)
        if not (1 <= height <= LARGEST_PICTURE and 1 <= width <= LARGEST_PICTURE):
            raise ConfigError(f"A picture of {height} x {width} pixels; expected 1 to {LARGEST_PICTURE} each.")
        if self._context is None or not self._context.is_mine:
            self._context = _Context(self._model, self._is_fast)
        self._context.fit(height, width)
        return self._context

    def _look(self, camera: str, option: mujoco.MjvOption) -> None:
        everything = mujoco.mjtCatBit.mjCAT_ALL
        view = self.cameras.view(camera)
        mujoco.mjv_updateScene(self._model, self._data, option, None, view, everything, self._scene)
        self.cameras.aim(camera, self._scene)

    def _metric(self, raw: np.ndarray) -> np.ndarray:
        """Metres from a depth buffer that is 1 at the near clipping plane and 0 at the far one."""
        near, far = np.float32(self._model.vis.map.znear * self._model.stat.extent), self.far_m
        # Float64: next to the far plane little is left of float32's digits.
        return (near * far / (near + raw.astype(np.float64) * (far - near))).astype(np.float32)

    def _geoms(self, colours: np.ndarray) -> np.ndarray:
        """Numbers of geoms from the colours that stand for what is in the scene."""
        scene = self._scene
        ids = np.full(scene.ngeom + 1, NOTHING, np.int32)
        for geom in scene.geoms[: scene.ngeom]:
            if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                ids[geom.segid + 1] = geom.objid
        numbers = colours.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        return ids[np.where(numbers > scene.ngeom, 0, numbers)]


class _Context:
    """An OpenGL context that holds the meshes and textures of a model. Belongs to the process that made it."""

    def __init__(self, model: Any, is_fast: bool) -> None:
        self._process = os.getpid()
        self._sums = _sums(model)
        shown = _light(model) if is_fast else model
        self._gl = _open_context(64, 64)
        self._gl.make_current()
        try:
            self._mjr = mujoco.MjrContext(shown, mujoco.mjtFontScale.mjFONTSCALE_100)
        except mujoco.FatalError as error:
            self._gl.free()
            raise RenderingError(_sentence(error)) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
        self._mjr.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        # Left to themselves MuJoCo's objects go one by one, with OpenGL's objects in whichever context is current then.
        self._free = weakref.finalize(self, _release, self._gl, self._mjr, self._process)
        self._free.atexit = False
        _open.add(self)

    @property
    def is_mine(self) -> bool:
        """Whether this process made it."""
        return self._process == os.getpid()

    def fit(self, height: int, width: int) -> None:
        """Make room for pictures of that size."""
        self._gl.make_current()
        if height > self._mjr.offHeight or width > self._mjr.offWidth:
            mujoco.mjr_resizeOffscreen(max(width, self._mjr.offWidth), max(height, self._mjr.offHeight), self._mjr)

    def render(self, scene: mujoco.MjvScene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Colours (height, width, 3) and the depth buffer (height, width); upright."""
        rect = mujoco.MjrRect(0, 0, width, height)
        colours, raw = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.float32)
        mujoco.mjr_render(rect, scene, self._mjr)
        mujoco.mjr_readPixels(colours, raw if scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] else None, rect, self._mjr)
        return colours[::-1].copy(), raw[::-1]

    def upload_textures(self, model: Any) -> None:
        """Put the textures of the model that have changed since into the context."""
        self._gl.make_current()
        sums = _sums(model)
        for texture, (old, new) in enumerate(zip(self._sums, sums, strict=True)):
            if old != new:
                mujoco.mjr_uploadTexture(model, self._mjr, texture)
        self._sums = sums

    def free(self) -> None:
        """Free it, unless it is another process's. Happens by itself when nobody holds it any more."""
        _open.discard(self)
        self._free()


_open: "weakref.WeakSet[_Context]" = weakref.WeakSet()
_inherited: list[tuple[Any, Any]] = []
"""Contexts of a parent process: kept, because to delete them would call OpenGL."""
_drew: set[int] = set()
"""Processes, this one or a parent, that have opened contexts."""


def _release(gl: Any, mjr: Any, process: int) -> None:
    if process != os.getpid():
        _inherited.append((mjr, gl))
        return
    gl.make_current()
    mjr.free()
    gl.free()


def _free_all() -> None:
    """Free contexts while OpenGL is still there; MuJoCo shuts EGL down when the interpreter exits."""
    for context in list(_open):
        context.free()


def _light(model: Any) -> Any:
    """The model without what `fast` leaves out: faces, smoothed edges, and room for shadows."""
    light = decimated(model)
    quality = light.vis.quality
    quality.offsamples = quality.shadowsize = 0
    # Half of MuJoCo's own faces on spheres, cylinders and boxes: a quarter of the time, a thousandth of the pixels.
    quality.numslices, quality.numstacks, quality.numquads = 16, 8, 2
    return light


def _sums(model: Any) -> list[int]:
    """A checksum of each texture."""
    sizes = model.tex_height * model.tex_width * model.tex_nchannel
    return [zlib.crc32(model.tex_data[at : at + size]) for at, size in zip(model.tex_adr, sizes.tolist(), strict=True)]


def _open_context(width: int, height: int) -> Any:
    if _drew - {os.getpid()}:
        raise RenderingError(
            "OpenGL cannot be used in a process that was forked after its parent had drawn a picture; start it "
            'with multiprocessing.get_context("spawn").'
        )
    backend = os.environ.get("MUJOCO_GL", "").strip().lower() or _present()
    try:
        context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
    # The backends raise what they like: ImportError, AttributeError from PyOpenGL, RuntimeError, EGLError.
    except Exception as error:
        raise RenderingError(_sentence(error)) from error
    _drew.add(os.getpid())
    # What was registered last is called first: before MuJoCo shuts EGL down.
    atexit.unregister(_free_all)
    atexit.register(_free_all)
    return context


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
