import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.errors import ConfigError, UnknownNameError
from robot.sim.cameras import intrinsics, look_at, project
from robot.sim.point_cloud import cropped, farthest, sampled, unprojected

HEIGHT, WIDTH = 40, 60
EYE, TARGET = np.array([1.0, 0.5, 2.0]), np.array([0.0, 0.0, 0.5])


def plane_depth(K: np.ndarray, T: np.ndarray, level: float) -> np.ndarray:
    """Depth of the plane z = level, by intersecting every pixel's ray with it."""
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([(column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1], np.ones_like(row)], -1) @ T[:3, :3].T
    return np.asarray((level - T[2, 3]) / rays[..., 2], np.float32)


def test_a_plane_comes_back_as_itself_with_its_colours() -> None:
    K, T = intrinsics(50.0, HEIGHT, WIDTH), look_at(EYE, TARGET)
    depth = plane_depth(K, T, 0.5)
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    points = unprojected(depth, K, T, rgb=rgb)
    assert points.shape == (HEIGHT * WIDTH, 6)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points[:, 2], 0.5, atol=1e-5)
    pixels, _ = project(points[:, :3].astype(float), K, T)
    np.testing.assert_allclose(pixels[:, 0].reshape(HEIGHT, WIDTH), np.tile(np.arange(WIDTH), (HEIGHT, 1)), atol=1e-3)
    np.testing.assert_array_equal(np.round(points[:, 3:] * 255).astype(np.uint8).reshape(rgb.shape), rgb)


def test_pixels_that_show_nothing_give_no_points() -> None:
    K, T = intrinsics(50.0, HEIGHT, WIDTH), look_at(EYE, TARGET)
    depth = np.full((HEIGHT, WIDTH), 1.0, np.float32)
    depth[0, :4] = 50.0, np.inf, np.nan, 0.0
    assert len(unprojected(depth, K, T, far_m=50.0)) == HEIGHT * WIDTH - 4


def test_the_crop_keeps_what_is_inside_and_its_border() -> None:
    points = np.array([[0, 0, 0, 9], [1, 1, 1, 9], [0.5, 0.5, 1.1, 9], [-0.1, 0, 0, 9]], np.float32)
    np.testing.assert_array_equal(cropped(points, [0, 0, 0, 1, 1, 1]), points[:2])
    np.testing.assert_array_equal(cropped(points, []), points)


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["farthest", "random"]), st.integers(0, 5))
def test_samples_have_the_number_and_are_points_of_the_cloud(n: int, count: int, sampling: str, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    kept = sampled(points, count, sampling, np.random.default_rng(seed))
    assert kept.shape == (count, 6)
    rows = {row.tobytes() for row in kept}
    assert rows <= {row.tobytes() for row in points}
    assert len(rows) == min(n, count)  # none twice while there are others
    np.testing.assert_array_equal(kept, sampled(points, count, sampling, np.random.default_rng(seed)))


def test_farthest_points_cover_a_line_evenly() -> None:
    line = np.zeros((101, 3), np.float32)
    line[:, 0] = np.arange(101)
    assert farthest(line, 5, 0).tolist()[:2] == [0, 100]
    assert sorted(farthest(line, 5, 0).tolist()) == [0, 25, 50, 75, 100]


def test_farthest_is_the_definition() -> None:
    """Each point is the one farthest from those before it, by brute force."""
    points = np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)
    chosen = farthest(points, 20, 7)
    for k in range(1, 20):
        distance = np.linalg.norm(points[:, None] - points[chosen[:k]], axis=2).min(axis=1)
        assert distance[chosen[k]] == pytest.approx(distance.max(), rel=1e-6)


def test_an_empty_cloud_and_a_wrong_name_are_errors() -> None:
    with pytest.raises(ConfigError, match="workspace_m"):
        sampled(np.empty((0, 3), np.float32), 8, "random", np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="farthest, random"):
        sampled(np.ones((5, 3), np.float32), 8, "fps", np.random.default_rng(0))
