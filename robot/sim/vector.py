"""Many environments at once, in worker processes, with observations and actions in memory that all of them share.

Environment i of a `reset(seed=s)` begins from seed `s + i`, and every later episode of it from the numbers that this
seed gives: trajectories depend on seeds and actions only, not on how many workers there are or who is the fastest.
"""

import json
import operator
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from robot.contract import Environment, EnvironmentSpecs, Observation
from robot.errors import ArmatureError, ConfigError, SpecError, WorkerError, unknown_name
from robot.processes import anonymous_memory, end
from robot.sim import make
from robot.sim.batch import Batch
from robot.sim.config import EnvConfig
from robot.sim.spaces import box
from robot.sim.states import StoredState, from_text, to_text
from robot.sim.vector_worker import RENDER, RESET, STATES, STEP, Job, Worker, stop

Steps = tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
"""Observations (n, ...) by key, rewards (n,), terminations (n,), truncations (n,), infos."""


class VectorEnvironment(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """n environments of one kind behind Gymnasium's vector API.

    After an episode's end, `autoreset` says what follows. `NEXT_STEP`: the next step ignores the action of that
    environment, resets it, and returns its first observation with reward 0. `SAME_STEP`: the same step resets it; the
    observation is the new episode's first, and `infos["final_obs"][i]` and `infos["final_info"]` hold where the old one
    ended. `DISABLED`: it is reset by `reset(options={"reset_mask": ...})`, and not stepped before. Termination is never
    mixed with truncation in any of them.

    Use it as a context manager or close it. A worker that dies takes the others with it; workers end by themselves when
    this process is gone.

    Attributes:
        specs: What one environment gives and takes.
        workers: Number of processes.
    """

    render_mode = "rgb_array"

    def __init__(
        self,
        config: EnvConfig,
        n: int,
        workers: int | None = None,
        autoreset: AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        world: Callable[[EnvConfig], Environment] = make,
    ) -> None:
        """Start the workers and wait until they have made their environments.

        Args:
            config: What each environment is.
            n: Number of environments.
            workers: Number of processes, each with an equal share of them; by default one for each processor.
            autoreset: What follows the end of an episode.
            copy: Whether observations are copies. If not, they are views that the next step overwrites.
            world: Makes an environment; it crosses to the workers, so it is a function of a module or a partial of one.

        Raises:
            ConfigError: The numbers make no sense, or the config names something that does not exist.
            WorkerError: A worker died.
        """
        workers = min(n, len(os.sched_getaffinity(0))) if workers is None else workers
        if not 1 <= workers <= n:
            raise ConfigError(f"A vector environment has 1 <= workers <= n, got n {n} and workers {workers}.")
        self.num_envs, self.workers, self._copy = n, workers, copy
        self._why_closed = "it was closed"
        self._is_pending = self._was_reset = False
        shares = np.array_split(np.arange(n), workers)
        jobs = [Job(config, world, int(own[0]), len(own), n, autoreset.value) for own in shares]
        self._workers: list[Worker] = []
        self._finalizer = weakref.finalize(self, stop, self._workers)
        self._workers += [Worker(job) for job in jobs]
        self.specs = EnvironmentSpecs.from_json(json.loads(self._collect()[0]))
        self._batch = self._share()
        largest = np.finfo(np.float64).max
        self._low, self._high = (np.clip(bound, -largest, largest) for bound in self.specs.action.bounds())
        self._action_dtype = np.dtype(self.specs.action.dtype)
        self._all = np.ones(n, np.bool_)
        self.single_observation_space: Any = _dictionary(self.specs)
        self.single_action_space: Any = box(self.specs.action)
        self.observation_space: Any = batch_space(self.single_observation_space, n)
        self.action_space: Any = batch_space(self.single_action_space, n)
        fps = round(1.0 / self.specs.dt_s)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps, "autoreset_mode": autoreset}
        self._autoreset = autoreset

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: One for each environment, or s for s, s + 1, ..., s + n - 1.
            options: `state`: a stored state or a vector (see `robot.sim.states`) for all environments, or a sequence of
                n for each its own. `reset_mask`: bool, (n,): only these are reset, the others stay where they are.

        Raises:
            StateError: A state is of another model; the workers live on, and want another reset.
            SpecError: There are not n seeds, states or masks.
            WorkerError: A worker died or failed.
        """
        self._check_idle("reset")
        mask, states = self._options(options)
        seeds = self._seeds(seed)
        for worker in self._workers:
            own = worker.own
            wanted = {"mask": mask[own].tolist(), "seeds": seeds[own], "states": states[own]}
            worker.send(RESET, json.dumps(wanted).encode())
        was_reset, self._was_reset = self._was_reset, False
        replies = self._collect(may_go_on=True)
        self._was_reset = was_reset or bool(mask.all())
        return self._observations(), self._infos(replies, mask)

    def step(self, actions: np.ndarray) -> Steps:
        """Act in every environment for one control period.

        Args:
            actions: (n, A), each row inside `specs.action`.

        Raises:
            SpecError: They are not; names the environment and the element. Nothing has moved then.
            WorkerError: A worker died or failed.
        """
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: np.ndarray) -> None:
        """Begin what `step` does and return at once; `step_wait` gives the result.

        With `copy=False` the observations of the last step are overwritten meanwhile.
        """
        self._check_idle("step")
        if not self._was_reset:
            raise ArmatureError("step was called before reset: every environment begins with a reset.")
        self._batch.action[...] = self._checked(actions)
        if self._autoreset == AutoresetMode.DISABLED:
            self._check_none_is_over()
        for worker in self._workers:
            worker.send(STEP)
        self._is_pending = True

    def step_wait(self) -> Steps:
        """The result of the step that `step_async` began.

        Raises:
            WorkerError: A worker died or failed.
        """
        if not self._is_pending:
            raise ArmatureError("step_wait was called without step_async: there is nothing to wait for.")
        self._is_pending = False
        infos = self._infos(self._collect(), self._all)
        batch = self._batch
        if self._autoreset == AutoresetMode.SAME_STEP:
            self._add_final(infos, batch.terminated | batch.truncated)
        flags = batch.terminated.copy(), batch.truncated.copy()
        return self._observations(), batch.reward.copy(), *flags, infos

    def render(self) -> tuple[np.ndarray, ...]:
        """A picture of each environment: RGB, uint8, (H, W, 3), upright.

        Raises:
            RenderingError: No OpenGL library that MuJoCo can render with; the workers live on.
        """
        self._check_idle("render")
        for worker in self._workers:
            worker.send(RENDER)
        pictures: list[np.ndarray] = []
        for reply in self._collect(may_go_on=True):
            head, _, pixels = reply.partition(b"\n")
            flat = np.frombuffer(pixels, np.uint8)
            for shape in json.loads(head):
                size = int(np.prod(shape))
                pictures.append(flat[:size].reshape(shape).copy())
                flat = flat[size:]
        return tuple(pictures)

    def stored_states(self) -> list[StoredState | np.ndarray]:
        """The present state of each environment, for `reset(options={"state": ...})`."""
        self._check_idle("stored_states")
        for worker in self._workers:
            worker.send(STATES)
        return [from_text(text) for reply in self._collect(may_go_on=True) for text in json.loads(reply)]

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.connection.close()  # to a worker, the end of its work
        for worker in self._workers:
            end(worker.process)
        self._finalizer.detach()

    def __enter__(self) -> "VectorEnvironment":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _share(self) -> Batch:
        """Memory for everything, which the workers have too."""
        memory = anonymous_memory("armature-vector")
        try:
            batch = Batch(self.specs, self.num_envs, memory)
            for worker in self._workers:
                worker.give(memory)
            return batch
        finally:
            os.close(memory)

    def _check_idle(self, call: str) -> None:
        if self.closed:
            raise WorkerError(f"{call} of a vector environment that has ended: {self._why_closed}. Make a new one.")
        if self._is_pending:
            raise ArmatureError(f"{call} was called between step_async and step_wait: wait for the step first.")

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, Sequence | np.ndarray):
            self._check_count("seeds", len(seed))
            return [None if one is None else operator.index(one) for one in seed]
        return [operator.index(seed) + i for i in range(self.num_envs)]

    def _options(self, options: dict[str, Any] | None) -> tuple[np.ndarray, list[str | None]]:
        """Which environments are reset, and the state of each as text."""
        options = options or {}
        for name in options:
            if name not in ("state", "reset_mask"):
                raise unknown_name("reset option", name, ["state", "reset_mask"])
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise SpecError(f"reset_mask is {mask.dtype} of shape {mask.shape}, expected bool ({self.num_envs},).")
        state = options.get("state")
        if state is None:
            return mask, [None] * self.num_envs
        if isinstance(state, StoredState) or (np.ndim(state) == 1 and not isinstance(state[0], StoredState)):
            return mask, [to_text(state)] * self.num_envs
        self._check_count("states", len(state))
        return mask, [to_text(one) for one in state]

    def _check_count(self, what: str, got: int) -> None:
        if got != self.num_envs:
            raise SpecError(f"Got {got} {what} for {self.num_envs} environments, expected one for each.")

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        spec, array = self.specs.action, np.asarray(actions)
        if array.shape != (self.num_envs, *spec.shape):
            expected = (self.num_envs, *spec.shape)
            raise SpecError(f"The actions have shape {array.shape}, expected {expected}: one row for each environment.")
        if not np.can_cast(array.dtype, self._action_dtype, "same_kind"):
            spec.validate(array[0])
        inside = (array >= self._low) & (array <= self._high)
        if not inside.all():
            index = int(np.flatnonzero(~inside.all(axis=1))[0])
            try:
                spec.validate(array[index])
            except SpecError as error:
                raise SpecError(f"Environment {index}: {error}") from None
        return array

    def _check_none_is_over(self) -> None:
        over = np.flatnonzero(self._batch.terminated | self._batch.truncated)
        if len(over):
            raise ArmatureError(
                f"The episode of environment {over[0]} has ended and autoreset is disabled: reset it with "
                'options={"reset_mask": terminations | truncations}.'
            )

    def _observations(self) -> Observation:
        return {key: array.copy() if self._copy else array for key, array in self._batch.observation.items()}

    def _infos(self, replies: list[bytes], mask: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {"success": self._batch.success & mask, "_success": mask.copy()}
        for worker, reply in zip(self._workers, replies, strict=True):
            for index, extra in enumerate(json.loads(reply) if reply else [], worker.first):
                infos = self._add_info(infos, extra, index)
        return infos

    def _add_final(self, infos: dict[str, Any], over: np.ndarray) -> None:
        """What Gymnasium says of episodes that ended in a step that also began the next."""
        if not over.any():
            infos.pop("final_info", None)
            return
        final = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(over):
            final[index] = {key: array[index].copy() for key, array in self._batch.final_observation.items()}
        infos |= {"final_obs": final, "_final_obs": over}
        rest = infos.get("final_info", {})
        infos |= {"final_info": {**rest, "success": self._batch.final_success & over, "_success": over.copy()}}
        infos["_final_info"] = over.copy()

    def _collect(self, may_go_on: bool = False) -> list[bytes]:
        """A reply of each worker.

        Args:
            may_go_on: Whether the workers live on where one refuses for a reason that the caller can mend.
        """
        try:
            replies = [worker.receive() for worker in self._workers]
        except BaseException as error:
            # Replies that nobody has read would be taken for those to the next message.
            self._end(f"{type(error).__name__}: {error}")
            raise
        refusals = [reply for reply in replies if isinstance(reply, ArmatureError)]
        if refusals:
            if not may_go_on:
                self._end(str(refusals[0]))
            raise refusals[0]
        return [reply for reply in replies if isinstance(reply, bytes)]

    def _end(self, why: str) -> None:
        self._why_closed, self.closed = why.partition("\n")[0].rstrip("."), True
        stop(self._workers)


def from_keywords(
    num_envs: int, workers: int | None = None, render_mode: str = "rgb_array", **fields: Any
) -> VectorEnvironment:
    """The environments of an `EnvConfig` with these fields, for `gymnasium.make_vec`."""
    if render_mode != VectorEnvironment.render_mode:
        raise unknown_name("render mode", render_mode, [VectorEnvironment.render_mode])
    return VectorEnvironment(EnvConfig(**fields), num_envs, workers)


def _dictionary(specs: EnvironmentSpecs) -> gymnasium.spaces.Dict:
    return gymnasium.spaces.Dict({key: box(spec) for key, spec in specs.observation.items()})
