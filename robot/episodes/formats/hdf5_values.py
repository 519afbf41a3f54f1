"""What HDF5 stores, as JSON and back: attributes and arrays with their exact types, and how datasets are laid out.

Common things look plain (`3`, `0.5`, `true`, `"text"` are an int64, a float64, a bool and a UTF-8 text of any length);
the rest is an object. Long texts and arrays are deflated, because a demonstration's model alone has 100 kB.
"""

import base64
import math
import zlib
from typing import Any

import h5py
import numpy as np

from robot.errors import DatasetError

LONG = 1000
"""Characters from which on a text is deflated."""

_KINDS = "biufc"


def attributes_to_json(owner: h5py.HLObject) -> dict[str, Any]:
    """All attributes of a file, group or dataset.

    Raises:
        DatasetError: One is of a type that no demonstrations use (compounds, references).
    """
    return {name: _attribute(owner, name) for name in owner.attrs}


def put_attribute(owner: h5py.HLObject, name: str, data: Any) -> None:
    """Create or replace the attribute that `attributes_to_json` read."""
    value, dtype = from_json(data)
    if isinstance(value, h5py.Empty):
        owner.attrs[name] = value
        return
    owner.attrs.create(name, value, shape=np.shape(value), dtype=dtype)


def layout_of(dataset: h5py.Dataset) -> dict[str, Any]:
    """Type, shape and storage of a dataset; what is as h5py makes it by itself is left out."""
    layout: dict[str, Any] = {"dtype": _dtype_to_json(dataset.dtype, dataset.name), "shape": list(dataset.shape)}
    if dataset.chunks is not None:
        layout["chunks"] = list(dataset.chunks)
        if dataset.maxshape != dataset.shape:
            layout["maxshape"] = list(dataset.maxshape)
    for name in ("compression", "compression_opts", "scaleoffset"):
        if (value := getattr(dataset, name)) is not None:
            layout[name] = value
    layout.update({name: True for name in ("shuffle", "fletcher32") if getattr(dataset, name)})
    return layout


def create(group: h5py.Group, path: str, layout: dict[str, Any], values: Any) -> h5py.Dataset:
    """A dataset laid out as `layout_of` says, holding `values`."""
    storage = {key: value for key, value in layout.items() if key not in ("dtype", "shape")}
    for key in ("chunks", "maxshape"):
        if key in storage:
            storage[key] = tuple(storage[key])
    shape, dtype = tuple(layout["shape"]), _dtype_from_json(layout["dtype"])
    return group.create_dataset(path, shape=shape, dtype=dtype, data=values, **storage)


def value_to_json(value: Any, dtype: np.dtype, what: str) -> Any:
    """A value of a dataset or attribute, with the type that the file gives it.

    Args:
        value: As h5py returns it.
        dtype: As h5py says it; texts carry their encoding and length there.
        what: Name of the dataset or attribute, for errors.
    """
    if isinstance(value, h5py.Empty):
        return {"empty": _dtype_to_json(dtype, what)}
    text = h5py.check_string_dtype(dtype)
    if text is not None and text.length is None:
        return _texts_to_json(value, text.encoding)
    array = np.asarray(value)
    if array.ndim == 0 and dtype == np.int64:
        return int(array)
    if array.ndim == 0 and dtype == np.bool_:
        return bool(array)
    if array.ndim == 0 and dtype == np.float64 and math.isfinite(array):
        return float(array)
    packed = array.astype(_plain(dtype))  # h5py gives scalars back in this machine's byte order, and texts cut short
    return {"dtype": _dtype_to_json(dtype, what), "shape": list(array.shape), **_deflated(packed.tobytes())}


def from_json(data: Any) -> tuple[Any, np.dtype | None]:
    """The value that `value_to_json` wrote, and its type in the file."""
    if isinstance(data, bool):
        return np.bool_(data), np.dtype(np.bool_)
    if isinstance(data, int):
        return np.int64(data), np.dtype(np.int64)
    if isinstance(data, float):
        return np.float64(data), np.dtype(np.float64)
    if isinstance(data, str) or "text" in data:
        return _texts_from_json(data)
    if "empty" in data:
        return h5py.Empty(_dtype_from_json(data["empty"])), None
    dtype = _dtype_from_json(data["dtype"])
    return np.frombuffer(_inflated(data), _plain(dtype)).reshape(data["shape"]), dtype


def _attribute(owner: h5py.HLObject, name: str) -> Any:
    what = f"Attribute {name!r} of {owner.name}"
    dtype = owner.attrs.get_id(name).dtype
    _dtype_to_json(dtype, what)
    return value_to_json(owner.attrs[name], dtype, what)


def _dtype_to_json(dtype: np.dtype, what: str) -> Any:
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        return {"encoding": text.encoding, "length": text.length}
    if dtype.kind not in _KINDS or h5py.check_enum_dtype(dtype) is not None:
        raise DatasetError(
            f"{what} is of the type {dtype}; numbers, truth values and texts can be kept. Delete it from the file "
            "if it does not matter."
        )
    return dtype.str


def _dtype_from_json(data: Any) -> np.dtype:
    if isinstance(data, dict):
        return h5py.string_dtype(data["encoding"], data["length"])
    return np.dtype(data)


def _plain(dtype: np.dtype) -> np.dtype:
    """The type without h5py's remarks on it."""
    return np.dtype(f"S{dtype.itemsize}") if dtype.kind == "S" else np.dtype(dtype.str)


def _texts_to_json(value: Any, encoding: str) -> Any:
    array = np.asarray(value, object)
    texts = [_text(item) for item in array.ravel()]
    if array.ndim == 0 and encoding == "utf-8" and len(texts[0]) < LONG:
        return texts[0]
    joined = "\0".join(texts)
    packed = {"text": joined} if len(joined) < LONG else _deflated(joined.encode("utf-8", "surrogateescape"))
    return {"text": "", **packed, "encoding": encoding, "shape": list(array.shape)}


def _texts_from_json(data: Any) -> tuple[Any, np.dtype]:
    if isinstance(data, str):
        return data, h5py.string_dtype("utf-8")
    joined = _inflated(data).decode("utf-8", "surrogateescape") if "deflated" in data else data["text"]
    dtype = h5py.string_dtype(data["encoding"])
    if not data["shape"]:
        return joined, dtype
    count = math.prod(data["shape"])
    array = np.empty(count, object)
    array[:] = joined.split("\0") if count else []
    return array.reshape(data["shape"]), dtype


def _text(item: Any) -> str:
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)


def _deflated(data: bytes) -> dict[str, str]:
    return {"deflated": base64.b64encode(zlib.compress(data, 9)).decode()}


def _inflated(data: dict[str, Any]) -> bytes:
    try:
        return zlib.decompress(base64.b64decode(data["deflated"]))
    except (KeyError, ValueError, zlib.error) as error:
        raise DatasetError(f"A value that came from an HDF5 file was damaged on its way: {error!r}.") from error
