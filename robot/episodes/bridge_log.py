"""What of a bridge goes into an episode's log, and under which topics.

- `/observation/...`: what a policy sees, in the types of its specs; `/observation/images/<camera>`: its pictures.
- `/measured/...`: everything else that the driver measured; `/status`: the real-time process; `/target`: what it wrote.
- `/action/device`, `/action/commanded`, `/action/applied`: what a client's device asked for; the rows of chunks as they
  came into force; the target, where it is of the same space as the actions.
- `/command/chunks`, `/command/rows`: every chunk that the real-time process looked at, with its verdict, and its rows.

Times are the bridge's own: the cycle's for what was measured and written, the row's for what was commanded.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.journal import Taken
from robot.bridge.schema import STATUS, BridgeSchema, Mode
from robot.contract import ArmSpecs, EnvironmentSpecs
from robot.control.latency import Latency
from robot.episodes.bridge_feed import streams_of
from robot.episodes.episode import APPLIED, IMAGES, TIME, Header, action_topic, topic_of
from robot.episodes.recorder import Recorder
from robot.errors import ConfigError
from robot.specs import ArraySpec, Specs

SOURCE = "bridge"
STATUS_TOPIC, TARGET_TOPIC, MEASURED = "/status", "/target", "/measured/"
CHUNKS_TOPIC, ROWS_TOPIC = "/command/chunks", "/command/rows"
CHUNK_FIELDS = ("sequence", "driver", "priority", "verdict", "t0_ns", "dt_s", "rows")
ROW_FIELDS = ("sequence", "index", "begin_ns")
"""What stands before the action in a message of `/command/rows`."""
MOVES = (Mode.ARMED, Mode.BRAKING, Mode.HOMING)
"""Modes in which the target is written to the arm."""


@dataclass(frozen=True)
class Sight:
    """What a recording is told of its cameras.

    Attributes:
        names: Of the cameras wanted.
        calibration: What is known of each, by name: `intrinsics`, `T_tool_camera`, `T_base_camera`, ...
        latency: Of the cameras and the arm; none if it was not measured.
    """

    names: Sequence[str]
    calibration: Mapping[str, Any]
    latency: Latency


def sight(names: Sequence[str], calibration: str, latency: str) -> Sight:
    """From the files that a user names; empty for none.

    Raises:
        ConfigError: A file cannot be read, or tells of something else.
    """
    known: dict[str, Any] = {}
    if calibration:
        try:
            known = json.loads(Path(calibration).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"calibration={calibration} cannot be read: {error}.") from error
        _check_calibration(calibration, known)
    return Sight(names, known, Latency.load(latency) if latency else Latency.none())


def _check_calibration(path: str, known: Any) -> None:
    shapes = {"intrinsics": (3, 3), "T_tool_camera": (4, 4), "T_base_camera": (4, 4)}
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise ConfigError(f"calibration={path} is no JSON object with one object for each camera.")
    for camera, entry in known.items():
        for key in shapes.keys() & entry.keys():
            try:
                matrix = np.array(entry[key], np.float64)
            except (ValueError, TypeError):
                matrix = np.zeros(0)
            if matrix.shape != shapes[key] or not np.isfinite(matrix).all():
                raise ConfigError(f"calibration={path}: {key} of {camera} is no matrix of shape {shapes[key]}.")


def environment(schema: BridgeSchema, cameras: Sequence[str], task: str) -> EnvironmentSpecs:
    """Specs of the episodes: those of the arm's environment, pictures, and the task in words."""
    specs = schema.arm.environment
    pictures = {}
    for name, stream in streams_of(schema, cameras).items():
        key = f"{IMAGES}{name}"
        pictures[key] = ArraySpec(key, (stream.height, stream.width, 3), "uint8", 0, 255)
    return replace(specs, observation={**specs.observation, **pictures}, task=task or specs.task)


def header(client: BridgeClient, state: BridgeState, seen: Sight, task: str) -> Header:
    """The header of an episode that begins with a state."""
    schema = client.schema
    seed = int(state.status("seed")) if schema.arm.is_simulated else -1
    latency = seen.latency.observation_s
    cameras = {}
    for name, stream in streams_of(schema, seen.names).items():
        known = {**seen.calibration.get(name, {}), "fps": stream.fps, "encoding": stream.encoding}
        cameras[f"{IMAGES}{name}"] = known | ({"latency_s": latency[name]} if name in latency else {})
    notes = {
        "bridge": {"endpoint": client.endpoint, **schema.to_json()},
        "clock": {"offset_ns": client.offset_ns, "uncertainty_ns": client.uncertainty_ns},
        "latency": {
            "observation_s": dict(latency),
            "action_s": seen.latency.action_s,
            "residual_s": seen.latency.residual_s,
        },
    }
    specs = environment(schema, seen.names, task)
    known = {"seed": seed} if seed >= 0 else {}
    return Header(specs, SOURCE, TIME, channels(schema), **known, cameras=cameras, notes=notes | known)


