"""An arm by its model: where its tool is, which joints take it somewhere, and how near it is to itself and the table.

A model is MuJoCo's XML: a tree of hinges, a site named `tool`, and capsules that enclose the links. MuJoCo reads and
checks it; what a control loop asks in every cycle is compiled over arrays taken from it (`robot.control.arm_kernels`),
and allocates nothing that stays.
"""

import hashlib
from pathlib import Path
from typing import Any, Self

import numpy as np

from robot.control import arm_kernels
from robot.control.so3 import fill_from_rot6d
from robot.errors import ConfigError, SpecError

MODELS = Path(__file__).parent / "models"
"""Where the models are that come with Armature."""

TOOL = "tool"
POSTURE_GAIN = 1.0
"""How much of the way to its posture the arm's free motion goes, for each metre that its tool goes [1/m]."""
LONGEST_STEP_RAD = 0.2
"""No joint gets farther than this from where inverse kinematics begins, unless `ArmModel.longest_step_rad` says so."""


class ArmModel:
    """Kinematics and distances of one arm. The base frame is the model's world.

    Attributes:
        n: Number of joints.
        low: Lowest positions of the joints (n,) that inverse kinematics uses [rad].
        high: Highest.
        posture: Joints (n,) that inverse kinematics leans to where the tool leaves it free to; in mid-range at first.
        longest_step_rad: How far inverse kinematics takes a joint at most.
        model_hash: Of everything that decides what the model answers, the table apart.
    """

    def __init__(self, model: Any, table_z_m: float | None = None) -> None:
        """Take what is needed from a `mujoco.MjModel`. Raises `ConfigError`: see `load`."""
        _check(model)
        self.n = int(model.njnt)
        self.low, self.high = model.jnt_range[:, 0].copy(), model.jnt_range[:, 1].copy()
        self.posture = 0.5 * (self.low + self.high)
        self.longest_step_rad = LONGEST_STEP_RAD
        self._tree = _tree(model)
        self._owner, self._ends, self._radius = _capsules(model)
        self._names = [model.geom(i).name or f"geom {i}" for i in range(model.ngeom)]
        self._pairs = _pairs(model)
        moving = model.body_weldid[model.geom_bodyid] != 0
        self._over_table = np.flatnonzero(moving if table_z_m is not None else np.zeros(model.ngeom, bool))
        self._table_z_m = 0.0 if table_z_m is None else table_z_m
        arrays = (*self._tree, self.low, self.high, self._owner, self._ends, self._radius, self._pairs)
        self.model_hash = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
        bodies = len(self._tree[0])
        self._R, self._p, self._J = np.zeros((bodies, 3, 3)), np.zeros((bodies, 3)), np.zeros((6, self.n))
        self._placed = np.zeros_like(self._ends)
        self._q, self._start, self._aim = np.zeros(self.n), np.zeros(self.n), np.zeros(self.n)
        self._bounds = np.zeros(self.n), np.zeros(self.n)
        self._goal, self._goal_R, self._goal_p = np.zeros(6), np.zeros((3, 3)), np.zeros(3)
        self._nearest = -1
        self._compile()

    @classmethod
    def load(cls, path: Path | str, table_z_m: float | None = None) -> Self:
        """The arm that a file describes.

        Args:
            path: MuJoCo XML. A name without a folder, such as `panda.xml`, is looked for among Armature's own as well.
            table_z_m: Height of the table's surface, an endless plane, in the base frame; None without a table.

        Raises:
            ConfigError: The file is missing, is no model, or has something that is not a hinge or a capsule.
        """
        import mujoco

        found = Path(path) if Path(path).exists() else MODELS / path
        if not found.is_file():
            names = ", ".join(sorted(own.name for own in MODELS.glob("*.xml")))
            raise ConfigError(f"No model at {path}. Models that come with Armature: {names}.")
        try:
            model = mujoco.MjModel.from_xml_path(str(found))
        except ValueError as error:
            raise ConfigError(f"{found} is no model of an arm: {error}") from error
        return cls(model, table_z_m)

    def set_range(self, low: np.ndarray, high: np.ndarray) -> None:
        """Let inverse kinematics keep to this range (n,) [rad] instead of the model's. Raises `ConfigError`."""
        if np.shape(low) != (self.n,) or np.shape(high) != (self.n,) or not np.less(low, high).all():
            raise ConfigError(f"Range {list(low)} to {list(high)}, expected {self.n} numbers each, low below high.")
        self.low[:], self.high[:] = low, high
        np.clip(self.posture, self.low, self.high, out=self.posture)

    def pose(self, q: np.ndarray, pos: np.ndarray, rot6d: np.ndarray) -> None:
        """Fill position (3,) [m] and 6-D rotation (6,) of the tool in the base frame, for joints `q` (n,) [rad]."""
        self._forward(q)
        pos[:] = self._p[-1]
        rot6d[:3], rot6d[3:] = self._R[-1, :, 0], self._R[-1, :, 1]

    def jacobian(self, q: np.ndarray, out: np.ndarray) -> None:
        """Fill (6, n): velocity, then angular velocity of the tool in the base frame, by the joints' velocities."""
        self._forward(q)
        arm_kernels.fill_jacobian(self._tree, self._R, self._p, self._J)
        out[:] = self._J

    def solve(self, q_start: np.ndarray, pos: np.ndarray, rot6d: np.ndarray, q_out: np.ndarray) -> tuple[float, float]:
        """Fill joints (n,) that take the tool to a pose, near `q_start` (n,); distance and angle left [m, rad].

        Where the pose cannot be reached it goes as near as it gets, an angle of 1 rad counting as 0.3 m. No joint
        leaves its range, or moves farther than `longest_step_rad`. What the tool leaves free goes towards `posture`
        while the tool moves, and rests with it.

        Raises:
            SpecError: A number is not finite, or the rotation is none.
        """
        self._start[:], self._goal_p[:], self._goal[:], self._aim[:] = q_start, pos, rot6d, self.posture
        if not fill_from_rot6d(self._goal, self._goal_R):
            raise SpecError(f"The rotation {self._goal.tolist()} is none: no length, or not apart.")
        total = float(self._start.sum() + self._goal_p.sum())
        if not abs(total) < np.inf:
            raise SpecError(f"The pose {self._goal_p.tolist()} or the start {self._start.tolist()} is not finite.")
        (low, high), step = self._bounds, self.longest_step_rad
        np.minimum(np.maximum(self.low, self._start - step), self._start + step, out=low)
        np.maximum(np.minimum(self.high, self._start + step), self._start - step, out=high)
        self._q[:] = self._start
        posture = (self._aim, POSTURE_GAIN)
        left = arm_kernels.inverse(self._tree, self._goal_R, self._goal_p, posture, self._bounds, self._q)
        q_out[:] = self._q
        return left

    def clearance(self, q: np.ndarray) -> float:
        """Least distance of the arm to itself and to the table [m]; negative where they are inside one another."""
        self._forward(q)
        arm_kernels.place_capsules(self._owner, self._ends, self._R, self._p, self._placed)
        capsules = (self._placed, self._radius)
        least, self._nearest = arm_kernels.least_distance(capsules, self._pairs, self._over_table, self._table_z_m)
        return least

    @property
    def nearest(self) -> tuple[str, str]:
        """Names of what the last clearance was between."""
        if self._nearest < 0:
            return "nothing", "nothing"
        if self._nearest >= len(self._pairs):
            return self._names[self._over_table[self._nearest - len(self._pairs)]], "table"
        first, second = self._pairs[self._nearest]
        return self._names[first], self._names[second]

    def _forward(self, q: np.ndarray) -> None:
        self._q[:] = q
        arm_kernels.forward(self._tree, self._q, self._R, self._p)

    def _compile(self) -> None:
        pos, rot6d, q = np.zeros(3), np.zeros(6), np.clip(np.zeros(self.n), self.low, self.high)
        self.pose(q, pos, rot6d)
        self.solve(q, pos, rot6d, q)
        self.jacobian(q, np.zeros((6, self.n)))
        self.clearance(q)


