"""Demonstrations cut into segments that each belong to one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robot.errors import EpisodeError
from robot.sim.augmentation.demonstration import Trajectory
from robot.sim.augmentation.poses import ANGLE_M, gap, inverse
from robot.sim.augmentation.subtasks import END, RAISED, RELEASED, Declaration, Subtask

RAISED_M = 0.015
"""Height above its lowest at which an object has left what it stood on."""

LEFT_M = 0.03
"""How much farther from an object than when it was held the hand is that has left it."""

AT_REST_M = 0.005
"""How far to the side an object may be from where it is taken, turns included, and still count as lying there."""

FLICKER_STEPS = 4
"""Steps for which a gripper may open without letting go."""

TILT_RAD = 0.2
"""Tilt from how it stood at the beginning beyond which an object has fallen over."""

PART_M = 1e-3
"""How far a part of a thing seems to move with respect to it, observed in float32."""

NEAR_M, NEAR_RAD = 0.05, 0.3
"""How near to where it takes or lets go, to the sides and turned, the motion belongs to the object rather than leads
there.
"""


@dataclass(frozen=True)
class Segment:
    """One subtask as it was done, n steps.

    What moves is the tool, or the object that it holds: the latter is where it would be if the hand had never let go.

    Attributes:
        subtask: What it is about.
        begin: Its first step in the demonstration.
        reference: Pose (4, 4) of the object that it belongs to.
        moving: Poses (n, 4, 4) of what moves.
        goals: Poses (n, 4, 4) that actions asked for, of what moves.
        in_hand: Pose (4, 4) of what moves in the frame of the tool, at the beginning.
        gripper: (n,), -1 opens, 1 closes.
        event: Step, from `begin`, at which the gripper takes the object, or lets it go; n where it does neither.
        leading: For each step, which part of an offset at the beginning is still left, (n,): from 1 down to 0 where the
            motion is near the object. All 0 where it begins near it.
    """

    subtask: Subtask
    begin: int
    reference: np.ndarray
    moving: np.ndarray
    goals: np.ndarray
    in_hand: np.ndarray
    gripper: np.ndarray
    event: int
    leading: np.ndarray

    def __len__(self) -> int:
        return len(self.gripper)


def cut(trajectory: Trajectory, declaration: Declaration) -> tuple[Segment, ...]:
    """The segments of a demonstration whose subtasks are declared.

    Raises:
        EpisodeError: A subtask is not to be found in it.
    """
    segments, begin = [], 0
    for subtask in declaration.subtasks:
        end = _end(trajectory, subtask, begin)
        segments.append(_segment(trajectory, subtask, begin, end))
        begin = end
    return tuple(segments)


def cut_automatically(trajectory: Trajectory) -> tuple[Segment, ...]:
    """The segments of a demonstration of which nothing is declared.

    An object that is taken is the nearest one when the gripper closes and that it then moves. What is held is brought
    to the object that is nearest to it when it is let go; where there is no other object, the motion belongs to where
    it was taken.

    Raises:
        EpisodeError: The gripper never takes anything.
    """
    taken: list[tuple[str, int, int, int]] = []
    begin, count = 0, len(trajectory)
    for closing in _closings(trajectory):
        name = _nearest(trajectory, closing, trajectory.tool[closing])
        raised = _raised_by(trajectory, name, closing)
        if closing >= begin and raised is not None:
            taken.append((name, begin, raised, _left(trajectory, name, raised)))
            begin = taken[-1][3]
    if not taken:
        raise EpisodeError("the gripper never raises anything")
    name, begin, raised, _ = taken[-1]
    taken[-1] = (name, begin, raised, count)
    return tuple(segment for name, *times in taken for segment in _taking_and_bringing(trajectory, name, times))


def placed(segments: Sequence[Segment]) -> dict[str, np.ndarray]:
    """Pose (4, 4) of every object that the scene has to bring, by name: not of those that were in the hand before."""
    found: dict[str, np.ndarray] = {}
    held: set[str] = set()
    for segment in segments:
        name = segment.subtask.object
        if name not in held:
            found.setdefault(name, segment.reference)
        held.add(segment.subtask.held)
    return found


def _taking_and_bringing(trajectory: Trajectory, taken: str, times: list[int]) -> list[Segment]:
    begin, raised, left = times
    others = {name: poses for name, poses in trajectory.objects.items() if not _is_part_of(trajectory, name, taken)}
    if not others:
        return [_segment(trajectory, Subtask(taken), begin, left)]
    released = min(_run_start(trajectory.gripper < 0, left - 1), len(trajectory) - 1)
    target = _nearest(trajectory, released, trajectory.objects[taken][released], others)
    return [
        _segment(trajectory, Subtask(taken, ends=RAISED), begin, raised),
        _segment(trajectory, Subtask(target, held=taken, ends=RELEASED), raised, left),
    ]


def _end(trajectory: Trajectory, subtask: Subtask, begin: int) -> int:
    if subtask.ends == END:
        return len(trajectory)
    if subtask.ends == RAISED:
        return _last_raised(trajectory, subtask.object, begin, len(trajectory) - 1)
    return _left(trajectory, subtask.held, begin)


def _last_raised(trajectory: Trajectory, name: str, begin: int, end: int) -> int:
    """The last step, after `begin` and up to `end`, at which an object leaves what it stood on."""
    if name not in trajectory.objects:
        raise EpisodeError(f"no {name} is among its objects ({', '.join(trajectory.objects) or 'none'})")
    height = trajectory.objects[name][:, 2, 3]
    is_up = height > height.min() + RAISED_M
    rises = np.flatnonzero(is_up[1:] & ~is_up[:-1]) + 1
    rises = rises[(rises > begin) & (rises <= end)]
    if not len(rises):
        raise EpisodeError(f"the {name} is never raised")
    return int(rises[-1])


def _left(trajectory: Trajectory, held: str, begin: int) -> int:
    """The first step from `begin` on with the hand open and away from what it held; the end if there is none."""
    apart = np.linalg.norm(trajectory.tool[begin:, :3, 3] - trajectory.objects[held][begin:, :3, 3], axis=-1)
    found = np.flatnonzero((trajectory.gripper[begin:] < 0) & (apart > apart[0] + LEFT_M))
    return begin + int(found[0]) if len(found) else len(trajectory)


def _segment(trajectory: Trajectory, subtask: Subtask, begin: int, end: int) -> Segment:
    if subtask.held:
        event = _run_start(trajectory.gripper < 0, end - 1)
        event, reference = max(event, begin), trajectory.objects[subtask.object][begin]
        moving, goals = _carried(trajectory, subtask.held, begin, event, end)
    else:
        raised = min(_last_raised(trajectory, subtask.object, begin, end), end - 1)
        event = begin + _taken_at(trajectory.gripper[begin : raised + 1], subtask.object)
        begin, reference = _since_at_rest(trajectory, subtask.object, begin, event)
        moving, goals = trajectory.tool[begin:end], trajectory.goals[begin:end]
    return Segment(
        subtask=subtask,
        begin=begin,
        reference=reference,
        moving=moving,
        goals=goals,
        in_hand=inverse(trajectory.tool[begin]) @ moving[0],
        gripper=trajectory.gripper[begin:end],
        event=event - begin,
        leading=_leading(moving, min(event, end - 1) - begin),
    )


def _carried(trajectory: Trajectory, held: str, begin: int, event: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Poses of what is held, and those that actions asked of it, as if the hand did not let go at `event`."""
    tool = trajectory.tool[begin:end]
    held_in_hand = inverse(tool) @ trajectory.objects[held][begin:end]
    last = max(event - begin - 1, 0)
    held_in_hand[last:] = held_in_hand[last]
    return tool @ held_in_hand, trajectory.goals[begin:end] @ held_in_hand


