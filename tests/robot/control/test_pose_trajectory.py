from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robot.control.action_spaces import matrix_from_rot6d, rot6d_from_matrix
from robot.control.joint_trajectory import JointTrajectory
from robot.control.pose_trajectory import PoseTrajectory
from robot.errors import SpecError

MS = 1_000_000
NOW = 10**12
WAY = PoseTrajectory()
PARTS = (slice(0, 3), slice(3, 9), slice(9, 15), slice(15, 21))
seeds = st.integers(0, 2**31)


def state(way: PoseTrajectory, t_ns: int) -> np.ndarray:
    out = np.full(21, np.nan)
    way.sample(t_ns, *(out[part] for part in PARTS))
    return out


def path(way: PoseTrajectory, times_ns: np.ndarray) -> np.ndarray:
    return np.array([state(way, int(t)) for t in times_ns])


def rot6d(rotation: Rotation) -> np.ndarray:
    return rot6d_from_matrix(rotation.as_matrix())


def poses(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.hstack([rng.normal(size=(count, 3)), rot6d(Rotation.random(count, random_state=rng))])


def times(rng: np.random.Generator, count: int) -> np.ndarray:
    return NOW + np.cumsum(rng.integers(5 * MS, 200 * MS, count))


def begin(rng: np.random.Generator, speed: float = 1.0) -> np.ndarray:
    return np.concatenate([poses(rng, 1)[0], speed * rng.normal(size=12)])


def planned(start: np.ndarray, times_ns: np.ndarray, waypoints: np.ndarray, now_ns: int = NOW) -> PoseTrajectory:
    pos, rotation, twist, acceleration = (start[part] for part in PARTS)
    WAY.plan(now_ns, pos, rotation, twist, acceleration, times_ns, waypoints)
    return WAY


def angular(rot6ds: np.ndarray, h_s: float) -> np.ndarray:
    """Angular velocity in the base frame between two rotations (2, 6), by scipy."""
    first, second = Rotation.from_matrix(matrix_from_rot6d(rot6ds))
    return (second * first.inv()).as_rotvec() / h_s


@settings(deadline=None)
@given(seeds, st.integers(1, 10))
def test_passes_every_waypoint_on_time_and_rests_at_the_last(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    start, at, waypoints = begin(rng), times(rng, count), poses(rng, count)
    way = planned(start, at, waypoints)
    np.testing.assert_array_equal(state(way, NOW), start)
    np.testing.assert_array_equal(state(way, NOW - MS), start)
    np.testing.assert_allclose(path(way, at)[:, :9], waypoints, atol=1e-12)
    np.testing.assert_array_equal(state(way, way.end_ns)[9:], np.zeros(12))
    np.testing.assert_array_equal(state(way, way.end_ns + 10**9), state(way, way.end_ns))


@settings(deadline=None)
@given(seeds)
def test_rotations_stay_rotations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    way = planned(begin(rng, 10.0), times(rng, 5), poses(rng, 5))
    columns = path(way, np.linspace(NOW, way.end_ns, 100).astype(np.int64))[:, 3:9].reshape(-1, 2, 3)
    gram = columns @ columns.transpose(0, 2, 1)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(2), gram.shape), atol=1e-12)


@settings(deadline=None)
@given(seeds)
def test_twist_and_acceleration_are_derivatives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    at = times(rng, 5)
    way = planned(begin(rng), at, poses(rng, 5))
    h_ns, h_s = 1000, 2e-6
    scale = np.abs(path(way, np.linspace(NOW, way.end_ns, 50).astype(np.int64))).max(axis=0)
    for t in rng.integers(NOW + h_ns, way.end_ns - h_ns, 8):
        if np.abs(at - t).min() <= h_ns:
            continue
        before, now, after = path(way, np.array([t - h_ns, t, t + h_ns]))
        np.testing.assert_allclose((after[:3] - before[:3]) / h_s, now[9:12], atol=1e-6 * scale[9:12].max())
        turned = angular(np.stack([before[3:9], after[3:9]]), h_s)
        np.testing.assert_allclose(turned, now[12:15], atol=1e-6 * scale[12:15].max())
        for part in (slice(9, 12), slice(12, 15)):
            beyond = slice(part.start + 6, part.stop + 6)
            got = (after[part] - before[part]) / h_s
            np.testing.assert_allclose(got, now[beyond], atol=1e-4 * scale[beyond].max())


