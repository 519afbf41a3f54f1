"""The compiled stepper against robosuite's own `env.step`, and its linear algebra against NumPy's."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from robot.control.action_spaces import ee_pose_from_delta, matrix_from_rot6d
from robot.errors import SpecError
from robot.loop import rollout
from robot.sim import expert, make
from robot.sim.compiled import algebra, records
from robot.sim.compiled.calls import VERSION
from robot.sim.compiled.stepping import advance
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.tasks import task
from robot.sim.world import build, seeded

TOLERANCE = 1e-6


# Compiled functions that only compiled functions call have no door for Python: these are doors.
@njit
def cholesky(a: np.ndarray, n: int) -> bool:
    return algebra.cholesky(a, n)


@njit
def solve_spectral(a: np.ndarray, v: np.ndarray, b: np.ndarray, at: int, n: int) -> None:
    algebra.solve_spectral(a, v, b, at, n)


@njit
def rotation(vector: np.ndarray, at: int, out: np.ndarray) -> None:
    algebra.rotation(vector, at, out)


@njit
def orthonormal(vector: np.ndarray, at: int, out: np.ndarray) -> bool:
    return algebra.orthonormal(vector, at, out)


@pytest.fixture(scope="module")
def ours() -> Iterator[RobosuiteEnvironment]:
    environment = make(EnvConfig(horizon=1000))
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def theirs() -> Any:
    """robosuite's environment of the same model, stepped by robosuite."""
    return build(EnvConfig(horizon=1000), task("lift"))


