"""What `armature watch` shows: styled lines from what is known of a bridge. No terminal, no socket, no clock."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from robot.bridge.client import BridgeState
from robot.bridge.meter import Meter
from robot.bridge.schema import BridgeSchema, Mode, Priority
from robot.control.plan import Reject
from robot.control.safety import Fault

ADVICE = {
    Fault.ESTOP: "Somebody pressed it. Find out why; then the lease holder sends reset.",
    Fault.JOINT_RANGE: "A joint left its range. Guide it back with the vendor's tools, then send reset.",
    Fault.JOINT_VELOCITY: "A joint was faster than its limit. Look at what was commanded, then send reset.",
    Fault.TRACKING: "The arm did not follow. Look for an obstacle or a load in the hand, then send reset.",
    Fault.DEVICE: "The driver lost the arm or refused. Check power, cable and the vendor's stop, then send reset.",
    Fault.MEASUREMENT: "The arm measured what is no number. Restart the arm and the bridge.",
}
"""What to do about each fault."""
NEAR = 0.05
"""A joint that is nearer to an end of its range than this share of it is marked."""

COLOURS = {"": "", "bold": "1", "dim": "2", "good": "32", "warn": "33", "bad": "31"}
_MODES = {Mode.ARMED: "good", Mode.BRAKING: "warn", Mode.HOMING: "warn", Mode.STOPPING: "bad", Mode.FAULT: "bad"}
_LABEL = 11
_SPARKS = {True: "▁▂▃▄▅▆▇█", False: "_.:-=+*#"}
_BARS = {True: ("├", "─", "●", "┤"), False: ("[", "-", "o", "]")}

Line = list[tuple[str, str]]
"""Pieces of text with the names of their styles."""


@dataclass
class Sight:
    """What is known of a bridge.

    Attributes:
        endpoint: Where it is.
        schema: From hello; None before.
        state: The newest; None before the first.
        age_s: How old that state is.
        state_hz: How often states come.
        meter: What was seen of it so far.
        holder: Name of whoever drives; empty for nobody.
        counters: Frames refused by reason.
        trouble: Why there is nothing new; empty if there is.
    """

    endpoint: str
    schema: BridgeSchema | None = None
    state: BridgeState | None = None
    age_s: float = 0.0
    state_hz: float = 0.0
    meter: Meter = field(default_factory=Meter)
    holder: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""


def lines(sight: Sight, has_unicode: bool = True) -> list[Line]:
    """Everything, top to bottom."""
    shown: list[Line] = [_head(sight)]
    if sight.trouble:
        # A sentence a line: terminals are narrow.
        first, *more = re.split(r"(?<=[.:]) ", sight.trouble)
        shown.append([(f"{'no bridge':<{_LABEL}}", "bad"), (first, "")])
        shown += [[_label(""), (sentence, "")] for sentence in more]
    if sight.schema is None or sight.state is None:
        return shown
    shown += [
        *_mode(sight.state),
        _lease(sight, sight.state),
        _rates(sight, sight.state),
        _lateness(sight, sight.schema, sight.state, has_unicode),
        _clamps(sight, sight.state, has_unicode),
        _refused(sight, sight.state),
        _tool(sight.schema, sight.state),
        *_joints(sight.schema, sight.state, has_unicode),
        *_cameras(sight.schema, sight.state),
    ]
    return shown


def painted(shown: Sequence[Line], width: int, height: int, has_colours: bool) -> list[str]:
    """The lines as a terminal takes them, cut to `width` columns and `height` rows; a height of 0 is any."""
    kept = shown if not height or len(shown) <= height else [*shown[: height - 1], [("...", "dim")]]
    return [_painted(line, width, has_colours) for line in kept]


def _painted(line: Line, width: int, has_colours: bool) -> str:
    pieces, left = [], width
    for words, style in line:
        # Names come from others: nothing that a terminal would obey gets through.
        plain = "".join(letter for letter in words if letter.isprintable())
        while _columns(plain) > left:
            plain = plain[:-1]
        left -= _columns(plain)
        code = COLOURS[style]
        pieces.append(f"\x1b[{code}m{plain}\x1b[0m" if has_colours and code and plain else plain)
    return "".join(pieces).rstrip()


def _columns(words: str) -> int:
    """Columns on a terminal: wide letters take two, marks that join another take none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in words
    )


