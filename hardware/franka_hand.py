"""A Franka's hand: its moves block for up to seconds, so that they have a thread of their own. The latest wish wins.

A move that has begun cannot be cut: franky lets no command pass another one (its `stop` waits until the move is over).
"""

import threading
import time
from queue import SimpleQueue

import franky

from hardware.franka_link import FAULTS, HAND_PORT, FrankaConfig, patiently
from robot.errors import DeviceError

WATCH_S = 0.02
"""The hand's own states come about that often."""
ANY_WIDTH_M = 0.1
"""Tolerance of a grasp: whatever is between the fingers is meant."""
LONGEST_MOVE_S = 5.0


class Hand:
    """Opens and closes on request.

    Attributes:
        width_m: Distance of the fingers as last measured.
        fault: What is wrong with the hand; empty while nothing is.
    """

    def __init__(self, config: FrankaConfig) -> None:
        """Connect. Raises `DeviceError` where there is no hand, or it has never been homed."""
        self._config = config
        self._gripper = patiently(config.address, HAND_PORT, lambda: franky.Gripper(config.address))
        try:
            state = self._gripper.state
        except FAULTS as error:
            raise DeviceError(f"The Franka's hand does not answer: {error}") from error
        self.width_m, self._most_m = state.width, state.max_width
        if not self._most_m > 0.01:
            raise DeviceError(f"The Franka's hand opens to {self._most_m} m: home it in Desk first.")
        self.fault = ""
        self._wish = 0
        self._wishes: SimpleQueue[int | None] = SimpleQueue()
        self._is_open = True
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._watch, self._obey)]
        for thread in self._threads:
            thread.start()

    def wish(self, value: float) -> None:
        """Below 0 opens, above 0 closes, 0 leaves it; returns at once."""
        sign = (value > 0) - (value < 0)
        if sign and sign != self._wish:
            self._wish = sign
            self._wishes.put(sign)

    def forget(self) -> None:
        """Begin nothing more of what was wished for."""
        self._wish = 0
        self._wishes.put(0)

    def close(self) -> None:
        """End both threads and disconnect; waits for a move that has begun."""
        self._is_open = False
        self._wishes.put(None)
        for thread in self._threads:
            thread.join(LONGEST_MOVE_S)
        self._gripper = None  # franky disconnects when nobody holds it any more

    def _watch(self) -> None:
        while self._is_open and not self.fault:
            try:
                self.width_m = self._gripper.width
            except FAULTS as error:
                self.fault = f"The Franka's hand does not answer: {error}."
            time.sleep(WATCH_S)

    def _obey(self) -> None:
        while True:
            wish = self._wishes.get()
            while not self._wishes.empty():
                wish = self._wishes.get()
            if wish is None:
                return
            try:
                self._move(wish)
            except FAULTS as error:
                self.fault = f"The Franka's hand has failed: {error}."
                return

    def _move(self, wish: int) -> None:
        speed = self._config.hand_speed_mps
        if wish < 0:
            self._gripper.move(self._most_m, speed)
        elif wish > 0:
            self._gripper.grasp(0.0, speed, self._config.hand_force_n, ANY_WIDTH_M, ANY_WIDTH_M)
