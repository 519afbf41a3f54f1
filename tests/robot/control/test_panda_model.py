import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot.control.action_spaces import matrix_from_rot6d, rot6d_from_matrix
from tests.robot.control.test_kinematics import HOME, MUJOCO, PANDA, WITHOUT_TABLE, configuration, pose, seeds, solve

DH = [(0.0, 0.333, 0.0), (0.0, 0.0, -1), (0.0, 0.316, 1), (0.0825, 0.0, 1), (-0.0825, 0.384, -1), (0.0, 0.0, 1)]
"""Franka's published a, d and the quarter turns of alpha, Craig's convention; the seventh below."""


@settings(deadline=None)
@given(seeds)
def test_tool_is_where_the_published_parameters_put_it(seed: int) -> None:
    q = configuration(seed)

    def link(a: float, d: float, turns: int, angle: float) -> np.ndarray:
        """Craig: turn by alpha about x, go a along x, turn by the joint's angle about z, go d along z."""
        first, second = np.eye(4), np.eye(4)
        first[:3, :3], first[0, 3] = Rotation.from_euler("x", 90 * turns, degrees=True).as_matrix(), a
        second[:3, :3], second[2, 3] = Rotation.from_euler("z", angle).as_matrix(), d
        return first @ second

    T = np.eye(4)
    for (a, d, turns), angle in zip([*DH, (0.088, 0.0, 1)], q, strict=True):
        T = T @ link(a, d, turns, angle)
    T = T @ link(0.0, 0.107, 0, -np.pi / 4) @ link(0.0, 0.1034, 0, 0.0)
    pos, rot6d = pose(PANDA, q)
    np.testing.assert_allclose(pos, T[:3, 3], atol=1e-12)
    np.testing.assert_allclose(rot6d, rot6d_from_matrix(T[:3, :3]), atol=1e-12)


def test_tool_is_where_the_fr3s_description_puts_it() -> None:
    pinocchio, franky_sim = pytest.importorskip("pinocchio"), pytest.importorskip("franky_sim")
    path = Path(franky_sim.__path__[0]) / "assets" / "fr3.urdf"
    model = pinocchio.buildModelFromUrdf(str(path))
    data, tcp = model.createData(), model.getFrameId("fr3_hand_tcp")
    for seed in range(50):
        q = configuration(seed)
        pinocchio.framesForwardKinematics(model, data, np.concatenate([q, np.zeros(model.nq - 7)]))
        pos, rot6d = pose(PANDA, q)
        np.testing.assert_allclose(pos, data.oMf[tcp].translation, atol=1e-9)
        np.testing.assert_allclose(rot6d, rot6d_from_matrix(data.oMf[tcp].rotation), atol=1e-9)


def robosuite_assets() -> Path:
    return Path(pytest.importorskip("robosuite").__path__[0]) / "models" / "assets"


def test_every_link_is_where_robosuites_panda_has_it() -> None:
    """Up to the flange; robosuite's hand is mounted 0.5 mm nearer and turned by 45.03 degrees: see the next test."""
    model = mujoco.MjModel.from_xml_path(str(robosuite_assets() / "robots" / "panda" / "robot.xml"))
    data, our_data = mujoco.MjData(model), mujoco.MjData(MUJOCO)
    for seed in range(20):
        data.qpos[:] = our_data.qpos[:] = configuration(seed)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_kinematics(MUJOCO, our_data)
        for i in range(8):
            np.testing.assert_allclose(our_data.body(f"link{i}").xpos, data.body(f"link{i}").xpos, atol=1e-6)
            np.testing.assert_allclose(our_data.body(f"link{i}").xmat, data.body(f"link{i}").xmat, atol=1e-6)
        np.testing.assert_allclose(pose(PANDA, our_data.qpos)[0], our_data.site("tool").xpos, atol=1e-12)


@pytest.mark.slow
def test_the_twins_tool_is_ours_6_9_mm_back_and_a_quarter_turn_round() -> None:
    """What robosuite's controller moves, and the twin reports, is its grip site."""
    from robot.sim import make
    from robot.sim.config import EnvConfig
    from robot.sim.observing import STATE

    env = make(EnvConfig(task="lift"))
    env.reset(seed=0)
    out = {key: np.zeros(spec.shape) for key, spec in env.specs.observation.items()}
    env.fill_observation(out)
    pos, rot6d = pose(PANDA, out[STATE][11:18])
    R = matrix_from_rot6d(rot6d)
    np.testing.assert_allclose(out[STATE][:3], pos + R @ [0.0, 0.0, -0.0069], atol=1e-6)
    turn = Rotation.from_matrix(R.T @ matrix_from_rot6d(out[STATE][3:9])).as_rotvec(degrees=True)
    np.testing.assert_allclose(turn, [0.0, 0.0, -90.028], atol=1e-3)
    env.close()