def random_actions(seed: int, steps: int) -> np.ndarray:
    """Motion that changes at every step; a gripper that stays long enough to move."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1.0, 1.0, (steps, 7))
    actions[:, 6] = np.repeat(rng.uniform(-1.0, 1.0, -(-steps // 10)), 10)[:steps]
    return actions


def assert_same_trajectory(ours: RobosuiteEnvironment, theirs: Any, seed: int, actions: np.ndarray) -> list[float]:
    """Step both; positions, velocities, reward and success agree after every step. Returns the rewards."""
    ours.reset(seed=seed)
    with seeded(seed):
        theirs.reset()
    np.testing.assert_array_equal(ours.data.qpos, theirs.sim.data.qpos)
    rewards = []
    for action in actions:
        _, reward, _, _, info = ours.step(action)
        _, their_reward, _, _ = theirs.step(action)
        np.testing.assert_allclose(ours.data.qpos, theirs.sim.data.qpos, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(ours.data.qvel, theirs.sim.data.qvel, rtol=0, atol=TOLERANCE)
        assert reward == pytest.approx(their_reward, abs=TOLERANCE)
        assert info["success"] == bool(theirs._check_success())
        rewards.append(reward)
    return rewards


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_actions_give_robosuites_trajectory(ours: RobosuiteEnvironment, theirs: Any, seed: int) -> None:
    assert_same_trajectory(ours, theirs, seed, random_actions(seed, 100))


def test_a_grasp_gives_robosuites_trajectory_and_reward(ours: RobosuiteEnvironment, theirs: Any) -> None:
    actions: list[np.ndarray] = []
    rollout(ours, expert("lift", ours.specs), 5, on_step=lambda step: actions.append(step.commanded))
    rewards = assert_same_trajectory(ours, theirs, 5, np.array(actions))
    assert rewards[-1] == 1.0
    assert rewards[0] == 0.0


def test_pose_goal_equals_delta_goal(ours: RobosuiteEnvironment) -> None:
    action = random_actions(3, 1)[0]
    ours.reset(seed=4)
    pos_base, rot6d = ours._observation()["observation.state"][:3], ours._observation()["observation.state"][3:9]
    ours.stepper.act(action, ours.specs.action)
    ours.stepper.run(25)
    by_delta = ours.data.qpos.copy()
    pos, R_base_tool = (part.copy() for part in ours.stepper.goal)
    ours.reset(seed=4)
    ours.stepper.set_goal_pose(pos, R_base_tool)
    ours.stepper.set_gripper(action[6])
    ours.stepper.run(25)
    np.testing.assert_array_equal(ours.data.qpos, by_delta)
    columns = np.stack([rot6d[:3], rot6d[3:], np.cross(rot6d[:3], rot6d[3:])], axis=-1)
    pose = ee_pose_from_delta(action, pos_base, columns)
    np.testing.assert_allclose(pose[:3], pos, atol=1e-6)
    np.testing.assert_allclose(pose[3:9], R_base_tool[:, :2].T.ravel(), atol=1e-6)


def test_a_delta_waits_for_the_pose_at_the_next_substep(ours: RobosuiteEnvironment) -> None:
    ours.reset(seed=0)
    ours.stepper.act(np.zeros(7), ours.specs.action)
    ours.stepper.run(1)
    held, _ = ours.stepper.goal
    np.testing.assert_allclose(held, ours._observation()["observation.state"][:3], atol=1e-6)


def test_substeps_may_be_run_one_at_a_time(ours: RobosuiteEnvironment) -> None:
    action = random_actions(6, 1)[0]
    ours.reset(seed=6)
    ours.stepper.act(action, ours.specs.action)
    ours.stepper.run(25)
    together = ours.data.qpos.copy()
    ours.reset(seed=6)
    ours.stepper.act(action, ours.specs.action)
    for _ in range(25):
        ours.stepper.run(1)
    np.testing.assert_array_equal(ours.data.qpos, together)


def test_fingers_move_in_fractions_of_a_period(ours: RobosuiteEnvironment) -> None:
    ours.reset(seed=0)
    for _ in range(25):
        ours.stepper.set_gripper(1.0, steps=1 / 25)
    ours.stepper.run(1)
    slowly = ours.data.ctrl[-2:].copy()
    ours.reset(seed=0)
    ours.stepper.set_gripper(1.0)
    ours.stepper.run(1)
    np.testing.assert_allclose(ours.data.ctrl[-2:], slowly, atol=1e-12)
    np.testing.assert_allclose(slowly, [0.016, -0.016], atol=1e-12)  # 0.02 m less a fifth of the way to zero


def test_other_threads_run_meanwhile(ours: RobosuiteEnvironment) -> None:
    ours.reset(seed=0)
    physics = threading.Thread(target=ours.stepper.run, args=(5000,))
    turns = 0
    physics.start()
    while physics.is_alive():
        turns += 1
    assert turns > 100


def test_near_a_singularity_the_arm_stays_robosuites(ours: RobosuiteEnvironment, theirs: Any) -> None:
    stretched = np.array([0.0, 0.3, 0.0, -0.08, 0.0, 1.6, 0.785])
    ours.reset(seed=0)
    with seeded(0):
        theirs.reset()
    # robosuite's controller first looks at the world in its second substep; a step lets it catch up.
    for world, data in ((ours, ours.data), (theirs, theirs.sim.data)):
        world.step(np.zeros(7))
        data.qpos[:7] = stretched
    for action in random_actions(0, 5) * 0.2:
        ours.step(action)
        theirs.step(action)
    np.testing.assert_allclose(ours.data.qpos, theirs.sim.data.qpos, rtol=0, atol=TOLERANCE)


def test_a_second_process_compiles_nothing(ours: RobosuiteEnvironment) -> None:
    ours.reset(seed=0)
    ours.step(np.zeros(7))  # by now everything is on disk
    code = (
        "from robot.sim import make; from robot.sim.config import EnvConfig; import numpy as np\n"
        "environment = make(EnvConfig(task='door', controller='JOINT_VELOCITY')); environment.reset(seed=0)\n"
        "environment.step(np.zeros(8))\n"
        "from robot.sim.compiled import frames, stepping\n"
        "for f in (stepping.advance, stepping.ask, stepping.move_fingers, frames.observe_arms, frames.observe_world):\n"
        "    print(sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"] * 5


def test_a_change_in_any_compiled_source_is_a_change_of_the_caches_key() -> None:
    assert [cell.cell_contents for cell in advance.py_func.__closure__] == [VERSION]
    sources = [path for path in Path(records.__file__).parent.glob("*.py")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).digest()
    assert int.from_bytes(digest[:6]) == VERSION


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_orthonormal_is_gram_schmidt(seed: int) -> None:
    vector, out = np.random.default_rng(seed).normal(size=8), np.zeros((3, 3))
    assert orthonormal(vector, 1, out)
    np.testing.assert_allclose(out, matrix_from_rot6d(vector[1:7]), atol=1e-12)
    vector[4:7] = -2.0 * vector[1:4]
    assert not orthonormal(vector, 1, out)


def test_a_pose_without_a_rotation_is_refused() -> None:
    environment = make(EnvConfig(absolute=True))
    environment.reset(seed=0)
    pose = np.array([0.5, 0.0, 0.1, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    with pytest.raises(SpecError, match="6-D rotation"):
        environment.step(pose)
    pose[0] = np.nan
    with pytest.raises(SpecError, match="x is nan"):
        environment.step(pose)


def test_hold_stays_where_the_arm_was_put(ours: RobosuiteEnvironment) -> None:
    for absolute in (False, True):
        for controller in ("OSC_POSE", "JOINT_POSITION"):
            environment = make(EnvConfig(controller=controller, absolute=absolute))
            environment.reset(seed=0)
            environment.data.qpos[:7] += 0.1
            environment.stepper.hold()
            environment.stepper.run(1)
            before = environment.data.qpos[:7].copy()
            environment.stepper.run(100)
            np.testing.assert_allclose(environment.data.qpos[:7], before, atol=0.02)


matrices = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(6, 7)))


@settings(max_examples=30, deadline=None)
@given(matrices, st.integers(0, 3))
def test_spectral_solution_is_pinvs(jacobian: np.ndarray, lost: int) -> None:
    jacobian[:lost] = 0.0
    a, b = jacobian @ jacobian.T, np.arange(1.0, 7.0)
    expected = np.linalg.pinv(a) @ b
    x = b.copy()
    solve_spectral(a.copy(), np.zeros((6, 6)), x, 0, 6)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@settings(max_examples=30, deadline=None)
@given(matrices)
def test_cholesky_factor_and_its_doubts(jacobian: np.ndarray) -> None:
    a = jacobian @ jacobian.T + 0.01 * np.eye(6)
    factor = a.copy()
    assert cholesky(factor, 6)
    lower = np.tril(factor)
    np.testing.assert_allclose(lower @ lower.T, a, rtol=1e-10, atol=1e-12)
    jacobian[5] = jacobian[4]
    assert not cholesky(jacobian @ jacobian.T, 6)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_rotation_is_robosuites(vector: tuple[float, ...]) -> None:
    from robosuite.utils.transform_utils import axisangle2quat, quat2mat

    out = np.zeros((3, 3))
    rotation(np.array(vector), 0, out)
    np.testing.assert_allclose(out, quat2mat(axisangle2quat(np.array(vector))), atol=3e-7)