def _head(sight: Sight) -> Line:
    line = [("armature watch", "bold"), (f"  {sight.endpoint}", "")]
    if sight.schema is not None:
        arm = sight.schema.arm
        line.append((f"  {arm.robot}, {arm.rate_hz:.0f} Hz, {arm.environment.action_space}", ""))
    return line


def _label(words: str) -> tuple[str, str]:
    return f"{words:<{_LABEL}}", "dim"


def _mode(state: BridgeState) -> list[Line]:
    shown: list[Line] = [[_label("mode"), (state.mode.name, _MODES.get(state.mode, "bold"))]]
    if fault := int(state.status("fault")):
        known = Fault(fault) if fault in list(Fault) else None
        name = known.name if known is not None else f"fault {fault}"
        shown[0].append((f"  {name}", "bad"))
        shown.append([_label(""), (ADVICE.get(known, "See the bridge's terminal.") if known else "", "warn")])
    if state.success:
        shown[0].append(("  task fulfilled", "good"))
    return shown


def _lease(sight: Sight, state: BridgeState) -> Line:
    if not state.status("lease"):
        return [_label("lease"), ("free", "")]
    rank = int(state.status("lease_priority"))
    priority = Priority(rank).name.lower() if rank in list(Priority) else f"priority {rank}"
    silence_s = state.status("silence_s")
    assert sight.schema is not None
    is_quiet = silence_s > sight.schema.limits.silence_s / 2
    return [
        *(_label("lease"), (sight.holder or "somebody", "bold"), (f" ({priority}), ", "")),
        (f"{state.status('lease_left_s'):.2f} s left, ", ""),
        (f"silent for {1000 * silence_s:.0f} ms", "warn" if is_quiet else ""),
    ]


def _rates(sight: Sight, state: BridgeState) -> Line:
    assert sight.schema is not None
    cycles = sight.meter.per_second("cycle")
    is_slow = sight.meter.looks > 1 and cycles < 0.98 * sight.schema.arm.rate_hz
    age_s = state.status("command_age_s")
    commanded = "none yet" if age_s < 0 else f"last {age_s:.2f} s ago" if age_s < 100 else f"last {age_s:.0f} s ago"
    return [
        *(_label("rates"), (f"cycles {cycles:.1f}/s", "warn" if is_slow else ""), (", states ", "")),
        (f"{sight.state_hz:.0f}/s, {1000 * sight.age_s:.1f} ms old, ", "bad" if sight.age_s > 0.2 else ""),
        (f"commands {sight.meter.per_second('last_sequence'):.1f}/s, {commanded}", ""),
        (f", {state.status('starved'):.0f} cycles starved, {state.status('stale_rows'):.0f} rows stale", ""),
    ]


def _lateness(sight: Sight, schema: BridgeSchema, state: BridgeState, has_unicode: bool) -> Line:
    period_us = 1e6 / schema.arm.rate_hz
    p50, p99, longest, busy = (state.status(f"{name}_us") for name in ("late_p50", "late_p99", "late_max", "busy_p99"))
    return [
        *(_label("lateness"), (f"p50 {p50 / 1000:.3f}, ", "")),
        (f"p99 {p99 / 1000:.3f}", "warn" if p99 > period_us / 4 else ""),
        (f", max {longest / 1000:.3f} ms; ", ""),
        (f"busy p99 {busy / 1000:.3f} of {period_us / 1000:.1f} ms", "warn" if busy > period_us / 2 else ""),
        (f"; {state.status('overruns'):.0f} overruns, {state.status('skipped_periods'):.0f} periods skipped  ", ""),
        (_sparks(sight.meter.history("overruns"), has_unicode), "warn"),
    ]


def _clamps(sight: Sight, state: BridgeState, has_unicode: bool) -> Line:
    meter = sight.meter
    names = ", ".join(f"{name.lower()} {count}" for name, count in meter.clamps.most_common())
    now = int(state.status("clamp_mask")) != 0
    return [
        *(_label("clamped"), (f"{state.status('clamped'):.0f} cycles  ", "warn" if now else "")),
        (_sparks(meter.history("clamped"), has_unicode), "warn"),
        (f"  {names} of {meter.looks} looks" if names else "", ""),
    ]


def _refused(sight: Sight, state: BridgeState) -> Line:
    rejected, refused = int(state.status("rejected")), int(state.status("refused"))
    line = [_label("refused")]
    newest = _reject(state.status("reject")) if rejected else ""
    line.append((f"{rejected} chunks by the loop{newest}, {refused} frames by the gateway", "warn" if newest else ""))
    if sight.counters:
        reasons = sorted(sight.counters.items(), key=lambda pair: -pair[1])
        line.append((": " + ", ".join(f"{name.lower()} {count}" for name, count in reasons), ""))
    return line


