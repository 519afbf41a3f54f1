"""What a bridge and its clients agree on at hello: specs, limits, ports, and the layout of the state frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

from robot.bridge.images import ImageStream
from robot.contract import ArmSpecs, EnvironmentSpecs
from robot.control.limits import Limits, limits_from_mapping
from robot.errors import BridgeError, SpecError
from robot.specs import ArraySpec, Layout


class Mode(IntEnum):
    """What the real-time process does with the arm."""

    DISARMED = 0
    ARMED = 1
    BRAKING = 2
    HOMING = 3
    STOPPING = 4
    FAULT = 5


class Priority(IntEnum):
    """Who takes the lease over from whom. The e-stop outranks all: it is a channel of its own and needs no lease."""

    POLICY = 1
    TELEOP = 2


class Outcome(IntEnum):
    """How an operation that changes the mode ended."""

    PENDING = 0
    DONE = 1
    MOVING = 2
    FAULTED = 3
    ESTOPPED = 4
    OUTSIDE = 5
    DEVICE = 6
    NO_LEASE = 7


WORDS = {
    Outcome.PENDING: "The arm has not answered yet.",
    Outcome.DONE: "Done.",
    Outcome.MOVING: "The arm moves; wait for standstill or send stop first.",
    Outcome.FAULTED: "A stop is latched; find its cause, then send reset.",
    Outcome.ESTOPPED: "The e-stop is latched; the lease holder resets it.",
    Outcome.OUTSIDE: "The tool is outside the workspace box; send home first.",
    Outcome.DEVICE: "The driver failed; its fault is in the state.",
    Outcome.NO_LEASE: "The lease has expired; acquire it and arm again.",
}
"""What an outcome means and what to do."""

STATUS = (
    "t_ns",
    "cycle",
    "mode",
    "fault",
    "scene",
    "lease",
    "lease_left_s",
    "lease_priority",
    "silence_s",
    "last_sequence",
    "applied_sequence",
    "command_age_s",
    "reject",
    "rejected",
    "refused",
    "refusal",
    "stale_rows",
    "clamp_mask",
    "clamped",
    "clearance_m",
    "starved",
    "cameras_down",
    "overruns",
    "skipped_periods",
    "late_p50_us",
    "late_p99_us",
    "late_max_us",
    "busy_p99_us",
    "operation",
    "outcome",
    "seed",
)
"""Elements of `status`, each a float64.

