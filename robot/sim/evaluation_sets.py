"""Evaluation sets: initial states of a task, in a file, so that everybody's policies begin where everybody else's did.

A seed gives the same initial state only as long as robosuite draws the same numbers in the same order; a stored state
is the state itself. The file is NumPy's npz without pickled objects.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from robot.episodes.atomic import publish
from robot.errors import StateError
from robot.sim.states import StoredState, Storing

FORMAT = "armature-evaluation-set-1"
_ARRAYS = ("flat", "posture", "bodies", "wiped")


class EvaluationSet(Sequence[StoredState]):
    """Initial states of one task and one model, in an order that does not change.

    Use: `environment.reset(seed=i, options={"state": states[i]})`.

    Attributes:
        task: robosuite's name of the task.
        model: Identity of the model (see `robot.sim.states.identity`).
    """

    def __init__(self, states: Iterable[StoredState]) -> None:
        """Take the states as they are.

        Raises:
            StateError: There are none, or they are of more than one model.
        """
        self._states = tuple(states)
        if not self._states:
            raise StateError("An evaluation set holds at least one state, got none.")
        self.task, self.model = self._states[0].task, self._states[0].model
        for index, state in enumerate(self._states):
            if (state.task, state.model) != (self.task, self.model):
                raise StateError(
                    f"State {index} is of {state.task} (model {state.model[:12]}), the first is of {self.task} "
                    f"({self.model[:12]}): an evaluation set is of one task and one robot."
                )

    @classmethod
    def from_seeds(cls, environment: Storing, seeds: Iterable[int]) -> "EvaluationSet":
        """The initial states that the seeds give, in their order."""
        return cls(_initial_states(environment, seeds))

    def __len__(self) -> int:
        return len(self._states)

    @overload
    def __getitem__(self, index: int) -> StoredState: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StoredState, ...]: ...
    def __getitem__(self, index: int | slice) -> StoredState | tuple[StoredState, ...]:
        return self._states[index]

    def digest(self) -> str:
        """SHA-256 over all states in their order; names a set in a report."""
        return _digest(self._header(), self._arrays())

    def save(self, path: Path) -> None:
        """Write the set; the file appears when it is complete."""
        header = json.dumps({**self._header(), "sha256": self.digest()}, sort_keys=True).encode()
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"header": np.frombuffer(header, np.uint8), **self._arrays()}
        np.savez_compressed(buffer, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(buffer.getvalue())
        publish(part, path)

    @classmethod
    def load(cls, path: Path) -> "EvaluationSet":
        """The set that `save` wrote.

        Raises:
            StateError: There is no such file, it is something else, or it was damaged.
        """
        header, arrays = _read(path)
        task, model, digest = header.get("task"), header.get("model"), header.pop("sha256", None)
        if _digest(header, arrays) != digest:
            raise StateError(f"{path} is damaged: its states do not have the checksum that was stored with them.")
        rows = zip(*(arrays[name] for name in _ARRAYS), strict=True)
        return cls(StoredState(str(task), str(model), *row) for row in rows)

    def _header(self) -> dict[str, object]:
        return {"format": FORMAT, "task": self.task, "model": self.model, "states": len(self)}

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.stack([getattr(state, name) for state in self._states]) for name in _ARRAYS}


def _initial_states(environment: Storing, seeds: Iterable[int]) -> Iterator[StoredState]:
    for seed in seeds:
        environment.reset(seed=seed)
        yield environment.stored_state()


def _digest(header: dict[str, object], arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in _ARRAYS:
        digest.update(json.dumps(arrays[name].shape).encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f8").tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            arrays = {name: np.asarray(file[name], np.float64) for name in _ARRAYS}
    except FileNotFoundError as error:
        raise StateError(
            f"There is no evaluation set {path}; EvaluationSet.from_seeds(...).save(...) makes one."
        ) from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise StateError(f"{path} is no evaluation set, or is damaged: {error}.") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise StateError(f"{path} is no evaluation set of this version: expected the format {FORMAT}.")
    return header, arrays
