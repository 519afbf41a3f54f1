import logging

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robot.conformance.environment import EnvironmentConformance
from robot.control.action_spaces import matrix_from_rot6d
from robot.errors import ConfigError, RenderingError, SpecError, UnknownNameError
from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment


class TestLift(EnvironmentConformance):
    def make(self) -> RobosuiteEnvironment:
        return make(EnvConfig(horizon=8))


class TestLiftInRobosuitesLoop(EnvironmentConformance):
    def make(self) -> RobosuiteEnvironment:
        return make(EnvConfig(horizon=6, lite_physics=False))


class TestTwoArms(EnvironmentConformance):
    def make(self) -> RobosuiteEnvironment:
        return make(EnvConfig(task="two_arm_lift", horizon=6))


class TestAbsoluteJointPositions(EnvironmentConformance):
    def make(self) -> RobosuiteEnvironment:
        return make(EnvConfig(task="door", horizon=6, controller="JOINT_POSITION", absolute=True))


@pytest.fixture(scope="module")
def lift() -> RobosuiteEnvironment:
    return make(EnvConfig(horizon=30, success_hold=3))


def test_names_of_every_number(lift: RobosuiteEnvironment) -> None:
    state = lift.specs.observation["observation.state"]
    world = lift.specs.observation["observation.environment_state"]
    assert state.names[:5] == ("ee_x", "ee_y", "ee_z", "ee_r11", "ee_r21")
    assert state.names[9:12] == ("finger_left", "finger_right", "q1")
    assert state.shape == (18,)
    assert world.names[:4] == ("cube_x", "cube_y", "cube_z", "cube_r11")
    assert world.names[9:] == ("cube_dx", "cube_dy", "cube_dz")
    assert lift.specs.action_space == "ee_delta"
    assert lift.specs.dt_s == pytest.approx(0.05)


def test_poses_are_in_the_base_frame(lift: RobosuiteEnvironment) -> None:
    observation, _ = lift.reset(seed=2)
    state, world = observation["observation.state"], observation["observation.environment_state"]
    data, model = lift.data, lift.model
    base = data.body("robot0_base").xpos
    site = model.site("gripper0_right_grip_site").id
    np.testing.assert_allclose(state[:3], data.site_xpos[site] - base, atol=1e-6)
    np.testing.assert_allclose(matrix_from_rot6d(state[3:9]), data.site_xmat[site].reshape(3, 3), atol=1e-6)
    np.testing.assert_allclose(state[9:11], data.qpos[7:9], atol=1e-7)
    np.testing.assert_allclose(state[11:], data.qpos[:7], atol=1e-6)
    np.testing.assert_allclose(world[:3], data.body("cube_main").xpos - base, atol=1e-6)
    np.testing.assert_allclose(world[9:], world[:3] - state[:3], atol=1e-6)


def test_fill_observation_writes_float64_views(lift: RobosuiteEnvironment) -> None:
    observation, _ = lift.reset(seed=2)
    flat = np.zeros(30)
    lift.fill_observation({"observation.state": flat[:18], "observation.environment_state": flat[18:]})
    np.testing.assert_allclose(flat, np.concatenate(list(observation.values())), atol=1e-6)


def test_success_held_terminates_and_time_truncates(lift: RobosuiteEnvironment) -> None:
    def raise_cube() -> None:
        lift.data.joint("cube_joint0").qpos[2] = 1.3
        lift.data.joint("cube_joint0").qvel[:] = 0.0

    lift.reset(seed=0)
    ends = []
    for _ in range(3):
        raise_cube()
        _, reward, terminated, truncated, info = lift.step(np.zeros(7))
        assert info["success"]
        assert reward == 1.0
        ends.append((terminated, truncated))
    assert ends == [(False, False), (False, False), (True, False)]
    lift.reset(seed=0)
    ends = [lift.step(np.zeros(7))[2:4] for _ in range(30)]
    assert ends == [(False, False)] * 29 + [(False, True)]


