"""Disturbances of actions on their way to the robot, so that demonstrations show how to recover."""

import numpy as np

from robot.loop import Disturbance


class ActionNoise:
    """Disturbs `ee_delta` actions of one arm.

    A small wander (Ornstein-Uhlenbeck), and now and then a blow of a few control periods: a push, a turn, or fingers
    that do the opposite. Laskey et al. 2017 (DART) is the reason. Blows are strong, short and rare rather than weak
    and steady: a policy that predicts chunks can learn what follows an observation only where no new blow falls.
    """

    WANDER_STD, WANDER_DECAY = 0.05, 0.8
    BLOW_RATE, BLOW_STEPS = 0.04, (2, 6)
    PUSH_SIZE, TURN_SIZE = (0.7, 2.0), (0.5, 2.0)

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._wander = np.zeros(6)
        self._blow = np.zeros(6)
        self._grip = 1.0
        self._left = 0

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """The action that is sent instead, (7,), inside [-1, 1]."""
        drawn = self._rng.normal(size=6) * self.WANDER_STD * np.sqrt(1.0 - self.WANDER_DECAY**2)
        self._wander = self.WANDER_DECAY * self._wander + drawn
        self._left -= 1
        if self._left <= 0:
            self._blow, self._grip = np.zeros(6), 1.0
            if self._rng.random() < self.BLOW_RATE:
                self._strike()
        sent = np.array(action, np.float32)
        sent[:6] += self._wander + self._blow
        sent[6] *= self._grip
        return np.clip(sent, -1.0, 1.0)

    def _strike(self) -> None:
        rng = self._rng
        self._left = int(rng.integers(*self.BLOW_STEPS))
        kind = rng.choice(["push", "turn", "grip"], p=[0.5, 0.25, 0.25])
        if kind == "push":
            direction = rng.normal(size=3)
            self._blow[:3] = rng.uniform(*self.PUSH_SIZE) * direction / np.abs(direction).max()
        elif kind == "turn":
            self._blow[5] = rng.uniform(*self.TURN_SIZE) * rng.choice([-1.0, 1.0])
        else:
            self._grip = -1.0


def action_noise(seed: int) -> Disturbance:
    """A disturbance for one episode of `ee_delta` actions; equal seeds give equal ones."""
    return ActionNoise(seed)
