"""Where cameras stand and how they project.

Frames are OpenCV's: a camera looks along its z axis, x points right in the picture and y down. `T_world_camera` (4, 4)
takes points of the camera's frame into the world's [m]. (MuJoCo's own camera frames look along -z with y up, which is
half a turn about x away.) Pixels are OpenCV's too: the centre of the pixel in column u and row v is (u, v), row 0 is on
top, so the optical axis meets the picture at ((W - 1) / 2, (H - 1) / 2). Pixels are square.
"""

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from robot.errors import ConfigError, unknown_name
from robot.sim.camera_config import PlacedCamera

OVERVIEW = "overview"
"""Camera of `render()`: beside the table, sees arms and objects."""

HALF_TURN = np.diag([1.0, -1.0, -1.0])
"""From OpenCV's camera frame to MuJoCo's, and back."""


class Cameras:
    """The cameras of a world by name: those of its model, and those that a user placed."""

    def __init__(self, model: Any, data: Any, placed: Sequence[PlacedCamera] = ()) -> None:
        """Find the cameras.

        Raises:
            ConfigError: Two cameras have the same name.
            UnknownNameError: A camera is attached to a body that the model does not have.
        """
        self._model, self._data = model, data
        self._ids = {model.camera(i).name: i for i in range(model.ncam)}
        self._placed: dict[str, tuple[PlacedCamera, int, np.ndarray]] = {}
        for camera in placed:
            if camera.name in self.names:
                raise ConfigError(f"There already is a camera named {camera.name!r}; give the placed one another name.")
            self._placed[camera.name] = (camera, self._body(camera), pose_of(camera))

    @property
    def names(self) -> list[str]:
        """Every camera there is."""
        return [*self._ids, *self._placed]

    def check(self, name: str) -> None:
        """Raise `UnknownNameError` unless there is a camera of that name."""
        if name not in self._ids and name not in self._placed:
            raise unknown_name("camera", name, self.names)

    def intrinsics(self, name: str, height: int, width: int) -> np.ndarray:
        """The matrix K (3, 3) [pixels] of a camera's pictures of that size."""
        return intrinsics(self._fovy_deg(name), height, width)

    def extrinsics(self, name: str) -> np.ndarray:
        """`T_world_camera` (4, 4) as of the present state, or of the end of the last step's last substep but one."""
        self.check(name)
        if name in self._ids:
            at = self._ids[name]
            return _transform(self._data.cam_xmat[at].reshape(3, 3) @ HALF_TURN, self._data.cam_xpos[at])
        _, body, T_body_camera = self._placed[name]
        T_world_body = _transform(self._data.xmat[body].reshape(3, 3), self._data.xpos[body])
        return np.asarray(T_world_body @ T_body_camera)

    def view(self, name: str) -> mujoco.MjvCamera:
        """What MuJoCo is to draw a scene for; for a placed camera `aim` follows."""
        self.check(name)
        view = mujoco.MjvCamera()
        if name in self._ids:
            view.type = mujoco.mjtCamera.mjCAMERA_FIXED
            view.fixedcamid = self._ids[name]
        return view

    def aim(self, name: str, scene: mujoco.MjvScene) -> None:
        """Point a scene's camera to where a placed camera looks; does nothing for a camera of the model."""
        if name in self._ids:
            return
        T_world_camera = self.extrinsics(name)
        half = np.tan(np.radians(self._fovy_deg(name)) / 2)
        for eye in scene.camera:
            eye.pos[:] = T_world_camera[:3, 3]
            eye.forward[:] = T_world_camera[:3, 2]
            eye.up[:] = -T_world_camera[:3, 1]
            eye.frustum_center = eye.frustum_width = 0.0
            eye.frustum_top = eye.frustum_near * half
            eye.frustum_bottom = -eye.frustum_top

    def _fovy_deg(self, name: str) -> float:
        self.check(name)
        if name in self._ids:
            return float(self._model.cam_fovy[self._ids[name]])
        return self._placed[name][0].fovy_deg

    def _body(self, camera: PlacedCamera) -> int:
        names = [self._model.body(i).name for i in range(self._model.nbody)]
        if camera.body not in names:
            raise unknown_name("body", camera.body, names)
        return names.index(camera.body)


def overview(arms: int) -> PlacedCamera:
    """The camera of `render()`, for one arm or two."""
    if arms == 1:
        return PlacedCamera(name=OVERVIEW, position_m=[0.79938, -0.66476, 1.44826], look_at_m=[-0.15, 0.0, 0.98])
    return PlacedCamera(name=OVERVIEW, position_m=[1.75, -1.2, 1.9], look_at_m=[-0.1, 0.0, 0.95])


def pose_of(camera: PlacedCamera) -> np.ndarray:
    """`T_body_camera` (4, 4) of a placed camera."""
    position = np.array(camera.position_m, np.float64)
    if camera.look_at_m:
        return look_at(position, np.array(camera.look_at_m, np.float64))
    rotation = np.empty(9)
    quat = np.array(camera.quat_wxyz, np.float64)
    mujoco.mju_quat2Mat(rotation, quat / np.linalg.norm(quat))
    return _transform(rotation.reshape(3, 3), position)


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The pose (4, 4) of a camera at `position` (3,) that looks at `target` (3,), upright as to the frame's z axis."""
    forward = np.asarray(target, np.float64) - position
    forward /= np.linalg.norm(forward)
    up = np.array([0.0, 0.0, 1.0])
    if abs(forward[2]) > 1 - 1e-9:
        up = np.array([1.0, 0.0, 0.0])  # straight down or up: the frame's x axis is up in the picture
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return _transform(np.stack([right, np.cross(forward, right), forward], axis=1), position)


def intrinsics(fovy_deg: float, height: int, width: int) -> np.ndarray:
    """K (3, 3) of a pinhole camera with a vertical field of view [deg] and pictures of (height, width) pixels."""
    focal = 0.5 * height / np.tan(np.radians(fovy_deg) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def project(points: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the world appear.

    Args:
        points: (N, 3), world [m].
        K: (3, 3).
        T_world_camera: (4, 4).

    Returns:
        Pixels (N, 2) as column and row, and depths along the optical axis (N,) [m], negative behind the camera.
        Points beside it, at depth 0, have no pixel: inf or nan.
    """
    local = (points - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    depth = local[:, 2]
    pixels = local @ K.T
    with np.errstate(divide="ignore", invalid="ignore"):  # beside the camera there is no pixel
        return pixels[:, :2] / pixels[:, 2:], depth


def unproject(pixels: np.ndarray, depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
    """Points of the world (N, 3) [m] from pixels (N, 2), column and row, and depths along the optical axis (N,) [m]."""
    rays = np.column_stack([(pixels - K[:2, 2]) / K[[0, 1], [0, 1]], np.ones(len(pixels))])
    return np.asarray((rays * depth[:, None]) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3])


def _transform(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, position
    return T
