"""An arm whose joints are exactly where their reference is, for tests of what leads them."""

from dataclasses import replace

import numpy as np

from robot.contract import Arm, ArmSpecs, EnvironmentSpecs
from robot.control.action_spaces import joint_reference, spec
from robot.control.kinematics import MODELS, ArmModel
from robot.specs import ArraySpec, Layout
from tests.robot.control.joints import HOME


class JointArm(Arm):
    """Follows at once; tells the tool's pose by the model that leads it."""

    def __init__(self, action_space: str, is_simulated: bool = True, rate_hz: float = 500.0) -> None:
        self.model = ArmModel.load(MODELS / "panda.xml")
        state = Layout(
            tuple(
                ArraySpec(key, (size,), "float64")
                for key, size in {"q": 7, "dq": 7, "ee_pos": 3, "ee_rot6d": 6, "gripper": 2}.items()
            )
        )
        observation = ArraySpec("observation.state", (7,), "float32")
        environment = EnvironmentSpecs(
            {observation.key: observation}, spec(action_space), action_space, 0.05, "Panda", "test"
        )
        state = replace(state, specs=(*state.specs, observation))
        self.specs = ArmSpecs(
            *("Panda", environment, state, joint_reference(7), "joint_reference", rate_hz, "model", is_simulated)
        )
        self.q, self.dq = HOME.copy(), np.zeros(7)
        self.written: list[np.ndarray] = []
        self.stops = self.recoveries = 0

    def open(self) -> None:
        return

    def read(self, state: np.ndarray) -> None:
        views = self.specs.state.views(state)
        views["q"][:], views["dq"][:] = self.q, self.dq
        self.model.pose(self.q, views["ee_pos"], views["ee_rot6d"])

    def write(self, target: np.ndarray) -> None:
        self.written.append(target.copy())
        self.q[:], self.dq[:] = target[:7], target[7:14]

    def stop(self) -> None:
        self.stops += 1
        self.dq[:] = 0.0

    def recover(self, seed: int | None = None) -> None:
        self.recoveries += 1

    def close(self) -> None:
        return