def channels(schema: BridgeSchema) -> Specs:
    """Specs of the channels beyond those of the environment, by topic."""
    arm = schema.arm
    action = arm.environment.action
    names = action.names or tuple(map(str, range(action.shape[0])))
    rows = ArraySpec("rows", (len(ROW_FIELDS) + len(names),), "float64", names=(*ROW_FIELDS, *names))
    found = {
        STATUS_TOPIC: ArraySpec("status", (len(STATUS),), "float64", names=STATUS),
        TARGET_TOPIC: next(spec for spec in schema.layout.specs if spec.key == "target"),
        CHUNKS_TOPIC: ArraySpec("chunks", (len(CHUNK_FIELDS),), "float64", names=CHUNK_FIELDS),
        ROWS_TOPIC: rows,
    }
    observed = arm.environment.observation
    return found | {f"{MEASURED}{spec.key}": spec for spec in arm.state.specs if spec.key not in observed}


def applied_part(arm: ArmSpecs) -> np.ndarray | None:
    """Elements of the target that are an action of the arm's space; None where the two are of different spaces."""
    target, action = arm.target.shape[0], arm.environment.action.shape[0]
    spaces = (arm.target_space, arm.environment.action_space)
    if spaces == ("ee_pose", "ee_pose") and target == action:
        return np.arange(target)
    if spaces == ("joint_reference", "joint_position") and target == 3 * (action - 1) + 1:
        return np.array([*range(action - 1), target - 1])
    return None


class StateTopics:
    """Writes states into the channels of a log.

    Attributes:
        names: The topics that every state has.
        width: Of an action.
    """

    def __init__(self, schema: BridgeSchema) -> None:
        arm = schema.arm
        observed = arm.environment.observation
        self.width = arm.environment.action.shape[0]
        self._each: list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = [(STATUS_TOPIC, "status", _as_it_is)]
        for spec in arm.state.specs:
            if spec.key in observed:
                self._each.append((topic_of(spec.key), spec.key, _caster(observed[spec.key].dtype)))
            else:
                self._each.append((f"{MEASURED}{spec.key}", spec.key, _as_it_is))
        self.names = [topic for topic, _, _ in self._each]
        self._applied, self._dtype = applied_part(arm), arm.environment.action.dtype

    def write(self, recorder: Recorder, state: BridgeState) -> None:
        """Append one state."""
        values, t_ns = state.values, state.t_ns
        for topic, key, cast in self._each:
            recorder.vector(topic, t_ns, cast(values[key]))
        if state.mode in MOVES:
            recorder.vector(TARGET_TOPIC, t_ns, values["target"])
            if self._applied is not None:
                recorder.vector(action_topic(APPLIED), t_ns, values["target"][self._applied].astype(self._dtype))


class ChunkTopics:
    """Writes chunks into the channels of a log. Several may be of one cycle: a nanosecond keeps them in order."""

    def __init__(self, width: int) -> None:
        """Nothing is written yet; `width` is that of an action of the arm."""
        self._width = width
        self._chunk_ns = self._row_ns = -1

    def write(self, recorder: Recorder, chunk: Taken) -> None:
        """Append one chunk and its rows."""
        self._chunk_ns = max(self._chunk_ns + 1, chunk.t_ns)
        told = (chunk.sequence, chunk.driver, chunk.priority, chunk.verdict, chunk.t0_ns, chunk.dt_s, len(chunk.rows))
        recorder.vector(CHUNKS_TOPIC, self._chunk_ns, np.array(told, np.float64))
        if chunk.rows.shape[1] != self._width:
            return
        dt_ns = round(chunk.dt_s * 1e9)
        for index, row in enumerate(chunk.rows):
            self._row_ns = max(self._row_ns + 1, chunk.t_ns)
            told_row = np.concatenate([(chunk.sequence, index, chunk.t0_ns + index * dt_ns), row])
            recorder.vector(ROWS_TOPIC, self._row_ns, told_row)


def _as_it_is(values: np.ndarray) -> np.ndarray:
    return values


def _caster(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values.astype(dtype)
