"""The limits of one arm: required, checked, and published exactly as they are enforced."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_args, get_type_hints

import numpy as np

from robot.errors import SafetyError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What every arm is limited by. All are required; a bridge publishes exactly these numbers.

    Attributes:
        workspace_low_m: Lowest corner (x, y, z) of the box that the tool is led in, base frame [m].
        workspace_high_m: Highest corner.
        linear_speed_mps: Speed of the target on average over an action. The target of a delta action leads a compliant
            tool, so this bounds jumps of the target; such a tool moves as fast as its controller follows a lead.
        angular_speed_radps: The same for its rotation.
        joint_low_rad: Lowest joint positions.
        joint_high_rad: Highest joint positions.
        joint_velocity_radps: Highest joint speeds.
        tracking_time_s: How long the arm may be away from its target.
        gateway_timeout_s: Longest silence of the gateway until the arm stops and the real-time process ends.
        silence_s: Longest silence of the holder of the lease until the arm comes to rest and is disarmed.
        max_ahead_s: How far in the future row 0 of a chunk may begin.
        max_age_s: How long ago row 0 of a chunk may have begun.
    """

    workspace_low_m: tuple[float, ...]
    workspace_high_m: tuple[float, ...]
    linear_speed_mps: float
    angular_speed_radps: float
    joint_low_rad: tuple[float, ...]
    joint_high_rad: tuple[float, ...]
    joint_velocity_radps: tuple[float, ...]
    tracking_time_s: float
    gateway_timeout_s: float
    silence_s: float
    max_ahead_s: float
    max_age_s: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            values = np.atleast_1d(np.asarray(value, np.float64))
            if not np.isfinite(values).all():
                raise SafetyError(f"Limit {name!r} is {value}, expected finite numbers.")
            if not any(part in name for part in ("low", "high", "home_q", "table_z")) and not (values > 0).all():
                raise SafetyError(f"Limit {name!r} is {value}, expected more than 0.")
            if name.startswith(("joint_", "home_q")) and len(values) != len(self.joint_low_rad):
                raise SafetyError(
                    f"Limit {name!r} has {len(values)} numbers for {len(self.joint_low_rad)} joints (joint_low_rad)."
                )
        if len(self.workspace_low_m) != 3:
            raise SafetyError(f"Limit 'workspace_low_m' has {len(self.workspace_low_m)} numbers, expected x, y, z.")
        for kind, unit in (("workspace", "m"), ("joint", "rad")):
            low, high = getattr(self, f"{kind}_low_{unit}"), getattr(self, f"{kind}_high_{unit}")
            if len(low) != len(high) or not np.all(np.less(low, high)):
                raise SafetyError(f"Limits of {kind}: low {list(low)} is not below high {list(high)}.")

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Limits from configuration or from the wire.

        Raises:
            SafetyError: A limit is missing, unknown, or of the wrong kind; names it.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if data.get(name) is None or data[name] == "???"]
        if missing:
            raise SafetyError(f"Limits are missing: {', '.join(missing)}. An arm without limits does not start.")
        unknown = sorted(set(data) - set(names))
        if unknown:
            raise SafetyError(f"Unknown limits: {', '.join(unknown)}. Known: {', '.join(names)}.")
        kinds = get_type_hints(cls)
        return cls(**{name: _number_or_tuple(name, data[name], bool(get_args(kinds[name]))) for name in names})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON that `from_mapping` reads."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class PoseLimits(Limits):
    """What limits an arm that follows poses of its tool with a compliant controller of its own.

    Attributes:
        speed_window_s: How far a target may jump at once is its speed times this; the length of an action [s].
        tracking_m: Highest distance between target and tool ...
        tracking_rad: ... and angle between them, that may last for `tracking_time_s`.
        hold_periods: How many periods of a plan that has ended its last target is held for.
        brake_s: Time in which the target comes to rest at the tool when commands end.
    """

    speed_window_s: float
    tracking_m: float
    tracking_rad: float
    hold_periods: float
    brake_s: float


@dataclass(frozen=True, kw_only=True)
class JointLimits(Limits):
    """What limits an arm that follows its joints' motion: no reference ever leaves these, nor could not brake in time.

    Attributes:
        joint_acceleration_radps2: Highest accelerations of the reference.
        joint_jerk_radps3: Highest jerks of the reference.
        table_z_m: Height of the table's surface, base frame [m].
        clearance_m: Least distance of the arm to the table and to itself, by the arm's model.
        tracking_rad: Highest distance between reference and measured joints that may last for `tracking_time_s`.
        home_q_rad: Where homing leads.
        home_speed: Share of the joints' speed limits that homing uses, at most 1.
    """

    joint_acceleration_radps2: tuple[float, ...]
    joint_jerk_radps3: tuple[float, ...]
    table_z_m: float
    clearance_m: float
    tracking_rad: float
    home_q_rad: tuple[float, ...]
    home_speed: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.home_speed <= 1:
            raise SafetyError(f"Limit 'home_speed' is {self.home_speed}, expected at most 1: a share of the limits.")
        inside = np.greater(self.home_q_rad, self.joint_low_rad) & np.less(self.home_q_rad, self.joint_high_rad)
        if not inside.all():
            raise SafetyError(f"Limit 'home_q_rad' is {list(self.home_q_rad)}, expected inside the joints' range.")


LIMITS: dict[str, type[Limits]] = {"ee_pose": PoseLimits, "joint_reference": JointLimits}
"""By the space of an arm's targets."""


def limits_from_mapping(target_space: str, data: Mapping[str, Any]) -> Limits:
    """The limits of an arm whose targets are of that space. Raises `SafetyError`."""
    return LIMITS[target_space].from_mapping(data)


def _number_or_tuple(name: str, value: Any, is_tuple: bool) -> Any:
    values = value if is_tuple else [value]
    plain = isinstance(values, Sequence) and not isinstance(values, str)
    if not plain or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in values):
        raise SafetyError(f"Limit {name!r} is {value!r}, expected {'a list of numbers' if is_tuple else 'a number'}.")
    return tuple(map(float, values)) if is_tuple else float(value)