def test_a_lost_success_starts_counting_anew(lift: RobosuiteEnvironment) -> None:
    lift.reset(seed=0)
    for height, expected in ((1.3, False), (1.3, False), (0.82, False), (1.3, False), (1.3, False), (1.3, True)):
        lift.data.joint("cube_joint0").qpos[2] = height
        lift.data.joint("cube_joint0").qvel[:] = 0.0
        assert lift.step(np.zeros(7))[2] is expected


def test_the_seed_places_the_cube_whatever_numpy_did_before(lift: RobosuiteEnvironment) -> None:
    np.random.seed(1)
    first, _ = lift.reset(seed=11)
    before = np.random.get_state()[1].copy()
    np.random.seed(2)
    second, _ = lift.reset(seed=11)
    np.testing.assert_array_equal(first["observation.environment_state"], second["observation.environment_state"])
    np.random.seed(1)
    lift.reset(seed=12)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_without_a_seed_the_last_one_goes_on(lift: RobosuiteEnvironment) -> None:
    def three() -> list[np.ndarray]:
        lift.reset(seed=5)
        return [lift.reset()[0]["observation.environment_state"] for _ in range(3)]

    first, again = three(), three()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_the_message_names_the_element(lift: RobosuiteEnvironment) -> None:
    action = np.zeros(7)
    action[2] = np.nan
    with pytest.raises(SpecError, match="dz is nan"):
        lift.step(action)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [("task", "lfit", "lift"), ("robot", "Pando", "Panda"), ("controller", "OSC_POSES", "OSC_POSE")],
)
def test_unknown_names_say_what_is_near(field: str, value: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        make(EnvConfig(**{field: value}))


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"env\.horizon is 0"):
        EnvConfig(horizon=0)
    with pytest.raises(ConfigError, match=r"env\.control_hz is nan"):
        EnvConfig(control_hz=float("nan"))
    with pytest.raises(ConfigError, match="500 Hz"):
        make(EnvConfig(control_hz=1000))


def test_what_is_not_compiled_says_so_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robot.sim.environment._told", set())
    with caplog.at_level(logging.WARNING, logger="robot.sim.environment"):
        for _ in range(2):
            environment = make(EnvConfig(controller="JOINT_VELOCITY", lite_physics=False, horizon=5))
    assert [record.message.count("lite_physics") for record in caplog.records] == [1]
    assert environment.stepper is None
    assert environment.specs.action_space == "joint_velocity"
    start = environment.reset(seed=0)[0]["observation.state"][11]
    for _ in range(5):
        observation, *_ = environment.step(np.array([1.0, 0, 0, 0, 0, 0, 0, 0]))
    assert observation["observation.state"][11] > start + 0.02


@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")
def test_gymnasium_knows_it_and_finds_no_fault() -> None:
    environment = gymnasium.make("armature/Lift-v0", horizon=5)
    assert environment.unwrapped.specs.task == "Lift the cube from the table."
    check_env(environment.unwrapped, skip_render_check=True, skip_close_check=True)


def test_missing_gl_is_one_sentence_with_the_fix(monkeypatch: pytest.MonkeyPatch, lift: RobosuiteEnvironment) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    lift.close()
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("robot.sim.rendering.ctypes.CDLL", absent)
    with pytest.raises(RenderingError, match="apt-get install -y libegl1 libgl1-mesa-dri libosmesa6") as caught:
        lift.render()
    assert "\n" not in str(caught.value)


def test_gl_that_does_not_work_says_why(monkeypatch: pytest.MonkeyPatch, lift: RobosuiteEnvironment) -> None:
    lift.close()
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    with pytest.raises(RenderingError, match=r"nonsense.*apt-get"):
        lift.render()


@pytest.mark.gl
def test_a_picture_is_upright_and_shows_motion(lift: RobosuiteEnvironment) -> None:
    lift.reset(seed=0)
    first = lift.render()
    assert first.shape == (256, 256, 3)
    assert first.dtype == np.uint8
    # The white table fills the lower half, the grey wall the upper.
    assert first[192:, 64:192].mean() > first[:64, 128:].mean() + 40
    for _ in range(10):
        lift.step(np.array([0, 0, -1.0, 0, 0, 0, 1]))
    assert np.abs(lift.render().astype(int) - first).max() > 50
    lift.close()
