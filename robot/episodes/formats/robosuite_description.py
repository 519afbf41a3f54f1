"""What a robosuite or robomimic file says of its world: rate, robot, controller, task.

robomimic keeps it in the attribute `env_args` of `data` (`env_name`, `env_version`, `type`, `env_kwargs`), robosuite's
own collector in `env` and `env_info` (the keyword arguments of `robosuite.make`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robot.control import action_spaces
from robot.episodes.formats.given import UNKNOWN, Given
from robot.episodes.rows import Schema
from robot.errors import DatasetError, UnknownNameError
from robot.sim.tasks import TASKS, task
from robot.specs import ArraySpec

DEFAULT_HZ = 20.0
"""robosuite's control rate, which its collector does not write down."""

_SPACES = {
    ("OSC_POSE", False): "ee_delta",
    ("OSC_POSE", True): "ee_pose_rotvec",
    ("OSC_POSITION", False): "ee_delta_position",
    ("OSC_POSITION", True): "ee_position",
    ("JOINT_POSITION", False): "joint_delta",
    ("JOINT_POSITION", True): "joint_position",
    ("JOINT_VELOCITY", False): "joint_velocity",
    ("JOINT_TORQUE", False): "joint_torque",
}
"""Action space by type of the controller and by whether goals are absolute. robosuite's absolute poses hold an
axis-angle vector, ours (`ee_pose`) a 6-D rotation: hence a name of its own."""

_OSC_SCALES = {"OSC_POSE": [0.05] * 3 + [0.5] * 3, "OSC_POSITION": [0.05] * 3}


@dataclass(frozen=True)
class Description:
    """A world as its file describes it.

    Attributes:
        env_name: robosuite's name of the task; empty where the file names none.
        hz: Control rate.
        robot: Names joined by `+`; one where all arms are alike.
        action_space: See `robot.control.action_spaces`; `unknown` where the file does not tell or means another scale.
        words: What is to be done; empty where nobody knows.
        remarks: What was assumed, a sentence each.
    """

    env_name: str
    hz: float
    robot: str
    action_space: str
    words: str
    remarks: list[str] = field(default_factory=list)


def describe(attributes: Mapping[str, Any], given: Given, where: str) -> Description:
    """Read the attributes of `data`.

    Args:
        attributes: Of the group `data`.
        given: What the user says; it wins.
        where: Name of the file, for errors.

    Raises:
        DatasetError: `env_args` or `env_info` is no JSON.
    """
    arguments = _json(attributes, "env_args", where)
    keywords = arguments.get("env_kwargs") or _json(attributes, "env_info", where)
    env_name = str(arguments.get("env_name") or attributes.get("env") or keywords.get("env_name") or "")
    remarks: list[str] = []
    hz = given.fps or _positive(keywords.get("control_freq"))
    if not hz:
        hz = DEFAULT_HZ
        remarks.append(
            f"{where} does not say its control rate: {hz:g} Hz is assumed (robosuite's; fps=... changes it)."
        )
    space = given.action_space or _space(keywords.get("controller_configs"))
    if space == UNKNOWN:
        remarks.append(f"{where} does not say what an action means (action_space=... does).")
    words = given.task or _words(env_name)
    return Description(env_name, float(hz), given.robot or _robot(keywords.get("robots")), space, words, remarks)


def action_spec(space: str, width: int) -> ArraySpec:
    """The spec of actions of `width` numbers: that of the action space, once for each arm, where it fits."""
    try:
        one = action_spaces.spec(space)
    except UnknownNameError:
        return ArraySpec("action", (width,))
    arms, rest = divmod(width, one.shape[0])
    if rest or not arms:
        return ArraySpec("action", (width,))
    return action_spaces.side_by_side([one] * arms)


def attributes(schema: Schema) -> dict[str, str]:
    """What robomimic and robosuite want to know of a world, as attributes of `data`.

    `schema.notes["robosuite"]` (see `robot.episodes.formats.robosuite_replay`) knows it all; without it, what the specs
    say. `type` is robomimic's number of robosuite.
    """
    told = schema.notes.get("robosuite", {})
    names = [known.robosuite_name for known in TASKS.values() if known.words == schema.specs.task]
    env_name = told.get("env_name") or (names[0] if names else schema.specs.robot)
    kwargs = told.get("env_kwargs", {"robots": schema.specs.robot, "control_freq": 1.0 / schema.specs.dt_s})
    arguments = {"env_name": env_name, "env_version": told.get("env_version", ""), "type": 1, "env_kwargs": kwargs}
    found = {"env_args": json.dumps(arguments)}
    if told:
        found |= {"env": env_name, "env_info": json.dumps(told["env_info"]), "repository_version": told["env_version"]}
    return found


def _json(attributes: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    text = attributes.get(name)
    if text is None:
        return {}
    try:
        data = json.loads(text)
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: the attribute {name!r} of 'data' is no JSON ({error}). Repair or delete it."
        ) from (error)
    return data if isinstance(data, dict) else {}


def _positive(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) and value > 0 else 0.0


def _robot(names: Any) -> str:
    robots = [names] if isinstance(names, str) else [str(name) for name in names or []]
    unlike = list(dict.fromkeys(robots))
    return (unlike[0] if len(unlike) == 1 else "+".join(robots)) or UNKNOWN


def _words(env_name: str) -> str:
    try:
        return task(env_name).words if env_name else ""
    except UnknownNameError:
        return ""


def _space(configs: Any) -> str:
    """The action space that all arms share; `unknown` where they share none."""
    parts = [part for config in (configs if isinstance(configs, list) else [configs]) for part in _arms(config)]
    spaces = {_space_of(part) for part in parts}
    return spaces.pop() if len(spaces) == 1 else UNKNOWN


def _arms(config: Any) -> list[dict[str, Any]]:
    """The controllers of a robot's arms: robosuite 1.5 nests them in `body_parts`, before it they stood alone."""
    if not isinstance(config, dict):
        return []
    if "body_parts" not in config:
        return [config]
    parts = config["body_parts"].get("arms", config["body_parts"])
    return [part for name, part in parts.items() if name in ("right", "left") and isinstance(part, dict)]


def _space_of(part: dict[str, Any]) -> str:
    kind = str(part.get("type"))
    absolute = part.get("input_type") == "absolute" or part.get("control_delta") is False
    scale = _OSC_SCALES.get(kind)
    if scale is not None and not absolute:
        reach = np.resize(np.asarray(part.get("output_max", scale), float).ravel(), len(scale))
        if not np.array_equal(reach, scale):
            return UNKNOWN  # ours count in steps of 0.05 m and 0.5 rad
    return _SPACES.get((kind, absolute), UNKNOWN)
