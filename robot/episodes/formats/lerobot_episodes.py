"""The files of a LeRobotDataset, filled episode by episode: new ones, and ones that an older build had made."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from robot.episodes import statistics
from robot.episodes.formats import lerobot_layout as layout
from robot.episodes.formats import lerobot_tables as tables
from robot.episodes.formats.encoded import Encoded
from robot.episodes.formats.file_series import FileSeries, Kept, Limits, Place
from robot.episodes.formats.image_statistics import Histogram
from robot.episodes.formats.lerobot_previous import OldEpisode, Previous
from robot.episodes.formats.lerobot_tables import Tables
from robot.episodes.formats.video import Encoding, Joined
from robot.episodes.rows import Schema
from robot.episodes.statistics import Statistics


class EpisodeFiles:
    """Data, fingerprints, videos and the two tables of episodes; use it as a context manager.

    Args:
        folder: Of the new dataset.
        schema: Of the episodes.
        encoding: Of pictures.
        limits: Of data files, and of videos.
        fps: Rows per second.
        previous: The old dataset, if it lends episodes.
    """

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        encoding: Encoding,
        limits: tuple[Limits, Limits],
        fps: int,
        previous: Previous | None,
    ) -> None:
        self._schema, self._fps, self._previous = schema, fps, previous
        self._arrow = layout.data_schema(schema, encoding)
        self._prints_arrow = tables.prints_schema(schema)
        old = (previous.root, dict(previous.counts)) if previous else None
        opened = partial(Tables, schema=self._arrow)
        self._data: FileSeries[Tables] = FileSeries(folder, layout.DATA_PATH, limits[0], opened, old)
        prints = partial(Tables, schema=self._prints_arrow)
        self._prints: FileSeries[Tables] = FileSeries(folder, layout.FINGERPRINTS_PATH, limits[0], prints, old)
        self._videos: dict[str, FileSeries[Joined]] = {}
        for key in schema.pictures if encoding.is_video else ():
            pattern = layout.VIDEO_PATH.replace("{video_key}", key)
            self._videos[key] = FileSeries(folder, pattern, limits[1], partial(Joined, fps=fps), old)
        path = folder / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
        self._episodes = tables.BufferedTable(path, tables.episodes_schema(schema, encoding))
        self._origins = tables.BufferedTable(folder / layout.ORIGINS, tables.origins_schema(schema))
        self._histograms = {key: Histogram() for key in schema.pictures}
        self._tasks: dict[str, int] = {}
        self._count = 0
        self.frames = 0
        """Rows so far."""

    @property
    def tasks(self) -> list[str]:
        """Texts of the tasks, in the order of their numbers."""
        return list(self._tasks)

    @property
    def linked(self) -> list[str]:
        """Names of files that are hard links to old ones."""
        return [name for series in self._series for name in series.linked]

    def picture_statistics(self) -> dict[str, Statistics]:
        """Of the pictures of all episodes so far, by key."""
        return {key: histogram.statistics() for key, histogram in self._histograms.items()}

    def add(self, episode: Encoded, identity: str) -> None:
        """Append an episode that was encoded now; its own files are removed."""
        length, pictures = len(episode), episode.pictures
        tasks = np.array([self._task(text) for text in episode.tasks])
        index = tables.index_columns(self._count, self.frames, length, self._fps, np.broadcast_to(tasks, length))
        size = sum(column.nbytes for column in (*episode.columns.values(), *index.values()))
        size += 0 if self._videos else sum(made.size for made in pictures.values())
        rows = partial(tables.data_tables, episode, self._schema, self._arrow, index)
        data = self._data.add(length, size, lambda sink: sink.write(rows()))
        if pictures:
            prints = tables.prints_table(
                {key: made.prints for key, made in pictures.items()}, index, self._prints_arrow
            )
            self._prints.add(length, size, lambda sink: sink.write([prints]))
        videos = {}
        for key, series in self._videos.items():
            copy = partial(_append, source=pictures[key].path, first=0, count=length)
            videos[key] = series.add(length, pictures[key].size, copy)
        stats = tables.of_episode(self._schema, {**episode.columns, **index})
        stats |= {key: made.histogram.statistics() for key, made in pictures.items()}
        self._append(tuple(dict.fromkeys(episode.tasks)), length, (data, videos), tables.stats_columns(stats))
        self._origins.append(tables.origin_row(self._count - 1, identity, size, episode))
        for key, made in pictures.items():
            self._histograms[key].merge(made.histogram)
            made.path.unlink()

    def keep(self, old: OldEpisode) -> None:
        """Append an episode of the old dataset."""
        assert self._previous is not None
        origin, number, first = self._previous.origin(old), self._count, self.frames
        tasks = np.zeros(len(self._previous.tasks), np.int64)
        for text in old.tasks:
            tasks[self._previous.tasks.index(text)] = self._task(text)
        moved = [self._tasks[text] for text in old.tasks] != [self._previous.tasks.index(text) for text in old.tasks]
        same = not moved and (old.number, old.first) == (number, first)
        rows = partial(self._renumbered, old, (number, first), tasks)
        data = self._data.add(old.length, origin["data_bytes"], lambda sink: sink.write(rows()), Kept(old.data, same))
        if self._schema.pictures:
            prints, kept = partial(self._prints_of, old, number), Kept(old.data, old.number == number)
            self._prints.add(old.length, origin["data_bytes"], lambda sink: sink.write(prints()), kept)
        videos = {}
        for key, series in self._videos.items():
            at = old.videos[key]
            copy = partial(_append, source=self._previous.video(old, key), first=at.first, count=old.length)
            videos[key] = series.add(old.length, origin[f"bytes/{key}"], copy, Kept(at, True))
        stats = self._previous.stats(old)
        if not same:
            stats |= self._index_stats(old, (number, first), tasks)
        self._append(old.tasks, old.length, (data, videos), stats)
        self._origins.append({**origin, "episode_index": number})
        for key, histogram in self._histograms.items():
            histogram.merge(self._previous.histogram(old, key))

    def finish(self) -> None:
        """Finish all files."""
        for series in self._series:
            series.finish()
        self._episodes.close()
        self._origins.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for closing in (*(series.abandon for series in self._series), self._episodes.close, self._origins.close):
                with contextlib.suppress(Exception):  # what cannot be written is about to be removed
                    closing()

    @property
    def _series(self) -> tuple[FileSeries[Any], ...]:
        return (self._data, self._prints, *self._videos.values())

    def _task(self, text: str) -> int:
        return self._tasks.setdefault(text, len(self._tasks))

    def _append(
        self, tasks: tuple[str, ...], length: int, places: tuple[Place, dict[str, Place]], stats: Mapping[str, Any]
    ) -> None:
        data, videos = places
        row: dict[str, Any] = {
            "episode_index": self._count,
            "tasks": list(tasks),
            "length": length,
            "data/chunk_index": data.chunk_index,
            "data/file_index": data.file_index,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for key, at in videos.items():
            row |= {f"videos/{key}/chunk_index": at.chunk_index, f"videos/{key}/file_index": at.file_index}
            row[f"videos/{key}/from_timestamp"] = at.first / self._fps
            row[f"videos/{key}/to_timestamp"] = (at.first + length) / self._fps
        self._episodes.append({**row, **stats})
        self._count, self.frames = self._count + 1, self.frames + length

    def _renumbered(self, old: OldEpisode, at: tuple[int, int], tasks: np.ndarray) -> Iterator[pa.Table]:
        """Rows of an old episode that is now number `at[0]` and begins with row `at[1]`."""
        assert self._previous is not None
        number, index = at
        for table in self._previous.tables(old, layout.DATA_PATH):
            changed = {
                "episode_index": np.full(table.num_rows, number),
                "index": index + np.arange(table.num_rows),
                "task_index": tasks[table.column("task_index").to_numpy()],
            }
            yield tables.replaced(table, changed)
            index += table.num_rows

    def _prints_of(self, old: OldEpisode, number: int) -> Iterator[pa.Table]:
        assert self._previous is not None
        for table in self._previous.tables(old, layout.FINGERPRINTS_PATH):
            yield tables.replaced(table, {"episode_index": np.full(table.num_rows, number)})

    def _index_stats(self, old: OldEpisode, at: tuple[int, int], tasks: np.ndarray) -> dict[str, Any]:
        names = ["episode_index", "index", "task_index"]
        found = pa.concat_tables([table.select(names) for table in self._renumbered(old, at, tasks)])
        return tables.stats_columns(statistics.of_columns({name: found.column(name).to_numpy() for name in names}))


def _append(sink: Joined, source: Path, first: int, count: int) -> None:
    sink.append(source, first, count)
