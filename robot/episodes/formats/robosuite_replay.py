"""MuJoCo's states, the model and robosuite's observations of simulated episodes that logged only ours.

An episode is played again: its world from its seed, its actions one after the other. The same machine and versions give
the same numbers, which is checked against what was recorded, row by row.

robosuite's playback script, with `--use-actions`, does not begin as an episode did: its controllers still stand at the
model's own posture, to which they relate the first action and draw the null space. What it plays is off by about 0.02
rad in the joints from then on; the task mostly succeeds. `AS_ROBOSUITE` plays the actions as that script does, in
robosuite's own loop, and replaces what was observed: the file then holds what the script will see, bit for bit.
"""

import dataclasses
import importlib.metadata
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from robot import sim
from robot.contract import EnvironmentSpecs
from robot.episodes.formats.robomimic_mapping import PREFIX
from robot.episodes.rows import ACTION, Rows, RowSource, Schema
from robot.errors import ArmatureError, DatasetError
from robot.sim.camera_config import CamerasConfig
from robot.sim.config import EnvConfig
from robot.sim.controllers import ACTION_SPACES, robosuite_config
from robot.sim.tasks import TASKS
from robot.sim.world import import_robosuite
from robot.specs import ArraySpec

AS_RECORDED, AS_ROBOSUITE = "replay", "robosuite"
TOLERANCE = 1e-5
"""Largest difference between what was recorded and what is observed in the same world: some steps of float32."""

_ENDLESS = 10**9


def world_of(specs: EnvironmentSpecs) -> EnvConfig:
    """The simulated world that has these specs.

    Raises:
        DatasetError: No task has such words, or no controller such actions.
    """
    tasks = [name for name, known in TASKS.items() if known.words == specs.task]
    controllers = [
        (name, absolute)
        for name, spaces in ACTION_SPACES.items()
        for absolute, space in spaces.items()
        if space == specs.action_space
    ]
    if specs.action_space == "ee_pose":
        raise DatasetError("robosuite takes absolute poses as axis-angle vectors, not as `ee_pose`; leave states=none.")
    if not tasks or not controllers:
        raise DatasetError(
            f"The episodes are of no simulated world: task {specs.task!r}, actions {specs.action_space!r}. Only what "
            "`armature record env=...` recorded can be played again; leave states=none."
        )
    name, absolute = controllers[0]
    return EnvConfig(
        task=tasks[0],
        robot=specs.robot,
        controller=name,
        absolute=absolute,
        control_hz=round(1.0 / specs.dt_s, 9),
        horizon=_ENDLESS,
        success_hold=_ENDLESS,
    )


def recorded_world(origin: Mapping[str, Any], specs: EnvironmentSpecs) -> EnvConfig:
    """The world that an episode was recorded in, which does not end: what its header notes, else by its specs.

    Raises:
        DatasetError: It was not recorded in a simulated world of ours.
    """
    noted = origin.get("notes", {}).get("env")
    try:
        config = EnvConfig(**noted) if noted else world_of(specs)
    except (ArmatureError, TypeError) as error:
        raise DatasetError(f"The world of the episodes cannot be made again: {error}") from error
    # What is drawn for pictures may come before what is drawn for the physics.
    cameras = config.cameras if config.randomisation.enabled else CamerasConfig()
    return dataclasses.replace(config, horizon=_ENDLESS, success_hold=_ENDLESS, cameras=cameras)


