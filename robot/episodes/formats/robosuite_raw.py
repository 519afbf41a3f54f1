"""Observations for robosuite's demonstrations without any: their states are played in the simulated world."""

import dataclasses
from typing import Any

import numpy as np

from robot import sim
from robot.episodes.formats.robomimic_mapping import PREFIX
from robot.episodes.rows import Rows, RowSource, Schema
from robot.errors import ConfigError, DatasetError, UnknownNameError
from robot.sim.config import EnvConfig
from robot.sim.tasks import TASKS

STATES = f"{PREFIX}states"

_IN_THE_MODEL = ("door", "wipe")
"""Tasks that place things in the model, where states do not show them."""


class ObservedSource:
    """Episodes with `observation.state` and `observation.environment_state` of our simulated world.

    Sizes of objects, which robosuite draws anew for each demonstration, are those of our model; nothing here depends on
    them but what touches.

    Attributes:
        schema: That of the source with the observations.
    """

    def __init__(self, source: RowSource) -> None:
        """Build the world that the source names.

        Raises:
            ConfigError: The source has observations already, or no states.
            DatasetError: It is of no task that can be simulated here.
        """
        schema = source.schema
        if schema.specs.observation or STATES not in schema.extras:
            raise ConfigError("observations=low_dim is for robosuite's files that hold states and no observations.")
        names = [name for name, known in TASKS.items() if known.words == schema.specs.task]
        if not names or names[0] in _IN_THE_MODEL:
            raise DatasetError(f"The states of {schema.specs.task or 'an unknown task'!r} cannot be observed here.")
        self._source = source
        try:
            config = EnvConfig(task=names[0], robot=schema.specs.robot, control_hz=1.0 / schema.specs.dt_s)
            self._environment: Any = sim.make(config)
        except UnknownNameError as error:
            raise DatasetError(f"The file's world cannot be simulated here: {error}") from error
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
        return dataclasses.replace(rows, columns={**rows.columns, **observed})