def _run_start(is_on: np.ndarray, at: int) -> int:
    """The first step of the unbroken run that `at` belongs to; `at` + 1 where it is not on."""
    while at >= 0 and is_on[at]:
        at -= 1
    return at + 1


def _taken_at(gripper: np.ndarray, name: str) -> int:
    """The step at which a gripper closed for the last time, short openings left out."""
    closed = np.flatnonzero(gripper > 0)
    if not len(closed):
        raise EpisodeError(f"the {name} is raised by an open gripper")
    pauses = np.flatnonzero(np.diff(closed) > FLICKER_STEPS)
    return int(closed[pauses[-1] + 1] if len(pauses) else closed[0])


def _since_at_rest(trajectory: Trajectory, name: str, begin: int, event: int) -> tuple[int, np.ndarray]:
    """The first step from which on an object lies where it is taken, and its pose (4, 4) as if it lay there at `begin`.

    Worlds let objects fall a little at the beginning of an episode, and a segment is done again with the object as it
    is when the segment begins: so what the object falls after `begin` is added to where it lies.

    Raises:
        EpisodeError: It fell over before.
    """
    poses = trajectory.objects[name]
    ways = np.array([gap(pose, poses[event]) for pose in poses[begin : event + 1]])
    moves = np.hypot(ways[:, 0], ways[:, 1]) + ANGLE_M * np.linalg.norm(ways[:, 3:], axis=1) > AT_REST_M
    if not moves.any():
        return begin, poses[begin]
    first = begin + int(np.flatnonzero(moves)[-1]) + 1
    if poses[first, 2, :3] @ poses[begin, 2, :3] < np.cos(TILT_RAD):
        raise EpisodeError(f"the {name} had fallen over when it was taken")
    reference, height = np.array(poses[first]), poses[begin : event + 1, 2, 3]
    lowest = float(np.maximum(height[1:], height[:-1]).min())  # of two steps: what bounces is lower for one
    reference[2, 3] += height[0] - lowest
    return first, reference