`t_ns` is when the arm was read [CLOCK_MONOTONIC ns]; `scene` counts homings; `lease` is the public id of the holder, 0
for nobody; `lease_priority` its `Priority`; `silence_s` the time since its last sign of life; `reject` is the
newest `plan.Reject`; `rejected` counts chunks that the real-time process did not take, `refused` those that the gateway
did not pass on, for the reason `refusal`; `stale_rows` counts rows that arrived after their time; `clamp_mask` are the
`safety.Clamp` bits of this cycle and `clamped` counts cycles with any; `clearance_m` is the least distance of the arm
to itself or the table, where a model tells it, else -1; `starved` counts cycles under arms, after the first row,
without one; `cameras_down` has a bit for each camera, in the order of hello, that gives no pictures; `late_*` is how
late cycles began, `busy_*` how long they took; `seed` is that of a simulated arm's scene, -1 where nobody gave one.
"""

STANDSTILL_RADPS = 0.05
"""An arm whose joints are all slower than this stands still; only then it may be sent home [rad/s]."""

INDEX = {name: index for index, name in enumerate(STATUS)}


def state_layout(arm: ArmSpecs) -> Layout:
    """Layout of the state frame: status, target as written, then what the driver measured."""
    target = ArraySpec(
        "target", arm.target.shape, "float64", unit=arm.target.unit, frame="base", names=arm.target.names
    )
    return Layout((ArraySpec("status", (len(STATUS),), "float64", names=STATUS), target, *arm.state.specs))


def arm_specs_to_json(arm: ArmSpecs) -> dict[str, Any]:
    """Plain JSON."""
    return {
        "robot": arm.robot,
        "environment": arm.environment.to_json(),
        "state": arm.state.to_json(),
        "target": arm.target.to_json(),
        "target_space": arm.target_space,
        "rate_hz": arm.rate_hz,
        "model_hash": arm.model_hash,
        "is_simulated": arm.is_simulated,
        "clock": arm.clock,
    }


def arm_specs_from_json(data: Mapping[str, Any]) -> ArmSpecs:
    """The specs that `arm_specs_to_json` wrote."""
    try:
        return ArmSpecs(
            robot=data["robot"],
            environment=EnvironmentSpecs.from_json(data["environment"]),
            state=Layout.from_json(data["state"]),
            target=ArraySpec.from_json(data["target"]),
            target_space=data["target_space"],
            rate_hz=float(data["rate_hz"]),
            model_hash=data["model_hash"],
            is_simulated=bool(data["is_simulated"]),
            clock=data["clock"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f"Not specs of an arm: {error!r}.") from error


@dataclass(frozen=True)
class BridgeSchema:
    """The answer to hello.

    Attributes:
        boot_id: Of this start of the bridge; all else is void when it changes.
        arm: Specs of the arm behind it.
        limits: Exactly what is enforced.
        endpoints: Address of each channel: `control`, `command`, `state`, `estop`, and `journal` (see
            `robot.bridge.journal`) unless the bridge is older than that.
        lease_ttl_s: How long a lease lasts without a sign of its holder [s].
        images: The cameras, by name.
    """

    boot_id: int
    arm: ArmSpecs
    limits: Limits
    endpoints: dict[str, str]
    lease_ttl_s: float
    images: dict[str, ImageStream] = field(default_factory=dict)

    @cached_property
    def layout(self) -> Layout:
        """Layout of the state frame."""
        return state_layout(self.arm)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; carries the digest of the state layout."""
        return {
            "boot_id": str(self.boot_id),
            "arm": arm_specs_to_json(self.arm),
            "limits": self.limits.to_json(),
            "endpoints": self.endpoints,
            "lease_ttl_s": self.lease_ttl_s,
            "images": {name: stream.to_json() for name, stream in self.images.items()},
            "status": list(STATUS),
            "digest": self.layout.digest(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BridgeSchema":
        """The schema that `to_json` wrote.

        Raises:
            BridgeError: Something is missing, or this side lays the state frame out differently.
        """
        try:
            schema = cls(
                boot_id=int(data["boot_id"]),
                arm=arm_specs_from_json(data["arm"]),
                limits=limits_from_mapping(data["arm"]["target_space"], data["limits"]),
                endpoints=_endpoints(data["endpoints"]),
                lease_ttl_s=float(data["lease_ttl_s"]),
                images={str(name): ImageStream.from_json(stream) for name, stream in data["images"].items()},
            )
            digest, status = data["digest"], [str(name) for name in data["status"]]
        except (KeyError, TypeError, ValueError) as error:
            raise BridgeError(f"The bridge answered hello with something else: {error!r}.") from error
        if schema.layout.digest() != digest:
            more, less = sorted(set(status) - set(STATUS)), sorted(set(STATUS) - set(status))
            raise BridgeError(
                "The bridge lays its state out differently: its status "
                f"has {', '.join(more) or 'nothing'} more and {', '.join(less) or 'nothing'} less than this side has. "
                "Install the same version on both sides."
            )
        return schema

    def require(self, expected: EnvironmentSpecs, model_hash: str = "") -> None:
        """Refuse to drive with a policy that was made for something else.

        Args:
            expected: What the policy was made for.
            model_hash: Of the arm that it was made for; empty for any with these specs.

        Raises:
            BridgeError: Robot, observation, action, period or model differ; one line for each difference.
        """
        lines = expected.unmet(self.arm.environment)
        if model_hash and model_hash != self.arm.model_hash:
            lines.append(f"model of the arm is {self.arm.model_hash[:12]}, expected {model_hash[:12]}")
        if lines:
            raise BridgeError("The bridge does not fit the policy:\n" + "\n".join(f"  {line}" for line in lines))


def _endpoints(data: Mapping[str, Any]) -> dict[str, str]:
    needed = {name: str(data[name]) for name in ("control", "command", "state", "estop")}
    return needed | {name: str(data[name]) for name in ("journal",) if name in data}
