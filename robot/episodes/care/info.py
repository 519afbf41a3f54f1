"""`armature dataset info`: tell what a dataset holds."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot.config import load
from robot.episodes.dataset import SUCCESS
from robot.episodes.formats.lerobot_columns import array
from robot.episodes.formats.lerobot_files import read_table
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.specs import ArraySpec


@dataclass(kw_only=True)
class InfoConfig:
    """See `configs/dataset_info.yaml`."""

    dataset: str
    json: bool


def main(overrides: list[str]) -> int:
    """Run the verb."""
    config = load("dataset_info", InfoConfig, overrides)
    found = described(LeRobotSource(config.dataset))
    print(json.dumps(found, indent=2) if config.json else "\n".join(lines(found)))
    return 0


def described(source: LeRobotSource) -> dict[str, Any]:
    """What a dataset holds, as JSON. Reads `meta/` and the column of success.

    Raises:
        DatasetError: The dataset is damaged.
    """
    files, specs = source.files, source.schema.specs
    lengths = np.array([place.length for place in files.episodes])
    shortest, longest = int(np.argmin(lengths)), int(np.argmax(lengths))
    return {
        "dataset": str(files.root),
        "format": _format(source),
        "robot": specs.robot,
        "action_space": specs.action_space,
        "fps": files.fps,
        "episodes": len(source),
        "frames": int(lengths.sum()),
        "duration_s": float(lengths.sum() / files.fps),
        "shortest": {"episode": shortest, "frames": int(lengths[shortest])},
        "longest": {"episode": longest, "frames": int(lengths[longest])},
        "mean_frames": float(lengths.mean()),
        "tasks": _tasks(source),
        "features": [_feature(source, spec) for spec in (*source.schema.columns.values(), *_pictures(source))],
        "left_out": source.left_out,
        "megabytes": _sizes(files.root),
        "success": _success(source),
        "recorded_by": _counts(source.origin(number).get("source") for number in range(len(source))),
        "quality": _counts(source.origin(number).get("quality") for number in range(len(source))),
        "subsets": {name: len(numbers) for name, numbers in source.subsets.items()},
        "build": files.armature.get("build", {}),
    }


def _pictures(source: LeRobotSource) -> list[ArraySpec]:
    return list(source.schema.pictures.values())


def _format(source: LeRobotSource) -> str:
    version = source.files.info["codebase_version"]
    if source.files.is_ours:
        return f"LeRobotDataset {version}, written by Armature (version {source.files.armature['version']})"
    return f"LeRobotDataset {version}, not written by Armature"


def _tasks(source: LeRobotSource) -> dict[str, int]:
    """Episodes of each task."""
    found = Counter(task for place in source.files.episodes for task in place.tasks)
    return {text: found[text] for text in source.files.tasks.values()}


def _feature(source: LeRobotSource, spec: ArraySpec) -> dict[str, Any]:
    found: dict[str, Any] = {"key": spec.key, "dtype": spec.dtype, "shape": list(spec.shape)}
    found |= {name: value for name, value in (("names", list(spec.names)), ("unit", spec.unit)) if value}
    if spec.frame:
        found["frame"] = spec.frame
    stored = source.stored.get(spec.key, spec.key)
    if stored != spec.key:
        found["stored_as"] = stored
    feature = source.files.features.get(stored, {})
    if feature.get("dtype") in ("video", "image"):
        details = feature.get("info") or feature.get("video_info") or {}
        found["kept_as"] = str(details.get("video.codec", "video")) if feature["dtype"] == "video" else "png in rows"
        found["encoding"] = dict(source.files.armature.get("encoding") or {})
    return found


def _sizes(root: Path) -> dict[str, float]:
    """Megabytes by folder."""
    found: dict[str, float] = {}
    for path in root.rglob("*"):
        if path.is_file():
            top = path.relative_to(root).parts[0]
            found[top] = found.get(top, 0.0) + path.stat().st_size / 1e6
    return {name: round(size, 3) for name, size in sorted(found.items())}


def _success(source: LeRobotSource) -> dict[str, int] | None:
    """Episodes whose last row says success, or whose origin does; None where neither says anything."""
    if SUCCESS not in source.schema.extras:
        said = [source.origin(number).get("success") for number in range(len(source))]
        known = [bool(success) for success in said if success is not None]
        return {"episodes": sum(known), "of": len(known)} if known else None
    ended = 0
    for path in source.files.data_files:
        table = read_table(path, ["episode_index", source.stored[SUCCESS]])
        episodes = array(table["episode_index"], (), f"{path}: column 'episode_index'")
        success = array(table[source.stored[SUCCESS]], (), f"{path}: column {SUCCESS!r}")
        is_last = np.append(episodes[1:] != episodes[:-1], True)[: len(episodes)]
        ended += int(np.count_nonzero(success[is_last]))
    return {"episodes": ended, "of": len(source)}


def _counts(values: Iterable[Any]) -> dict[str, int]:
    return dict(Counter(str(value) for value in values if value))


def lines(found: dict[str, Any]) -> list[str]:
    """The same as text."""
    shortest, longest = found["shortest"], found["longest"]
    text = [
        f"{found['dataset']}: {found['format']}",
        f"  robot        {found['robot']}, actions {found['action_space']}, {found['fps']:g} frames per second",
        f"  episodes     {found['episodes']}, {found['frames']} frames, {_time(found['duration_s'])}",
        f"  lengths      {shortest['frames']} (episode {shortest['episode']}) to {longest['frames']} (episode "
        f"{longest['episode']}), mean {found['mean_frames']:.1f}",
    ]
    text += [f"  task         {task!r}: {count} episodes" for task, count in list(found["tasks"].items())[:10]]
    if len(found["tasks"]) > 10:
        text.append(f"               and {len(found['tasks']) - 10} more tasks")
    text += [f"  {_feature_line(feature)}" for feature in found["features"]]
    text += [f"  left out     {name}: {why}" for name, why in found["left_out"].items()]
    if found["success"]:
        share = found["success"]["episodes"] / found["success"]["of"]
        text.append(f"  success      {found['success']['episodes']} of {found['success']['of']} ({share:.0%})")
    for name, label in (("recorded_by", "recorded by"), ("quality", "quality"), ("subsets", "subsets")):
        if found[name]:
            text.append(f"  {label:<12} {', '.join(f'{key} {count}' for key, count in found[name].items())}")
    sizes = found["megabytes"]
    text.append(f"  size         {sum(sizes.values()):.1f} MB ({', '.join(f'{k} {v:.1f}' for k, v in sizes.items())})")
    return text


def _feature_line(feature: dict[str, Any]) -> str:
    shape = " x ".join(map(str, feature["shape"])) or "1"
    parts = [f"{feature['key']:<32} {feature['dtype']:<8} {shape:<14}"]
    if "kept_as" in feature:
        parts.append(feature["kept_as"])
    if "names" in feature:
        parts.append(" ".join(feature["names"]))
    if "unit" in feature:
        parts.append(f"[{feature['unit']}]")
    if "frame" in feature:
        parts.append(f"in {feature['frame']}")
    if "stored_as" in feature:
        parts.append(f"(stored as {feature['stored_as']})")
    return " ".join(parts).rstrip()


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