def _leading(moving: np.ndarray, event: int) -> np.ndarray:
    """See `Segment.leading`: falls with the way to the side that is still to go until the motion is near."""
    ways = np.array([gap(pose, moving[event]) for pose in moving[: event + 1]])
    far = (np.hypot(ways[:, 0], ways[:, 1]) > NEAR_M) | (np.linalg.norm(ways[:, 3:], axis=1) > NEAR_RAD)
    near = int(np.flatnonzero(far)[-1]) + 1 if far.any() else 0
    leading = np.zeros(len(moving))
    if near:
        steps = np.array([gap(moving[k], moving[k + 1]) for k in range(near)])
        lengths = np.hypot(steps[:, 0], steps[:, 1]) + ANGLE_M * np.linalg.norm(steps[:, 3:], axis=1)
        leading[:near] = 1.0 - np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) / max(float(lengths.sum()), 1e-9)
    return leading


def _closings(trajectory: Trajectory) -> list[int]:
    """Steps at which the gripper begins to close."""
    closes = trajectory.gripper > 0
    return [int(step) for step in np.flatnonzero(closes & ~np.concatenate([[False], closes[:-1]]))]


def _nearest(trajectory: Trajectory, step: int, to: np.ndarray, among: Mapping[str, np.ndarray] | None = None) -> str:
    """The object that is nearest to a pose (4, 4) at a step."""
    among = trajectory.objects if among is None else among
    if not among:
        raise EpisodeError("it has no objects")
    return min(among, key=lambda name: float(np.linalg.norm(among[name][step, :3, 3] - to[:3, 3])))


def _is_part_of(trajectory: Trajectory, name: str, whole: str) -> bool:
    """Whether something never moves with respect to an object, which itself moves: a handle is a part of its nut."""
    relative = inverse(trajectory.objects[whole]) @ trajectory.objects[name]
    return bool(np.abs(relative - relative[0]).max() < PART_M)


def _raised_by(trajectory: Trajectory, name: str, closing: int) -> int | None:
    """The step at which an object leaves what it stood on in a gripper that closed on it; None where it does not."""
    opened = np.flatnonzero(trajectory.gripper[closing:] < 0)
    until = closing + int(opened[0]) if len(opened) else len(trajectory) - 1
    try:
        return _last_raised(trajectory, name, closing, until)
    except EpisodeError:
        return None
