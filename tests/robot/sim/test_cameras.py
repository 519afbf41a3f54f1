from typing import Any

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.errors import ConfigError, UnknownNameError
from robot.sim.camera_config import CamerasConfig, PlacedCamera
from robot.sim.cameras import Cameras, intrinsics, look_at, pose_of, project, unproject

XML = """
<mujoco>
  <worldbody>
    <camera name="fixed" pos="1 2 3" xyaxes="0 1 0 0 0 1" fovy="60"/>
    <body name="arm" pos="0 0 1">
      <joint name="turn" axis="0 0 1"/>
      <geom size=".1"/>
      <camera name="hand" pos=".5 0 0" fovy="90"/>
    </body>
  </worldbody>
</mujoco>
"""
number = st.floats(-2.0, 2.0)
point = st.tuples(number, number, number).map(np.array)


@pytest.fixture(scope="module")
def world() -> tuple[Any, Any]:
    model = mujoco.MjModel.from_xml_string(XML)
    data = mujoco.MjData(model)
    data.qpos[0] = np.pi / 2
    mujoco.mj_forward(model, data)
    return model, data


def away(first: np.ndarray, second: np.ndarray) -> bool:
    return float(np.linalg.norm(first - second)) > 0.1


@given(point, point, point, st.floats(10.0, 120.0), st.integers(8, 600), st.integers(8, 600))
def test_project_and_unproject_undo_each_other(
    eye: np.ndarray, target: np.ndarray, seen: np.ndarray, fovy_deg: float, height: int, width: int
) -> None:
    if not away(eye, target):
        return
    K, T = intrinsics(fovy_deg, height, width), look_at(eye, target)
    pixels, depth = project(seen[None], K, T)
    if depth[0] < 0.05:
        return
    np.testing.assert_allclose(unproject(pixels, depth, K, T)[0], seen, atol=1e-9)


@given(point, point)
def test_look_at_is_a_rotation_that_looks_there_upright(eye: np.ndarray, target: np.ndarray) -> None:
    if not away(eye, target):
        return
    T = look_at(eye, target)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(T[:3, 3] + T[:3, 2] * np.linalg.norm(target - eye), target, atol=1e-9)
    assert T[2, 0] == pytest.approx(0.0, abs=1e-9)  # the picture's rows are level
    assert T[2, 1] <= 1e-9  # and its y axis points down


def test_intrinsics_put_the_field_of_view_at_the_pictures_edges() -> None:
    K = intrinsics(60.0, 100, 200)
    top = np.array([0.0, -np.tan(np.radians(30)), 1.0])
    pixel = K @ top
    assert pixel[1] == pytest.approx(-0.5)  # the upper edge of row 0
    assert pixel[0] == pytest.approx(99.5)  # between the two columns in the middle
    assert K[0, 0] == K[1, 1]


def test_the_models_cameras_are_where_its_xml_says(world: tuple[Any, Any]) -> None:
    cameras = Cameras(*world)
    T = cameras.extrinsics("fixed")
    np.testing.assert_allclose(T[:3, 3], [1, 2, 3])
    # xyaxes: x right is the world's y, y up is the world's z; so it looks along -x, and down is -z.
    np.testing.assert_allclose(T[:3, :3], np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]).T, atol=1e-9)
    assert cameras.intrinsics("fixed", 100, 100)[0, 0] == pytest.approx(50 / np.tan(np.radians(30)))
    np.testing.assert_allclose(cameras.extrinsics("hand")[:3, 3], [0, 0.5, 1], atol=1e-9)


def test_a_placed_camera_rides_on_its_body(world: tuple[Any, Any]) -> None:
    ride = PlacedCamera(name="ride", position_m=[0.5, 0, 0], look_at_m=[1.5, 0, 0], body="arm", fovy_deg=30)
    turned = PlacedCamera(name="turned", position_m=[0, 0, 2], quat_wxyz=[0, 2, 0, 0])
    cameras = Cameras(*world, [ride, turned])
    T = cameras.extrinsics("ride")
    np.testing.assert_allclose(T[:3, 3], [0, 0.5, 1], atol=1e-9)
    np.testing.assert_allclose(T[:3, 2], [0, 1, 0], atol=1e-9)
    # Half a turn about x: looks down, with the world's x to the right.
    np.testing.assert_allclose(cameras.extrinsics("turned")[:3, :3], np.diag([1, -1, -1]), atol=1e-9)
    assert cameras.intrinsics("ride", 64, 64)[0, 0] == pytest.approx(32 / np.tan(np.radians(15)))
    assert cameras.names == ["fixed", "hand", "ride", "turned"]


@given(point)
def test_straight_down_has_a_pose_too(eye: np.ndarray) -> None:
    below = PlacedCamera(name="a", position_m=[*eye], look_at_m=[eye[0], eye[1], eye[2] - 1])
    T = pose_of(below)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(T[:3, 2], [0, 0, -1], atol=1e-9)


def test_wrong_names_are_named(world: tuple[Any, Any]) -> None:
    with pytest.raises(UnknownNameError, match=r"camera 'hnad'.*'hand'.*fixed, hand"):
        Cameras(*world).extrinsics("hnad")
    with pytest.raises(UnknownNameError, match=r"body 'amr'.*'arm'"):
        Cameras(*world, [PlacedCamera(name="a", position_m=[0, 0, 0], look_at_m=[1, 0, 0], body="amr")])
    with pytest.raises(ConfigError, match="already is a camera named 'hand'"):
        Cameras(*world, [PlacedCamera(name="hand", position_m=[0, 0, 0], look_at_m=[1, 0, 0])])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either look_at_m or quat_wxyz, got none"),
        ({"look_at_m": [1, 0, 0], "quat_wxyz": [1, 0, 0, 0]}, "got both"),
        ({"look_at_m": [1, 0]}, r"look_at_m is \[1, 0\], expected 3"),
        ({"look_at_m": [float("nan"), 0, 0]}, "expected 3 finite"),
        ({"look_at_m": [0, 0, 0]}, "looks nowhere"),
        ({"quat_wxyz": [0, 0, 0, 0]}, "looks nowhere"),
        ({"look_at_m": [1, 0, 0], "fovy_deg": 180}, "fovy_deg is 180"),
        ({"look_at_m": [1, 0, 0], "position_m": []}, "position_m"),
        ({"look_at_m": [1, 0, 0], "name": "a.b"}, "without a dot"),
    ],
)
def test_placed_cameras_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PlacedCamera(**{"name": "a", "position_m": [0, 0, 0], **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 0}, r"env\.cameras\.height is 0"),
        ({"width": 10_000}, "width"),
        ({"quality": "quick"}, "fast, robosuite"),
        ({"sampling": "furthest"}, "Did you mean 'farthest'"),
        ({"points": -1}, "points is -1"),
        ({"workspace_m": [0, 0, 0, 1, 1]}, "6 numbers"),
        ({"workspace_m": [0, 0, 2, 1, 1, 1]}, "6 numbers"),
        ({"names": ["agentview", "agentview"]}, "twice"),
        ({"names": ["agentview"], "rgb": False}, "nothing to see"),
    ],
)
def test_configurations_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CamerasConfig(**fields)
