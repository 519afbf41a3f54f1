import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.bridge.images import ImageStream
from robot.bridge.schema import Mode
from robot.bridge.screen import ADVICE, COLOURS, Sight, lines, painted, roll_pitch_yaw
from robot.control.plan import Reject
from robot.control.safety import Clamp, Fault
from tests.robot.bridge.sights import schema, sight, state


def text(seen: Sight, has_unicode: bool = True) -> str:
    return "\n".join(painted(lines(seen, has_unicode), 300, 0, False))


def test_before_there_is_a_bridge_it_says_why() -> None:
    shown = text(Sight("tcp://127.0.0.1:5555", trouble="No bridge answers. Start one: now."))
    assert shown.splitlines() == [
        "armature watch  tcp://127.0.0.1:5555",
        "no bridge  No bridge answers.",
        "           Start one:",
        "           now.",
    ]


def test_every_fault_is_named_with_what_to_do() -> None:
    assert ADVICE.keys() == set(Fault) - {Fault.NONE}
    for fault, advice in ADVICE.items():
        shown = text(sight(mode=Mode.FAULT, fault=fault))
        assert re.search(rf"^mode +FAULT  {fault.name}$", shown, re.MULTILINE)
        assert advice in shown
    assert "fault 99" in text(sight(mode=Mode.FAULT, fault=99))


def test_the_lease() -> None:
    assert re.search("^lease +free$", text(sight()), re.MULTILINE)
    held = sight(lease=7, lease_priority=2, lease_left_s=0.43, silence_s=0.012)
    held.holder = "alice"
    assert "alice (teleop), 0.43 s left, silent for 12 ms" in text(held)


def test_what_was_refused_and_why() -> None:
    seen = sight(rejected=3, reject=Reject.TOO_LATE, refused=7)
    seen.counters = {"CRC": 2, "NO_LEASE": 5}
    assert "3 chunks by the loop (last too_late), 7 frames by the gateway: no_lease 5, crc 2" in text(seen)


def test_what_was_clamped_by_name_and_over_time() -> None:
    seen = sight()
    for tick in range(30):
        mask = Clamp.WORKSPACE if tick > 20 else Clamp.NONE
        seen.meter.add(state(schema(), t_ns=1e12 + tick * 1e8, clamp_mask=mask, clamped=max(0, tick - 20)))
    seen.state = state(schema(), clamped=9, clamp_mask=Clamp.WORKSPACE)
    assert "9 cycles  ▁▁█  workspace 9 of 30 looks" in text(seen)
    assert "9 cycles  __#  workspace 9 of 30 looks" in text(seen, has_unicode=False)


def test_joints_against_their_limits() -> None:
    limits = schema().limits
    low, high = np.array(limits.joint_low_rad), np.array(limits.joint_high_rad)
    bars = [line for line in text(sight(), has_unicode=False).splitlines() if re.match(r"q\d", line)]
    assert len(bars) == len(low)
    assert all("[" + "-" * 12 + "o" + "-" * 12 + "]" in bar for bar in bars)
    dq = np.array([0.0, -0.5 * limits.joint_velocity_radps[1]])
    seen = sight({"q": (low[0] - 1, high[1]), "dq": dq})
    bars = [line for line in text(seen, has_unicode=False).splitlines() if re.match(r"q\d", line)]
    assert "[o" in bars[0]
    assert "o]" in bars[1]
    assert " 50% of its speed" in bars[1]
    assert "[" + "?" * 25 + "]" in text(sight({"q": np.nan}), has_unicode=False)
    colours = painted(lines(seen), 300, 0, True)
    assert f"\x1b[{COLOURS['bad']}m├●" in next(line for line in colours if "q1 " in line)
    assert f"\x1b[{COLOURS['warn']}m├" in next(line for line in colours if "q2 " in line)


def test_where_the_tool_is() -> None:
    shown = text(sight({"ee_pos": (10.0, 0, 0), "ee_rot6d": (0, 1, 0, -1, 0, 0)}, clearance_m=0.123))
    assert "x +10.000 y +0.000 z +0.000 m" in shown
    assert "m outside the box" in shown
    assert "roll +0 pitch +0 yaw +90 deg" in shown
    assert "clearance 0.123 m" in shown


@given(st.tuples(*[st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1)]))
def test_angles_are_those_that_make_the_rotation(angles: tuple[float, float, float]) -> None:
    def about(axis: int, angle: float) -> np.ndarray:
        R, (i, j) = np.eye(3), [(1, 2), (2, 0), (0, 1)][axis]
        R[i, i] = R[j, j] = np.cos(angle)
        R[j, i], R[i, j] = np.sin(angle), -np.sin(angle)
        return R

    R = about(2, angles[2]) @ about(1, angles[1]) @ about(0, angles[0])
    assert roll_pitch_yaw(np.concatenate([R[:, 0], R[:, 1]])) == pytest.approx(angles, abs=1e-9)


def test_cameras_that_are_down() -> None:
    seen = sight(cameras_down=2)
    streams = {name: ImageStream("tcp://127.0.0.1:9", 480, 640, "jpeg", 30.0) for name in ("front", "wrist")}
    assert seen.schema is not None
    seen.schema = replace(seen.schema, images=streams)
    assert "front 640x480 at 30/s ok  wrist 640x480 at 30/s DOWN" in text(seen)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 200), st.integers(0, 40), st.booleans())
def test_no_line_is_wider_and_no_picture_higher_than_the_terminal(width: int, height: int, has_unicode: bool) -> None:
    seen = sight(mode=Mode.FAULT, fault=Fault.ESTOP, lease=3)
    seen.holder = "漢字" * 20
    rows = painted(lines(seen, has_unicode), width, height, False)
    assert len(rows) <= height or height == 0
    assert all(sum(2 if letter in "漢字" else 1 for letter in row) <= width for row in rows)
    # Colours change nothing of what is seen.
    coloured = painted(lines(seen, has_unicode), width, height, True)
    assert [re.sub(r"\x1b\[\d+m", "", row).rstrip() for row in coloured] == rows


def test_without_unicode_the_picture_is_plain() -> None:
    assert text(sight(mode=Mode.ARMED, clamped=3), has_unicode=False).isascii()


def test_a_name_cannot_command_the_terminal() -> None:
    seen = sight(lease=3)
    seen.holder = "eve\x1b[2J\x07\n"
    shown = "".join(painted(lines(seen), 200, 0, True))
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "eve[2J" in shown
