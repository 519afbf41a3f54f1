"""Arrow columns as arrays, as LeRobot stores them: numbers, lists of fixed or any length, lists of lists, texts."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from robot.errors import DatasetError

TEXT = "str"
"""dtype of columns that hold texts."""


def leaf(kind: pa.DataType) -> pa.DataType:
    """What lies below all lists."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether it is a list of fixed or any length."""
    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)


def dtype_of(kind: pa.DataType) -> str | None:
    """NumPy's name of what lies below all lists, `TEXT` for texts, None for what an array cannot hold."""
    kind = leaf(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return TEXT
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.dtype(kind.to_pandas_dtype()).name
    return None


def array(column: pa.ChunkedArray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """The rows of a column.

    Args:
        column: N rows.
        shape: Of one row. LeRobot stores rows of one element as scalars, so both () and (1,) fit a scalar.
        where: What the message of an error begins with.

    Returns:
        Shape (N, *shape), of the type that is stored.

    Raises:
        DatasetError: A row is empty or of another shape.
    """
    if column.null_count:
        raise DatasetError(f"{where} has {column.null_count} empty rows.")
    parts = [_flat(chunk, shape, where) for chunk in column.chunks]
    kind = dtype_of(column.type)
    if kind is None:
        raise DatasetError(f"{where} has rows of {column.type}, which is no array of numbers or texts.")
    joined = np.concatenate(parts) if parts else np.empty(0, kind)
    return joined.reshape(len(column), *shape)


def _flat(chunk: pa.Array, shape: tuple[int, ...], where: str) -> np.ndarray:
    rows, depth = len(chunk), 0
    while is_list(chunk.type):
        lengths = pc.list_value_length(chunk)
        width = shape[depth] if depth < len(shape) else 1
        if len(lengths) and (lengths.null_count or pc.min_max(lengths).as_py() != {"min": width, "max": width}):
            found = pc.min_max(lengths).as_py()
            raise DatasetError(
                f"{where} has rows of {chunk.type} with {found['min']} to {found['max']} elements, "
                f"expected rows of shape {shape}."
            )
        chunk, depth = chunk.flatten(), depth + 1
    if chunk.null_count:
        raise DatasetError(f"{where} has {chunk.null_count} empty elements.")
    if len(chunk) != rows * math.prod(shape):
        raise DatasetError(f"{where} has rows of {chunk.type}, expected rows of shape {shape}.")
    if dtype_of(chunk.type) == TEXT:
        return np.array(chunk.to_pylist(), dtype=TEXT)
    return chunk.to_numpy(zero_copy_only=False)