@settings(deadline=None)
@given(seeds, st.integers(1, 6))
def test_a_stream_of_plans_has_no_step_in_acceleration(seed: int, plans: int) -> None:
    rng = np.random.default_rng(seed)
    now, at_now = NOW, begin(rng)
    for _ in range(plans):
        count = int(rng.integers(1, 8))
        at = now + np.cumsum(rng.integers(5 * MS, 200 * MS, count))
        way = planned(at_now, at, poses(rng, count), now)
        for knot in (now, *at.tolist()):
            states = path(way, np.maximum(np.array([knot - 1000, knot - 1, knot + 1, knot + 1000]), now))
            across, beside = np.abs(states[2] - states[1]), np.abs(states[[1, 3]] - states[[0, 2]]).max(axis=0)
            # What changes in 2 ns is to what changes in 999 ns beside it as the one time to the other, or no more than
            # its derivative explains, which may pass through zero beside it. Axes mix.
            rates = np.abs(states[:, 9:]).max()
            for part in PARTS:
                explained = 4e-9 * rates if part.start < 15 else 0.0
                most = 0.01 * beside[part].max() + explained + 1e-9 * (1 + np.abs(states[:, part]).max())
                assert across[part].max() <= most
        now = int(rng.integers(now + 1, way.end_ns))
        at_now = state(way, now)


@settings(deadline=None)
@given(seeds, st.floats(0.01, 0.99))
def test_between_two_poses_at_rest_is_the_geodesic(seed: int, part: float) -> None:
    """By scipy: the share of the quintic from rest to rest of the rotation vector that leads from one to the other."""
    rng = np.random.default_rng(seed)
    (first, second), ends = Rotation.random(2, random_state=rng), rng.normal(size=(2, 3))
    start = np.concatenate([ends[0], rot6d(first), np.zeros(12)])
    way = planned(start, np.array([NOW + 10**9]), np.concatenate([ends[1], rot6d(second)])[None])
    u = round(part * 1e9) / 1e9
    got = state(way, NOW + round(part * 1e9))
    share, speed, gain = np.polyval([6, -15, 10, 0, 0, 0], u), 30 * (u * (1 - u)) ** 2, 60 * u * (1 - u) * (1 - 2 * u)
    rotvec = (first.inv() * second).as_rotvec()
    np.testing.assert_allclose(got[:3], ends[0] + share * (ends[1] - ends[0]), atol=1e-12)
    np.testing.assert_allclose(got[3:9], rot6d(first * Rotation.from_rotvec(share * rotvec)), atol=1e-12)
    np.testing.assert_allclose(got[12:15], speed * first.apply(rotvec), atol=1e-11)
    np.testing.assert_allclose(got[18:21], gain * first.apply(rotvec), atol=1e-10)


@settings(deadline=None)
@given(seeds)
def test_is_the_same_in_any_frame(seed: int) -> None:
    """Turn and shift the base: everything turns with it."""
    rng = np.random.default_rng(seed)
    base, shift = Rotation.random(random_state=rng), rng.normal(size=3)
    start, at, waypoints = begin(rng, 3.0), times(rng, 6), poses(rng, 6)
    sampled = np.linspace(NOW - MS, at[-1] + MS, 60).astype(np.int64)
    here = path(planned(start, at, waypoints), sampled)

    def seen(vectors: np.ndarray) -> np.ndarray:
        out = vectors.reshape(-1, 3) @ base.as_matrix().T
        out = out.reshape(vectors.shape)
        out[..., :3] += shift
        return out

    there = path(planned(seen(start), at, seen(waypoints)), sampled)
    np.testing.assert_allclose(there, seen(here), atol=1e-9 * (1 + np.abs(here).max()))


