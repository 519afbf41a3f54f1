"""robomimic's masks: which demonstrations a filter key stands for."""

from typing import Any

import h5py
import numpy as np

from robot.episodes.formats.hdf5_record import restored
from robot.episodes.formats.hdf5_values import from_json


def write_masks(
    file: h5py.File, names: list[str], subsets: list[tuple[str, ...]], notes: dict[str, Any] | None
) -> None:
    """Write the group `mask`; nothing where there is none to write.

    Args:
        file: The file.
        names: Of the demonstrations.
        subsets: Of each demonstration.
        notes: Of the file that the source comes from: `masks` and `demos`. A mask that still names the same
            demonstrations keeps its order and type, and whatever it names that never was there.
    """
    wanted: dict[str, list[str]] = {}
    for name, inside in zip(names, subsets, strict=True):
        for subset in inside:
            wanted.setdefault(subset, []).append(name)
    noted = (notes or {}).get("masks")
    if notes is not None and noted is not None:
        known = {*names, *notes["demos"]}
        same = {
            mask: kept
            for mask, kept in noted["datasets"].items()
            if known.intersection(_named(kept)) == set(wanted.get(mask, []))
        }
        restored(file.create_group("mask"), {**noted, "datasets": same}, lambda path: None)
        wanted = {mask: wanted[mask] for mask in wanted if mask not in same}
    for mask, members in sorted(wanted.items()):
        file.require_group("mask").create_dataset(mask.replace("/", "."), data=np.array(members, dtype="S"))


def _named(kept: dict[str, Any]) -> list[str]:
    values = np.asarray(from_json(kept["value"])[0]).ravel()
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
