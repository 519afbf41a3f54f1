from dataclasses import asdict
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from hardware.arms import ArmConfig, from_json, to_json
from hardware.twin import TwinArm
from robot.config import load
from robot.conformance.environment import EnvironmentConformance
from robot.contract import EnvironmentSpecs
from robot.episodes.record import RecordConfig
from robot.errors import ConfigError, UnknownNameError
from robot.sim import make
from robot.sim.camera_config import CamerasConfig, PlacedCamera
from robot.sim.config import ENV_SCHEMAS, EnvConfig, RandomisationConfig
from robot.sim.seeing import CameraEnvironment
from robot.sim.vector import VectorEnvironment

WORKSPACE = [-0.4, -0.4, 0.81, 0.3, 0.4, 1.3]
ABOVE = PlacedCamera(name="above", position_m=[0.4, 0.3, 1.5], look_at_m=[0.0, 0.0, 0.85])


def everything(**fields: Any) -> CamerasConfig:
    values = {
        **{"names": ["robot0_eye_in_hand"], "placed": [ABOVE], "height": 32, "width": 40, "depth": True},
        **{"segmentation": True, "points": 64, "colours": True, "workspace_m": WORKSPACE},
        **fields,
    }
    return CamerasConfig(**values)


@pytest.mark.gl
class TestSeeing(EnvironmentConformance):
    def make(self) -> CameraEnvironment:
        return make(EnvConfig(horizon=6, cameras=everything()))


@pytest.mark.gl
@pytest.mark.slow
class TestSeeingARandomisedWorld(EnvironmentConformance):
    def make(self) -> CameraEnvironment:
        cameras = CamerasConfig(names=["agentview"], height=24, width=24)
        return make(EnvConfig(horizon=4, cameras=cameras, randomisation=RandomisationConfig(enabled=True)))


@pytest.mark.gl
def test_specs_say_what_is_seen() -> None:
    environment = make(EnvConfig(cameras=everything()))
    specs = environment.specs.observation
    assert list(specs)[2:] == [
        "observation.images.robot0_eye_in_hand",
        "observation.depth.robot0_eye_in_hand",
        "observation.segmentation.robot0_eye_in_hand",
        "observation.images.above",
        "observation.depth.above",
        "observation.segmentation.above",
        "observation.points",
    ]
    assert (specs["observation.images.above"].shape, specs["observation.images.above"].dtype) == ((32, 40, 3), "uint8")
    assert specs["observation.depth.above"].unit == "m"
    assert (specs["observation.points"].shape, specs["observation.points"].frame) == ((64, 6), "world")
    assert EnvironmentSpecs.from_json(environment.specs.to_json()) == environment.specs
    assert environment.observation_space["observation.images.above"].dtype == np.uint8
    environment.close()


@pytest.mark.gl
def test_the_cloud_lies_in_the_workspace_on_what_is_there() -> None:
    environment = make(EnvConfig(cameras=everything(names=[], height=96, width=96, points=400)))
    observation, _ = environment.reset(seed=0)
    points = observation["observation.points"]
    assert ((points[:, :3] >= WORKSPACE[:3]) & (points[:, :3] <= WORKSPACE[3:])).all()
    geom = environment.model.geom("cube_g0_vis").id
    position = environment.data.geom_xpos[geom]
    rotation = environment.data.geom_xmat[geom].reshape(3, 3)
    half = environment.model.geom_size[geom]
    local = np.abs((points[:, :3] - position) @ rotation)
    cube = (local < half + 1e-3).all(axis=1)
    assert cube.sum() >= 3
    assert (points[cube, 3] > 1.5 * points[cube, 4]).all()  # it is red
    # The picture's own pixels: what K and T of the environment say is where the cube is.
    seen = observation["observation.segmentation.above"] == geom
    row, column = np.nonzero(seen)
    K, T = environment.intrinsics("above"), environment.extrinsics("above")
    local = T[:3, :3].T @ (position - T[:3, 3])
    pixel = (K @ local)[:2] / local[2]
    assert np.abs([column.mean(), row.mean()] - pixel).max() < 2.0
    environment.close()


