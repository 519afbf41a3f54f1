"""Vector environments against Gymnasium's own, against bare loops, and when somebody dies."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from robot.errors import (
    ArmatureError,
    ConfigError,
    DeviceError,
    SpecError,
    StateError,
    UnknownNameError,
    WorkerError,
)
from robot.sim import make
from robot.sim.camera_config import CamerasConfig
from robot.sim.config import EnvConfig, RandomisationConfig
from robot.sim.vector import VectorEnvironment
from tests.robot.sim.fakes import DIE, FAIL, REFUSE, CountingWorld, broken, counting

N = 3
Counting = partial(VectorEnvironment, EnvConfig(), world=counting)


def actions(seed: int, steps: int, n: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (steps, n, size))


def equal(ours: Any, theirs: Any) -> None:
    """Nested dicts of arrays, compared to the last bit."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key in theirs:
            equal(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert [one is None for one in ours] == [one is None for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            if other is not None:
                equal(one, other)
    else:
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours).dtype.kind == np.asarray(theirs).dtype.kind


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_it_does_what_gymnasiums_own_vector_environment_does(mode: AutoresetMode) -> None:
    """Observations, rewards, both flags and infos over many ends of episodes of both kinds."""
    theirs = SyncVectorEnv([CountingWorld] * N, autoreset_mode=mode)
    with Counting(N, workers=2, autoreset=mode) as ours:
        assert ours.metadata["autoreset_mode"] == mode
        assert ours.observation_space == theirs.observation_space
        assert ours.single_action_space == theirs.single_action_space
        for pair in zip(ours.reset(seed=4), theirs.reset(seed=4), strict=True):
            equal(*pair)
        ends = np.zeros(2, int)
        for action in actions(0, 60, N, 2).astype(np.float32):
            mine, reference = ours.step(action), theirs.step(action)
            for one, other in zip(mine, reference, strict=True):
                equal(one, other)
            assert not (mine[2] & mine[3]).any()
            ends += [mine[2].sum(), mine[3].sum()]
        assert ends.min() > 3, "both kinds of end have to be seen"


def test_without_autoreset_the_caller_resets_what_is_over() -> None:
    with Counting(N, workers=2, autoreset=AutoresetMode.DISABLED) as ours:
        ours.reset(seed=4)
        over = np.zeros(N, np.bool_)
        while not over.any():
            before, _, terminated, truncated, _ = ours.step(np.zeros((N, 2)))
            over = terminated | truncated
        with pytest.raises(ArmatureError, match=f"environment {np.flatnonzero(over)[0]} has ended"):
            ours.step(np.zeros((N, 2)))
        observation, infos = ours.reset(options={"reset_mask": over})
        counts = observation["observation.state"][:, 1]
        np.testing.assert_array_equal(counts, np.where(over, 0, before["observation.state"][:, 1]))
        np.testing.assert_array_equal(infos["_success"], over)
        ours.step(np.zeros((N, 2)))


@pytest.fixture(scope="module")
def shared() -> Iterator[VectorEnvironment]:
    with Counting(N, workers=2) as environment:
        yield environment


def test_seeds_are_one_for_each_environment(shared: VectorEnvironment) -> None:
    def draws(**arguments: Any) -> list[float]:
        return shared.reset(**arguments)[0]["observation.state"][:, 0].tolist()

    def alone(seed: int) -> float:
        return CountingWorld().reset(seed=seed)[0]["observation.state"][0]

    assert draws(seed=10) == [alone(10), alone(11), alone(12)]
    assert draws(seed=[5, 5, 2]) == [alone(5), alone(5), alone(2)]
    assert draws(seed=np.array([7, 8, 9])) == draws(seed=7)
    assert draws(seed=7) != draws()
    with pytest.raises(SpecError, match="2 seeds for 3 environments"):
        shared.reset(seed=[1, 2])


def test_states_are_one_for_all_or_one_for_each(shared: VectorEnvironment) -> None:
    one = shared.reset(options={"state": np.array([0.5])})[0]["observation.state"][:, 0]
    np.testing.assert_allclose(one, 0.5)
    each = shared.reset(options={"state": [[0.1], [0.2], [0.3]]})[0]["observation.state"][:, 0]
    np.testing.assert_allclose(each, [0.1, 0.2, 0.3])
    with pytest.raises(SpecError, match="2 states for 3"):
        shared.reset(options={"state": [[0.1], [0.2]]})
    with pytest.raises(UnknownNameError, match="reset_mask"):
        shared.reset(options={"mask": None})
    with pytest.raises(SpecError, match=r"expected bool \(3,\)"):
        shared.reset(options={"reset_mask": [1, 0, 1]})
    # A worker's refusal reaches the caller as what it is, and the workers go on.
    with pytest.raises(DeviceError, match="another world"):
        shared.reset(options={"state": np.array([0.5, 0.5])})
    with pytest.raises(ArmatureError, match="begins with a reset"):
        shared.step(np.zeros((N, 2)))
    assert shared.reset(seed=1)[0]["observation.state"].shape == (N, 3)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda good: good[:2], r"shape \(2, 2\), expected \(3, 2\)"),
        (lambda good: good[0], "one row for each environment"),
        (lambda good: _with(good, (1, 1), np.nan), "Environment 1: 'action' is out of range: y is nan"),
        (lambda good: _with(good, (2, 0), 1.01), r"Environment 2: .* x is 1.01, accepted is \[-1.0, 1.0\]"),
        (lambda good: _with(good, (0, 0), -np.inf), "Environment 0"),
        (lambda good: good.astype(complex), "dtype complex"),
    ],
)
def test_wrong_actions_are_refused_before_anything_moves(shared: VectorEnvironment, fault: Any, words: str) -> None:
    first, _ = shared.reset(seed=0)
    with pytest.raises(SpecError, match=words):
        shared.step(fault(np.zeros((N, 2))))
    after = shared.step(np.zeros((N, 2)))[0]
    np.testing.assert_array_equal(after["observation.state"][:, 1], first["observation.state"][:, 1] + 1)