def _reject(number: float) -> str:
    """In words, as far as this side knows the number."""
    known = {int(reason): reason.name.lower() for reason in Reject}
    return f" (last {known.get(int(number), f'reason {number:.0f}')})"


def _tool(schema: BridgeSchema, state: BridgeState) -> Line:
    x, y, z = state.values["ee_pos"].tolist()
    low, high = np.array(schema.limits.workspace_low_m), np.array(schema.limits.workspace_high_m)
    inside = float(np.minimum(state.values["ee_pos"] - low, high - state.values["ee_pos"]).min())
    roll, pitch, yaw = np.degrees(roll_pitch_yaw(state.values["ee_rot6d"]))
    line = [
        *(_label("tool"), (f"x {x:+z.3f} y {y:+z.3f} z {z:+z.3f} m, ", "")),
        (f"{inside:.3f} m inside the box" if inside >= 0 else f"{-inside:.3f} m outside the box", _near(inside, 0.02)),
        (f", roll {roll:+z.0f} pitch {pitch:+z.0f} yaw {yaw:+z.0f} deg", ""),
    ]
    if (clearance := state.status("clearance_m")) != -1:
        least = getattr(schema.limits, "clearance_m", 0.0)
        line += [(", clearance ", ""), (f"{clearance:.3f} m", _near(clearance - least, 0.01))]
    if "gripper" in state.values:
        line.append((f", fingers {1000 * float(np.abs(state.values['gripper']).sum()):.0f} mm apart", ""))
    return line


def _near(margin: float, warn: float) -> str:
    return "bad" if margin < 0 else "warn" if margin < warn else ""


def roll_pitch_yaw(rot6d: np.ndarray) -> tuple[float, float, float]:
    """Angles about the base's x, then y, then z axis [rad], from the first two columns of a rotation (6,)."""
    x, y = rot6d[:3], rot6d[3:]
    z = np.cross(x, y)
    return math.atan2(y[2], z[2]), math.atan2(-x[2], math.hypot(x[0], x[1])), math.atan2(x[1], x[0])


def _joints(schema: BridgeSchema, state: BridgeState, has_unicode: bool) -> list[Line]:
    limits, shown = schema.limits, []
    q, dq = state.values["q"], state.values["dq"]
    for index, (low, high) in enumerate(zip(limits.joint_low_rad, limits.joint_high_rad, strict=True)):
        part = (float(q[index]) - low) / (high - low)
        speed = abs(float(dq[index])) / limits.joint_velocity_radps[index]
        style = "bad" if not 0 <= part <= 1 else "warn" if not NEAR <= part <= 1 - NEAR else ""
        shown.append(
            [
                *(_label(f"q{index + 1}"), (f"{low:+7.3f} ", "dim"), (_bar(part, has_unicode), style)),
                *((f" {high:+7.3f}", "dim"), (f"  {q[index]:+z7.3f} rad", style)),
                (f"  {100 * speed:3.0f}% of its speed", "bad" if speed > 1 else "warn" if speed > 0.9 else ""),
            ]
        )
    return shown


def _bar(part: float, has_unicode: bool, width: int = 25) -> str:
    """Where in its range something is; at an end if it is beyond, in the middle of nothing if it is no number."""
    left, rail, knob, right = _BARS[has_unicode]
    if not math.isfinite(part):
        return left + "?" * width + right
    at = min(max(round(part * (width - 1)), 0), width - 1)
    return left + rail * at + knob + rail * (width - 1 - at) + right


def _sparks(history: Sequence[int], has_unicode: bool) -> str:
    """A column for each value, by its share of the largest; empty if all are 0."""
    most, steps = max(history, default=0), _SPARKS[has_unicode]
    if not most:
        return ""
    return "".join(steps[math.ceil((len(steps) - 1) * value / most)] for value in history)


def _cameras(schema: BridgeSchema, state: BridgeState) -> list[Line]:
    if not schema.images:
        return []
    down = int(state.status("cameras_down"))
    line: Line = [_label("cameras")]
    for index, (name, stream) in enumerate(schema.images.items()):
        is_down = bool(down >> index & 1)
        words = f"{name} {stream.width}x{stream.height} at {stream.fps:.0f}/s {'DOWN' if is_down else 'ok'}  "
        line.append((words, "bad" if is_down else ""))
    return [line]
