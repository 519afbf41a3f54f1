import numpy as np
import pytest

from hardware.arms import ArmConfig, build, from_json, to_json
from hardware.fake import FakeArm
from robot.conformance.arm import ArmConformance
from robot.contract import Arm
from robot.errors import ConfigError, DeviceError, SafetyError, UnknownNameError
from robot.sim import make
from robot.sim.config import EnvConfig
from tests.hardware.settings import settings


class TestFakeArm(ArmConformance):
    def make(self) -> Arm:
        chosen = settings("arm=fake")
        return FakeArm(chosen.arm, chosen.env)


class TestTwinArm(ArmConformance):
    def make(self) -> Arm:
        from hardware.twin import TwinArm

        chosen = settings("arm=twin")
        return TwinArm(chosen.arm, chosen.env)

    def test_is_the_environment_in_small_steps(self) -> None:
        """Held targets for 25 cycles are one control step of the environment that policies are trained in."""
        from hardware.guidance import delta_to_target

        arm, environment = self.make(), make(EnvConfig())
        arm.open()
        arm.recover(seed=11)
        observation, _ = environment.reset(seed=11)
        views = arm.specs.state.views(state := np.zeros(arm.specs.state.size))
        rng, target = np.random.default_rng(0), np.zeros(10)
        first = observation["observation.state"].astype(np.float64)
        pos, rot6d = first[:3], first[3:9]
        for _ in range(40):
            action = rng.uniform(-0.5, 0.5, 7)
            delta_to_target(action, pos, rot6d, target)
            for _ in range(25):
                arm.write(target)
                arm.read(state)
            observation, *_ = environment.step(action.astype(np.float32))
            pos, rot6d = views["ee_pos"].copy(), views["ee_rot6d"].copy()
        arm.close()
        environment.close()
        # A delta starts from a pose measured one substep (2 ms) earlier, at up to 0.15 m/s.
        np.testing.assert_allclose(views["observation.state"][:3], observation["observation.state"][:3], atol=0.003)
        np.testing.assert_allclose(views["observation.state"][3:9], observation["observation.state"][3:9], atol=0.02)

    @pytest.mark.parametrize(
        ("override", "hint"),
        [
            ("env.robot=UR5e", "those of a Panda"),
            ("env.controller=JOINT_POSITION", "one arm with a gripper behind OSC_POSE"),
            ("env.absolute=true", "one arm with a gripper behind OSC_POSE"),
            ("env=wipe", "one arm with a gripper behind OSC_POSE"),
            ("env=two_arm_lift", "one arm with a gripper behind OSC_POSE"),
        ],
    )
    def test_a_world_that_it_cannot_stand_for_is_refused(self, override: str, hint: str) -> None:
        from hardware.twin import TwinArm

        chosen = settings("arm=twin", override)
        with pytest.raises(ConfigError, match=hint):
            TwinArm(chosen.arm, chosen.env)

    def test_refuses_a_loop_that_is_not_the_physics_rate(self) -> None:
        from hardware.twin import TwinArm

        chosen = settings("arm=twin", "arm.rate_hz=250")
        with pytest.raises(ConfigError, match="500 Hz"):
            TwinArm(chosen.arm, chosen.env)


def test_build_names_what_is_missing() -> None:
    chosen = settings("arm=fake")
    with pytest.raises(UnknownNameError, match="twin"):
        build(ArmConfig(driver="twim", rate_hz=500, limits=chosen.arm.limits), chosen.env)
    del chosen.arm.limits["workspace_low_m"]
    with pytest.raises(SafetyError, match="workspace_low_m"):
        build(chosen.arm, chosen.env)


def test_configs_survive_the_way_to_the_real_time_process() -> None:
    chosen = settings("arm=twin", "env.horizon=7")
    assert from_json(to_json(chosen.arm, chosen.env)) == (chosen.arm, chosen.env)


def test_a_fake_arm_that_is_not_open_says_so() -> None:
    chosen = settings("arm=fake")
    with pytest.raises(DeviceError, match="open"):
        FakeArm(chosen.arm, chosen.env).write(np.zeros(10))


class TestTwinJoints(ArmConformance):
    def make(self) -> Arm:
        from hardware.twin_joints import TwinJoints

        chosen = settings("arm=twin_joints")
        return TwinJoints(chosen.arm, chosen.env)
