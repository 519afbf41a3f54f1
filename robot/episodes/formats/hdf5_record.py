"""Everything of an HDF5 group that no column holds, as JSON, so that the group can be made again exactly."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import h5py
import numpy as np

from robot.episodes.episode import Pictures
from robot.episodes.formats.hdf5_values import (
    attributes_to_json,
    create,
    from_json,
    layout_of,
    put_attribute,
    value_to_json,
)
from robot.errors import DatasetError

DEPTH = 20
"""Levels of groups; deeper ones go round in a circle."""
BLOCK = 16
"""Rows that are compared or written at a time."""

Record = dict[str, Any]
Values = Callable[[str], np.ndarray | Pictures | None]


def members(group: h5py.Group, prefix: str = "", skip: Collection[str] = ()) -> Iterator[tuple[str, h5py.HLObject]]:
    """Everything in a group, at any depth, by its path: groups before what is in them.

    Raises:
        DatasetError: A link leads to another file, nowhere, or in a circle.
    """
    if prefix.count("/") > DEPTH:
        raise DatasetError(f"{group.file.filename}: groups are nested beyond {DEPTH} levels at {group.name!r}.")
    for name in group:
        if name in skip:
            continue
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise DatasetError(
                f"{group.file.filename}: {group.name}/{name} lives in another file ({link.filename}). Copy it into "
                "this one (`h5repack` or h5py's `copy` with `expand_external`)."
            )
        try:
            member = group[name]
        except (KeyError, OSError) as error:
            raise DatasetError(f"{group.file.filename}: {group.name}/{name} cannot be read: {error}.") from error
        yield prefix + name, member
        if isinstance(member, h5py.Group):
            yield from members(member, f"{prefix}{name}/")


def taken(group: h5py.Group, elsewhere: Collection[str] = (), skip: Collection[str] = ()) -> Record:
    """The record of a group.

    Args:
        group: Any.
        elsewhere: Paths of datasets whose values are kept elsewhere; only how they are stored is recorded.
        skip: Members and attributes of `group` itself that are left out.
    """
    attributes = {name: data for name, data in attributes_to_json(group).items() if name not in skip}
    record: Record = {"attributes": attributes, "groups": {}, "datasets": {}}
    for path, member in members(group, skip=skip):
        if isinstance(member, h5py.Group):
            record["groups"][path] = attributes_to_json(member)
        elif isinstance(member, h5py.Dataset):
            record["datasets"][path] = _dataset(group, path, member, path in elsewhere)
    return record


def restored(group: h5py.Group, record: Record, values: Values) -> None:
    """Make in `group` what `taken` recorded.

    Args:
        group: New and empty.
        record: From `taken`.
        values: The values of a dataset that are kept elsewhere, by its path: an array, pictures, or None, which leaves
            the dataset out.
    """
    for name, data in record["attributes"].items():
        put_attribute(group, name, data)
    for path, attributes in record["groups"].items():
        made = group.require_group(path)
        for name, data in attributes.items():
            put_attribute(made, name, data)
    for path, kept in record["datasets"].items():
        dataset = _made(group, path, kept, values)
        for name, data in kept.get("attributes", {}).items() if dataset is not None else ():
            put_attribute(dataset, name, data)


def fill(dataset: h5py.Dataset, rows: Iterable[np.ndarray]) -> None:
    """Write rows into a dataset as they come.

    Raises:
        DatasetError: There are more or fewer than it has, or one is of another shape.
    """
    length, shape, count = len(dataset), dataset.shape[1:], 0
    rest = iter(rows)
    while block := list(itertools.islice(rest, BLOCK)):
        stop = count + len(block)
        wrong = next((np.shape(row) for row in block if np.shape(row) != shape), shape)
        if stop > length or wrong != shape:
            raise DatasetError(f"{dataset.name}: rows of shape {wrong} came, expected {length} of {shape}.")
        dataset[count:stop] = np.stack(block)
        count = stop
    if count != length:
        raise DatasetError(f"{dataset.name}: {count} rows came, expected {length}.")


def _dataset(group: h5py.Group, path: str, dataset: h5py.Dataset, is_elsewhere: bool) -> Record:
    kept: Record = {"layout": layout_of(dataset)}
    if attributes := attributes_to_json(dataset):
        kept["attributes"] = attributes
    if is_elsewhere:
        return kept
    followed = path.removeprefix("next_")
    if path.startswith("next_obs/") and followed in group and _follows(dataset, group[followed]):
        last = dataset[-1]
        return {**kept, "follows": followed, "last": value_to_json(last, dataset.dtype, dataset.name)}
    return {**kept, "value": value_to_json(dataset[()], dataset.dtype, dataset.name)}


def _follows(following: h5py.Dataset, present: h5py.Dataset) -> bool:
    """Whether row k of one is row k + 1 of the other, as the observations after an action are those of the next row."""
    if following.shape != present.shape or following.dtype != present.dtype or not following.ndim or not len(present):
        return False
    stop = len(present) - 1
    blocks = ((at, min(at + BLOCK, stop)) for at in range(0, stop, BLOCK))
    return all(following[a:b].tobytes() == present[a + 1 : b + 1].tobytes() for a, b in blocks)


def _made(group: h5py.Group, path: str, kept: Record, values: Values) -> h5py.Dataset | None:
    layout = kept["layout"]
    if "value" in kept:
        return create(group, path, layout, from_json(kept["value"])[0])
    present = values(kept.get("follows", path))
    if present is None:
        return None
    if layout["shape"][0] != len(present):  # somebody has cut the episode
        layout = {key: value for key, value in layout.items() if key not in ("chunks", "maxshape")}
        layout = {**layout, "shape": [len(present), *layout["shape"][1:]]}
    dataset = create(group, path, layout, None)
    if "follows" in kept:
        last = np.asarray(from_json(kept["last"])[0]).reshape(layout["shape"][1:])
        fill(dataset, itertools.chain(itertools.islice(present, 1, None), [last]))
    elif isinstance(present, np.ndarray):
        dataset[...] = present.reshape(dataset.shape)
    else:
        fill(dataset, present)
    return dataset