def test_positions_in_a_line_go_as_a_joint_does() -> None:
    rng = np.random.default_rng(4)
    at, along, direction = times(rng, 8), rng.normal(size=8), np.array([2.0, -1.0, 2.0]) / 3
    joint = JointTrajectory(1)
    joint.plan(NOW, np.zeros(1), np.ones(1), np.ones(1), at, along[:, None])
    still = rot6d(Rotation.identity())
    start = np.concatenate([np.zeros(3), still, direction, np.zeros(3), direction, np.zeros(3)])
    way = planned(start, at, np.hstack([along[:, None] * direction, np.tile(still, (8, 1))]))
    for t in np.linspace(NOW, at[-1], 100).astype(np.int64):
        expected = np.zeros((3, 1))
        joint.sample(int(t), *expected)
        got = state(way, int(t))
        np.testing.assert_allclose(got[[0, 1, 2, 9, 10, 11, 15, 16, 17]].reshape(3, 3), expected * direction, atol=1e-9)


@pytest.mark.parametrize("angle", [np.pi, np.pi - 1e-9, np.pi + 1e-9, 1e-9, 0.0])
@pytest.mark.parametrize("axis", [[1.0, 0, 0], [0, -1.0, 0], [0, 0, 1.0], [0.6, -0.48, 0.64]])
def test_half_turns_and_no_turns(angle: float, axis: list[float]) -> None:
    first = Rotation.from_rotvec([0.3, -1.2, 0.5])
    second = first * Rotation.from_rotvec(angle * np.array(axis))
    third = second * Rotation.from_rotvec(-0.4 * np.array(axis))
    start = np.concatenate([np.zeros(3), rot6d(first), np.zeros(12)])
    waypoints = np.hstack([np.zeros((2, 3)), rot6d(Rotation.concatenate([second, third]))])
    way = planned(start, NOW + np.array([10**9, 15 * 10**8]), waypoints)
    states = path(way, np.linspace(NOW, way.end_ns, 301).astype(np.int64))
    np.testing.assert_allclose(states[200, 3:9], waypoints[0, 3:], atol=1e-8)
    # Never faster than a half turn in one second with a quintic asks for: the shorter way.
    assert np.linalg.norm(states[:, 12:15], axis=1).max() < 2.6 * np.pi
    half = Rotation.from_matrix(matrix_from_rot6d(states[100, 3:9]))
    turned = (first.inv() * half).magnitude() + (half.inv() * second).magnitude()
    assert turned == pytest.approx((first.inv() * second).magnitude(), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"times_ns": np.array([NOW, NOW + 1])}, "do not increase"),
        ({"waypoints": np.zeros((2, 10))}, "shape"),
        ({"waypoints": np.zeros((2, 9))}, "waypoint 0 is none"),
        ({"waypoints": np.tile([0.0, 0, 0, 1, 0, 0, 2, 0, 0], (2, 1))}, "waypoint 0 is none"),
        ({"waypoints": np.full((2, 9), np.nan)}, "not finite"),
        ({"rot6d": np.zeros(6)}, "start from is none"),
        ({"twist": np.full(6, np.nan)}, "state to start from"),
        ({"acceleration": np.zeros(5)}, "state to start from"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change: dict[str, Any], reason: str) -> None:
    rng = np.random.default_rng(0)
    way = planned(begin(rng), times(rng, 3), poses(rng, 3))
    at = np.linspace(NOW, way.end_ns, 50).astype(np.int64)
    before = path(way, at)
    still = rot6d(Rotation.identity())
    fits = {"pos": np.zeros(3), "rot6d": still, "twist": np.zeros(6), "acceleration": np.zeros(6)}
    waypoints = np.tile(np.concatenate([np.zeros(3), still]), (2, 1))
    given = {**fits, "times_ns": NOW + MS * np.array([1, 2]), "waypoints": waypoints, **change}
    with pytest.raises(SpecError, match=reason):
        way.plan(NOW, **given)
    np.testing.assert_array_equal(path(way, at), before)