def test_the_pandas_clearance() -> None:
    assert PANDA.clearance(HOME) > 0.05
    folded = np.array([0.0, 1.7, 0.0, -3.0, 0.0, 0.5, 0.8])
    assert PANDA.clearance(folded) < 0
    back_to_the_forearm = HOME.copy()
    back_to_the_forearm[5] = 0.0
    assert PANDA.clearance(back_to_the_forearm) < 0
    assert set(PANDA.nearest) & {"link5a", "link5b", "link5c"}
    # Tool straight down, 5 cm above the table, then 5 mm: fingers reach 9.6 mm beyond the tool.
    down = np.concatenate([[0.5, 0.0, 0.05], [1.0, 0, 0, 0, -1.0, 0]])
    q = HOME
    for height in (0.05, 0.005):
        for _ in range(10):
            q, error_m, _ = solve(PANDA, q, np.array([0.5, 0.0, height]), down[3:])
        assert error_m < 1e-6
        assert min(PANDA.clearance(q), 0.03) == pytest.approx(min(height - 0.0096, 0.03), abs=1e-6)
    assert PANDA.nearest == ("fingertips", "table")


@settings(deadline=None)
@given(seeds, st.floats(1.5, 3.7))
def test_the_hand_may_turn_as_it_likes(seed: int, q6: float) -> None:
    """The wrist itself leaves 2.5 cm of clearance at least, unless it is folded back."""
    q = HOME.copy()
    q[5], q[6] = q6, configuration(seed)[6]
    assert WITHOUT_TABLE.clearance(q) > 0.025


@settings(deadline=None)
@given(seeds)
def test_links_that_are_not_compared_never_touch(seed: int) -> None:
    """The links with one between them, up to the forearm: their capsules are never nearer than 2.5 cm."""
    data = mujoco.MjData(MUJOCO)
    data.qpos[:] = configuration(seed)
    mujoco.mj_kinematics(MUJOCO, data)
    for first in range(1, 6):
        for a in np.flatnonzero(MUJOCO.geom_bodyid == first):
            for b in np.flatnonzero(MUJOCO.geom_bodyid == first + 2):
                assert mujoco.mj_geomDistance(MUJOCO, data, a, b, 1.0, None) > 0.025


def vertices(path: Path) -> np.ndarray:
    """Corners of a binary STL."""
    raw = path.read_bytes()
    triangles = np.frombuffer(raw[84:], np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("rest", "<u2")]))
    return np.unique(triangles["corners"].reshape(-1, 3).astype(np.float64), axis=0)


def finger_corners(urdf: Path) -> np.ndarray:
    """Corners of the boxes of both fingers in the hand's frame, closed and open."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T / 2
    root, out = ET.parse(urdf).getroot(), []
    for collision in root.findall("link[@name='fr3_leftfinger']/collision"):
        origin, box = collision.find("origin"), collision.find("geometry/box")
        assert origin is not None
        assert box is not None
        sizes, rpy, xyz = (np.array(text.split(), float) for text in (box.attrib["size"], *_of(origin)))
        out.append(Rotation.from_euler("xyz", rpy).apply(corners * sizes) + xyz)
    finger = np.concatenate(out)
    left = np.concatenate([finger + np.array([0, opening, 0.0584]) for opening in (0.0, 0.02, 0.04)])
    return np.concatenate([left, left * [-1, -1, 1]])


def _of(origin: ET.Element) -> tuple[str, str]:
    return origin.attrib["rpy"], origin.attrib["xyz"]


@pytest.mark.slow
@pytest.mark.parametrize("link", [*[f"link{i}" for i in range(8)], "hand", "fingers"])
def test_capsules_enclose_the_links_closely(link: str) -> None:
    """No corner of robosuite's or franky-sim's mesh is more than 5 mm outside; no capsule is 3.5 cm too fat."""
    assets, franky = robosuite_assets(), Path(pytest.importorskip("franky_sim").__path__[0]) / "assets"
    body = 9 if link in ("hand", "fingers") else int(link[-1]) + 1
    mine = [name.startswith("finger") == (link == "fingers") for name in PANDA._names] & (PANDA._owner == body)
    ends, radius = PANDA._ends[mine], PANDA._radius[mine]
    if link == "fingers":
        points = finger_corners(franky / "fr3.urdf")
    elif link == "hand":
        points = vertices(assets / "grippers" / "meshes" / "panda_gripper" / "hand.stl")
        points = np.concatenate([points, vertices(franky / "meshes" / "hand_coll.stl")])
    else:
        points = vertices(assets / "robots" / "panda" / "meshes" / f"{link}.stl")
        points = np.concatenate([points, vertices(franky / "meshes" / f"{link}_coll.stl")])

    def outside(points: np.ndarray) -> np.ndarray:
        along = ends[:, 1] - ends[:, 0]
        part = np.einsum("pcd,cd->pc", points[:, None] - ends[:, 0], along) / (along**2).sum(axis=1)
        nearest = ends[:, 0] + np.clip(part, 0, 1)[..., None] * along
        return (np.linalg.norm(points[:, None] - nearest, axis=2) - radius).min(axis=1)

    assert outside(points).max() < 0.005
    # How far the hull's support is beyond the mesh's, in every direction that is not the table's.
    directions = Rotation.random(500, random_state=0).apply([0.0, 0.0, 1.0])
    directions = directions[directions[:, 2] > -0.2] if link == "link0" else directions
    hull = ((ends @ directions.T).max(axis=1) + radius[:, None]).max(axis=0)
    assert (hull - (points @ directions.T).max(axis=0)).max() < 0.035
