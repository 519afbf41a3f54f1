"""Runs inside LeRobot's own environment: makes a dataset there, opens it again and saves what LeRobot returns.

Arguments: folder of the dataset, path of the .npz to write, JSON with `videos`, `lengths`, `files` (whether every
episode or two gets files of its own) and `codec`.
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
dtype = "video" if options["videos"] else "image"
picture = {"dtype": dtype, "shape": (48, 64, 3), "names": ["height", "width", "channels"]}
features = {
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
    "observation.load": {"dtype": "float64", "shape": (1,), "names": None},
    "observation.grid": {"dtype": "float32", "shape": (2, 3), "names": None},
    "action": {"dtype": "float32", "shape": (3,), "names": {"motors": ["a", "b", "c"]}},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.success": {"dtype": "bool", "shape": (1,), "names": None},
    "remark": {"dtype": "string", "shape": (1,), "names": None},
    "observation.images.front": picture,
    "observation.images.wrist": picture,
}
dataset = LeRobotDataset.create(
    "armature/made", 10, features, root=root, robot_type="maker", use_videos=options["videos"],
    video_backend="pyav", vcodec=options.get("codec", "libsvtav1"),
)  # fmt: skip
if options.get("files"):
    dataset.meta.update_chunk_settings(data_files_size_in_mb=0.001, video_files_size_in_mb=0.02)
rng = np.random.default_rng(0)
y, x = np.mgrid[:48, :64]
for episode, length in enumerate(options["lengths"]):
    for k in range(length):
        pictures = {}
        for number, camera in enumerate(("front", "wrist")):
            disc = (x - 4 * k - 8 - 10 * number) ** 2 + (y - 20 - episode) ** 2 < 60
            shade = np.stack([40 + 2 * x, 200 - 3 * y, np.full_like(x, 60 + 40 * episode)], -1).astype(np.uint8)
            pictures[f"observation.images.{camera}"] = np.where(disc[..., None], np.uint8(250), shade)
        dataset.add_frame({
            "observation.state": rng.normal(size=2).astype(np.float32),
            "observation.load": rng.normal(size=1),
            "observation.grid": rng.normal(size=(2, 3)).astype(np.float32),
            "action": rng.uniform(-1, 1, 3).astype(np.float32),
            "next.reward": rng.normal(size=1).astype(np.float32),
            "next.success": np.array([k == length - 1]),
            "remark": f"step {k}",
            "task": "stack" if (episode + (k > 2)) % 2 else "reach",
            **pictures,
        })  # fmt: skip
    dataset.save_episode()
dataset.finalize()

found = LeRobotDataset("armature/made", root=root, video_backend="pyav")
columns: dict[str, list] = {}
for i in range(len(found)):
    for key, value in found[i].items():
        array = value if isinstance(value, str) else np.asarray(value)
        if key.startswith("observation.images."):
            array = np.round(np.moveaxis(array, 0, -1) * 255).astype(np.uint8)
        columns.setdefault(key, []).append(array)
np.savez_compressed(out, **{key: np.array(rows) for key, rows in columns.items()})
print(found.meta.total_episodes, found.meta.total_frames)
