"""RLDS datasets as TensorFlow Datasets writes them, made here without it."""

import json
import zlib
from pathlib import Path

import cv2
import numpy as np

from robot.episodes.formats import tf_example
from robot.episodes.formats.tfrecord import frame

_FEATURES = "tensorflow_datasets.core.features."


def tensor(shape=(), dtype="float32", encoding="none") -> dict:
    sizes = {"dimensions": [str(size) for size in shape]} if shape else {}
    name = "tensor_feature.Tensor" if shape else "scalar.Scalar"
    return {"pythonClassName": _FEATURES + name, "tensor": {"shape": sizes, "dtype": dtype, "encoding": encoding}}


def image(shape=(8, 6, 3), encoding="jpeg", dtype="uint8") -> dict:
    sizes = {"dimensions": [str(size) for size in shape]}
    content = {"shape": sizes, "dtype": dtype, "encodingFormat": encoding}
    return {"pythonClassName": _FEATURES + "image_feature.Image", "image": content}


def text() -> dict:
    return {"pythonClassName": _FEATURES + "text_feature.Text", "text": {}}


def group(**features) -> dict:
    return {"pythonClassName": _FEATURES + "features_dict.FeaturesDict", "featuresDict": {"features": features}}


def sequence(feature: dict, name: str = "sequence_feature.Sequence") -> dict:
    return {"pythonClassName": _FEATURES + name, "sequence": {"feature": feature}}


def steps(**features) -> dict:
    return sequence(group(**features), "dataset_feature.Dataset")


RT1 = group(
    steps=steps(
        observation=group(
            image=image((None or -1, -1, 3), "png"),
            depth=image((4, 4, 1), "png", "uint16"),
            distance=image((4, 4, 1), "png", "float32"),
            natural_language_instruction=text(),
            base_pose=tensor((3,)),
            gripper=tensor((), "float64"),
            an_embedding=tensor((5,)),
            code=tensor((4,), "int32"),
            raw=tensor((2, 2), "uint8", "zlib"),
            half=tensor((2,), "bfloat16", "bytes"),
            points=sequence(tensor((3,))),
            remark=text(),
        ),
        action=group(world_vector=tensor((3,)), open=tensor(), mode=tensor((), "int32")),
        reward=tensor(),
        is_first=tensor((), "bool"),
        is_last=tensor((), "bool"),
        is_terminal=tensor((), "bool"),
        big=tensor((), "uint64"),
    ),
    episode_metadata=group(file_path=text(), numbers=sequence(tensor((), "int32")), good=tensor((), "bool")),
)
"""Everything that descriptions of Open X-Embodiment datasets use, in one."""


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def rt1_episode(length: int, seed: int) -> tuple[dict, dict[str, np.ndarray]]:
    """The features of an example, and what they mean."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (length, 8, 6, 3), np.uint8)
    depth = rng.integers(0, 65536, (length, 4, 4, 1), np.uint16)
    distance = rng.uniform(size=(length, 4, 4, 1)).astype(np.float32)
    truth = {
        "base_pose": rng.normal(size=(length, 3)).astype(np.float32),
        "gripper": rng.uniform(size=length).astype(np.float32),
        "world_vector": rng.normal(size=(length, 3)).astype(np.float32),
        "open": rng.uniform(size=length).astype(np.float32),
        "reward": rng.uniform(size=length).astype(np.float32),
        "code": rng.integers(-5, 5, (length, 4)),
        "raw": rng.integers(0, 256, (length, 2, 2), np.uint8),
        "big": np.full(length, 2**63 + 5, np.uint64),
        "rgb": rgb,
        "depth": depth,
        "distance": distance,
    }
    last = (np.arange(length) == length - 1).astype(np.int64)
    # The upper half of a float32 is a bfloat16.
    halves = [np.array([1.5, -2.0], "<f4").view("<u2")[1::2].tobytes()] * length
    observation = {
        "image": [png(picture[..., ::-1]) for picture in rgb],
        "depth": [png(picture) for picture in depth],
        "distance": [png(picture.view(np.uint8)[..., [2, 1, 0, 3]]) for picture in distance],
        "natural_language_instruction": [b"pick the can"] * length,
        "base_pose": truth["base_pose"].ravel(),
        "gripper": truth["gripper"],
        "an_embedding": np.zeros(5 * length, np.float32),
        "code": truth["code"].ravel(),
        "raw": [zlib.compress(array.tobytes()) for array in truth["raw"]],
        "half": halves,
        "points/ragged_flat_values": np.zeros(3 * length, np.float32),
        "points/ragged_row_lengths_0": np.ones(length, np.int64),
        "remark": [f"step {k}".encode() for k in range(length)],
    }
    features = {f"steps/observation/{name}": values for name, values in observation.items()}
    features |= {
        "steps/action/world_vector": truth["world_vector"].ravel(),
        "steps/action/open": truth["open"],
        "steps/action/mode": np.zeros(length, np.int64),
        "steps/reward": truth["reward"],
        "steps/is_first": last[::-1],
        "steps/is_last": last,
        "steps/is_terminal": last,
        "steps/big": truth["big"].view(np.int64),
        "episode_metadata/file_path": [b"/data/x.npy"],
        "episode_metadata/numbers": np.array([1, 2, 3]),
        "episode_metadata/good": np.array([1]),
    }
    return features, truth


def write(folder: Path, features: dict, splits: dict[str, list[list[dict]]], name: str = "rt1_small") -> Path:
    """A dataset: for each split its shards, for each shard its examples."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text(json.dumps(features))
    told = []
    for split, shards in splits.items():
        told.append({"name": split, "shardLengths": [str(len(shard)) for shard in shards]})
        for at, shard in enumerate(shards):
            data = b"".join(frame(tf_example.serialised(example)) for example in shard)
            (folder / f"{name}-{split}.tfrecord-{at:05d}-of-{len(shards):05d}").write_bytes(data)
    (folder / "dataset_info.json").write_text(json.dumps({"name": name, "version": "1.0.0", "splits": told}))
    return folder
