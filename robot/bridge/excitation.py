"""A small motion that tells delays: the tool goes to and fro along one axis, and everything about it is recorded.

The offset is a sum of three slow sines whose periods have no common multiple in sight, so that no shift but the true
one makes the measured motion fit the commanded; it begins and ends at rest where the arm stands. Rows are sent a
moment before their time, as a policy node does, and the arm is checked in every state.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.image_client import ImageClient
from robot.bridge.schema import STANDSTILL_RADPS, Mode
from robot.contract import ActionChunk, ArmSpecs
from robot.control.action_spaces import POSITION_SCALE_M
from robot.control.safety import Fault
from robot.errors import BridgeError, ConfigError, SafetyError

SINES_HZ = (0.37, 0.71, 1.13)
WEIGHTS = (1.0, 0.8, 0.5)
PHASES_RAD = (0.0, 1.3, 2.6)
RAMP_S = 1.0
"""Time in which the motion grows from rest, and in which it fades."""
AHEAD_S = 0.3
"""How long before its time a row is sent."""
ROWS = 5
"""Rows of a chunk."""
TAIL_S = 0.7
"""How long what comes late is waited for."""
PICTURE_SIDE = 24
"""Pictures are reduced to about this many rows: motion of the tool is not in their details."""
MARGIN_M = 0.01


@dataclass(frozen=True)
class Motion:
    """What is asked of the arm.

    Attributes:
        axis: Of the base frame, `x`, `y` or `z`; joints go about the first joint instead.
        amplitude_m: Farthest way from where the tool stands [m].
        duration_s: From rest to rest [s].
    """

    axis: str
    amplitude_m: float
    duration_s: float

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y", "z"):
            raise ConfigError(f"axis is {self.axis!r}, expected x, y or z of the base frame.")
        if not 0.005 <= self.amplitude_m <= 0.05:
            raise ConfigError(f"amplitude_m is {self.amplitude_m}, expected 0.005 to 0.05: a small motion.")
        if not 4 <= self.duration_s <= 60:
            raise ConfigError(f"duration_s is {self.duration_s}, expected 4 to 60.")

    @property
    def index(self) -> int:
        """Of the axis."""
        return "xyz".index(self.axis)

    def offset_m(self, t_s: np.ndarray) -> np.ndarray:
        """Offsets from the start at times since the beginning [s]; zero before and after."""
        inside = np.clip(t_s, 0.0, self.duration_s)
        edge = np.clip(np.minimum(inside, self.duration_s - inside) / RAMP_S, 0.0, 1.0)
        # Smooth up to the acceleration, so that an arm with limits of jerk can follow.
        window = edge**3 * (10 - 15 * edge + 6 * edge**2)
        sines = sum(
            weight * np.sin(2 * math.pi * hertz * inside + phase)
            for hertz, weight, phase in zip(SINES_HZ, WEIGHTS, PHASES_RAD, strict=True)
        )
        return self.amplitude_m / sum(WEIGHTS) * window * np.asarray(sines)


@dataclass
class Recording:
    """What happened, on the bridge's clock.

    Attributes:
        way_ns: When each waypoint was to be reached: the end of its row (N,).
        way_m: Waypoints as offsets along the axis (N,).
        state_ns: When each state was measured (T,).
        moved_m: Measured offset along the axis (T,).
        ee_pos: Measured position of the tool (T, 3), base frame.
        picture_ns: By camera, when each picture was taken.
        pictures: By camera, the pictures, small and grey.
        missed: By camera, pictures that did not arrive.
    """

    way_ns: np.ndarray
    way_m: np.ndarray
    state_ns: list[int] = field(default_factory=list)
    moved_m: list[float] = field(default_factory=list)
    ee_pos: list[np.ndarray] = field(default_factory=list)
    picture_ns: dict[str, list[int]] = field(default_factory=dict)
    pictures: dict[str, list[np.ndarray]] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)


class Axis(Protocol):
    """How an offset is put into a row of actions, and how it is measured."""

    def row(self, before_m: float, after_m: float) -> np.ndarray:
        """Action that leads from one offset to the next."""
        ...

    def measured_m(self, state: BridgeState) -> float:
        """Offset of the arm."""
        ...


class DeltaAxis:
    """Rows of `ee_delta`."""

    def __init__(self, specs: ArmSpecs, start: BridgeState, index: int) -> None:
        self._row, self._index = np.zeros(specs.environment.action.shape[0]), index
        self._start_m = float(start.values["ee_pos"][index])

    def row(self, before_m: float, after_m: float) -> np.ndarray:
        """Action that leads from one offset to the next."""
        row = self._row.copy()
        row[self._index] = (after_m - before_m) / POSITION_SCALE_M
        return row

    def measured_m(self, state: BridgeState) -> float:
        """Offset of the tool."""
        return float(state.values["ee_pos"][self._index]) - self._start_m


class PoseAxis(DeltaAxis):
    """Rows of `ee_pose`."""

    def __init__(self, specs: ArmSpecs, start: BridgeState, index: int) -> None:
        super().__init__(specs, start, index)
        self._row[:3], self._row[3:9] = start.values["ee_pos"], start.values["ee_rot6d"]

    def row(self, before_m: float, after_m: float) -> np.ndarray:
        """Action that leads to the next offset."""
        row = self._row.copy()
        row[self._index] = self._start_m + after_m
        return row


class JointAxis:
    """Rows of `joint_position`: the first joint swings the tool about the base."""

    def __init__(self, specs: ArmSpecs, start: BridgeState, index: int) -> None:
        self._start_q = start.values["q"].copy()
        self._radius_m = max(0.1, float(np.hypot(*start.values["ee_pos"][:2])))

    def row(self, before_m: float, after_m: float) -> np.ndarray:
        """Action that leads to the next offset."""
        row = np.append(self._start_q, 0.0)
        row[0] += after_m / self._radius_m
        return row

    def measured_m(self, state: BridgeState) -> float:
        """Offset of the tool along its circle."""
        return self._radius_m * float(state.values["q"][0] - self._start_q[0])


AXES: dict[str, Callable[[ArmSpecs, BridgeState, int], Axis]] = {
    "ee_delta": DeltaAxis,
    "ee_pose": PoseAxis,
    "joint_position": JointAxis,
}
"""By action space of the arm."""


def excite(
    client: BridgeClient, motion: Motion, images: ImageClient, on_progress: Callable[[float], None]
) -> Recording:
    """Move the arm once and record it; afterwards it rests, disarmed, where it was.

    Args:
        client: Holds the lease.
        motion: What is asked of the arm.
        images: Cameras to be recorded as well.
        on_progress: Told how many seconds are over.

    Raises:
        BridgeError: There is no room, the arm was disarmed, or the bridge changed or refused what was asked for.
        SafetyError: The bridge latched a stop.
    """
    start = client.state()
    _require_room(client, start, motion)
    arm = client.schema.arm
    axis = AXES[arm.environment.action_space](arm, start, motion.index)
    dt_ns = round(arm.environment.dt_s * 1e9)
    count = -(-math.ceil(motion.duration_s * 1e9) // dt_ns)
    seen = {name: picture.number for name in images.streams for picture in images.after(name, 0)}
    client.arm()
    begin_ns = client.now_ns() + round(AHEAD_S * 1e9)
    offsets = motion.offset_m(np.arange(count + 1) * dt_ns / 1e9)
    recording = Recording(begin_ns + dt_ns * np.arange(count + 1), offsets)
    sent, end_ns = 0, begin_ns + count * dt_ns + round(TAIL_S * 1e9)
    while (now_ns := client.now_ns()) < end_ns:
        if sent < count and now_ns > begin_ns + sent * dt_ns - round(AHEAD_S * 1e9):
            until = min(sent + ROWS, count)
            rows = np.stack([axis.row(offsets[k], offsets[k + 1]) for k in range(sent, until)])
            client.send_chunk(ActionChunk(rows, arm.environment.dt_s), begin_ns + sent * dt_ns)
            sent = until
        state = _require_armed(client.state())
        if not recording.state_ns or state.t_ns > recording.state_ns[-1]:
            recording.state_ns.append(state.t_ns)
            recording.moved_m.append(axis.measured_m(state))
            recording.ee_pos.append(state.values["ee_pos"].copy())
        _record_pictures(images, seen, recording)
        on_progress(max(0.0, (now_ns - begin_ns) / 1e9))
    client.disarm()
    _require_undisturbed(start, state)
    _rest(client)
    return recording


def _record_pictures(images: ImageClient, seen: dict[str, int], recording: Recording) -> None:
    """One picture of each camera at a time: the bridge wants to hear from us between them."""
    for name in images.streams:
        for picture in images.after(name, seen.get(name, 0), most=1):
            if name in seen:
                recording.missed[name] = recording.missed.get(name, 0) + picture.number - seen[name] - 1
            seen[name] = picture.number
            recording.picture_ns.setdefault(name, []).append(picture.t_ns)
            recording.pictures.setdefault(name, []).append(small(picture.image))


def small(image: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) as a short vector of grey means of square blocks."""
    block = max(1, image.shape[0] // PICTURE_SIDE)
    height, width = image.shape[0] // block * block, image.shape[1] // block * block
    # Green carries most of the light.
    green = image[:height, :width, 1].reshape(height // block, block, width // block, block)
    return green.mean((1, 3), dtype=np.float32).ravel()


def _require_room(client: BridgeClient, start: BridgeState, motion: Motion) -> None:
    limits, pos = client.schema.limits, start.values["ee_pos"]
    low, high = np.array(limits.workspace_low_m), np.array(limits.workspace_high_m)
    reach = motion.amplitude_m + MARGIN_M
    room = np.minimum(pos - low, high - pos)
    if not room[motion.index] >= reach:
        best = "xyz"[int(np.argmax(room))]
        raise BridgeError(
            f"The tool is {room[motion.index]:.3f} m from the edge of the workspace box along {motion.axis}, and the "
            f"motion needs {reach:.3f} m. Choose axis={best} ({room.max():.3f} m), a smaller amplitude_m, or move it."
        )


def _require_armed(state: BridgeState) -> BridgeState:
    if state.mode == Mode.ARMED:
        return state
    if state.mode in (Mode.FAULT, Mode.STOPPING):
        raise SafetyError(f"The bridge latched a stop: {Fault(int(state.status('fault'))).name}. Find its cause first.")
    raise BridgeError(
        "The arm was disarmed during the motion: another client sent stop, or this machine was away for too long. Try "
        "again with nothing else running."
    )


def _require_undisturbed(before: BridgeState, after: BridgeState) -> None:
    """What was clamped, late or rejected is not the motion that delays are told from."""
    grown = {name: after.status(name) - before.status(name) for name in ("clamped", "stale_rows", "rejected")}
    if any(grown.values()):
        raise BridgeError(
            f"The bridge did not follow what was asked for: {grown['clamped']:.0f} cycles clamped, "
            f"{grown['stale_rows']:.0f} rows late, {grown['rejected']:.0f} chunks rejected. Choose a smaller "
            "amplitude_m where it clamps, and a quieter machine or network where rows are late."
        )


def _rest(client: BridgeClient) -> None:
    until_ns = client.now_ns() + 5_000_000_000
    while client.now_ns() < until_ns:
        state = client.state()
        if state.mode == Mode.DISARMED and (np.abs(state.values["dq"]) <= STANDSTILL_RADPS).all():
            return
    raise BridgeError("The arm did not come to rest within 5 s.")
