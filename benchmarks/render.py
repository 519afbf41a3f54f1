"""Pictures a second: Armature's two qualities against robosuite's own offscreen render of the same camera and state.

All three draw in turn, so that whatever else the machine does falls on all of them; figures are medians of wall time,
because software OpenGL draws in threads. With `--picture FILE` the same pictures go side by side into a PNG, with the
ratios of this run under them:

    python -m benchmarks.render --picture docs/rendering.png
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot.sim import make
from robot.sim.camera_config import QUALITIES
from robot.sim.config import EnvConfig
from robot.sim.rendering import Renderer
from robot.sim.tasks import task
from robot.sim.world import MODEL_SEED, import_robosuite, seeded

CASES = (
    ("lift", "agentview", (84, 128, 256)),
    ("lift", "robot0_eye_in_hand", (84,)),
    ("lift", "sideview", (84, 256)),
    ("pick_place_can", "frontview", (84, 256)),
    ("tool_hang", "sideview", (84,)),
    ("two_arm_transport", "agentview", (84,)),
)
ROUNDS = 9
SHOWN = 152
"""Pixels along the edges of the pictures that are shown."""

Draw = Callable[[int], np.ndarray]


def emit(name: str, value: float, other: float) -> None:
    line = {"name": name, "value": value, "unit": "pictures/s", "better": "higher"}
    print(json.dumps({**line, "against": "robosuite", "other": other, "ratio": value / other}), flush=True)


def robosuites(name: str, ours: Any) -> Any:
    """robosuite's environment with its own renderer, in the state of ours."""
    known = task(name)
    with seeded(MODEL_SEED):
        theirs = import_robosuite().make(
            known.robosuite_name,
            robots=["Panda"] * known.arms,
            has_renderer=False,
            has_offscreen_renderer=True,
            use_camera_obs=False,
            hard_reset=False,
        )
        theirs.reset()
    model, data = theirs.sim.model._model, theirs.sim.data._data
    model.body_pos[:], model.body_quat[:] = ours.model.body_pos, ours.model.body_quat
    data.qpos[:] = ours.data.qpos
    theirs.sim.forward()
    return theirs


def medians(drawers: dict[str, Draw], size: int) -> dict[str, float]:
    """Pictures a second of each."""
    spent: dict[str, list[float]] = {name: [] for name in drawers}
    for turn in range(ROUNDS + 1):
        for name, draw in drawers.items():
            for _ in range(4 if name == "fast" else 1):
                begin = time.perf_counter()
                draw(size)
                if turn:  # the first one opens contexts
                    spent[name].append(time.perf_counter() - begin)
    return {name: 1.0 / statistics.median(seconds) for name, seconds in spent.items()}


def labelled(pictures: list[np.ndarray], lines: list[str]) -> np.ndarray:
    """Pictures below one another, with a line of text under each."""
    parts = []
    for picture, line in zip(pictures, lines, strict=True):
        strip = np.full((22, SHOWN, 3), 255, np.uint8)
        cv2.putText(strip, line, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.32, (0, 0, 0), 1, cv2.LINE_AA)
        parts += [picture, strip]
    return np.concatenate(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="PNG to write the pictures to")
    target = parser.parse_args().picture
    columns = []
    for name in dict.fromkeys(case[0] for case in CASES):
        ours = make(EnvConfig(task=name))
        ours.reset(seed=0)
        theirs = robosuites(name, ours)
        renderers = {quality: Renderer(ours.model, ours.data, quality=quality) for quality in QUALITIES}
        for _, camera, sizes in [case for case in CASES if case[0] == name]:
            drawers: dict[str, Draw] = {
                quality: lambda size, r=renderer, c=camera: r.draw(c, size, size)
                for quality, renderer in renderers.items()
            }
            drawers["sim.render"] = lambda size, r=theirs.sim.render, c=camera: r(size, size, camera_name=c)
            rates = {size: medians(drawers, size) for size in sizes}
            for size, rate in rates.items():
                for quality in QUALITIES:
                    emit(f"{quality} {name} {camera} {size}x{size}", rate[quality], rate["sim.render"])
            ratio = rates[84]["fast"] / rates[84]["sim.render"]
            lines = [f"{name}: robosuite", f"fast: {ratio:.0f} x the pictures/s"]
            columns.append(labelled([drawers["robosuite"](SHOWN), drawers["fast"](SHOWN)], lines))
        for renderer in renderers.values():
            renderer.close()
        theirs.close()
        ours.close()
    if target is not None:
        cv2.imwrite(str(target), np.concatenate(columns, axis=1)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
