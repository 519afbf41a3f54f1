import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from robot import sim
from robot.sim.config import EnvConfig

world = sim.make(EnvConfig())
world.reset(seed=0)
before = world.render()
from policies.diffusion import noise_schedule

assert noise_schedule(10).shape == (10,)
assert (world.render() == before).all()
print("alive")
"""


@pytest.mark.gl
def test_a_process_that_has_rendered_may_train() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-2000:]
