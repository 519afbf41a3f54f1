import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
import pytest

from robot.errors import ConfigError, UnknownNameError
from robot.sim import make
from robot.sim.cameras import project, unproject
from robot.sim.config import EnvConfig
from robot.sim.rendering import NOTHING, Renderer
from robot.sim.tasks import task
from robot.sim.world import MODEL_SEED, import_robosuite, seeded

SIZE = 84


@pytest.fixture(scope="module")
def lift() -> Iterator[Any]:
    environment = make(EnvConfig(horizon=5))
    environment.reset(seed=0)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def renderers(lift: Any) -> Iterator[dict[str, Renderer]]:
    made = {quality: Renderer(lift.model, lift.data, quality=quality) for quality in ("fast", "robosuite")}
    yield made
    for renderer in made.values():
        renderer.close()


def put_cube(environment: Any, position: list[float], quat: list[float]) -> tuple[int, np.ndarray, np.ndarray]:
    """Move the cube of Lift: its visible geom, and its position and rotation in the world."""
    model, data = environment.model, environment.data
    joint = model.joint("cube_joint0").qposadr[0]
    data.qpos[joint : joint + 3] = position
    data.qpos[joint + 3 : joint + 7] = np.array(quat) / np.linalg.norm(quat)
    mujoco.mj_forward(model, data)
    geom = model.geom("cube_g0_vis").id
    return geom, data.geom_xpos[geom].copy(), data.geom_xmat[geom].reshape(3, 3).copy()


def seen_points(renderer: Renderer, camera: str, geom: int, size: int = 512) -> np.ndarray:
    """World coordinates of every pixel that shows a geom."""
    picture = renderer.measure(camera, size, size)
    row, column = np.nonzero(picture.segmentation == geom)
    K, T = renderer.cameras.intrinsics(camera, size, size), renderer.cameras.extrinsics(camera)
    return unproject(np.column_stack([column, row]).astype(float), picture.depth[row, column].astype(float), K, T)


