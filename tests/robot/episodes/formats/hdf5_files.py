"""robomimic files as robomimic and robosuite leave them, made here; and the comparison of whole files."""

import json
from pathlib import Path

import h5py
import numpy as np

OSC = {
    "type": "BASIC",
    "body_parts": {"arms": {"right": {"type": "OSC_POSE", "input_type": "delta", "gripper": {"type": "GRIP"}}}},
}
ENV_ARGS = {
    "env_name": "Lift",
    "env_version": "1.5.1",
    "type": 1,
    "env_kwargs": {"robots": ["Panda"], "control_freq": 20, "controller_configs": OSC},
}
XML = "<mujoco>" + "<body name='é'/>" * 500 + "</mujoco>"


def processed(path: Path, lengths=(5, 3, 12), side: int = 8, seed: int = 0) -> Path:
    """As `dataset_states_to_obs.py` of robomimic leaves it, with everything that its documentation names."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps(ENV_ARGS, indent=4)
        names = [f"demo_{3 * i}" for i in range(len(lengths))]
        for name, length in zip(names, lengths, strict=True):
            _demo(data.create_group(name), length, side, rng)
        file.create_dataset("mask/train", data=np.array(names[::-1][:2], dtype="S"))
        file.create_dataset("mask/valid", data=np.array(names[:1], dtype="S12"))
        file["mask"].create_dataset("20_percent", data=names[1:2], dtype=h5py.string_dtype())
    return path


def _demo(demo: h5py.Group, length: int, side: int, rng: np.random.Generator) -> None:
    demo.attrs["num_samples"] = length
    demo.attrs["model_file"] = XML
    demo.attrs["ep_meta"] = json.dumps({"lang": "lift the cube"})
    demo.attrs["camera_info"] = json.dumps({"agentview": {"intrinsics": np.eye(3).tolist()}})
    demo.attrs["odd"] = np.array([[1.5, np.nan]], np.float32)
    demo.attrs["fixed"] = np.bytes_(b"abc")
    demo["actions"] = rng.uniform(-1, 1, (length, 7))
    demo["actions_abs"] = rng.uniform(-1, 1, (length, 7))
    demo["states"] = rng.normal(size=(length, 32))
    demo["rewards"] = rng.uniform(size=length)
    demo["dones"] = (np.arange(length) == length - 1).astype(np.int64)
    demo["action_dict/rel_pos"] = rng.normal(size=(length, 3)).astype(np.float32)
    demo["datagen_info/eef_pose/robot0"] = rng.normal(size=(length, 4, 4))
    demo["datagen_info/object_poses"] = rng.normal(size=(2, 4, 4))
    demo["datagen_info"].attrs["note"] = "of the group"
    demo["obs/robot0_eef_quat"] = rng.normal(size=(length, 4))
    demo["obs/robot0_eef_pos"] = rng.normal(size=(length, 3))
    demo["obs/robot0_gripper_qpos"] = rng.normal(size=(length, 2)).astype(">f8")
    demo["obs/object"] = rng.normal(size=(length, 10)).astype(np.float32)
    demo["obs/some_flag"] = rng.uniform(size=length) > 0.5
    demo["obs/agentview_depth"] = rng.uniform(size=(length, side, side, 1)).astype(np.float32)
    options = {"chunks": (1, side, side, 3), "compression": "gzip", "compression_opts": 2, "shuffle": True}
    for camera in ("agentview", "robot0_eye_in_hand"):
        pictures = rng.integers(0, 256, (length, side, side, 3), np.uint8)
        demo.create_dataset(f"obs/{camera}_image", data=pictures, **options)
    for name, present in list(demo["obs"].items()):
        following = np.concatenate([present[1:], present[:1]])
        demo.create_dataset(f"next_obs/{name}", data=following, dtype=present.dtype)
    demo["next_obs/object"][0] = 7  # not what follows in obs


def raw(path: Path, lengths=(5, 3), env_info: dict | None = None) -> Path:
    """As robosuite's collector leaves it: no observations, numbers from 1, rates unsaid."""
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number, length in enumerate(lengths, 1):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["model_file"] = XML
            demo.create_dataset("states", data=rng.normal(size=(length, 32)))
            demo.create_dataset("actions", data=rng.uniform(-1, 1, (length, 7)))
        data.attrs["date"], data.attrs["time"] = "11-21-2026", "16:50:01"
        data.attrs["repository_version"] = "1.5.1"
        data.attrs["env"] = "Lift"
        data.attrs["env_info"] = json.dumps(
            env_info or {"env_name": "Lift", "robots": ["Panda"], "controller_configs": OSC}
        )
    return path


def differences(first: Path, second: Path) -> list[str]:
    """What distinguishes two HDF5 files, a line each: members, attributes, types, storage, values to the bit."""
    with h5py.File(first) as one, h5py.File(second) as two:
        return [*_attributes("/", one, two), *_members("", one, two)]


def _members(prefix: str, one: h5py.Group, two: h5py.Group) -> list[str]:
    lines = [f"{prefix}/{name} is in one only" for name in set(one) ^ set(two)]
    for name in set(one) & set(two):
        path, a, b = f"{prefix}/{name}", one[name], two[name]
        lines += _attributes(path, a, b)
        if isinstance(a, h5py.Group) or isinstance(b, h5py.Group):
            lines += _members(path, a, b) if type(a) is type(b) else [f"{path} is of another kind"]
        else:
            lines += _dataset(path, a, b)
    return lines


def _dataset(path: str, a: h5py.Dataset, b: h5py.Dataset) -> list[str]:
    storage = ("dtype", "shape", "chunks", "maxshape", "compression", "compression_opts", "shuffle", "fletcher32")
    lines = [
        f"{path}: {name} {getattr(a, name)} / {getattr(b, name)}"
        for name in storage
        if getattr(a, name) != getattr(b, name)
    ]
    if h5py.check_string_dtype(a.dtype) != h5py.check_string_dtype(b.dtype):
        lines.append(f"{path}: texts {h5py.check_string_dtype(a.dtype)} / {h5py.check_string_dtype(b.dtype)}")
    return lines or ([] if _same(a[()], b[()]) else [f"{path}: values differ"])


def _attributes(path: str, a: h5py.HLObject, b: h5py.HLObject) -> list[str]:
    lines = [f"{path}@{name} is in one only" for name in set(a.attrs) ^ set(b.attrs)]
    for name in set(a.attrs) & set(b.attrs):
        ids = a.attrs.get_id(name), b.attrs.get_id(name)
        kinds = [(i.dtype, i.shape, h5py.check_string_dtype(i.dtype)) for i in ids]
        if kinds[0] != kinds[1]:
            lines.append(f"{path}@{name}: {kinds[0]} / {kinds[1]}")
        elif not _same(a.attrs[name], b.attrs[name]):
            lines.append(f"{path}@{name}: values differ")
    return lines


def _same(a, b) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind == "O":
        return a.shape == b.shape and a.tolist() == b.tolist()
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