def _with(array: np.ndarray, at: tuple[int, int], value: float) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


def test_a_step_can_be_begun_and_awaited(shared: VectorEnvironment) -> None:
    shared.reset(seed=0)
    shared.step_async(np.zeros((N, 2)))
    for call in (lambda: shared.step_async(np.zeros((N, 2))), shared.reset, shared.render):
        with pytest.raises(ArmatureError, match=r"step_wait|wait for the step"):
            call()
    assert shared.step_wait()[0]["observation.state"][0, 1] == 1
    with pytest.raises(ArmatureError, match="without step_async"):
        shared.step_wait()


def test_pictures_of_all(shared: VectorEnvironment) -> None:
    shared.reset(seed=0)
    shared.step(np.zeros((N, 2)))
    pictures = shared.render()
    assert [picture.shape for picture in pictures] == [(4, 6, 3)] * N
    assert all((picture == 1).all() and picture.dtype == np.uint8 for picture in pictures)


def test_observations_are_copies_unless_views_are_wanted(shared: VectorEnvironment) -> None:
    held = shared.reset(seed=0)[0]["observation.images.front"]
    shared.step(np.zeros((N, 2)))
    assert (held == 100).all()
    with Counting(2, workers=1, copy=False) as viewing:
        held = viewing.reset(seed=0)[0]["observation.images.front"]
        viewing.step(np.zeros((2, 2)))
        assert (held == 101).all()


def test_numbers_that_make_no_sense() -> None:
    for n, workers in ((0, 1), (2, 3), (2, 0)):
        with pytest.raises(ConfigError, match=f"n {n} and workers {workers}"):
            VectorEnvironment(EnvConfig(), n, workers=workers)


