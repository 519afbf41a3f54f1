import copy
import logging
import multiprocessing
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from robot.sim import decimation
from robot.sim.decimation import cache_folder, decimated, simplify


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "armature" / "meshes"


def sphere(n: int = 40, half: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere, or the upper half of one, open below."""
    polar = np.linspace(0, np.pi / (2 if half else 1), n)
    angle = np.linspace(0, 2 * np.pi, 2 * n, endpoint=False)
    grid = np.stack(np.broadcast_arrays(polar[:, None], angle[None]), -1).reshape(-1, 2)
    vert = np.stack([np.sin(grid[:, 0]) * np.cos(grid[:, 1]), np.sin(grid[:, 0]) * np.sin(grid[:, 1])], -1)
    vert = np.column_stack([vert, np.cos(grid[:, 0])])
    faces = []
    for i in range(n - 1):
        for j in range(2 * n):
            a, b = i * 2 * n + j, i * 2 * n + (j + 1) % (2 * n)
            faces += [[a, a + 2 * n, b], [b, a + 2 * n, b + 2 * n]]
    return vert.astype(np.float32), np.array(faces, np.int32)


def test_a_sphere_stays_round_with_far_fewer_faces() -> None:
    vert, face = sphere()
    mesh = simplify(vert, face)
    assert mesh is not None
    assert len(mesh.face) < len(face) / 10
    radius = np.linalg.norm(mesh.vert, axis=1)
    assert 0.95 < radius.min() <= radius.max() < 1.05
    across = np.cross(*(mesh.vert[mesh.face[:, k]] - mesh.vert[mesh.face[:, 0]] for k in (1, 2)))
    assert ((across * mesh.vert[mesh.face].mean(axis=1)).sum(axis=1) > 0).all()  # and its outside out
    # Normals come from the original's corners that are nearest.
    original = vert[face.reshape(-1)[mesh.corner]]
    assert np.linalg.norm(original - mesh.vert[mesh.face], axis=-1).max() < 0.25


def test_an_open_border_stays_where_it_was() -> None:
    vert, face = sphere(half=True)
    mesh = simplify(vert, face)
    assert mesh is not None
    assert len(mesh.face) < len(face) / 4
    assert mesh.vert[:, 2].min() == pytest.approx(0.0, abs=0.03)
    rim = mesh.vert[mesh.vert[:, 2] < 0.03]
    assert np.ptp(rim[:, 0]) == pytest.approx(2.0, abs=0.1)


def test_small_meshes_and_those_that_lose_their_shape_stay() -> None:
    vert, face = sphere(5)
    assert simplify(vert, face) is None
    rng = np.random.default_rng(0)
    crumbs = rng.uniform(size=(600, 1, 3)) + rng.normal(scale=0.02, size=(600, 3, 3))  # nothing to merge
    assert simplify(crumbs.reshape(-1, 3).astype(np.float32), np.arange(1800, dtype=np.int32).reshape(-1, 3)) is None


def world() -> Any:
    """A model with a visible sphere, one that only collides, and a box."""
    vert, face = sphere()
    mesh = " ".join(map(str, vert.reshape(-1))), " ".join(map(str, face.reshape(-1)))
    assets = "".join(f'<mesh name="{name}" vertex="{mesh[0]}" face="{mesh[1]}"/>' for name in ("seen", "hard"))
    return mujoco.MjModel.from_xml_string(
        f"<mujoco><asset>{assets}</asset><worldbody><geom type='mesh' mesh='seen' group='1'/>"
        "<geom type='mesh' mesh='hard' group='0'/><geom size='.1 .1 .1' type='box'/></worldbody></mujoco>"
    )


def test_a_model_keeps_everything_but_faces_and_is_not_touched() -> None:
    model = world()
    before = copy.copy(model)
    light = decimated(model)
    seen, hard = model.mesh("seen").id, model.mesh("hard").id
    assert light.mesh_facenum[seen] < model.mesh_facenum[seen] / 10
    assert light.mesh_facenum[hard] == 0
    for name in ("mesh_vert", "mesh_face", "mesh_facenum", "mesh_facenormal", "mesh_graphadr"):
        np.testing.assert_array_equal(getattr(model, name), getattr(before, name))
    np.testing.assert_array_equal(light.geom_pos, model.geom_pos)
    at, n = light.mesh_faceadr[seen], light.mesh_facenum[seen]
    corners = light.mesh_vertadr[seen] + light.mesh_face[at : at + n]
    normals = light.mesh_normal[light.mesh_normaladr[seen] + light.mesh_facenormal[at : at + n]]
    inner = (normals * light.mesh_vert[corners]).sum(axis=-1) / np.linalg.norm(light.mesh_vert[corners], axis=-1)
    assert inner.min() > 0.9  # a unit sphere's normals are its points


def test_the_cache_is_used_and_keyed_by_content(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decimated(world())
    files = sorted(cache.iterdir())
    assert [file.suffix for file in files] == [".npz"]
    monkeypatch.setattr(decimation, "simplify", lambda *_: pytest.fail("simplified again"))
    second = decimated(world())
    np.testing.assert_array_equal(first.mesh_face, second.mesh_face)
    np.testing.assert_array_equal(first.mesh_vert, second.mesh_vert)
    changed = world()
    changed.mesh_vert[:] *= 1.5
    with pytest.raises(pytest.fail.Exception, match="simplified again"):
        decimated(changed)


@pytest.mark.parametrize("damage", [b"", b"no archive", "cut", "foreign"])
def test_a_damaged_file_is_made_again(cache: Path, damage: bytes | str, caplog: pytest.LogCaptureFixture) -> None:
    want = decimated(world())
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    if damage == "foreign":  # indices beyond the mesh would crash the renderer
        beyond = np.full((4, 3), 10**6, np.int32)
        with file.open("wb") as out:
            np.savez(out, vert=np.zeros((3, 3), np.float32), face=beyond, corner=beyond)
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else bytes(damage))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(decimated(world()).mesh_face, want.mesh_face)
    assert file.stat().st_size == len(whole)
    assert "made again" in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")  # a folder cannot be made below a file, not even by root
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    model = world()
    assert decimated(model).mesh_facenum[model.mesh("seen").id] < 500
    assert blocked.read_text() == ""


def _faces(_: int) -> list[int]:
    return decimated(world()).mesh_facenum.tolist()


def test_two_processes_may_fill_it_at_once(cache: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.map(_faces, range(2))
    assert first == second
    assert [file.suffix for file in cache.iterdir()] == [".npz"]  # nothing unfinished is left


def test_the_folder_follows_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == Path("/home/somebody/.cache/armature/meshes")
