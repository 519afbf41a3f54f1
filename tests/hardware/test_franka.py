import importlib
import sys
import time
from collections.abc import Iterator

import franky
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.arms import ACTION_SPACES, build
from hardware.franka import FrankaArm, next_beat
from hardware.franka_link import FrankaConfig
from robot.conformance.arm import ArmConformance
from robot.contract import Arm
from robot.errors import BridgeError, ConfigError, DeviceError
from tests.hardware.emulated_franka import Emulated, driver, own_address
from tests.hardware.settings import settings

SOON_S = 0.2
"""Within this a driver has noticed that something is wrong; the robot is given 50 ms of silence."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulated]:
    emulated = Emulated(own_address(0))
    yield emulated
    emulated.close()


@pytest.fixture
def robot(shared: Emulated) -> Emulated:
    """A sound robot, whatever the last test did to it."""
    shared.plug_in()
    shared.say("release")
    while shared.heard(0.02):
        pass
    return shared


def test_the_emulator_names_requests_that_it_does_not_know(robot: Emulated) -> None:
    robot.say("reflex none_such")
    assert robot.heard() == {"unknown": "reflex none_such"}


@pytest.fixture
def arm(robot: Emulated) -> Iterator[FrankaArm]:
    arm = driver(robot.address)
    arm.open()
    yield arm
    robot.plug_in()
    arm.close()


def fault(arm: Arm, within_s: float = SOON_S) -> str:
    """The error that reading ends with."""
    state, began = np.zeros(arm.specs.state.size), time.monotonic()
    with pytest.raises(DeviceError) as caught:  # noqa: PT012
        while time.monotonic() - began < 2.0:
            arm.read(state)
    assert time.monotonic() - began < within_s
    return str(caught.value)


def measured(arm: Arm) -> dict[str, np.ndarray]:
    state = np.zeros(arm.specs.state.size)
    arm.read(state)
    return arm.specs.state.views(state)


def lead(arm: Arm, speed_radps: float, time_s: float, joints: tuple[int, ...] = (1, 3)) -> None:
    """Set joints in motion, evenly accelerated; returns while they move."""
    target, views = np.zeros(22), measured(arm)
    start, moving = views["q"].copy(), np.array(joints)
    target[:7] = start
    state = np.zeros(arm.specs.state.size)
    ddq = speed_radps / time_s
    for cycle in range(round(time_s * arm.specs.rate_hz)):
        t = cycle / arm.specs.rate_hz
        target[moving], target[7 + moving], target[14 + moving] = start[moving] + ddq * t * t / 2, ddq * t, ddq
        arm.read(state)
        arm.write(target)


@pytest.mark.slow  # a real robot's second lasts a second
class TestFrankaArm(ArmConformance):
    @pytest.fixture(autouse=True)
    def _emulated(self, robot: Emulated) -> None:
        self.address = robot.address

    def make(self) -> Arm:
        return driver(self.address)


def test_reads_at_the_robots_beat_and_what_the_model_says(arm: FrankaArm) -> None:
    views = measured(arm)
    home = arm._model
    pos, rot6d = np.zeros(3), np.zeros(6)
    home.pose(views["q"], pos, rot6d)
    np.testing.assert_allclose(views["ee_pos"], pos, atol=1e-5)
    np.testing.assert_allclose(views["ee_rot6d"], rot6d, atol=1e-5)
    assert views["gripper"][0] == -views["gripper"][1] == pytest.approx(0.02, abs=1e-3)
    state, began = np.zeros(arm.specs.state.size), time.monotonic()
    for _ in range(100):
        arm.read(state)
    assert 0.19 < time.monotonic() - began < 0.4  # 100 cycles of 2 ms; later where this machine is busy


def test_a_reflex_is_named_latched_and_cleared_by_recovering(arm: FrankaArm, robot: Emulated) -> None:
    robot.say("reflex joint_reflex")
    assert "joint_reflex" in fault(arm)
    assert "joint_reflex" in fault(arm)
    with pytest.raises(DeviceError, match="joint_reflex"):
        arm.write(np.zeros(22))
    arm.stop()
    where = arm._state.q.copy()
    arm.recover()
    np.testing.assert_allclose(measured(arm)["q"], where, atol=0.002)
    lead(arm, 0.2, 0.1)
    assert np.abs(measured(arm)["dq"]).max() > 0.1
    arm.stop()


def test_a_robot_that_is_driven_too_fast_stops_itself(arm: FrankaArm, robot: Emulated) -> None:
    with pytest.raises(DeviceError, match="joint_velocity_violation"):  # noqa: PT012
        lead(arm, 3.5, 0.5, joints=(0,))
        for _ in range(50):
            measured(arm)
    assert robot.heard() == {"halted": "kReflex", "error": "joint_velocity_violation"}
    arm.stop()
    arm.recover()
    measured(arm)


@pytest.mark.parametrize(("pressed", "advice"), [("user_stop", "Release it"), ("lock", "Unlock the joints")])
def test_what_a_person_has_to_do_is_said_until_it_is_done(
    arm: FrankaArm, robot: Emulated, pressed: str, advice: str
) -> None:
    robot.say(pressed)
    fault(arm)
    arm.stop()
    with pytest.raises(DeviceError, match=advice):
        arm.recover()
    fault(arm)
    closed = driver(robot.address)
    arm.close()
    with pytest.raises(DeviceError, match=advice):
        closed.open()
    robot.say("release")
    time.sleep(0.05)
    arm.open()
    measured(arm)


def test_an_arm_unplugged_in_motion_is_noticed_and_comes_back(arm: FrankaArm, robot: Emulated) -> None:
    lead(arm, 0.3, 0.2)
    robot.unplug()
    assert "silent" in fault(arm)
    with pytest.raises(DeviceError, match="Nobody confirms"):
        arm.stop()
    robot.plug_in()
    time.sleep(0.05)
    arm.stop()
    assert "silent" in fault(arm)
    arm.recover()
    assert np.abs(measured(arm)["dq"]).max() < 0.05


@pytest.mark.slow
def test_an_arm_unplugged_for_long_is_connected_again(arm: FrankaArm, robot: Emulated) -> None:
    robot.unplug()
    assert "silent" in fault(arm)
    time.sleep(1.2)  # libfranka gives up after one second
    robot.plug_in()
    with pytest.raises(DeviceError, match="Nobody confirms"):
        arm.stop()
    arm.recover()
    arm.stop()
    measured(arm)


def test_a_stop_that_nobody_hears_is_not_confirmed(arm: FrankaArm, robot: Emulated) -> None:
    lead(arm, 0.3, 0.2)
    robot.unplug()
    began = time.monotonic()
    with pytest.raises(DeviceError, match="silent"):
        arm.stop()
    assert time.monotonic() - began < 2 * SOON_S
    robot.plug_in()
    arm.recover()
    arm.stop()


@pytest.mark.slow
def test_a_robot_that_is_gone_says_so_and_the_next_one_is_taken(robot: Emulated) -> None:
    first = Emulated(own_address(1))
    arm = driver(first.address)
    arm.open()
    lead(arm, 0.3, 0.1)
    first.kill()
    fault(arm)
    with pytest.raises(DeviceError, match="Activate FCI"):
        arm.recover()
    fault(arm)
    with pytest.raises(DeviceError, match="Nobody confirms"):
        arm.stop()
    second = Emulated(own_address(1))
    arm.recover()
    measured(arm)
    arm.stop()
    arm.close()
    second.close()


def test_stop_brakes_within_the_limits_and_holds(arm: FrankaArm) -> None:
    lead(arm, 0.6, 0.3)
    before, began = measured(arm)["q"].copy(), time.monotonic()
    arm.stop()
    took_s = time.monotonic() - began
    views = measured(arm)
    # With 7 rad/s² and 2100 rad/s³ 0.6 rad/s are gone after 0.6 / 7 + 7 / 2100 s; then 25 ms of rest are waited for.
    assert 0.11 < took_s < 0.6
    assert np.abs(views["dq"]).max() < 0.03
    way = np.abs(views["q"] - before)[[1, 3]]
    assert (way < 0.6**2 / 7 / 2 + 0.6 * 7 / 2100 + 0.01).all()
    held = views["q"].copy()
    time.sleep(0.3)
    np.testing.assert_allclose(measured(arm)["q"], held, atol=0.003)  # friction holds up to 1.14 Nm of 600 Nm/rad


def test_a_target_that_is_not_finite_is_refused_and_the_last_one_kept(arm: FrankaArm) -> None:
    before = measured(arm)["q"].copy()
    target = np.concatenate([before, np.zeros(15)])
    arm.write(target)
    target[3] = np.nan
    with pytest.raises(DeviceError, match="not finite"):
        arm.write(target)
    time.sleep(0.05)
    np.testing.assert_allclose(measured(arm)["q"], before, atol=0.001)


def test_the_hand_obeys_the_latest_wish_and_nobody_waits_for_it(arm: FrankaArm) -> None:
    target = np.concatenate([measured(arm)["q"], np.zeros(15)])
    state, longest = np.zeros(arm.specs.state.size), 0.0
    views = arm.specs.state.views(state)

    def follow(wish: float, until: float) -> None:
        nonlocal longest
        target[21], gave_up = wish, time.monotonic() + 6.0
        while abs(views["gripper"][0] - until) > 0.002:
            assert time.monotonic() < gave_up, f"The fingers are at {views['gripper'][0]}, not at {until}."
            arm.read(state)
            began = time.monotonic()
            arm.write(target)
            longest = max(longest, time.monotonic() - began)

    arm.read(state)
    follow(-1.0, 0.04)
    follow(0.5, 0.0)
    for wish in (-1.0, 1.0, -1.0):
        target[21] = wish
        arm.write(target)
    follow(0.0, 0.04)
    assert longest < 0.05


def test_a_hand_that_fails_stops_the_arm_and_is_connected_again(arm: FrankaArm) -> None:
    failed = arm._hand
    assert failed is not None
    failed.fault = "The Franka's hand has failed."
    assert "hand has failed" in fault(arm)
    arm.stop()
    arm.recover()
    assert arm._hand is not failed
    measured(arm)


def test_a_wrong_tool_is_refused(arm: FrankaArm) -> None:
    arm.stop()
    arm._link.robot.stop()
    with pytest.raises(franky.ControlException):
        arm._link.robot.join_motion(1.0)
    shifted = np.eye(4)
    shifted[2, 3] = 0.01
    arm._link.robot.set_ee(shifted.T.ravel().tolist())
    arm._is_lost = True
    with pytest.raises(DeviceError, match=r"10\.0 mm .* Choose the Franka hand"):
        arm.recover()
    arm._link.robot.set_ee(np.eye(4).ravel().tolist())


def test_an_address_without_a_robot_is_named_at_once() -> None:
    arm, began = driver(own_address(9)), time.monotonic()
    with pytest.raises(DeviceError, match=rf"{own_address(9)}.*Activate FCI"):
        arm.open()
    assert time.monotonic() - began < 1.0
    arm.close()


@pytest.mark.slow
def test_a_second_client_is_told_that_the_robot_is_taken(arm: FrankaArm) -> None:
    second = driver(arm._device.address)
    with pytest.raises(DeviceError, match="another client holds it"):
        second.open()
    measured(arm)


def test_it_needs_its_package_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("hardware.franka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "franky", None)
    chosen = settings("arm=franka")
    with pytest.raises(BridgeError, match=r"'franky'.*\[franka\]"):
        build(chosen.arm, chosen.env)
    monkeypatch.undo()
    importlib.import_module("hardware.franka")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("arm.rate_hz=400", "1 kHz"),
        ("arm.device.stiffness_nmprad=[1,2]", "7 numbers"),
        ("arm.device.hand_force_n=-1", "above 0"),
        ("arm.device.address=", "arm.device.address is ''"),
        ("arm.model=", "arm.model is empty"),
    ],
)
def test_wrong_settings_are_named(override: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        driver("127.0.0.1", override)


def test_missing_and_unknown_settings_are_named() -> None:
    data = {**settings("arm=franka").arm.device, "stifness": 1.0}
    del data["address"]
    with pytest.raises(ConfigError, match=r"address is missing, stifness is unknown\. Keys: address, "):
        FrankaConfig.from_mapping(data)


@given(st.sampled_from([1, 2, 4, 10]), st.integers(0, 10**9), st.integers(0, 1000))
def test_beats_stay_on_their_grid_and_never_crowd(cycle_ms: int, due_ms: int, late_ms: int) -> None:
    after = next_beat(due_ms + late_ms, due_ms, cycle_ms)
    assert (after - due_ms) % cycle_ms == 0
    assert cycle_ms / 2 <= after - (due_ms + late_ms) < 1.5 * cycle_ms


@pytest.mark.parametrize("space", ACTION_SPACES)
def test_policies_send_what_the_settings_say(space: str) -> None:
    specs = driver("127.0.0.1", f"arm.action_space={space}").specs
    assert specs.environment.action_space == space
    assert specs.environment.action.shape == {"ee_delta": (7,), "ee_pose": (10,), "joint_position": (8,)}[space]
    assert not specs.is_simulated
