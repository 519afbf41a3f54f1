"""The four boundaries: `Environment`, `Policy`, `Arm`, `Camera`, and the values that cross them.

Everything in Armature is one of these, or wraps one and has the same methods. `robot.conformance` holds a test mixin
for each; every implementation, fakes included, runs it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robot.errors import SpecError
from robot.specs import ArraySpec, Layout, Specs, difference, specs_from_json, specs_to_json

Observation = dict[str, np.ndarray]
"""Arrays by key, as the specs of whoever made it say."""


@dataclass(frozen=True)
class ActionChunk:
    """The next actions of a policy.

    Attributes:
        actions: Shape (H, A). Row 0 answers the newest observation that the policy was given.
        dt_s: Time from one row to the next [s].
    """

    actions: np.ndarray
    dt_s: float

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or len(self.actions) == 0:
            raise SpecError(f"An action chunk has shape (H, A) with H >= 1, got {self.actions.shape}.")
        if not self.dt_s > 0:
            raise SpecError(f"The rows of an action chunk are dt_s > 0 apart, got {self.dt_s} s.")


@dataclass(frozen=True)
class EnvironmentSpecs:
    """What an environment gives and takes.

    Attributes:
        observation: Specs of one observation, by key.
        action: Spec of one action; `action_space` is the name of its meaning.
        action_space: `ee_delta`, `ee_pose` or `joint_position` (see `robot.control.action_spaces`).
        dt_s: Control period [s].
        robot: Name of the robot; datasets and checkpoints of another are refused.
        task: What is to be done, in words.
    """

    observation: Specs
    action: ArraySpec
    action_space: str
    dt_s: float
    robot: str
    task: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for episodes and datasets."""
        return {
            "observation": specs_to_json(self.observation),
            "action": self.action.to_json(),
            "action_space": self.action_space,
            "dt_s": self.dt_s,
            "robot": self.robot,
            "task": self.task,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "EnvironmentSpecs":
        """The specs that `to_json` wrote."""
        try:
            return cls(
                observation=specs_from_json(data["observation"]),
                action=ArraySpec.from_json(data["action"]),
                action_space=data["action_space"],
                dt_s=float(data["dt_s"]),
                robot=data["robot"],
                task=data["task"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"Not environment specs: {error!r}.") from error

    def difference(self, got: "EnvironmentSpecs") -> list[str]:
        """What keeps `got` from being used in place of these, a readable line each; empty where nothing does.

        Ranges and the wording of the task may differ.
        """
        ours, theirs = ({**specs.observation, "action": specs.action} for specs in (self, got))
        lines = difference(ours, theirs)
        for field in ("robot", "action_space", "dt_s"):
            want, have = getattr(self, field), getattr(got, field)
            if want != have:
                lines.append(f"{field} is {have}, expected {want}")
        return lines

    def unmet(self, got: "EnvironmentSpecs") -> list[str]:
        """What keeps `got` from serving a policy of these; observations beyond its needs do not count."""
        needed = {key: spec for key, spec in got.observation.items() if key in self.observation}
        return self.difference(replace(got, observation=needed))


@runtime_checkable
class Environment(Protocol):
    """The Gymnasium API, with specs. Termination (the task ended) is never mixed with truncation (time ran out)."""

    specs: EnvironmentSpecs

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; equal seeds begin equal episodes."""
        ...

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for one control period: observation, reward, terminated, truncated, info with `success`.

        Raises:
            SpecError: The action is not inside its spec.
        """
        ...

    def render(self) -> np.ndarray:
        """An upright RGB picture, uint8, (H, W, 3)."""
        ...

    def close(self) -> None:
        """Free what the environment holds; may be called twice."""
        ...


@dataclass(frozen=True)
class PolicySpecs:
    """What a policy wants and gives.

    Attributes:
        environment: What it was trained on; an environment or bridge with other specs is refused.
        n_obs_steps: Number of observations it is given, stacked oldest first.
        horizon: Number of rows in its chunks.
        n_action_steps: Rows meant to be executed before the next chunk; at most `horizon`.
    """

    environment: EnvironmentSpecs
    n_obs_steps: int
    horizon: int
    n_action_steps: int

    def __post_init__(self) -> None:
        if self.n_obs_steps < 1 or not 1 <= self.n_action_steps <= self.horizon:
            raise SpecError(
                f"Expected n_obs_steps >= 1 and 1 <= n_action_steps <= horizon, got n_obs_steps {self.n_obs_steps}, "
                f"n_action_steps {self.n_action_steps}, horizon {self.horizon}."
            )


class Policy(ABC):
    """Observations in, action chunk out: a network, a scripted expert, a human at a device, or a wrapper of one."""

    specs: PolicySpecs

    @abstractmethod
    def reset(self, seed: int | None = None) -> None:
        """Forget the last episode. Equal seeds and observations give equal chunks."""

    @abstractmethod
    def act(self, observation: Observation) -> ActionChunk:
        """The next chunk.

        Args:
            observation: Arrays by key, each of shape (n_obs_steps, *spec.shape), oldest first.

        Raises:
            SpecError: A key is missing or an array does not fit.
        """


@dataclass(frozen=True)
class ArmSpecs:
    """What an arm's driver reads and writes, and how fast.

    Attributes:
        robot: Name of the robot.
        environment: Specs of the observations that `state` contains and of the actions a policy may send.
        state: Layout of the flat vector that `read` fills. Holds `q` [rad] and `dq` [rad/s], `ee_pos` [m] and
            `ee_rot6d` in the base frame, `gripper` [m], and every key of `environment.observation`.
        target: Spec of the vector that `write` takes.
        target_space: What that vector means: `ee_pose` (x, y, z, 6-D rotation, gripper; base frame) for an arm whose
            own controller strives for poses of the tool, `joint_reference` (positions, velocities and accelerations
            of the joints, gripper) for one that follows its joints' motion. The limits of the two differ.
        rate_hz: Rate of the control loop [Hz].
        model_hash: Identity of the kinematics and limits; differs where the arm differs.
        is_simulated: Whether `recover` may move the world rather than the arm.
        clock: Who beats time: `host`, or `robot` where `read` returns when the robot's next cycle begins.
    """

    robot: str
    environment: EnvironmentSpecs
    state: Layout
    target: ArraySpec
    target_space: str
    rate_hz: float
    model_hash: str
    is_simulated: bool
    clock: str = "host"

    def __post_init__(self) -> None:
        if self.target_space not in ("ee_pose", "joint_reference") or self.clock not in ("host", "robot"):
            raise SpecError(
                f"An arm follows an ee_pose or a joint_reference on the clock of host or robot, got "
                f"{self.target_space!r} and {self.clock!r}."
            )


class Arm(ABC):
    """A driver: one arm at its own rate. Called from one thread of the real-time process; nothing here may block.

    A driver moves the arm only in `write`, and in `stop` until it rests. It applies no limits of its own beyond the
    vendor's: the real-time process checks every target before it gets here, and leads a real arm home with targets.
    """

    specs: ArmSpecs

    @abstractmethod
    def open(self) -> None:
        """Connect. Raises `DeviceError` where the arm is absent. The arm does not move."""

    @abstractmethod
    def read(self, state: np.ndarray) -> None:
        """Fill `state`, a float64 vector laid out as `specs.state`, with what is measured now; allocates nothing.

        Raises:
            DeviceError: The arm stopped answering or reports a fault.
        """

    @abstractmethod
    def write(self, target: np.ndarray) -> None:
        """Follow `target` for one period: float64, laid out as `specs.target`, already inside the limits."""

    @abstractmethod
    def stop(self) -> None:
        """Come to rest and hold there. Returns when the arm has confirmed; may be called in any state."""

    @abstractmethod
    def recover(self, seed: int | None = None) -> None:
        """Clear the device's own faults, once. A real arm does not move; a simulated one begins the scene of `seed`.

        May block for as long as the device takes. Raises `DeviceError` where a fault cannot be cleared.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop and disconnect; may be called twice."""


@dataclass(frozen=True)
class Frame:
    """One picture of a camera.

    Attributes:
        image: RGB, uint8, (H, W, 3).
        t_ns: Time of capture, CLOCK_MONOTONIC of this machine [ns].
    """

    image: np.ndarray
    t_ns: int


class Camera(ABC):
    """A stream of pictures with true times of capture."""

    spec: ArraySpec

    @abstractmethod
    def open(self) -> None:
        """Start the stream. Raises `DeviceError` where the camera is absent."""

    @abstractmethod
    def read(self) -> Frame:
        """The newest frame; waits for the next if it was read before.

        Raises:
            DeviceError: The stream has stopped.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop the stream; may be called twice."""
