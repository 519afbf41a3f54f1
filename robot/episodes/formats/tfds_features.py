"""`features.json` of TensorFlow Datasets: what an example holds, and how its values are decoded.

Nested features are stored under their paths (`steps/observation/image_0`), those of a sequence one after the other in
one list. A file of version 4.4 and later is the JSON of TFDS' `feature.proto`; earlier ones say `type` and `content`.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot.episodes.formats.tf_example import Values
from robot.errors import DatasetError

TENSOR, IMAGE, TEXT = "tensor", "image", "text"

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Leaf:
    """One feature without parts.

    Attributes:
        path: Its name in an example.
        kind: `tensor`, `image`, `text`, or what else it is called.
        rank: Number of sequences that it is inside of.
        shape: Of one value; None where it varies.
        dtype: Name of the element type that is given back; `bool`, `float32`, ...
        encoding: `none`, `bytes` or `zlib` of tensors, the format of images.
        stored: Name of the type that raw bytes hold; differs from `dtype` for bfloat16, which NumPy lacks.
    """

    path: str
    kind: str
    rank: int
    shape: Shape
    dtype: str
    encoding: str = "none"
    stored: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether all values have one shape."""
        return None not in self.shape

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture in colours."""
        return self.kind == IMAGE and self.shape[-1:] == (3,) and self.dtype == "uint8"

    def count(self, values: Values) -> int:
        """How many values of this feature a list holds; -1 where it holds no whole number of them."""
        if isinstance(values, list) or not self.is_fixed:
            return len(values)
        size = math.prod(size for size in self.shape if size is not None)
        return len(values) // size if size and len(values) % size == 0 else -1

    def decode(self, values: Values, count: int) -> np.ndarray:
        """Tensors or images, shape (count, *shape).

        Raises:
            ValueError: They do not fit.
        """
        shape = (count, *(size or 0 for size in self.shape))
        if self.kind == IMAGE:
            return np.stack([self.picture(data) for data in values])
        if isinstance(values, list):
            return np.stack([self._raw(data) for data in values]).reshape(shape)
        if self.dtype == "uint64":
            values = values.view(np.uint64)
        return values.reshape(shape).astype(self.dtype)

    def picture(self, data: bytes) -> np.ndarray:
        """One image, decoded: (H, W, C) of this feature's type.

        TFDS stores float32 as PNG whose four channels are the bytes of a number.

        Raises:
            ValueError: It is no image, or of another shape.
        """
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if self.is_picture else cv2.IMREAD_UNCHANGED
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
        if image is None:
            raise ValueError(f"{len(data)} bytes that are no picture")
        if image.ndim == 3:
            image = image[..., [2, 1, 0, *range(3, image.shape[2])]]
        if self.dtype == "float32":
            image = np.ascontiguousarray(image).view(np.float32)
        image = np.ascontiguousarray(image.reshape(*image.shape[:2], -1))
        if not _fits(image.shape, self.shape) or image.dtype != np.dtype(self.dtype):
            raise ValueError(f"a picture of shape {image.shape} and type {image.dtype}, expected {self.shape}")
        return image

    def _raw(self, data: bytes) -> np.ndarray:
        try:
            data = zlib.decompress(data) if self.encoding == "zlib" else data
        except zlib.error as error:
            raise ValueError(f"{len(data)} bytes that are not zlib's ({error})") from error
        if self.stored == "bfloat16":  # the upper half of a float32
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(data, self.dtype)


def read_features(path: Path) -> dict[str, Leaf]:
    """The features of a dataset by path.

    Raises:
        DatasetError: The file is missing, damaged, or of another form.
    """
    try:
        tree = json.loads(path.read_text())
        return {leaf.path: leaf for leaf in _leaves(tree, (), 0)}
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{path} is no description of features as TensorFlow Datasets writes it: {error!r}."
        ) from error


def _leaves(node: Mapping[str, Any], path: tuple[str, ...], rank: int) -> Iterator[Leaf]:
    name = str(node.get("pythonClassName") or node.get("type") or "").rpartition(".")[2]
    content = _content(node)
    if name == "FeaturesDict":
        children = content.get("features", content)
        for key, child in children.items():
            yield from _leaves(child, (*path, key), rank)
    elif name in ("Sequence", "Dataset"):
        yield from _leaves(content["feature"], path, rank + 1)
    else:
        yield _leaf(name, content, "/".join(path), rank)


def _content(node: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the class' name, whatever its key is."""
    for key, value in node.items():
        if key in ("pythonClassName", "type", "description", "doc", "proto_cls"):
            continue
        if key == "jsonFeature":
            return dict(json.loads(value["json"]))
        if isinstance(value, str) and key == "content":
            value = json.loads(value)
        if isinstance(value, Mapping):
            return dict(value)
    return {}


def _leaf(name: str, content: Mapping[str, Any], path: str, rank: int) -> Leaf:
    if name == "Text":
        return Leaf(path, TEXT, rank, (), "str")
    if name == "ClassLabel":
        return Leaf(path, TENSOR, rank, (), "int64")
    shape = _shape(content.get("shape", []))
    stored = str(content.get("dtype", "uint8" if name == "Image" else "float32")).removeprefix("tf.")
    if name == "Image":
        return Leaf(path, IMAGE, rank, shape, stored, str(content.get("encodingFormat") or ""))
    encoding = str(content.get("encoding") or "none").lower()
    if stored in ("string", "object"):
        return Leaf(path, TEXT if shape == () else name, rank, shape, "str")
    kind = TENSOR if name in ("Tensor", "Scalar", "BBoxFeature") else name
    return Leaf(path, kind, rank, shape, _given_back(stored, encoding), encoding, stored)


def _given_back(stored: str, encoding: str) -> str:
    """Examples keep all fractions as float32, unless they are raw bytes; of bfloat16 NumPy knows nothing."""
    if stored == "bfloat16" or (encoding == "none" and stored.startswith("float")):
        return "float32"
    return np.dtype(stored).name


def _shape(data: Any) -> Shape:
    sizes = data.get("dimensions", []) if isinstance(data, Mapping) else data
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(
        size is None or got == size for got, size in zip(shape, wanted, strict=True)
    )
