from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruckig import ControlInterface, InputParameter, Ruckig, Trajectory

from robot.control.braking import Braking, stopping, stopping_range
from robot.control.joint_motion import RANGE_MARGIN_RAD, JointMotion
from robot.control.safety import Clamp, Situation
from tests.robot.control.joints import HOME, JOINT_LIMITS, joint_limits, worst_of

LOW, HIGH = np.array(JOINT_LIMITS["joint_low_rad"]), np.array(JOINT_LIMITS["joint_high_rad"])
ROUNDING = 1e-6


class Run:
    """A reference, at home and at rest, and what was asked of it since."""

    def __init__(self, dt_s: float = 0.002, **changed: Any) -> None:
        self.limits, self.dt_s = joint_limits(**changed), dt_s
        self.motion = JointMotion(self.limits, dt_s)
        self.previous = np.concatenate([HOME, np.zeros(15)])
        unused = np.zeros(7)
        self.situation = Situation(self.previous, unused, unused, unused, unused, np.zeros(7))
        self.q = [HOME.copy()] * 4
        self.clamps = 0

    def step(self, q: np.ndarray, dq: Any = 0.0, ddq: Any = 0.0) -> Clamp:
        target = np.zeros(22)
        target[:7], target[7:14], target[14:21] = q, dq, ddq
        clamp = self.motion.apply(target, self.situation)
        assert isinstance(clamp, Clamp)
        self.clamps += bool(clamp)
        self.previous[:] = target
        self.q.append(target[:7].copy())
        return clamp

    def require_limits(self) -> None:
        worst = worst_of(np.array(self.q), self.dt_s, self.limits)
        assert max(worst.values()) <= 1 + ROUNDING, worst


def jumps(rng: np.random.Generator, k: int) -> tuple[np.ndarray, ...]:
    return rng.uniform(LOW - 1, HIGH + 1), np.zeros(7), np.zeros(7)


