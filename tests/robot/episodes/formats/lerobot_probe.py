"""Runs inside LeRobot's own environment: opens a dataset there and saves what LeRobot sees.

Arguments: folder of the dataset, JSON with `keys` (columns), `cameras` and `offsets` (delta_timestamps), and the path
of the .npz to write: `row/<key>`, `frame/<camera>` (uint8, T x 3 x H x W), `window/<key>`, and `report`, JSON as text.
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, wanted, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
options = {"repo_id": "armature/probe", "root": root, "video_backend": "pyav"}
plain = LeRobotDataset(**options)
windowed = LeRobotDataset(**options, delta_timestamps=wanted["offsets"])
items = [plain[i] for i in range(len(plain))]
windows = [windowed[i] for i in range(len(windowed))]


def as_bytes(picture):
    return (np.asarray(picture) * 255).round().astype(np.uint8)


arrays = {f"row/{key}": np.array([np.asarray(item[key]) for item in items]) for key in wanted["keys"]}
arrays |= {f"frame/{key}": np.stack([as_bytes(item[key]) for item in items]) for key in wanted["cameras"]}
for key in wanted["offsets"]:
    made = as_bytes if key in wanted["cameras"] else np.asarray
    arrays[f"window/{key}"] = np.stack([made(item[key]) for item in windows])
    arrays[f"window/{key}_is_pad"] = np.stack([np.asarray(item[f"{key}_is_pad"]) for item in windows])
report = {
    "fps": plain.fps,
    "episodes": plain.num_episodes,
    "robot": plain.meta.robot_type,
    "tasks": [item["task"] for item in items],
    "timestamps": [float(item["timestamp"]) for item in items],
    "stats": {
        key: {name: np.asarray(value).tolist() for name, value in plain.meta.stats[key].items()}
        for key in [*wanted["keys"], *wanted["cameras"]]
        if key in plain.meta.stats
    },
    "lengths": [int(row["length"]) for row in plain.meta.episodes],
    "one_episode": len(LeRobotDataset(**options, episodes=[1])),
    "one_frame": np.asarray(LeRobotDataset(**options, episodes=[2])[0][wanted["cameras"][0]]).shape
    if wanted["cameras"]
    else None,
}
np.savez(out, report=json.dumps(report), **arrays)
