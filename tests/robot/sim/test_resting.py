import mujoco
import numpy as np
import pytest

from robot.sim import make
from robot.sim.config import EnvConfig
from robot.sim.environment import RobosuiteEnvironment

SLEEPS = getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", None)

pytestmark = pytest.mark.skipif(SLEEPS is None, reason="this MuJoCo has no sleeping objects")


def awake(environment: RobosuiteEnvironment, joint: str) -> bool:
    model, data = environment.model, environment.data
    tree = model.body_treeid[model.joint(joint).bodyid[0]]
    return bool(data.tree_awake[tree])


def after(task: str, steps: int) -> RobosuiteEnvironment:
    environment = make(EnvConfig(task=task, horizon=10 * steps))
    environment.reset(seed=0)
    for _ in range(steps):
        environment.step(np.zeros(7))
    return environment


def test_the_nut_that_is_left_out_sleeps_and_the_other_does_not() -> None:
    environment = after("nut_assembly_square", 80)
    assert not awake(environment, "RoundNut_joint0")
    assert awake(environment, "SquareNut_joint0")
    nut = environment.data.body("RoundNut_main")
    assert np.linalg.norm(nut.xpos[:2] - environment.data.body("table").xpos[:2]) > 5.0
    environment.reset(seed=1)
    assert awake(environment, "RoundNut_joint0")


def test_what_never_lies_still_never_sleeps() -> None:
    environment = after("pick_place_can", 100)  # robosuite's meshes tremble on the floor
    assert all(awake(environment, f"{name}_joint0") for name in ("Milk", "Bread", "Cereal", "Can"))


@pytest.mark.parametrize("task", ["lift", "stack", "nut_assembly", "pick_place", "tool_hang"])
def test_where_everything_takes_part_nothing_may_sleep(task: str) -> None:
    assert not make(EnvConfig(task=task)).model.opt.enableflags & int(SLEEPS)
