"""The Parquet files of a LeRobotDataset as they are written, and rows of tables that are read again one at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robot.episodes import statistics
from robot.episodes.formats.encoded import Encoded, png_pictures
from robot.episodes.formats.fingerprint import SIZE
from robot.episodes.formats.image_statistics import BINS
from robot.episodes.formats.lerobot_layout import INDEX_TYPES, column_array, column_rows, is_text, made
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import Schema
from robot.episodes.statistics import Statistics
from robot.errors import DatasetError
from robot.specs import ArraySpec, Specs

GROUP_BYTES = 64e6
"""PNG pictures of an episode are written in groups of rows of about this size."""
GROUP_EPISODES = 64
BLOCK_VALUES = 2_000_000
"""Global statistics are computed of so many values at once."""


class Tables:
    """A Parquet file to which whole tables are appended, each as a row group: reading one episode touches no other."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema)

    def write(self, tables: Iterable[pa.Table]) -> None:
        """Append some."""
        for table in tables:
            self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class BufferedTable:
    """A Parquet file of small rows, in groups of `GROUP_EPISODES`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema, self._writer = schema, pq.ParquetWriter(made(path), schema)
        self._rows: list[Mapping[str, Any]] = []

    def append(self, row: Mapping[str, Any]) -> None:
        """One row with every column of the schema."""
        self._rows.append(row)
        if len(self._rows) == GROUP_EPISODES:
            self._flush()

    def close(self) -> None:
        """Write what is held, and the footer."""
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = [pa.array([row[field.name] for row in self._rows], field.type) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows = []


class TableRows:
    """Single rows of a Parquet file; one row group of it is held at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        groups = self._file.metadata.num_row_groups
        self._stops = np.cumsum([self._file.metadata.row_group(group).num_rows for group in range(groups)])
        self._held = -1
        self._table: pa.Table = None

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def names(self) -> list[str]:
        """Names of its columns."""
        return list(self._file.schema_arrow.names)

    def without(self, prefix: str) -> list[dict[str, Any]]:
        """All rows, without the columns that begin with `prefix`."""
        return list(self.columns([name for name in self.names if not name.startswith(prefix)]).to_pylist())

    def columns(self, names: list[str]) -> pa.Table:
        """Some columns of all rows."""
        return self._file.read(columns=names).select(names)

    def row(self, number: int) -> dict[str, Any]:
        """All columns of one row."""
        group = int(np.searchsorted(self._stops, number, side="right"))
        if group != self._held:
            self._table, self._held = self._file.read_row_group(group), group
        start = int(self._stops[group - 1]) if group else 0
        return dict(self._table.slice(number - start, 1).to_pylist()[0])

    def groups(self, first: int, count: int) -> Iterator[pa.Table]:
        """The row groups that rows `first` to `first + count` are made of.

        Raises:
            DatasetError: They are no whole row groups.
        """
        starts = np.concatenate([[0], self._stops[:-1]])
        wanted = np.flatnonzero((starts >= first) & (self._stops <= first + count))
        if int((self._stops - starts)[wanted].sum()) != count:
            raise DatasetError(f"Rows {first} to {first + count} are no row groups of their own.")
        for group in wanted:
            yield self._file.read_row_group(int(group))


