"""Point clouds in the world's frame from depth pictures: unprojected, cropped, and thinned to a fixed number."""

from collections.abc import Sequence

import numba
import numpy as np

from robot.errors import ConfigError, unknown_name
from robot.sim.camera_config import SAMPLINGS
from robot.sim.cameras import unproject


def unprojected(
    depth: np.ndarray, K: np.ndarray, T_world_camera: np.ndarray, far_m: float = np.inf, rgb: np.ndarray | None = None
) -> np.ndarray:
    """The points that a camera sees.

    Args:
        depth: Along the optical axis [m], (H, W).
        K: Intrinsics of pictures of that size, (3, 3); see `robot.sim.cameras`.
        T_world_camera: Pose of the camera, (4, 4).
        far_m: From there on there is nothing: such pixels give no points, nor do those that are not finite.
        rgb: Colours, uint8, (H, W, 3).

    Returns:
        (N, 3) x, y, z [m], or (N, 6) with red, green, blue in [0, 1]; world frame, float32, in the pixels' order.
    """
    row, column = np.nonzero(np.isfinite(depth) & (depth > 0) & (depth < far_m * (1 - 1e-3)))
    pixels = np.column_stack([column, row]).astype(np.float64)
    points = unproject(pixels, depth[row, column].astype(np.float64), K, T_world_camera)
    if rgb is not None:
        points = np.concatenate([points, rgb[row, column] / 255.0], axis=1)
    return points.astype(np.float32)


def cropped(points: np.ndarray, workspace_m: Sequence[float]) -> np.ndarray:
    """The points (N, 3 or 6) inside a box: lowest x, y, z, highest x, y, z [m]. Without a box, all of them."""
    if not len(workspace_m):
        return points
    low, high = np.array(workspace_m[:3], np.float32), np.array(workspace_m[3:], np.float32)
    return points[((points[:, :3] >= low) & (points[:, :3] <= high)).all(axis=1)]


def sampled(points: np.ndarray, count: int, sampling: str, rng: np.random.Generator) -> np.ndarray:
    """A fixed number of points of a cloud.

    A cloud with fewer is given whole, and then drawn from again: a phantom at the origin would be seen as an object.

    Args:
        points: (N, 3 or 6); columns after the third are carried along.
        count: Number of points wanted.
        sampling: `farthest`: each the farthest from those before it, so that the shape is covered evenly. `random`.
        rng: Draws the points, or the first of the farthest.

    Returns:
        (count, 3 or 6).

    Raises:
        ConfigError: The cloud is empty.
        UnknownNameError: There is no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise unknown_name("sampling", sampling, SAMPLINGS)
    if len(points) == 0:
        raise ConfigError(
            "No camera sees a point inside the workspace, so there is no cloud; check env.cameras.workspace_m "
            "(world frame) and where the cameras look."
        )
    if len(points) <= count:
        chosen = np.concatenate([np.arange(len(points)), rng.integers(len(points), size=count - len(points))])
    elif sampling == "random":
        chosen = rng.choice(len(points), count, replace=False)
    else:
        positions = np.ascontiguousarray(points[:, :3], np.float32)
        chosen = farthest(positions, count, int(rng.integers(len(points))))
    return points[chosen]


@numba.njit(cache=True)
def farthest(points: np.ndarray, count: int, first: int) -> np.ndarray:
    """Indices (count,) of points (N, 3) by farthest point sampling from `first` (Eldar et al. 1997)."""
    chosen = np.empty(count, np.int64)
    nearest = np.full(len(points), np.inf, np.float32)
    at = first
    for k in range(count):
        chosen[k] = at
        x, y, z = points[at, 0], points[at, 1], points[at, 2]
        best = np.float32(-1.0)
        for i in range(len(points)):
            dx, dy, dz = points[i, 0] - x, points[i, 1] - y, points[i, 2] - z
            nearest[i] = min(nearest[i], dx * dx + dy * dy + dz * dz)
            if nearest[i] > best:
                best, at = nearest[i], i
    return chosen
