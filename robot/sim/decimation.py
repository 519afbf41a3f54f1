"""Meshes with few faces for quick pictures: simplified once, then kept in a cache.

A robosuite arm has 170,000 faces, most of them far smaller than a pixel. A simplified mesh keeps its frame and takes
normals and texture coordinates from the original's nearest corners, so it stands in for the original inside a compiled
model: nothing else of the model changes.
"""

import contextlib
import copy
import hashlib
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pyfqmr
from scipy.spatial import cKDTree

logger = logging.getLogger(__name__)

VERSION = 1
"""Part of the cache's keys; a change of anything below that changes meshes raises it."""

SMALL = 150
"""Meshes of at most this many faces stay as they are."""

RATIOS = (0.02, 0.04, 0.08, 0.16, 0.32)
"""Shares of the faces to try, in order, until the surface stays where it was."""

MISSING, PROUD = 0.02, 0.03
"""Shares of the mesh's greatest extent: 95 % of the original's surface lies nearer to the simplified one than the
first, 99 % of the simplified surface nearer to the original than the second."""

LEAST_EXTENT_M = 0.1
"""Smaller meshes may lose as much as one of this extent [m]: screws and letters are far below a pixel."""

SAMPLES = 5000
COLLISION_GROUP = 0
"""robosuite's group of shapes that collide and are not shown."""

_told: list[Path] = []


@dataclass(frozen=True)
class Mesh:
    """A simplified mesh.

    Attributes:
        vert: Positions in the frame of the original [m], (V, 3), float32.
        face: Vertices of each face, (F, 3), int32.
        corner: Corner of the original, 0 to 3 x its faces, whose normal and texture each corner takes, (F, 3), int32.
    """

    vert: np.ndarray
    face: np.ndarray
    corner: np.ndarray


def cache_folder() -> Path:
    """Where simplified meshes are kept: `armature/meshes` in $XDG_CACHE_HOME, by default in `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path counts as none.
    base = Path(root) if os.path.isabs(root) else Path(os.path.expanduser("~/.cache"))
    return base / "armature" / "meshes"


def decimated(model: Any) -> Any:
    """A copy of an MjModel whose visible meshes have few faces, to make a rendering context from.

    Meshes that only collide lose their faces altogether, and convex hulls are gone. The copy is not for simulation.
    """
    light = copy.copy(model)
    light.mesh_graphadr[:] = -1
    is_shown = (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_group != COLLISION_GROUP)
    shown = set(model.geom_dataid[is_shown].tolist())
    for mesh in range(model.nmesh):
        if mesh in shown:
            _put(light, mesh, _simplified(*_surface(model, mesh)))
        else:
            light.mesh_facenum[mesh] = 0
    return light


def simplify(vert: np.ndarray, face: np.ndarray) -> Mesh | None:
    """The mesh with the fewest faces whose surface stays where it was, or None where none has less than half.

    Args:
        vert: Positions, (V, 3).
        face: Vertices of each face, (F, 3).
    """
    if len(face) <= SMALL:
        return None
    points, triangles = _welded(vert.astype(np.float64), face)
    extent = max(float(np.ptp(points, axis=0).max()), LEAST_EXTENT_M)
    least, fewest = 12, 0
    for ratio in RATIOS:
        new_points, new_triangles = _collapsed(points, triangles, max(int(ratio * len(triangles)), least))
        if len(new_triangles) <= fewest:
            continue  # it stopped above this target as above the last one
        fewest = len(new_triangles)
        if 2 * fewest >= len(face):
            return None
        if _is_near((points, triangles), (new_points, new_triangles), extent):
            corner = _nearest_corners(vert, face, new_points, new_triangles, extent)
            return Mesh(new_points.astype(np.float32), new_triangles.astype(np.int32), corner.astype(np.int32))
    return None


def _surface(model: Any, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and faces of a mesh of a model."""
    vert = slice(model.mesh_vertadr[mesh], model.mesh_vertadr[mesh] + model.mesh_vertnum[mesh])
    face = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    return model.mesh_vert[vert], model.mesh_face[face]


def _put(model: Any, mesh: int, simple: Mesh | None) -> None:
    """Replace a mesh in a model; the simplified one is smaller and lies in the same place."""
    if simple is None:
        return
    vert, face, old = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    new = len(simple.face)
    for indices in (model.mesh_facenormal, model.mesh_facetexcoord):
        indices[face : face + new] = indices[face : face + old].reshape(-1)[simple.corner]
    model.mesh_vert[vert : vert + len(simple.vert)] = simple.vert
    model.mesh_face[face : face + new] = simple.face
    model.mesh_vertnum[mesh], model.mesh_facenum[mesh] = len(simple.vert), new


def _simplified(vert: np.ndarray, face: np.ndarray) -> Mesh | None:
    """`simplify`, from the cache if it is there."""
    digest = hashlib.sha256(f"{VERSION} {vert.shape} {face.shape} ".encode())
    digest.update(vert.tobytes())
    digest.update(face.tobytes())
    path = cache_folder() / f"{digest.hexdigest()[:32]}.npz"
    known, mesh = _load(path, len(vert), len(face))
    if known:
        return mesh
    if len(face) <= SMALL:
        return None
    if not _told:
        _told.append(path)
        logger.warning("Simplifying meshes for quick pictures; this takes some seconds, once for each robot.")
    mesh = simplify(vert, face)
    _store(path, mesh)
    return mesh


