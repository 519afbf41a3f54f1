"""Runs robosuite's `playback_demonstrations_from_hdf5.py` without a screen, each demonstration once.

The script is robosuite's own file, unchanged. Replaced are the window that it opens (`mujoco.viewer.launch_passive`)
and its endless random choice of demonstrations.
"""

import random
import runpy
import sys
from pathlib import Path

import mujoco
import mujoco.viewer
import robosuite


class Window:
    def __init__(self) -> None:
        self.cam, self.opt = mujoco.MjvCamera(), mujoco.MjvOption()
        self.shown = 0

    def sync(self) -> None:
        self.shown += 1

    def close(self) -> None:
        print(f"shown {self.shown}")


def main(arguments: list[str]) -> None:
    left: list[str] = []

    def choice(demos):
        if not left:
            left.extend([*demos, ""])
        name = left.pop(0)
        if not name:
            raise SystemExit(0)
        print(f"demonstration {name}")
        return name

    mujoco.viewer.launch_passive = lambda *args, **options: Window()
    random.choice = choice
    script = Path(robosuite.__file__).parent / "scripts/playback_demonstrations_from_hdf5.py"
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