def _check(model: Any) -> None:
    import mujoco

    others = [model.joint(i).name for i in np.flatnonzero(model.jnt_type != mujoco.mjtJoint.mjJNT_HINGE)]
    others += [model.joint(i).name for i in np.flatnonzero(np.abs(model.jnt_pos).max(axis=1) > 0)]
    if others or not model.njnt:
        raise ConfigError(f"An arm's joints are hinges in the origin of their bodies; {others or 'there are none'}.")
    if not model.jnt_limited.all() or len(set(model.jnt_bodyid)) != model.njnt:
        raise ConfigError("Every joint of an arm has a range, and a body of its own.")
    shapes = [model.geom(i).name for i in np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_CAPSULE)]
    if shapes:
        raise ConfigError(f"An arm's links are enclosed in capsules; {', '.join(shapes)} are something else.")
    if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, TOOL) < 0:
        raise ConfigError(f"An arm has a site named {TOOL!r}; this model has none.")


def _tree(model: Any) -> arm_kernels.Tree:
    """The world, the bodies, and the tool as a body more."""
    site = model.site(TOOL)
    parent = np.concatenate([[-1], model.body_parentid[1:], site.bodyid]).astype(np.int64)
    joint = np.full(len(parent), -1, np.int64)
    joint[model.jnt_bodyid] = np.arange(model.njnt)
    place = np.vstack([model.body_pos, site.pos])
    attitude = np.array([_matrix(quat_wxyz) for quat_wxyz in (*model.body_quat, site.quat)])
    return parent, joint, model.jnt_axis.copy(), place, attitude


def _capsules(model: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Body, ends of the axis (C, 2, 3) in it, and radius of every capsule."""
    axes = np.array([_matrix(quat_wxyz)[:, 2] for quat_wxyz in model.geom_quat]).reshape(-1, 3)
    half = axes * model.geom_size[:, 1:2]
    ends = np.stack([model.geom_pos - half, model.geom_pos + half], axis=1)
    return model.geom_bodyid.astype(np.int64), ends, model.geom_size[:, 0].copy()


def _pairs(model: Any) -> np.ndarray:
    """Capsules (P, 2) that could touch: not of the same body or neighbours, and not excluded by the model."""
    excluded = {(int(signature) >> 16, int(signature) & 0xFFFF) for signature in model.exclude_signature}
    pairs = []
    for first in range(model.ngeom):
        for second in range(first + 1, model.ngeom):
            a, b = sorted((int(model.geom_bodyid[first]), int(model.geom_bodyid[second])))
            welded = model.body_weldid[a] == model.body_weldid[b]
            neighbours = model.body_weldid[model.body_parentid[model.body_weldid[b]]] == model.body_weldid[a]
            if not (welded or neighbours or (a, b) in excluded or (b, a) in excluded):
                pairs.append((first, second))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _matrix(quat_wxyz: np.ndarray) -> np.ndarray:
    import mujoco

    flat = np.zeros(9)
    mujoco.mju_quat2Mat(flat, quat_wxyz)
    return flat.reshape(3, 3)
