"""What drivers share: the layout of what they measure, and quick views of the vector that they fill."""

import numpy as np

from robot.contract import EnvironmentSpecs
from robot.control.action_spaces import ROT6D_NAMES, spec
from robot.specs import ArraySpec, Layout

STATE_NAMES = (
    *("ee_x", "ee_y", "ee_z", *(f"ee_{name}" for name in ROT6D_NAMES), "finger_left", "finger_right"),
    *(f"q{i}" for i in range(1, 8)),
)
"""Elements of the observation of an arm of seven joints with two fingers."""
STATE_UNITS = " ".join(["m"] * 3 + ["1"] * 6 + ["m"] * 2 + ["rad"] * 7)


def measured(*more: ArraySpec) -> Layout:
    """What safety reads of an arm of seven joints, and `more`."""
    return Layout(
        (
            ArraySpec("q", (7,), "float64", unit="rad"),
            ArraySpec("dq", (7,), "float64", unit="rad/s"),
            ArraySpec("ee_pos", (3,), "float64", unit="m", frame="base"),
            ArraySpec("ee_rot6d", (6,), "float64", frame="base"),
            ArraySpec("gripper", (2,), "float64", unit="m"),
            *more,
        )
    )


def observed(robot: str, task: str, action_space: str, control_hz: float) -> EnvironmentSpecs:
    """Specs of an arm that shows nothing but itself: tool, fingers, joints."""
    observation = ArraySpec("observation.state", (18,), unit=STATE_UNITS, frame="base", names=STATE_NAMES)
    return EnvironmentSpecs(
        observation={observation.key: observation},
        action=spec(action_space),
        action_space=action_space,
        dt_s=1.0 / control_hz,
        robot=robot,
        task=task,
    )


class Views:
    """Views of the vector that a driver is given, made once for each vector: it is the same one in every cycle."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._address = layout, 0
        self._views: dict[str, np.ndarray] = {}

    def of(self, state: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays by key that share memory with `state`."""
        address = state.ctypes.data
        if self._address != address:
            self._address, self._views = address, self._layout.views(state)
        return self._views