def index_columns(number: int, first: int, length: int, fps: int, tasks: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that LeRobot wants in every dataset, of one episode.

    Args:
        number: Of the episode.
        first: Number of its first row in the dataset.
        length: Number of its rows.
        fps: Rows per second; the time of row k is k / fps.
        tasks: Number of the task of every row, shape (T,).
    """
    rows = np.arange(length)
    columns = {
        "timestamp": rows / fps,
        "frame_index": rows,
        "episode_index": np.full(length, number),
        "index": first + rows,
        "task_index": tasks,
    }
    return {key: columns[key].astype(dtype) for key, dtype in INDEX_TYPES.items()}


def data_tables(
    episode: Encoded, schema: Schema, arrow: pa.Schema, index: Mapping[str, np.ndarray]
) -> Iterator[pa.Table]:
    """The rows of an episode: one table, or several where pictures are among them."""
    arrays = {key: column_array(spec, episode.columns[key]) for key, spec in schema.columns.items()}
    arrays |= {key: pa.array(column) for key, column in index.items()}
    pngs = {key: png_pictures(episode.pictures[key].path) for key in arrow.names if key not in arrays}
    if not pngs:
        yield pa.Table.from_arrays([arrays[key] for key in arrow.names], schema=arrow)
        return
    row = 0
    while row < len(episode):
        held: dict[str, list[dict[str, Any]]] = {key: [] for key in pngs}
        size, count = 0, 0
        while row + count < len(episode) and size < GROUP_BYTES:
            for key, pictures in pngs.items():
                held[key].append({"bytes": next(pictures), "path": f"frame-{row + count:06d}.png"})
                size += len(held[key][-1]["bytes"])
            count += 1
        columns = [
            pa.array(held[key], arrow.field(key).type) if key in held else arrays[key].slice(row, count)
            for key in arrow.names
        ]
        yield pa.Table.from_arrays(columns, schema=arrow)
        row += count


def prints_schema(schema: Schema) -> pa.Schema:
    """Columns of the fingerprints: where the row belongs, and 64 numbers for each camera."""
    fields = [("episode_index", pa.int64()), ("frame_index", pa.int64())]
    return pa.schema(fields + [(key, pa.list_(pa.uint8(), SIZE)) for key in schema.pictures])


def prints_table(prints: Mapping[str, np.ndarray], index: Mapping[str, np.ndarray], arrow: pa.Schema) -> pa.Table:
    """Fingerprints of an episode, each uint8 of shape (T, 64)."""
    arrays = {key: pa.array(index[key]) for key in ("episode_index", "frame_index")}
    for key, rows in prints.items():
        arrays[key] = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), SIZE)
    return pa.Table.from_arrays([arrays[key] for key in arrow.names], schema=arrow)


def replaced(table: pa.Table, columns: Mapping[str, np.ndarray]) -> pa.Table:
    """A table with other values in some of its columns."""
    for key, values in columns.items():
        at = table.schema.get_field_index(key)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    return table


def episodes_schema(schema: Schema, encoding: Encoding) -> pa.Schema:
    """Columns of the table of episodes."""
    numbers = ["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    fields = [("episode_index", pa.int64()), ("tasks", pa.list_(pa.string())), ("length", pa.int64())]
    fields += [(name, pa.int64()) for name in numbers]
    for key in schema.pictures if encoding.is_video else ():
        fields += [(f"videos/{key}/{name}_index", pa.int64()) for name in ("chunk", "file")]
        fields += [(f"videos/{key}/{name}_timestamp", pa.float64()) for name in ("from", "to")]
    for key, rank in _ranks(schema).items():
        nested = pa.float64()
        for _ in range(rank):
            nested = pa.list_(nested)
        kinds = {name: pa.list_(pa.int64()) if name == "count" else nested for name in statistics.NAMES}
        fields += [(f"stats/{key}/{name}", kind) for name, kind in kinds.items()]
    return pa.schema(fields + [(f"meta/episodes/{name}_index", pa.int64()) for name in ("chunk", "file")])


def _ranks(schema: Schema) -> dict[str, int]:
    """Dimensions of the statistics of each column."""
    ranks = {key: max(1, len(spec.shape)) for key, spec in schema.columns.items() if not is_text(spec)}
    return {**ranks, **dict.fromkeys(INDEX_TYPES, 1), **dict.fromkeys(schema.pictures, 3)}


def origins_schema(schema: Schema) -> pa.Schema:
    """Columns of our own table of episodes."""
    fields = [
        ("episode_index", pa.int64()),
        ("identity", pa.string()),
        ("origin", pa.string()),
        ("subsets", pa.list_(pa.string())),
        ("data_bytes", pa.int64()),
    ]
    for key in schema.pictures:
        fields += [(f"bytes/{key}", pa.int64()), (f"sampled/{key}", pa.int64())]
        fields += [(f"histogram/{key}", pa.list_(pa.int64(), 3 * BINS))]
    return pa.schema(fields)


def listed(stat: Statistics) -> dict[str, list[Any]]:
    """As JSON and tables hold statistics."""
    return {name: value.tolist() for name, value in stat.items()}


def stats_columns(stats: Mapping[str, Statistics]) -> dict[str, Any]:
    """Statistics as columns of the table of episodes."""
    return {f"stats/{key}/{name}": value for key, stat in stats.items() for name, value in listed(stat).items()}


def origin_row(number: int, identity: str, data_bytes: int, episode: Encoded) -> dict[str, Any]:
    """What our own table says of an episode."""
    row: dict[str, Any] = {
        "episode_index": number,
        "identity": identity,
        "origin": json.dumps(episode.origin, sort_keys=True),
        "subsets": list(episode.subsets),
        "data_bytes": data_bytes,
    }
    for key, pictures in episode.pictures.items():
        row |= {f"bytes/{key}": pictures.size, f"sampled/{key}": pictures.histogram.frames}
        row[f"histogram/{key}"] = pictures.histogram.counts.ravel().tolist()
    return row


def of_episode(schema: Schema, columns: Mapping[str, np.ndarray]) -> dict[str, Statistics]:
    """Statistics of the columns of one episode that are numbers."""
    texts = {key for key, spec in schema.columns.items() if is_text(spec)}
    return statistics.of_columns({key: column for key, column in columns.items() if key not in texts})


def of_files(paths: list[Path], schema: Schema, scratch: Path) -> dict[str, Statistics]:
    """Exact statistics of all rows of all data files; a part of one column is in memory at a time.

    Args:
        paths: Data files.
        schema: Of their rows.
        scratch: Folder for columns on the disk; what is written there is removed again.
    """
    specs: Specs = {key: spec for key, spec in schema.columns.items() if not is_text(spec)}
    specs |= {key: ArraySpec(key, (1,), np.dtype(kind).name) for key, kind in INDEX_TYPES.items()}
    return {key: _of_column(paths, spec, scratch / "column") for key, spec in specs.items()}


def _of_column(paths: list[Path], spec: ArraySpec, scratch: Path) -> Statistics:
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    width = int(np.prod(spec.shape))
    elements = np.memmap(scratch, spec.dtype, "w+", shape=(width, rows))
    begin = 0
    for path in paths:
        for found in _flat_rows(path, spec):
            elements[:, begin : begin + len(found)] = found.T
            begin += len(found)
    block = max(1, BLOCK_VALUES // max(1, rows))
    blocks = [
        statistics.of_column(np.ascontiguousarray(elements[start : start + block].T))
        for start in range(0, width, block)
    ]
    del elements
    scratch.unlink()
    names = [name for name in statistics.NAMES if name != "count"]
    shape = spec.shape or (1,)
    stats = {name: np.concatenate([found[name] for found in blocks]).reshape(shape) for name in names}
    return {**stats, "count": blocks[0]["count"]}


def _flat_rows(path: Path, spec: ArraySpec) -> Iterator[np.ndarray]:
    """Rows of a column as vectors, some row groups at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=[spec.key], batch_size=max(1, BLOCK_VALUES // int(np.prod(spec.shape)))):
            yield column_rows(spec, batch.column(batch.schema.get_field_index(spec.key))).reshape(batch.num_rows, -1)