def _load(path: Path, n_vert: int, n_face: int) -> tuple[bool, Mesh | None]:
    """Whether the cache knows a mesh, and the mesh. A damaged file counts as none and is written anew."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            vert, face, corner = stored["vert"], stored["face"], stored["corner"]
    except OSError:
        return False, None
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        logger.warning("%s is damaged (%s); it is made again.", path, error)
        return False, None
    if len(face) == 0:
        return True, None
    is_sound = (
        vert.shape[1:] == (3,)
        and face.shape == corner.shape == (len(face), 3)
        and len(vert) <= n_vert
        and len(face) <= n_face
        and 0 <= face.min() <= face.max() < len(vert)
        and 0 <= corner.min() <= corner.max() < 3 * n_face
    )
    if not is_sound:
        logger.warning("%s is damaged (it is of another mesh); it is made again.", path)
    return is_sound, Mesh(vert, face, corner) if is_sound else None


def _store(path: Path, mesh: Mesh | None) -> None:
    """Write beside and rename, so that other processes see a whole file or none. A cache that fails costs time only."""
    none = np.empty((0, 3), np.int32)
    vert, face, corner = (none, none, none) if mesh is None else (mesh.vert, mesh.face, mesh.corner)
    part = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            part = file.name
            np.savez(file, vert=vert, face=face, corner=corner)
        os.replace(part, path)
    except OSError as error:
        logger.info("Simplified meshes cannot be kept in %s (%s).", path.parent, error)
        with contextlib.suppress(OSError):
            os.unlink(part)


def _welded(vert: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that lie in one place made one, and faces that still have three."""
    grain = np.ptp(vert, axis=0).max() * 1e-4
    _, first, index = np.unique(
        np.round((vert - vert.min(axis=0)) / grain), axis=0, return_index=True, return_inverse=True
    )
    triangles = index.reshape(-1)[face]
    a, b, c = triangles.T
    return vert[first], triangles[(a != b) & (b != c) & (c != a)]


def _collapsed(points: np.ndarray, triangles: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges collapsed by quadric error, cheapest first: the library's threshold is made to grow slowly."""
    mesh = pyfqmr.Simplify()
    mesh.setMesh(*_walled(points, triangles))
    mesh.simplify_mesh(target_count=target, aggressiveness=3, max_iterations=200, preserve_border=False, verbose=False)
    new_points, new_triangles, _ = mesh.getMesh()
    new_triangles = np.asarray(new_triangles, np.int64).reshape(-1, 3)
    return np.asarray(new_points, np.float64), new_triangles[_areas(new_points, new_triangles) > 0]


def _walled(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with a triangle standing upright on every open edge.

    A vertex remembers the planes that met in it. Without a wall an open border may shrink inside its own plane for
    nothing; the wall's plane makes that cost what it moves. The walls themselves fall first: to collapse one is free.
    """
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    _, index, count = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    is_open = count[index.reshape(-1)] == 1
    normals = np.tile(_normals(points, triangles), (3, 1))[is_open]
    feet = edges[is_open]
    tops = points[feet].mean(axis=1) + 0.05 * np.ptp(points, axis=0).max() * normals
    walls = np.stack([feet[:, 1], feet[:, 0], len(points) + np.arange(len(feet))], axis=1)
    return np.concatenate([points, tops]), np.concatenate([triangles, walls])


def _is_near(old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray], extent: float) -> bool:
    """Whether hardly any of the old surface is missing and hardly any of the new one stands proud."""
    rng = np.random.default_rng(0)
    old_points, old_normals = _samples(*old, rng)
    new_points, new_normals = _samples(*new, rng)
    spacing = np.sqrt(_areas(*old).sum() / SAMPLES)
    missing = _distances(old_points, new_points, new_normals, spacing)
    proud = _distances(new_points, old_points, old_normals, spacing)
    return bool(np.percentile(missing, 95) < MISSING * extent and np.percentile(proud, 99) < PROUD * extent)


def _distances(points: np.ndarray, others: np.ndarray, normals: np.ndarray, spacing: float) -> np.ndarray:
    """From each point to a sampled surface: to the plane of the nearest sample, unless that is far away."""
    distance, at = cKDTree(others).query(points)
    planar = np.abs(((points - others[at]) * normals[at]).sum(axis=1))
    return np.where(distance < 2.5 * spacing, planar, distance)


def _samples(points: np.ndarray, triangles: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over a surface, and its normals there."""
    areas = _areas(points, triangles)
    chosen = rng.choice(len(triangles), SAMPLES, p=areas / areas.sum())
    share = rng.random((SAMPLES, 2))
    over = share.sum(axis=1) > 1
    share[over] = 1 - share[over]
    a, b, c = (points[triangles[chosen, k]] for k in range(3))
    return a + share[:, :1] * (b - a) + share[:, 1:] * (c - a), _normals(points, triangles)[chosen]


def _nearest_corners(
    vert: np.ndarray, face: np.ndarray, points: np.ndarray, triangles: np.ndarray, extent: float
) -> np.ndarray:
    """For each new corner the old one that is nearest in place and in the direction of its face, (F, 3)."""
    tree = cKDTree(_described(vert.astype(np.float64), face, extent))
    return np.asarray(tree.query(_described(points, triangles, extent))[1]).reshape(-1, 3)


def _described(points: np.ndarray, triangles: np.ndarray, extent: float) -> np.ndarray:
    """Place of every corner, a little inside its face so that seams are kept apart, and normal, (3 F, 6)."""
    corners = points[triangles]
    inside = 0.9 * corners + 0.1 * corners.mean(axis=1, keepdims=True)
    normals = np.repeat(_normals(points, triangles)[:, None], 3, axis=1)
    return np.concatenate([inside, 0.1 * extent * normals], axis=2).reshape(-1, 6)


def _normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    across = _cross(points, triangles)
    return np.asarray(across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-30))


def _areas(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(_cross(points, triangles), axis=1)) / 2


def _cross(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return np.cross(b - a, c - a)
