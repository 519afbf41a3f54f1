"""Runs inside LeRobot's own environment: opens a dataset there and prints what LeRobot sees, as JSON."""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, keys, offsets = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
options = {"repo_id": "armature/probe", "root": root, "video_backend": "pyav"}
plain = LeRobotDataset(**options)
windowed = LeRobotDataset(**options, delta_timestamps=offsets)
report = {
    "fps": plain.fps,
    "episodes": plain.num_episodes,
    "robot": plain.meta.robot_type,
    "tasks": sorted({plain[i]["task"] for i in range(len(plain))}),
    "rows": {key: [np.asarray(plain[i][key]).tolist() for i in range(len(plain))] for key in keys},
    "timestamps": [float(plain[i]["timestamp"]) for i in range(len(plain))],
    "stats": {key: {name: np.asarray(v).tolist() for name, v in plain.meta.stats[key].items()} for key in keys},
    "windows": {
        key: [np.asarray(windowed[i][key]).tolist() for i in range(len(windowed))]
        for key in [*offsets, *(f"{key}_is_pad" for key in offsets)]
    },
    "length_of_episodes": [int(row["length"]) for row in plain.meta.episodes],
    "one_episode": len(LeRobotDataset(**options, episodes=[1])),
}
print(json.dumps(report))