def lies(rng: np.random.Generator, k: int) -> tuple[np.ndarray, ...]:
    """Positions, velocities and accelerations that have nothing to do with each other, for a while each."""
    rng = np.random.default_rng([int(rng.integers(3)), k // 40])
    return rng.uniform(LOW - 1, HIGH + 1), rng.normal(0, 3, 7), rng.normal(0, 30, 7)


def rams(rng: np.random.Generator, k: int) -> tuple[np.ndarray, ...]:
    """At full speed against the ends of the range, and back."""
    rng = np.random.default_rng(k // 150)
    end = np.where(rng.random(7) < 0.5, LOW, HIGH)
    return end, 5 * np.sign(end - HOME), 50 * np.sign(end - HOME)


def huge(rng: np.random.Generator, k: int) -> tuple[np.ndarray, ...]:
    return rng.choice([-1e5, 0.0, 1e5, 1e-300], 7), rng.choice([-1e5, 0.0, 1e5], 7), rng.normal(0, 1e5, 7)


STREAMS: list[Callable[..., tuple[np.ndarray, ...]]] = [jumps, lies, rams, huge]


@pytest.mark.parametrize("dt_s", [0.001, 0.002])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("count", [1500, pytest.param(25_000, marks=pytest.mark.slow)])
def test_no_adversary_gets_beyond_a_limit(stream: Any, dt_s: float, count: int) -> None:
    """The slow runs are a hundred thousand commands at each rate; every limit is judged by differences of positions."""
    run, rng = Run(dt_s), np.random.default_rng(7)
    for k in range(count):
        run.step(*stream(rng, k))
    run.require_limits()
    # And it does move: a reference that rests would pass the test above.
    assert np.ptp(run.q, axis=0).max() > 0.5


@settings(max_examples=30)
@given(
    commands=st.lists(
        st.tuples(st.integers(1, 120), *[st.lists(st.floats(-6, 6), min_size=7, max_size=7) for _ in range(2)]),
        min_size=1,
        max_size=8,
    ),
    scale=st.floats(0.05, 3),
)
def test_any_stream_stays_inside_any_limits(commands: list[Any], scale: float) -> None:
    changed = {
        name: [scale * value for value in JOINT_LIMITS[name]]
        for name in ("joint_velocity_radps", "joint_acceleration_radps2", "joint_jerk_radps3")
    }
    run = Run(**changed)
    for count, q, dq in commands:
        for _ in range(count):
            run.step(np.array(q), np.array(dq))
    run.require_limits()


def test_what_moves_within_the_limits_is_followed_without_lag() -> None:
    run = Run()
    away = 0.3 * np.minimum(HIGH - HOME, HOME - LOW)
    for k in range(1500):
        # From rest into a sine, over a second.
        phase, t = min(1.0, k * 0.002), k * 0.002
        fade = phase**3 * (10 - 15 * phase + 6 * phase**2)
        run.step(HOME + fade * away * np.sin(2 * t), fade * away * 2 * np.cos(2 * t), -fade * away * 4 * np.sin(2 * t))
        wanted = HOME + fade * away * np.sin(2 * t)
        if k > 800:
            np.testing.assert_allclose(run.q[-1], wanted, atol=2e-4)
    run.require_limits()


def test_a_step_arrives_and_does_not_overshoot() -> None:
    """Within 1.5 of the shortest time that the limits allow, which Ruckig computes independently."""
    run, goal = Run(), HOME + 0.4
    description = InputParameter(7)
    description.current_position, description.target_position = HOME.tolist(), goal.tolist()
    description.max_velocity = JOINT_LIMITS["joint_velocity_radps"]
    description.max_acceleration = JOINT_LIMITS["joint_acceleration_radps2"]
    description.max_jerk = JOINT_LIMITS["joint_jerk_radps3"]
    way = Trajectory(7)
    Ruckig(7).calculate(description, way)
    cycles = int(1.5 * way.duration / run.dt_s)
    for _ in range(cycles):
        assert run.step(goal) in (Clamp.NONE, Clamp.JOINT_MOTION)
    q = np.array(run.q)
    np.testing.assert_allclose(q[-1], goal, atol=0.004)
    assert (q <= goal + 0.004).all()
    for _ in range(500):
        run.step(goal)
    np.testing.assert_allclose(run.q[-1], goal, atol=1e-6)
    run.require_limits()


def test_beyond_the_range_is_reported_and_stops_at_its_margin() -> None:
    run = Run()
    for _ in range(3000):
        clamp = run.step(HIGH + 1.0)
    assert clamp & Clamp.JOINT_RANGE
    np.testing.assert_allclose(run.q[-1], HIGH - RANGE_MARGIN_RAD, atol=1e-5)
    assert not np.abs(run.previous[7:21]).max() > 1e-3


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-1, 1), st.floats(0.5, 20), st.floats(10, 5000))
@example(0.0, -1.0, 1.0, 16.0, 10.0)
def test_braking_is_what_ruckig_finds(q: float, dq: float, part: float, most_ddq: float, jerk: float) -> None:
    description = InputParameter(1)
    description.control_interface = ControlInterface.Velocity
    description.target_velocity, description.target_acceleration = [0.0], [0.0]
    description.max_velocity, description.max_acceleration, description.max_jerk = [10.0], [most_ddq * 1.000001], [jerk]
    description.current_position, description.current_velocity = [q], [dq]
    description.current_acceleration = [part * most_ddq]
    way = Trajectory(1)
    Ruckig(1).calculate(description, way)
    _, *parts = stopping(dq, part * most_ddq, most_ddq, jerk)
    assert sum(parts) == pytest.approx(way.duration, abs=1e-5)
    rest, low, high = stopping_range(q, dq, part * most_ddq, most_ddq, jerk)
    assert rest == pytest.approx(way.at_time(way.duration)[0][0], abs=1e-5)
    # Samples miss a turning point by an eighth of acceleration times squared distance in time, at most.
    sampled = [way.at_time(t)[0][0] for t in np.linspace(0, way.duration, 3000)]
    assert low == pytest.approx(min(sampled), abs=1e-4)
    assert high == pytest.approx(max(sampled), abs=1e-4)
    assert low <= min(sampled) + 1e-5
    assert high >= max(sampled) - 1e-5


def test_braking_in_steps_ends_where_it_said() -> None:
    braking = Braking(joint_limits())
    state, rest, out = (
        np.array([HOME, [1.0, -2, 0, 2, 0, 0, -2], [5.0, 5, -9, 0, 0, 0, -20]]),
        np.zeros(7),
        np.zeros((3, 7)),
    )
    braking.rest(state, rest)
    for _ in range(400):
        braking.step(state, 0.002, out)
        state[:] = out
    np.testing.assert_allclose(state, [rest, np.zeros(7), np.zeros(7)], atol=1e-9)