@pytest.mark.gl
@pytest.mark.parametrize("camera", ["frontview", "agentview", "birdview", "sideview"])
def test_depth_unprojects_a_cubes_corner_and_faces(lift: Any, renderers: dict[str, Renderer], camera: str) -> None:
    geom, position, rotation = put_cube(lift, [0.02, 0.1, 1.05], [0.8, 0.3, 0.2, 0.4])
    half = lift.model.geom_size[geom]
    points = seen_points(renderers["fast"], camera, geom)
    assert len(points) > 100
    local = (points - position) @ rotation
    beyond = np.abs(local) - half
    # A point on the surface is on a face (one coordinate is the half size) and inside of it (none is greater).
    assert np.abs(beyond.max(axis=1)).max() < 1e-4
    face = np.argmax(beyond, axis=1) * 2 + (np.take_along_axis(local, np.argmax(beyond, axis=1)[:, None], 1)[:, 0] > 0)
    planes = []
    for number in np.unique(face):
        on_face = points[face == number]
        if len(on_face) < 30:
            continue
        centre = on_face.mean(axis=0)
        normal = np.linalg.svd(on_face - centre)[2][2]
        planes.append((number, normal, normal @ centre))
    if len(planes) == 3:  # the corner that is nearest to the camera, where three planes fitted to pixels meet
        corner = np.linalg.solve(np.array([normal for _, normal, _ in planes]), [offset for *_, offset in planes])
        signs = np.zeros(3)
        for number, *_ in planes:
            signs[number // 2] = 1.0 if number % 2 else -1.0
        assert np.linalg.norm(corner - (position + rotation @ (signs * half))) < 1e-4
    else:
        assert camera in ("birdview", "sideview")


@pytest.mark.gl
@pytest.mark.parametrize("quality", ["fast", "robosuite"])
def test_segmentation_is_where_the_pose_projects_to(lift: Any, renderers: dict[str, Renderer], quality: str) -> None:
    geom, position, rotation = put_cube(lift, [-0.05, -0.08, 1.0], [1.0, 0.1, -0.3, 0.5])
    renderer, size = renderers[quality], 256
    seen = renderer.measure("frontview", size, size).segmentation
    K, T = renderer.cameras.intrinsics("frontview", size, size), renderer.cameras.extrinsics("frontview")
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    corners, depth = project(position + (signs * lift.model.geom_size[geom]) @ rotation.T, K, T)
    assert (depth > 0).all()
    row, column = np.nonzero(seen == geom)
    for pixels, axis in ((column, 0), (row, 1)):
        assert abs(pixels.min() - corners[:, axis].min()) <= 1.0
        assert abs(pixels.max() - corners[:, axis].max()) <= 1.0
    # Edges are not blended into other numbers: whatever appears is shown, and belongs to the model.
    numbers = np.unique(seen)
    assert numbers.min() >= NOTHING
    assert set(lift.model.geom_group[numbers[numbers >= 0]].tolist()) == {1}


@pytest.mark.gl
@pytest.mark.parametrize(
    ("name", "cameras"),
    [
        ("lift", ["agentview", "robot0_eye_in_hand"]),
        pytest.param("pick_place_can", ["agentview", "birdview"], marks=pytest.mark.slow),
        pytest.param("door", ["frontview"], marks=pytest.mark.slow),
        pytest.param("tool_hang", ["sideview"], marks=pytest.mark.slow),
    ],
)
def test_robosuites_quality_is_equal_to_robosuites_pixels(name: str, cameras: list[str]) -> None:
    ours = make(EnvConfig(task=name))
    ours.reset(seed=3)
    with seeded(MODEL_SEED):
        theirs = import_robosuite().make(
            task(name).robosuite_name,
            robots="Panda",
            has_renderer=False,
            has_offscreen_renderer=True,
            use_camera_obs=False,
            hard_reset=False,
        )
        theirs.reset()
    model, data = theirs.sim.model._model, theirs.sim.data._data
    model.body_pos[:], model.body_quat[:] = ours.model.body_pos, ours.model.body_quat
    data.qpos[:] = ours.data.qpos
    theirs.sim.forward()
    renderer = Renderer(ours.model, ours.data, quality="robosuite")
    for camera in cameras:
        want = theirs.sim.render(camera_name=camera, height=SIZE, width=SIZE)[::-1]
        np.testing.assert_array_equal(renderer.draw(camera, SIZE, SIZE), want)
        assert want.std() > 10
    renderer.close()
    theirs.close()
    ours.close()


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.gl
@pytest.mark.parametrize("camera", ["frontview", "sideview", "robot0_eye_in_hand", "agentview"])
def test_fast_pictures_show_the_same_scene(lift: Any, renderers: dict[str, Renderer], camera: str) -> None:
    lift.reset(seed=1)
    fast, full = (renderers[q].measure(camera, 256, 256).segmentation for q in ("fast", "robosuite"))
    colours = [renderers[q].draw(camera, 256, 256).astype(int) for q in ("fast", "robosuite")]
    body = [lift.model.body(i).name for i in range(lift.model.nbody)]
    owner = np.array([body[i].split("_")[0] for i in lift.model.geom_bodyid] + [""])
    for name in ("robot0", "gripper0", "cube"):
        masks = [owner[seen] == name for seen in (fast, full)]
        if masks[1].sum() > 50:
            assert overlap(*masks) > 0.9, name
    same = fast == full
    assert same.mean() > 0.95
    assert np.abs(colours[0] - colours[1])[same].mean() < 8


@pytest.mark.gl
def test_pictures_follow_the_model(lift: Any, renderers: dict[str, Renderer]) -> None:
    """Colours and lights at once, placements at once, textures after a refresh; and nothing stays behind."""
    model, renderer = lift.model, renderers["fast"]
    lift.reset(seed=0)
    before = renderer.draw("agentview", SIZE, SIZE)
    kept = model.geom_rgba.copy(), model.light_diffuse.copy(), model.tex_data.copy(), model.cam_pos.copy()
    model.geom_rgba[model.geom("table_visual").id] = [0, 1, 0, 1]
    model.light_diffuse[:] *= 0.2
    dimmed = renderer.draw("agentview", SIZE, SIZE)
    assert dimmed.mean() < before.mean() - 10
    model.light_diffuse[:] = kept[1]
    model.geom_rgba[:] = kept[0]
    model.cam_pos[:, 2] += 0.2
    model.tex_data[:] = 255 - model.tex_data
    np.testing.assert_array_equal(renderer.draw("agentview", SIZE, SIZE), before)
    renderer.refresh()
    other = renderer.draw("agentview", SIZE, SIZE)
    assert np.abs(other.astype(int) - before).mean() > 5
    model.tex_data[:], model.cam_pos[:] = kept[2], kept[3]
    renderer.refresh()
    np.testing.assert_array_equal(renderer.draw("agentview", SIZE, SIZE), before)


@pytest.mark.gl
def test_one_context_draws_every_camera_and_size(lift: Any, renderers: dict[str, Renderer]) -> None:
    renderer = renderers["fast"]
    lift.reset(seed=0)
    small = {name: renderer.draw(name, 60, 90) for name in renderer.cameras.names}
    assert all(picture.shape == (60, 90, 3) for picture in small.values())
    assert renderer.draw("frontview", 700, 900).shape == (700, 900, 3)
    large = renderer.measure("frontview", 700, 900)
    assert large.depth.shape == large.segmentation.shape == (700, 900)
    assert (large.depth.dtype, large.segmentation.dtype) == (np.float32, np.int32)
    for name, picture in small.items():
        np.testing.assert_array_equal(renderer.draw(name, 60, 90), picture)
    assert len({picture.tobytes() for picture in small.values()}) == len(small)


@pytest.mark.gl
def test_nothing_is_as_far_as_the_far_plane(lift: Any, renderers: dict[str, Renderer]) -> None:
    lift.reset(seed=0)
    renderer = renderers["fast"]
    model = lift.model
    group = model.geom_group.copy()
    model.geom_group[:] = 0
    picture = renderer.measure("frontview", SIZE, SIZE)
    model.geom_group[:] = group
    np.testing.assert_allclose(picture.depth, renderer.far_m, rtol=1e-4)
    assert (picture.segmentation == NOTHING).all()


@pytest.mark.gl
def test_a_closed_renderer_opens_again(lift: Any) -> None:
    renderer = Renderer(lift.model, lift.data)
    renderer.close()
    first = renderer.draw("frontview", 32, 32)
    renderer.close()
    renderer.close()
    np.testing.assert_array_equal(renderer.draw("frontview", 32, 32), first)
    renderer.close()


def test_what_does_not_exist_is_named(lift: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"quality 'quick'.*fast, robosuite"):
        Renderer(lift.model, lift.data, quality="quick")
    renderer = Renderer(lift.model, lift.data)
    with pytest.raises(UnknownNameError, match=r"camera 'agentvew'.*'agentview'.*birdview"):
        renderer.draw("agentvew", SIZE, SIZE)
    for height, width in ((0, SIZE), (SIZE, 100_000)):
        with pytest.raises(ConfigError, match="pixels"):
            renderer.draw("agentview", height, width)


LEFT_OPEN = """
import mujoco, os, sys
from robot.errors import RenderingError
from robot.sim.rendering import Renderer
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><camera name='top' pos='0 0 2'/><geom size='.3'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderers = [Renderer(model, data, quality=quality) for quality in ("fast", "robosuite")]
for geom in range(model.ngeom):
    model.geom_group[geom] = 1
pictures = [renderer.draw("top", 48, 64).tobytes() for renderer in renderers]
assert max(pictures[0]) > 50
child = os.fork() if "fork" in sys.argv else 0
if "fork" in sys.argv and child == 0:
    for renderer in renderers:
        try:
            renderer.draw("top", 48, 64)
        except RenderingError as error:
            assert "spawn" in str(error)
            renderer.close()
        else:
            os._exit(1)
    os._exit(0)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert [renderer.draw("top", 48, 64).tobytes() for renderer in renderers] == pictures
print("drawn")
"""


@pytest.mark.gl
@pytest.mark.parametrize("backend", ["egl", "osmesa"])
@pytest.mark.parametrize("how", ["exit", "fork"])
def test_contexts_left_open_go_without_a_word(backend: str, how: str) -> None:
    """At the interpreter's exit, and at that of a forked child, which is told to be spawned."""
    environment = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    ended = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, how],
        env=environment | {"MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == ""
    assert ended.returncode == 0
    assert ended.stdout == "drawn\n"


FORGOTTEN = """
import gc, numpy as np
from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.rendering import Renderer
world = make(EnvConfig())
world.reset(seed=0)
forgotten, kept = Renderer(world.model, world.data), Renderer(world.model, world.data)
forgotten.draw("agentview", 32, 32)
picture = kept.draw("agentview", 32, 32)
forgotten.myself = forgotten  # so that the collector finds it rather than the last reference
del forgotten
gc.collect()
assert np.array_equal(kept.draw("agentview", 32, 32), picture)
"""


@pytest.mark.gl
@pytest.mark.parametrize("backend", ["egl", pytest.param("osmesa", marks=pytest.mark.slow)])
def test_a_forgotten_renderer_takes_nothing_from_the_others(backend: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYOPENGL_PLATFORM"}
    done = subprocess.run(
        [sys.executable, "-c", FORGOTTEN], env=environment | {"MUJOCO_GL": backend}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