@pytest.mark.gl
def test_the_cameras_follow_the_episode() -> None:
    environment = make(EnvConfig(cameras=CamerasConfig(names=["robot0_eye_in_hand", "frontview"], height=48, width=48)))
    first, _ = environment.reset(seed=0)
    pose = environment.extrinsics("robot0_eye_in_hand").copy(), environment.extrinsics("frontview").copy()
    for _ in range(5):
        last, *_ = environment.step(np.array([0, 0, -1.0, 0, 0, 0, 0]))
    assert environment.extrinsics("robot0_eye_in_hand")[2, 3] < pose[0][2, 3] - 0.01
    np.testing.assert_array_equal(environment.extrinsics("frontview"), pose[1])
    for key in ("observation.images.robot0_eye_in_hand", "observation.images.frontview"):
        assert np.abs(last[key].astype(int) - first[key]).max() > 30
    out = {key: np.empty(spec.shape, spec.dtype) for key, spec in environment.specs.observation.items()}
    environment.fill_observation(out)
    for key, array in last.items():
        np.testing.assert_array_equal(out[key], array)
    assert environment.render().shape == (256, 256, 3)
    environment.close()


@pytest.mark.gl
def test_a_moved_door_is_seen_where_it_is() -> None:
    """Door is placed at a reset by moving a body of the model."""
    environment = make(EnvConfig(task="door", cameras=CamerasConfig(names=["frontview"], segmentation=True)))
    middles = []
    for seed in (0, 1):
        observation, _ = environment.reset(seed=seed)
        mujoco.mj_forward(environment.model, environment.data)
        body = environment.model.geom_bodyid[observation["observation.segmentation.frontview"]]
        row, column = np.nonzero(body == environment.model.body("Door_door").id)
        assert len(row) > 50
        middles.append([column.mean(), row.mean()])
    assert not np.allclose(*middles, atol=0.2)
    environment.close()


@pytest.mark.gl
def test_a_vector_environment_sees_what_one_environment_does() -> None:
    config = EnvConfig(horizon=4, cameras=everything(names=[], height=24, width=24))
    alone = make(config)
    with VectorEnvironment(config, 2, workers=1) as several:
        seen, _ = several.reset(seed=[3, 4])
        for row, seed in enumerate((3, 4)):
            for key, array in alone.reset(seed=seed)[0].items():
                np.testing.assert_array_equal(seen[key][row], array)
    alone.close()


def test_unknown_cameras_are_named_without_opengl() -> None:
    with pytest.raises(UnknownNameError, match=r"camera 'agentvew'.*'agentview'.*birdview"):
        make(EnvConfig(cameras=CamerasConfig(names=["agentvew"])))
    placed = PlacedCamera(name="agentview", position_m=[0, 0, 1], look_at_m=[1, 0, 0])
    with pytest.raises(ConfigError, match="already is a camera named 'agentview'"):
        make(EnvConfig(cameras=CamerasConfig(placed=[placed])))
    with pytest.raises(ConfigError, match="no cameras"):
        CameraEnvironment(make(EnvConfig()), CamerasConfig())


def test_a_command_line_can_ask_for_cameras() -> None:
    overrides = [
        "env=stack",
        "env.cameras.names=[agentview,frontview]",
        "env.cameras.height=96",
        "env.cameras.placed=[{name:side,position_m:[0,1,1],look_at_m:[0,0,0.8]}]",
        "env.cameras.quality=robosuite",
    ]
    env = load("record", RecordConfig, overrides, {"env": ENV_SCHEMAS}).env
    assert env.cameras.all_names == ["agentview", "frontview", "side"]
    assert env.cameras.placed[0] == PlacedCamera(name="side", position_m=[0, 1, 1], look_at_m=[0, 0, 0.8])
    assert (env.task, env.cameras.height, env.cameras.width) == ("stack", 96, 84)
    with pytest.raises(UnknownNameError, match="names"):
        load("record", RecordConfig, ["env.cameras.name=[a]"], {"env": ENV_SCHEMAS})
    with pytest.raises(ConfigError, match="fast, robosuite"):
        load("record", RecordConfig, ["env.cameras.quality=quick"], {"env": ENV_SCHEMAS})


def test_configurations_survive_json() -> None:
    env = EnvConfig(cameras=everything())
    arm = ArmConfig(driver="twin", rate_hz=500, limits={})
    assert from_json(to_json(arm, env)) == (arm, env)
    assert EnvConfig(**asdict(env)) == env


def test_what_takes_no_pictures_says_so() -> None:
    with pytest.raises(ConfigError, match=r"no room for pictures"):
        TwinArm(ArmConfig(driver="twin", rate_hz=500, limits={}), EnvConfig(cameras=CamerasConfig(names=["agentview"])))


def test_gymnasium_makes_one() -> None:
    environment = gymnasium.make(
        "robot.sim.environment:armature/Lift-v0", cameras={"names": ["agentview"], "height": 20, "width": 20}
    )
    assert environment.observation_space["observation.images.agentview"].shape == (20, 20, 3)
