"""Observations: poses in a base frame and positions of joints, from addresses of MjData."""

from collections.abc import Callable

import numpy as np

from robot.sim.compiled.calls import entry, floats, inner


@inner
def _pose(pos_at: int, mat_at: int, base_pos: np.ndarray, base_mat: np.ndarray, out: np.ndarray, at: int) -> None:
    """Position and 6-D rotation in a base frame, into out[at : at + 9]."""
    pos, mat = floats(pos_at, 3), floats(mat_at, 9)
    for i in range(3):
        x, first, second = 0.0, 0.0, 0.0
        for k in range(3):
            share = base_mat[3 * k + i]
            x += share * (pos[k] - base_pos[k])
            first += share * mat[3 * k]
            second += share * mat[3 * k + 1]
        out[at + i], out[at + 3 + i], out[at + 6 + i] = x, first, second


def _make_observe_arms(version: int) -> Callable[..., None]:
    def observe_arms(
        arms: np.ndarray, joints: np.ndarray, counts: np.ndarray, qpos: np.ndarray, out: np.ndarray
    ) -> None:
        """Tool pose and joint positions of each arm.

        Args:
            arms: (A, 4) addresses of tool position and rotation, base position and rotation.
            joints: indices in qpos, one arm's after the other's.
            counts: (A,) how many of them are each arm's.
            qpos: (nq,).
            out: Filled.
        """
        if version < 0:
            return
        at = first = 0
        for a in range(len(arms)):
            _pose(arms[a, 0], arms[a, 1], floats(arms[a, 2], 3), floats(arms[a, 3], 9), out, at)
            for j in range(counts[a]):
                out[at + 9 + j] = qpos[joints[first + j]]
            at += 9 + counts[a]
            first += counts[a]

    return observe_arms


def _make_observe_world(version: int) -> Callable[..., None]:
    def observe_world(
        arms: np.ndarray, objects: np.ndarray, joints: np.ndarray, qpos: np.ndarray, out: np.ndarray
    ) -> None:
        """Pose of each object in the first arm's base frame, what it is away from each arm's tool in the frame of that
        arm's base, and positions of joints.

        Args:
            arms: See `observe_arms`.
            objects: (K, 2) addresses of position and rotation.
            joints: Indices in qpos.
            qpos: (nq,).
            out: Filled.
        """
        if version < 0:
            return
        at = 0
        base_pos, base_mat = floats(arms[0, 2], 3), floats(arms[0, 3], 9)
        for k in range(len(objects)):
            _pose(objects[k, 0], objects[k, 1], base_pos, base_mat, out, at)
            at += 9
            pos = floats(objects[k, 0], 3)
            for a in range(len(arms)):
                tool, mat = floats(arms[a, 0], 3), floats(arms[a, 3], 9)
                for i in range(3):
                    out[at + i] = 0.0
                    for r in range(3):
                        out[at + i] += mat[3 * r + i] * (pos[r] - tool[r])
                at += 3
        for j in range(len(joints)):
            out[at + j] = qpos[joints[j]]

    return observe_world


observe_arms = entry(_make_observe_arms)
observe_world = entry(_make_observe_world)