def gone(process_id: int, within_s: float = 10.0) -> bool:
    """Whether a process ends soon; one that nobody has waited for counts as ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            status = Path(f"/proc/{process_id}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def processes(environment: VectorEnvironment) -> list[int]:
    return [worker.process.pid or 0 for worker in environment._workers]


@pytest.mark.parametrize(
    ("first", "error", "words"),
    [
        (DIE, WorkerError, "environments 0 to 1 ended .signal SIGKILL.*other workers were stopped"),
        (FAIL, WorkerError, "(?s)environments 0 to 1 failed.*ZeroDivisionError"),
        (REFUSE, DeviceError, "out of order"),
    ],
)
def test_a_worker_that_dies_or_raises_takes_the_others_with_it(first: float, error: type, words: str) -> None:
    environment = Counting(N, workers=2)
    environment.reset(seed=0)
    batch = np.zeros((N, 2))
    batch[0, 0] = first
    with pytest.raises(error, match=words):
        environment.step(batch)
    assert all(gone(worker) for worker in processes(environment))
    with pytest.raises(WorkerError, match=r"has ended: .*Make a new one"):
        environment.step(np.zeros((N, 2)))
    environment.close()
    environment.close()


def test_a_worker_that_was_killed_between_steps_is_missed() -> None:
    environment = Counting(N, workers=2)
    environment.reset(seed=0)
    os.kill(processes(environment)[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"environment 2 ended \(signal SIGKILL\)"):
        environment.step(np.zeros((N, 2)))
    assert all(gone(worker) for worker in processes(environment))


def test_a_world_that_cannot_be_made_says_why() -> None:
    with pytest.raises(WorkerError, match=r"(?s)failed.*KeyError: 'a missing mesh'"):
        VectorEnvironment(EnvConfig(), 2, workers=2, world=broken)


def test_an_environment_that_nobody_holds_ends_its_workers() -> None:
    environment = Counting(1)
    workers = processes(environment)
    del environment
    gc.collect()
    assert all(gone(worker) for worker in workers)


PARENT = """
import sys, time
import numpy as np
from robot.sim.config import EnvConfig
from robot.sim.vector import VectorEnvironment
from tests.robot.sim.fakes import counting