class ReplayedSource:
    """Simulated episodes with what robomimic's files also hold: states, robosuite's observations, the model.

    Attributes:
        schema: That of the source, with more columns.
        worst: Largest difference yet between a recorded and an observed number.
        failures: Episodes yet that do not end in success as robosuite's script plays them.
    """

    def __init__(self, source: RowSource, mode: str = AS_RECORDED) -> None:
        """Build the world.

        Raises:
            DatasetError: The episodes are of no simulated world, or of one that is observed otherwise.
        """
        self._source, self._mode = source, mode
        specs = source.schema.specs
        self._config = recorded_world(source.read(0).origin, specs)
        self._environment: Any = sim.make(self._config)
        self._structure = self._saved()
        self._vectors = [
            key
            for key, spec in self._environment.specs.observation.items()
            if key in specs.observation and len(spec.shape) == 1
        ]
        self._check_fits(specs)
        if mode == AS_ROBOSUITE and len(self._vectors) < len(specs.observation):
            raise DatasetError(
                f"states={AS_ROBOSUITE} plays episodes anew and would have to take all pictures again. Take "
                f"states={AS_RECORDED}."
            )
        self.worst, self.failures = 0.0, 0
        self._played: Any = None
        world: Any = self._environment.unwrapped
        self._arena = world._arena  # robosuite's environment, which knows its own observations
        self._own = {key: ArraySpec(key, value.shape, "float64") for key, value in self._present().items()}
        extras = {**source.schema.extras, **self._own}
        self.schema = Schema(specs, extras, {**source.schema.notes, "robosuite": self._description()})

    def __len__(self) -> int:
        return len(self._source)

    def identity(self, number: int) -> str:
        """That of the source, and how it is played."""
        return f"{self._source.identity(number)} {self._mode}"

    def read(self, number: int) -> Rows:
        """One episode, played again.

        Raises:
            DatasetError: It has no seed, or the world goes another way than was recorded.
        """
        rows = self._source.read(number)
        if recorded_world(rows.origin, self.schema.specs) != self._config:
            raise DatasetError(f"Episode {number} is of another world than episode 0. Convert them one by one.")
        seed = rows.origin.get("seed")
        if not isinstance(seed, int):
            raise DatasetError(f"Episode {number} does not say its seed, so that it cannot be played again.")
        observation, _ = self._environment.reset(seed=seed)
        self._compare(number, 0, rows, observation)
        model, state = self._model(), self._environment.unwrapped.stored_state().flat
        if self._mode == AS_ROBOSUITE:
            made = self._as_robosuite(seed, model, state, rows.columns[ACTION])
            self.failures += not made["next.success"][-1]
        else:
            made = self._as_recorded(number, rows, observation)
        specs, columns = self.schema.columns, dict(rows.columns)
        for key, values in made.items():
            if key in specs and (self._mode == AS_ROBOSUITE or key not in columns):
                columns[key] = np.asarray(values, specs[key].dtype)
        return Rows(columns, rows.pictures, rows.task, {**rows.origin, "model_file": model}, rows.subsets)

    def close(self) -> None:
        """Free the world."""
        self._environment.close()

    def _as_recorded(self, number: int, rows: Rows, observation: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Columns of the episode in its own world, each row compared with what was recorded."""
        made: dict[str, list[Any]] = {key: [] for key in self._own}
        for row, action in enumerate(rows.columns[ACTION]):
            self._compare(number, row, rows, observation)
            _append(made, self._present())
            observation, *_ = self._environment.step(action)
        return made

    def _as_robosuite(self, seed: int, model: str, state: np.ndarray, actions: np.ndarray) -> dict[str, list[Any]]:
        """Columns of the episode as robosuite's script plays it; we only observe its states."""
        arena = self._scripted()
        arena.reset()
        arena.reset_from_xml_string(arena.edit_model_xml(model))
        arena.sim.reset()
        arena.sim.set_state_from_flattened(state)
        arena.sim.forward()
        made: dict[str, list[Any]] = {key: [] for key in (*self._vectors, *self._own, "next.reward", "next.success")}
        for action in actions:
            observation, _ = self._environment.reset(seed=seed, options={"state": arena.sim.get_state().flatten()})
            _append(made, {**observation, **self._present()})
            _, reward, _, _ = arena.step(np.asarray(action, np.float64))
            made["next.reward"].append(reward)
            made["next.success"].append(bool(arena._check_success()))
        return made

    def _scripted(self) -> Any:
        """robosuite's environment as its script makes it, without the window; made once."""
        if self._played is None:
            robosuite = import_robosuite()
            kwargs = self.schema.notes["robosuite"]["env_kwargs"]
            self._played = robosuite.make(TASKS[self._config.task].robosuite_name, **kwargs)
        return self._played

    def _compare(self, number: int, row: int, rows: Rows, observation: dict[str, np.ndarray]) -> None:
        for key in self._vectors:
            apart = float(np.max(np.abs(observation[key] - rows.columns[key][row]), initial=0.0))
            self.worst = max(self.worst, apart)
            if not apart <= TOLERANCE:
                raise DatasetError(
                    f"Episode {number} does not go again as it was recorded: {key!r} is off by {apart:.2g} in row "
                    f"{row}. Its world was randomised or of other versions of the software, or its actions are not "
                    "those that were sent (label=commanded)."
                )

    def _check_fits(self, specs: EnvironmentSpecs) -> None:
        own = self._environment.specs
        ours, theirs = (
            dataclasses.replace(one, observation={key: one.observation[key] for key in self._vectors})
            for one in (own, specs)
        )
        if lines := ours.difference(theirs):
            raise DatasetError(f"The episodes do not fit the world that they name: {'; '.join(lines)}.")

    def _present(self) -> dict[str, np.ndarray]:
        """The state, and robosuite's observations as robomimic calls them."""
        found = self._arena._get_observations(force_update=True)
        kept = {
            key: np.asarray(value, np.float64)
            for key, value in found.items()
            if key.startswith("robot") and not key.endswith("proprio-state")
        }
        kept["object"] = np.asarray(found["object-state"], np.float64)
        state = self._environment.unwrapped.stored_state().flat
        return {f"{PREFIX}states": state} | {f"{PREFIX}obs.{name}": value for name, value in kept.items()}

    def _model(self) -> str:
        """The model as XML, with what the reset has placed in it."""
        mujoco.MjModel.from_xml_string(self._structure)  # MuJoCo fills in what was read last, by whomever
        return self._saved()

    def _saved(self) -> str:
        """The XML that MuJoCo read last, with the numbers of our model; it writes to files only."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            mujoco.mj_saveLastXML(str(path), self._environment.unwrapped.model)
            return path.read_text()

    def _description(self) -> dict[str, Any]:
        """What `robosuite.make` was given, and what robomimic gives it."""
        robots = [type(robot.robot_model).__name__ for robot in self._arena.robots]
        info = {
            "env_name": TASKS[self._config.task].robosuite_name,
            "robots": robots,
            "controller_configs": [robosuite_config(robot, self._config) for robot in robots],
        }
        kwargs = {
            **{key: info[key] for key in ("robots", "controller_configs")},
            "control_freq": self._config.control_hz,
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "use_camera_obs": False,
            "use_object_obs": True,
            "ignore_done": True,
            "reward_shaping": False,
        }
        version = importlib.metadata.version("robosuite")
        return {"env_name": info["env_name"], "env_version": version, "env_info": info, "env_kwargs": kwargs}


def _append(lists: dict[str, list[Any]], values: dict[str, np.ndarray]) -> None:
    for key, value in values.items():
        lists[key].append(value)
