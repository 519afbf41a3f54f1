"""A robosuite task as a Gymnasium environment with specs, seeded end to end, stepped by the compiled stepper."""

import logging
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from robot.contract import EnvironmentSpecs, Observation
from robot.control import action_spaces
from robot.errors import unknown_name
from robot.sim import make
from robot.sim.cameras import OVERVIEW, overview
from robot.sim.config import EnvConfig
from robot.sim.controllers import action_space, robosuite_action
from robot.sim.judging import judge
from robot.sim.observing import Observer
from robot.sim.rendering import Renderer
from robot.sim.resting import let_left_out_objects_sleep
from robot.sim.spaces import box
from robot.sim.states import StateKeeper, StoredState
from robot.sim.stepping import Stepper, not_compiled_because
from robot.sim.tasks import TASKS, task
from robot.sim.world import build, seeded
from robot.specs import ArraySpec

logger = logging.getLogger(__name__)

PICTURE = 256
"""Pixels along each edge of what `render` returns."""

_told: set[str] = set()


class RobosuiteEnvironment(gymnasium.Env[Observation, np.ndarray]):
    """One task, one or two arms, state observations (see `robot.sim.observing`), robosuite's reward.

    As in robosuite, reward, success and the poses in an observation are those of the last physics substep's beginning,
    so they lag the joint positions by one time step of the model (2 ms). The reward is sparse by default: 1 while the
    task is fulfilled, else 0, and a share of 1 where only parts of it are.

    Attributes:
        specs: What it gives and takes.
        stepper: The compiled controller and physics, or None where robosuite's own loop runs.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (Gymnasium's own declaration)
    render_mode = "rgb_array"

    def __init__(self, config: EnvConfig) -> None:
        """Build the world.

        Raises:
            UnknownNameError: The task, robot or controller does not exist.
            ConfigError: They do not fit each other.
        """
        chosen, space = task(config.task), action_space(config)
        self._config = config
        self._arena = build(config, chosen)
        let_left_out_objects_sleep(self._arena)
        self._observer = Observer(self._arena, chosen)
        self._judge = judge(self._arena, chosen)
        self._states = StateKeeper(self._arena, chosen.robosuite_name)
        self._renderer = Renderer(self.model, self.data, [overview(self.n_arms)])
        # robosuite truncates this quotient in the same way.
        self.n_substeps = int((1.0 / config.control_hz) / self._arena.sim.model._model.opt.timestep)
        self.stepper = self._make_stepper()
        self.specs = EnvironmentSpecs(
            observation=self._observer.specs,
            action=self._action_spec(space),
            action_space=space,
            dt_s=1.0 / config.control_hz,
            robot=config.robot,
            task=chosen.words,
        )
        self.metadata = {**self.metadata, "render_fps": round(config.control_hz)}
        self.observation_space: Any = gymnasium.spaces.Dict(
            {key: box(spec) for key, spec in self.specs.observation.items()}
        )
        self.action_space = box(self.specs.action)
        self._steps = self._held = 0

    @property
    def n_arms(self) -> int:
        """Number of arms."""
        return len(self._arena.robots)

    @property
    def model(self) -> Any:
        """The world's `mujoco.MjModel`."""
        return self._arena.sim.model._model

    @property
    def data(self) -> Any:
        """The world's `mujoco.MjData`."""
        return self._arena.sim.data._data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode: the arm and the objects are placed by `seed`, or by the generator the last seed left.

        Args:
            seed: Of the placement, and of all that later resets without a seed draw.
            options: `state`: begin at a `StoredState`, or at time, qpos and qvel as one vector; see `robot.sim.states`.
                What a vector does not hold (where Door's door stands, Wipe's dirt lies) is as `seed` places it.

        Raises:
            StateError: The state is of another model, or holds a NaN.
            UnknownNameError: An option does not exist.
        """
        state = self._state_of(options)
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        with seeded(drawn):
            self._arena.reset()
        if state is not None:
            self._states.restore(state)
        if self.stepper is not None:
            self.stepper.begin_episode()
        self._steps = self._held = 0
        return self._observation(), {"success": self.success()}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one control period.

        Raises:
            SpecError: The action is not inside `specs.action`.
        """
        if self.stepper is None:
            self._arena.step(robosuite_action(self.specs.action.validate(action), self._config, self.n_arms))
        else:
            self.stepper.act(action, self.specs.action)
            self.stepper.run(self.n_substeps)
        reward, success = self._judge()
        self._steps += 1
        self._held = self._held + 1 if success else 0
        terminated = self._held >= self._config.success_hold
        truncated = not terminated and self._steps >= self._config.horizon
        return self._observation(), reward, terminated, truncated, {"success": success}

    def stored_state(self) -> StoredState:
        """The present state, for `reset(options={"state": ...})` of an environment of the same model."""
        return self._states.capture()

    def success(self) -> bool:
        """Whether the task is fulfilled now, by robosuite's criterion."""
        return self._judge()[1]

    def fill_observation(self, out: Mapping[str, np.ndarray]) -> None:
        """Write the present observation into arrays by key, of the specs' shapes and any float type."""
        self._observer.fill(out)

    def render(self) -> np.ndarray:
        """The world as a camera beside the table sees it: RGB, uint8, (256, 256, 3), upright.

        Raises:
            RenderingError: No OpenGL library that MuJoCo can render with.
        """
        return self._renderer.draw(OVERVIEW, PICTURE, PICTURE)

    def appearance_changed(self) -> None:
        """Pictures show from now on what has become of textures in the model; all else they show anyway."""
        self._renderer.refresh()

    def close(self) -> None:
        """Free the renderer; may be called twice."""
        self._renderer.close()

    def _state_of(self, options: dict[str, Any] | None) -> StoredState | np.ndarray | None:
        for name in options or {}:
            if name != "state":
                raise unknown_name("reset option", name, ["state"])
        state = (options or {}).get("state")
        return None if state is None else self._states.checked(state)

    def _observation(self) -> Observation:
        out = {key: np.empty(spec.shape, np.float32) for key, spec in self.specs.observation.items()}
        self._observer.fill(out)
        return out

    def _action_spec(self, space: str) -> ArraySpec:
        specs = []
        for robot, n in zip(self._arena.robots, self._observer.n_joints, strict=True):
            spec = action_spaces.spec(space, n)
            specs.append(spec if robot.gripper[robot.arms[0]].dof else action_spaces.without_gripper(spec))
        return action_spaces.side_by_side(specs)

    def _make_stepper(self) -> Stepper | None:
        reason = not_compiled_because(self._arena)
        if reason is None:
            return Stepper(self._arena)
        if reason not in _told:
            _told.add(reason)
            logger.warning("This environment runs in robosuite's own loop, about ten times slower: %s.", reason)
        return None


def from_keywords(render_mode: str = "rgb_array", **fields: Any) -> Any:
    """The environment of an `EnvConfig` with these fields, for `gymnasium.make`."""
    if render_mode != RobosuiteEnvironment.render_mode:
        raise unknown_name("render mode", render_mode, [RobosuiteEnvironment.render_mode])
    return make(EnvConfig(**fields))


def _register() -> None:
    """Make the tasks known to Gymnasium: `gymnasium.make("robot.sim.environment:armature/Lift-v0", horizon=100)`.

    `gymnasium.make_vec(..., num_envs=8, vectorization_mode="vector_entry_point", workers=2)` gives worker processes.
    """
    for name, known in TASKS.items():
        identifier = f"armature/{known.robosuite_name}-v0"
        if identifier not in gymnasium.registry:
            gymnasium.register(
                identifier,
                entry_point=f"{__name__}:from_keywords",
                vector_entry_point="robot.sim.vector:from_keywords",
                kwargs={"task": name},
            )


_register()
