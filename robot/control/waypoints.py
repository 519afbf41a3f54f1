"""Waypoints: the poses that rows of actions lead to, and the times at which joints can be at theirs. Compiled."""

import math

import numpy as np

from robot.control.action_spaces import POSITION_SCALE_M, ROTATION_SCALE_RAD
from robot.control.compiling import entry
from robot.control.safety import Clamp
from robot.control.so3 import fill_exp, fill_from_rot6d, fill_log, fill_product

SHARE = 0.8
"""Part of the limits of speed and acceleration that waypoints ask for on average: the rest is for ways between them."""
ROUNDS = 30
LATE_S = 0.01
"""A waypoint that is reached later than this after its time is reported."""
_WORKSPACE, _LINEAR, _ANGULAR = int(Clamp.WORKSPACE), int(Clamp.LINEAR_SPEED), int(Clamp.ANGULAR_SPEED)


@entry
def next_pose(before: np.ndarray, row: np.ndarray, is_absolute: bool, tool: np.ndarray, pose: np.ndarray) -> int:
    """Fill the pose (9,) that a row leads to, inside the box and no faster than the tool may go; `Clamp` bits.

    Args:
        before: Pose that it leads from: position, 6-D rotation.
        row: An `ee_pose` or an `ee_delta`, finite.
        is_absolute: Which of the two.
        tool: Lowest and highest corner of the box (6,), longest way [m] and angle [rad] for this row.
        pose: To be filled.
    """
    clamp = 0
    R_before, R, step = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    rotvec = np.empty(3)
    fill_from_rot6d(before[3:], R_before)
    if is_absolute:
        pose[:3] = row[:3]
        fill_from_rot6d(row[3:9], R)
    else:
        for i in range(3):
            pose[i] = before[i] + POSITION_SCALE_M * row[i]
            rotvec[i] = ROTATION_SCALE_RAD * row[3 + i]
        fill_exp(rotvec, step)
        fill_product(step, R_before, False, R)
    length = 0.0
    for i in range(3):
        inside = min(max(pose[i], tool[i]), tool[3 + i])
        if inside != pose[i]:
            clamp |= _WORKSPACE
        pose[i] = inside
        length += (inside - before[i]) ** 2
    length = math.sqrt(length)
    if length > tool[6]:
        clamp |= _LINEAR
        for i in range(3):
            pose[i] = before[i] + (pose[i] - before[i]) * tool[6] / length
    fill_product(R_before, R, True, step)
    fill_log(step, rotvec)
    angle = math.sqrt(rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2)
    if angle > tool[7]:
        clamp |= _ANGULAR
        for i in range(3):
            rotvec[i] *= tool[7] / angle
        fill_exp(rotvec, step)
        fill_product(R_before, step, False, R)
    for i in range(3):
        pose[3 + i], pose[6 + i] = R[i, 0], R[i, 1]
    return clamp


@entry
def stretched(
    times_s: np.ndarray, waypoints: np.ndarray, state: np.ndarray, most_dq: np.ndarray, most_ddq: np.ndarray
) -> bool:
    """Lengthen in place the times [s] from now to each waypoint (N, n) that joints would be late at; whether it did.

    A piece is as long as its mean velocity needs. Where mean velocities of neighbours, of which the last is rest,
    differ by more than acceleration allows, the faster one is slowed down, round by round: acceleration falls with the
    square of the time.
    """
    count, n = waypoints.shape
    lasts, mean = np.empty(count), np.empty((count, n))
    for i in range(count):
        lasts[i] = times_s[i] - (times_s[i - 1] if i else 0.0)
        for j in range(n):
            mean[i, j] = waypoints[i, j] - (waypoints[i - 1, j] if i else state[0, j])
            lasts[i] = max(lasts[i], abs(mean[i, j]) / (SHARE * most_dq[j]))
        mean[i] /= lasts[i]
    for _ in range(ROUNDS):
        is_settled = True
        for i in range(count + 1):
            worst, slower, faster = 1.0, 0.0, 0.0
            over = 0.5 * ((lasts[i] if i < count else 0.0) + (lasts[i - 1] if i else lasts[0]))
            for j in range(n):
                after, before = mean[i, j] if i < count else 0.0, mean[i - 1, j] if i else state[1, j]
                worst = max(worst, abs(after - before) / (over * SHARE * most_ddq[j]))
                slower, faster = max(slower, abs(before) / most_dq[j]), max(faster, abs(after) / most_dq[j])
            if worst > 1.01:
                which = i if faster >= slower else i - 1
                if which >= 0:
                    by = min(1.5, worst**0.5)
                    lasts[which] *= by
                    mean[which] /= by
                    is_settled = False
        if is_settled:
            break
    total, is_longer = 0.0, False
    for i in range(count):
        total += lasts[i]
        # The end is there to come to rest; usually the next chunk comes before it.
        is_longer = is_longer or (i < count // 2 and total > times_s[i] + LATE_S)
        times_s[i] = total
    return is_longer
