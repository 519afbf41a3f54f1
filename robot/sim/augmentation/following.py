"""Segments done again where the objects stand now, closed-loop on where the tool really is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.sim.augmentation.demonstration import ENVIRONMENT_STATE, STATE, action
from robot.sim.augmentation.poses import displacement, gap, inverse, poses_of, same_turned, shifted, size
from robot.sim.augmentation.segments import Segment

LEAD = 2.0
"""How many steps ahead a displacement is asked for that the segment itself did not have: an arm under OSC_POSE covers
about half of what it is asked for in one control period.
"""

BEHIND_M = 0.015
"""How far the tool may lag before the segment waits for it [m], a turn counting as `ANGLE_M` a radian."""

PATIENCE = 15
"""Steps for which a segment waits in all."""


@dataclass(frozen=True)
class _Point:
    """Where what moves should be at one step (4, 4), the gap to what is asked for (6,), and the gripper's action."""

    pose: np.ndarray
    lead: np.ndarray
    gripper: float
    is_held: bool


@dataclass(frozen=True)
class Speed:
    """How far the tool goes at most in one control period: distance [m] and turn [rad]."""

    step_m: float
    step_rad: float

    def periods(self, way: np.ndarray, own: np.ndarray) -> int:
        """How many control periods a `gap` (6,) takes at least: one where the segment's `own` (6,) was as long."""
        lengths, owns = (np.linalg.norm(np.reshape(gap, (2, 3)), axis=1) for gap in (way, own))
        shares = lengths / np.maximum([self.step_m, self.step_rad], owns)
        return max(1, int(np.ceil(float(shares.max()) - 1e-6)))


class SegmentFollower(Policy):
    """Does the segments of one demonstration, one `ee_delta` or `ee_pose` action for one observation.

    A segment begins when the one before it is done. Its poses move with the object that it belongs to; what they are
    off where the tool is then, at the beginning, is made up for on the way to the object. After the last segment its
    last pose is held.
    """

    def __init__(
        self, specs: EnvironmentSpecs, segments: Sequence[Segment], symmetry: dict[str, int], speed: Speed
    ) -> None:
        self.specs = PolicySpecs(environment=specs, n_obs_steps=1, horizon=1, n_action_steps=1)
        self._segments, self._symmetry, self._speed = segments, symmetry, speed
        self._names = specs.observation[ENVIRONMENT_STATE].names
        self._tool_names = specs.observation[STATE].names
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begin with the first segment; nothing is drawn."""
        self._next_segment = 0
        self._points: list[_Point] = []
        self._at = 0
        self._patience = 0
        self._moving_in_hand = self._turned = np.eye(4)

    def act(self, observation: Observation) -> ActionChunk:
        """See `Policy.act`."""
        tool = poses_of(observation[STATE][-1], self._tool_names, "ee")
        while self._at == len(self._points) and self._next_segment < len(self._segments):
            self._begin(self._segments[self._next_segment], tool, observation)
            self._next_segment += 1
        at = min(self._at, len(self._points) - 1)
        point, segment = self._points[at], self._segments[self._next_segment - 1]
        if point.is_held:
            self._moving_in_hand = inverse(tool) @ self._pose(observation, segment.subtask.held) @ self._turned
        moving = tool @ self._moving_in_hand
        goal, is_behind = shifted(point.pose, point.lead), size(gap(moving, point.pose)) > BEHIND_M
        if is_behind and self._patience > 0:
            goal = point.pose
            self._patience -= 1
        else:
            self._at += 1 if self._at < len(self._points) else 0
        chosen = action(self.specs.environment, goal @ inverse(self._moving_in_hand), point.gripper, tool)
        return ActionChunk(chosen[None], self.specs.environment.dt_s)

    def _begin(self, segment: Segment, tool: np.ndarray, observation: Observation) -> None:
        name, held = segment.subtask.object, segment.subtask.held
        moved = displacement(segment.reference, self._pose(observation, name), self._symmetry.get(name, 1))
        self._moving_in_hand = self._turned = np.eye(4)
        if held:
            in_hand = inverse(tool) @ self._pose(observation, held)
            self._turned = same_turned(segment.in_hand, in_hand, self._symmetry.get(held, 1))
            self._moving_in_hand = in_hand @ self._turned
        start = tool @ self._moving_in_hand
        self._points, self._at, self._patience = points(segment, moved, start, self._speed), 0, PATIENCE

    def _pose(self, observation: Observation, name: str) -> np.ndarray:
        return poses_of(observation[ENVIRONMENT_STATE][-1], self._names, name)


def points(segment: Segment, moved: np.ndarray, start: np.ndarray, speed: Speed) -> list[_Point]:
    """A segment after its object has moved.

    Args:
        segment: The segment.
        moved: Transform (4, 4) of its object.
        start: Pose (4, 4) of what moves, now.
        speed: Steps that would be longer are divided.
    """
    moving, goals = moved @ segment.moving, moved @ segment.goals
    leads = [gap(pose, goal) for pose, goal in zip(moving, goals, strict=True)]
    offset, leading = gap(moving[0], start), segment.leading
    poses = [shifted(pose, offset, part) for pose, part in zip(moving, leading, strict=True)]
    done = []
    if leading[0] == 0.0:  # it begins near the object: come there first
        still = _Point(start, np.zeros(6), float(segment.gripper[0]), bool(segment.subtask.held))
        done += _divided(still, gap(start, poses[0]), speed.periods(gap(start, poses[0]), np.zeros(6)))
    for k, pose in enumerate(poses):
        after = min(k + 1, len(poses) - 1)
        lead = leads[k] + LEAD * (leading[after] - leading[k]) * offset
        point = _Point(pose, lead, float(segment.gripper[k]), bool(segment.subtask.held) and k < segment.event)
        way = gap(pose, poses[after])
        done += _divided(point, way, speed.periods(way, gap(moving[k], moving[after])))
    return done


def _divided(point: _Point, way: np.ndarray, periods: int) -> list[_Point]:
    """A step along a `gap` (6,) as several."""
    return [
        replace(point, pose=shifted(point.pose, way, part / periods), lead=point.lead / periods)
        for part in range(periods)
    ]
