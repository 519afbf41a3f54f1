"""An arm of pure arithmetic: its tool follows the target with a lag. Tries a bridge out with no simulator."""

import hashlib

import numpy as np

from hardware.arms import ArmConfig
from hardware.measuring import measured, observed
from robot.contract import Arm, ArmSpecs
from robot.control.action_spaces import ee_pose
from robot.errors import DeviceError
from robot.sim.config import EnvConfig

LAG_S = 0.05
HOME_POS = (0.45, 0.0, 0.1)
HOME_ROT6D = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
FINGER_M = 0.04


def _specs(config: ArmConfig, env: EnvConfig) -> ArmSpecs:
    environment = observed("Fake", env.task, config.action_space, env.control_hz)
    state = measured(*environment.observation.values())
    identity = hashlib.sha256(f"fake {LAG_S} {HOME_POS} {HOME_ROT6D}".encode()).hexdigest()
    return ArmSpecs("Fake", environment, state, ee_pose(), "ee_pose", config.rate_hz, identity, True)


class FakeArm(Arm):
    """Seven joints that stand for the tool's position and first axis relative to its start; the seventh rests."""

    def __init__(self, config: ArmConfig, env: EnvConfig) -> None:
        self.specs = _specs(config, env)
        self._part = 1.0 - np.exp(-1.0 / (config.rate_hz * LAG_S))
        self._rate_hz = config.rate_hz
        self._start = np.array([*HOME_POS, *HOME_ROT6D, 0.0])
        self._is_open = False
        self._begin()

    def _begin(self) -> None:
        self._pose = self._start.copy()
        self._target = self._pose.copy()
        self._q, self._dq = np.zeros(7), np.zeros(7)
        self._finger = FINGER_M

    def open(self) -> None:
        """Nothing can be absent."""
        self._is_open = True

    def read(self, state: np.ndarray) -> None:
        """Let one period pass, then measure."""
        self._require_open()
        self._follow()
        views = self.specs.state.views(state)
        views["q"][:], views["dq"][:] = self._q, self._dq
        views["ee_pos"][:], views["ee_rot6d"][:] = self._pose[:3], self._pose[3:9]
        views["gripper"][:] = self._finger, -self._finger
        observed = views["observation.state"]
        observed[:9], observed[9:11], observed[11:] = self._pose[:9], views["gripper"], self._q

    def _follow(self) -> None:
        self._pose[:9] += self._part * (self._target[:9] - self._pose[:9])
        x, y = self._pose[3:6], self._pose[6:9]
        x /= np.sqrt(x @ x)
        y -= (x @ y) * x
        y /= np.sqrt(y @ y)
        before = self._q.copy()
        self._q[:6] = self._pose[:6] - self._start[:6]
        self._dq[:] = (self._q - before) * self._rate_hz
        self._finger = min(max(self._finger - 0.1 * self._target[9] / self._rate_hz, 0.0), FINGER_M)

    def write(self, target: np.ndarray) -> None:
        """Follow `target` from the next period on."""
        self._require_open()
        self._target[:] = target

    def stop(self) -> None:
        """Stand still at once."""
        self._target[:9] = self._pose[:9]
        self._dq[:] = 0.0

    def recover(self, seed: int | None = None) -> None:
        """Jump to the start pose."""
        self._require_open()
        self._begin()

    def close(self) -> None:
        """Answer no more."""
        self.stop()
        self._is_open = False

    def _require_open(self) -> None:
        if not self._is_open:
            raise DeviceError("The fake arm is not open. Call open() first.")