if __name__ == "__main__":
    environment = VectorEnvironment(EnvConfig(), 2, workers=2, world=counting)
    environment.reset(seed=0)
    print(*[worker.process.pid for worker in environment._workers], flush=True)
    while True:
        environment.step(np.zeros((2, 2)))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent_however_it_ends(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    variables = os.environ | {"PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(0.1)
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does
    else:
        parent.send_signal(how)
    _, complaint = parent.communicate(timeout=20)
    assert all(gone(worker) for worker in workers)
    assert complaint.count("Traceback") == (1 if how == signal.SIGINT else 0)


@pytest.fixture(scope="module")
def lift() -> Iterator[VectorEnvironment]:
    with VectorEnvironment(EnvConfig(horizon=6), N, workers=2) as environment:
        yield environment


def rows_of(environment: VectorEnvironment, batches: np.ndarray) -> list[list[np.ndarray]]:
    """For each environment what it showed at each step, rewards and flags included."""
    observation, _ = environment.reset(seed=20)
    rows = [[np.concatenate([array[i] for array in observation.values()])] for i in range(environment.num_envs)]
    for batch in batches:
        observation, *rest, infos = environment.step(batch)
        for i, row in enumerate(rows):
            flags = [part[i] for part in rest] + [infos["success"][i]]
            row.append(np.concatenate([*[array[i] for array in observation.values()], flags]))
    return rows


def alone(config: EnvConfig, seed: int, mine: np.ndarray) -> list[np.ndarray]:
    """The same of one environment in this process, reset in the step after an end."""
    environment, over = make(config), False
    observation, _ = environment.reset(seed=seed)
    rows = [np.concatenate(list(observation.values()))]
    for action in mine:
        if over:
            observation, info = environment.reset()
            reward, terminated, truncated = 0.0, False, False
        else:
            observation, reward, terminated, truncated, info = environment.step(action)
        over = terminated or truncated
        rows.append(np.concatenate([*observation.values(), [reward, terminated, truncated, info["success"]]]))
    return rows


def test_trajectories_are_those_of_environments_that_run_alone(lift: VectorEnvironment) -> None:
    """To the last bit and across resets, so that the split over workers cannot matter."""
    batches = actions(1, 16, N, 7)
    together = rows_of(lift, batches)
    for i in range(N):
        for one, other in zip(together[i], alone(EnvConfig(horizon=6), 20 + i, batches[:, i]), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_real_state_of_another_model_is_refused_and_a_stored_one_restored(lift: VectorEnvironment) -> None:
    lift.reset(seed=3)
    lift.step(np.full((N, 7), 0.3))
    states = lift.stored_states()
    expected = lift.reset(options={"state": states[::-1]})[0]
    np.testing.assert_array_equal(lift.stored_states()[0].flat, states[2].flat)
    again = lift.reset(seed=9, options={"state": states})[0]
    for key, array in again.items():
        np.testing.assert_array_equal(array, expected[key][::-1])
    with pytest.raises(StateError, match="32 numbers"):
        lift.reset(options={"state": np.zeros(23)})


@pytest.mark.slow
@pytest.mark.parametrize(("n", "workers"), [(3, 1), (3, 3), (5, 2)])
def test_splits_do_not_matter(lift: VectorEnvironment, n: int, workers: int) -> None:
    batches = actions(2, 16, 5, 7)
    expected = rows_of(lift, batches[:, :N])
    with VectorEnvironment(EnvConfig(horizon=6), n, workers=workers) as other:
        got = rows_of(other, batches[:, :n])
    for one, two in zip(expected, got, strict=False):
        np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))


@pytest.mark.slow
def test_gymnasium_makes_it_by_name(lift: VectorEnvironment) -> None:
    made = gymnasium.make_vec(
        "robot.sim.environment:armature/Lift-v0",
        num_envs=N,
        vectorization_mode="vector_entry_point",
        workers=1,
        horizon=6,
    )
    counting_returns = RecordEpisodeStatistics(made)
    observation, _ = counting_returns.reset(seed=20)
    for key, array in lift.reset(seed=20)[0].items():
        np.testing.assert_array_equal(observation[key], array)
    for _ in range(6):
        *_, truncated, infos = counting_returns.step(np.zeros((N, 7)))
    assert truncated.all()
    np.testing.assert_array_equal(infos["episode"]["l"], 6)
    counting_returns.close()


@pytest.mark.slow
def test_an_unknown_task_is_named_as_in_one_environment() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lift'"):
        VectorEnvironment(EnvConfig(task="lfit"), 2, workers=1)


def resident_bytes(process_id: int) -> int:
    fields = Path(f"/proc/{process_id}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.slow
def test_memory_does_not_grow_with_steps_and_resets() -> None:
    """Parent and workers over 20,000 steps and 400 episodes, after a warm-up of a fifth of them."""
    n, steps = 4, 5000
    with VectorEnvironment(EnvConfig(horizon=50), n, workers=2) as environment:
        environment.reset(seed=0)
        watched, sizes = [os.getpid(), *processes(environment)], []
        batch = actions(0, 1, n, 7)[0]
        for step in range(steps):
            environment.step(batch if step % 2 else -batch)
            if step >= steps // 5 and step % 100 == 0:
                sizes.append([resident_bytes(process_id) for process_id in watched])
        grown = np.polyfit(np.arange(len(sizes)) * 100 * n, np.array(sizes, float), 1)[0]
    # An object of 100 bytes kept in each step would show as 100; pages come and go in 4096.
    assert grown.max() < 20, f"bytes for each step, parent and workers: {grown}"


@pytest.mark.gl
@pytest.mark.slow
def test_pictures_and_randomised_worlds_cross_as_they_are_alone() -> None:
    """What a camera sees of a randomised world, and what was drawn, in another process as in this one."""
    config = EnvConfig(
        horizon=3,
        cameras=CamerasConfig(names=["agentview"], height=24, width=32, depth=True),
        randomisation=RandomisationConfig(enabled=True),
    )
    batches = actions(3, 5, 2, 7)
    with VectorEnvironment(config, 2, workers=1) as together:
        single = make(config)
        seen, infos = together.reset(seed=6)
        alone_seen, info = single.reset(seed=7)
        for batch in batches:
            for key, array in alone_seen.items():
                assert seen[key].dtype == array.dtype
                np.testing.assert_array_equal(seen[key][1], array)
            over = single.unwrapped._steps == config.horizon
            alone_seen = single.reset()[0] if over else single.step(batch[1])[0]
            seen, *_, last = together.step(batch)
            assert ("randomisation" in last) == over
        assert seen["observation.images.agentview"].shape == (2, 24, 32, 3)
        assert infos["randomisation"]["mass"]["cube_main"][1] == info["randomisation"]["mass"]["cube_main"]
        single.close()
