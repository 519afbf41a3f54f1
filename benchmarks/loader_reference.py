"""Runs inside LeRobot's environment: makes the datasets of `benchmarks.loader`, and measures LeRobot's loading of them.

`make <folder> <kind>`, or `measure <folder> <json>`, which prints a JSON object with what it found of each dataset.
"""

import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

FPS, EPISODES, LENGTH, SIDE = 20, 24, 125, 128
STATE, ACTION = 18, 7
CAMERAS = ("observation.images.front", "observation.images.wrist")


def scene(episode: int, camera: int) -> np.ndarray:
    """What a camera sees: discs that move over a table with a grain, and a little noise; (LENGTH, SIDE, SIDE, 3)."""
    rng = np.random.default_rng([episode, camera])
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    grain = rng.normal(0, 6, (SIDE, SIDE, 1)).astype(np.float32)
    table = np.stack([120 + 0.4 * x, 100 + 0.5 * y, 90 + 0.2 * (x + y)], -1) + grain
    starts, speeds = rng.uniform(20, 108, (5, 2)), rng.normal(0, 0.6, (5, 2))
    colours, radii = rng.uniform(20, 235, (5, 3)), rng.uniform(6, 16, 5)
    pictures = np.empty((LENGTH, SIDE, SIDE, 3), np.uint8)
    for k in range(LENGTH):
        picture = table + rng.normal(0, 2, (SIDE, SIDE, 1)).astype(np.float32)
        for start, speed, colour, radius in zip(starts, speeds, colours, radii, strict=True):
            centre = start + k * speed
            picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = colour
        pictures[k] = np.clip(picture, 0, 255)
    return pictures


def make(root: Path, with_pictures: bool) -> None:
    picture = {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": (STATE,), "names": [f"s{i}" for i in range(STATE)]},
        "action": {"dtype": "float32", "shape": (ACTION,), "names": [f"a{i}" for i in range(ACTION)]},
    }
    cameras = CAMERAS if with_pictures else ()
    features |= dict.fromkeys(cameras, picture)
    dataset = LeRobotDataset.create(
        "armature/loader", FPS, features, root=root, robot_type="synthetic", use_videos=with_pictures
    )
    for episode in range(EPISODES):
        rng = np.random.default_rng(episode)
        pictures = [scene(episode, camera) for camera in range(len(cameras))]
        for k in range(LENGTH):
            frame = {key: own[k] for key, own in zip(cameras, pictures, strict=True)}
            frame["observation.state"] = rng.normal(size=STATE).astype(np.float32)
            frame["action"] = rng.uniform(-1, 1, ACTION).astype(np.float32)
            dataset.add_frame({**frame, "task": "move"})
        dataset.save_episode()
    dataset.finalize()


def measure(root: Path, options: dict) -> dict:
    ago = [-(options["n_obs_steps"] - 1 - i) / FPS for i in range(options["n_obs_steps"])]
    plain = LeRobotDataset("armature/loader", root=root, video_backend="pyav")
    offsets = {key: ago for key in ["observation.state", *plain.meta.camera_keys]}
    offsets["action"] = [i / FPS for i in range(options["horizon"])]
    dataset = LeRobotDataset("armature/loader", root=root, video_backend="pyav", delta_timestamps=offsets)
    samples = {}
    for i in options["samples"]:
        sample = dataset[i]
        samples |= {f"{i} {key}": sample[key].numpy() for key in offsets}
        samples[f"{i} action_is_pad"] = sample["action_is_pad"].numpy()
    np.savez(options["save"], **samples)
    loader = torch.utils.data.DataLoader(
        dataset, options["batch_size"], shuffle=True, num_workers=options["workers"], drop_last=True
    )
    took, begin, batches = [], 0.0, 0
    while len(took) < options["batches"]:
        for _ in loader:
            now = time.perf_counter()
            if batches > options["warm_up"]:
                took.append(now - begin)
            begin, batches = now, batches + 1
            if len(took) == options["batches"]:
                memory = resident([None, *[child.pid for child in multiprocessing.active_children()]])
                break
    return {"samples_s": options["batch_size"] * len(took) / sum(took), "memory": memory}


def resident(processes: list) -> dict:
    """Bytes by kind, over some processes; None is this one."""
    total: dict[str, int] = {}
    for process in processes:
        for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
            if line.startswith("Rss"):
                name, value = line.split(":")
                total[name] = total.get(name, 0) + 1024 * int(value.split()[0])
    return total


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), sys.argv[3] == "pictures")
    else:
        wanted = json.loads(sys.argv[3])
        print(json.dumps({name: measure(Path(sys.argv[2]) / name, options) for name, options in wanted.items()}))
