"""Observations for robosuite's demonstrations without any: their states are put into the simulated world, row by row.

Poses and pictures are then those of the demonstration; objects have the sizes and colours of our model, where robosuite
draws them anew for each demonstration (the edge of Lift's cube by some millimetres).
"""

import dataclasses
from typing import Any

import numpy as np

from robot import sim
from robot.episodes.formats.robomimic_mapping import PREFIX
from robot.episodes.rows import Rows, RowSource, Schema
from robot.errors import ConfigError, DatasetError
from robot.sim.camera_config import CamerasConfig
from robot.sim.config import EnvConfig
from robot.sim.tasks import TASKS

STATES = f"{PREFIX}states"

_IN_THE_MODEL = ("door", "wipe")
"""Tasks that place things in the model, where states do not show them."""


class ObservedSource:
    """Episodes with `observation.state`, `observation.environment_state` and perhaps pictures of our simulated world.

    Attributes:
        schema: That of the source with the observations.
    """

    def __init__(self, source: RowSource, cameras: CamerasConfig) -> None:
        """Build the world that the source names.

        Args:
            source: robosuite's demonstrations.
            cameras: What is seen; nothing where they have no names.

        Raises:
            ConfigError: The source has observations already, or no states; there is no such camera.
            DatasetError: It is of no task that can be simulated here.
        """
        schema = source.schema
        if schema.specs.observation or STATES not in schema.extras:
            raise ConfigError("observations=... is for robosuite's files that hold states and no observations.")
        names = [name for name, known in TASKS.items() if known.words == schema.specs.task]
        if not names or names[0] in _IN_THE_MODEL:
            raise DatasetError(f"The states of {schema.specs.task or 'an unknown task'!r} cannot be observed here.")
        self._source = source
        robot, hz = schema.specs.robot, 1.0 / schema.specs.dt_s
        self._environment: Any = sim.make(EnvConfig(task=names[0], robot=robot, control_hz=hz, cameras=cameras))
        specs = dataclasses.replace(schema.specs, observation=self._environment.specs.observation)
        self.schema = Schema(specs, schema.extras, schema.notes)

    def __len__(self) -> int:
        return len(self._source)

    def identity(self, number: int) -> str:
        """That of the source."""
        return f"{self._source.identity(number)} observed"

    def read(self, number: int) -> Rows:
        """One episode.

        Raises:
            StateError: Its states are of another model.
        """
        rows = self._source.read(number)
        seen = [self._environment.reset(seed=0, options={"state": state})[0] for state in rows.columns[STATES]]
        observed = {key: np.stack([observation[key] for observation in seen]) for key in self.schema.specs.observation}
        pictures = {key: observed.pop(key) for key in self.schema.pictures}
        return dataclasses.replace(rows, columns={**rows.columns, **observed}, pictures=pictures)
