"""The memory that compiled code works on: one record for the world, one for each arm.

Legend: n arm joints (at most 8), g finger actuators (at most 8), nv degrees of freedom of the world. Poses are in the
world unless a name ends in `_base`. Names that end in `_at` are addresses.
"""

import numpy as np

N = 8
"""Joints of an arm, and actuators of a gripper, that a record has room for."""

OSC_POSE, OSC_POSITION, JOINT_POSITION, JOINT_VELOCITY, JOINT_TORQUE = range(5)
"""Kinds of controllers."""

RING = 5
"""Errors that robosuite's velocity controller averages the derivative over."""

WORLD = np.dtype(
    [
        *[(name, "i8") for name in ("step1", "step2", "jac_site", "full_m")],  # addresses of MuJoCo's functions
        *[(name, "i8") for name in ("model", "data", "inertia_at", "qpos_at", "qvel_at", "bias_at", "ctrl_at")],
        *[(name, "i8") for name in ("jac_pos_at", "jac_rot_at", "full_at")],  # (3, nv), (3, nv), (nv, nv) to work in
        *[(name, "i8") for name in ("nq", "nv", "nu", "needs_mass")],
    ],
    align=True,
)

ARM = np.dtype(
    [
        # What it is made of.
        *[(name, "i8") for name in ("kind", "is_absolute", "n", "g", "has_gripper")],
        *[(name, "i8") for name in ("site", "base_site", "base_moves")],
        *[(name, "i8") for name in ("tool_pos_at", "tool_mat_at", "base_pos_at", "base_mat_at")],
        *[(name, "i8", N) for name in ("qpos", "dof", "ctrl", "finger_ctrl")],  # indices
        # Systems of equations that operational-space control solves: their rows in `solved` and in J M^-1 J^T. Of
        # uncoupled control position and rotation, else both at once; then the posture's share. Data rather than code,
        # because the compiler would make a copy of the solver for each size and place that it knows.
        ("n_systems", "i8"),
        *[(name, "i8", 3) for name in ("system_at", "system_row", "system_size")],
        # What robosuite's controller was configured with.
        *[(name, "f8", N) for name in ("kp", "ki", "kd")],
        *[(name, "f8", N) for name in ("scale", "shift")],  # from an action in [-1, 1] to metres, radians, ...
        *[(name, "f8", N) for name in ("goal_low", "goal_high")],  # limits of goals of joints
        *[(name, "f8", N) for name in ("own_low", "own_high")],  # torques that the controller itself clips to
        *[(name, "f8", N) for name in ("torque_low", "torque_high")],  # limits of the actuators
        # Of the fingers: change of setting in a control period, with sign, and ctrl at the settings -1 and +1.
        *[(name, "f8", N) for name in ("finger_rate", "finger_low", "finger_high")],
        # The goal.
        ("is_pending", "i8"),  # whether `asked` waits for the next substep
        ("is_relative", "i8"),  # whether `asked` adds to what is reached by then
        ("asked", "f8", N),
        ("goal", "f8", N),  # of joint controllers
        ("pos_base", "f8", 3),
        ("mat_base", "f8", (3, 3)),
        ("posture", "f8", N),  # joint positions that the null space is drawn to
        ("finger", "f8", N),  # settings in [-1, 1]
        # What the velocity controller remembers.
        *[(name, "i8") for name in ("is_saturated", "ring_size", "ring_at")],
        *[(name, "f8", N) for name in ("integral", "last_error")],
        ("ring", "f8", (RING, N)),
        # Work space.
        ("use_given_mass", "i8"),  # the next substep takes `mass` as it is
        ("jac", "f8", (6, N)),
        *[(name, "f8", (N, N)) for name in ("mass", "factor")],
        ("base_velocity", "f8", 6),
        ("half", "f8", (N, 6)),  # L^-1 J^T
        *[(name, "f8", (6, 6)) for name in ("inverse_lambda", "square", "vectors")],
        ("solved", "f8", 12),  # the wrench, then J times the posture's pull
        *[(name, "f8", N) for name in ("pull", "torque")],
    ],
    align=True,
)
