"""Video files: decoded once, again when they change, and not when only what is around them does."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from robot.episodes.dataset import Dataset
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.lerobot_writer import write
from robot.episodes.loading import content
from robot.episodes.loading.cache import FrameCache
from robot.episodes.loading.decoding import decoded, entries_of
from robot.episodes.rows import Rows
from robot.errors import DatasetError
from tests.robot.episodes.loading.pictures import FRONT, WRIST, Source, picture_source

LENGTHS = (6, 3, 8)
SIZE = (48, 64)


@pytest.fixture(scope="module")
def smooth() -> Source:
    """Pictures that a lossy codec keeps about as they are."""
    source = picture_source(LENGTHS, size=SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for n, rows in enumerate(source.episodes):
        for camera, key in enumerate((FRONT, WRIST)):
            for k in range(len(rows)):
                rows.pictures[key][k] = np.stack([3 * x, 4 * y + 5 * k, 0 * x + 60 * n + 30 * camera], -1)
    return source


@pytest.fixture
def folder(smooth, tmp_path) -> Path:
    write(smooth, tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def cache(tmp_path) -> FrameCache:
    return FrameCache(tmp_path / "frames")


def decode(folder: Path, cache: FrameCache, workers: int = 0):
    return decoded(LeRobotSource(folder), np.array(LENGTHS), workers=workers, cache=cache)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_of_videos_comes_back_about_as_it_went_in(workers, folder, smooth, cache):
    found = decode(folder, cache, workers)
    for key in (FRONT, WRIST):
        for n, rows in enumerate(smooth.episodes):
            assert np.abs(found[key].episode(n).astype(int) - rows.pictures[key]).max() < 25
            read = LeRobotSource(folder).read(n).pictures[key]
            np.testing.assert_array_equal(found[key].episode(n), np.stack(list(read)))


def test_opening_again_reads_no_video(folder, cache, monkeypatch):
    decode(folder, cache)
    monkeypatch.setattr(content, "_read", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(LeRobotSource, "read", lambda *_: pytest.fail("an episode was read"))
    assert len(decode(folder, cache)[FRONT]) == sum(LENGTHS)


def test_a_copy_is_not_decoded_again(folder, smooth, cache, tmp_path, monkeypatch):
    decode(folder, cache)
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / "copy")
    monkeypatch.setattr(LeRobotSource, "read", lambda *_: pytest.fail("an episode was read"))
    decode(tmp_path / "elsewhere" / "copy", cache)


def test_other_actions_change_no_pictures(folder, smooth, cache, tmp_path):
    decode(folder, cache)
    relabelled = [
        Rows({**rows.columns, "action": rows.columns["action"] + 1}, rows.pictures, rows.task, {"by": "somebody"})
        for rows in smooth.episodes
    ]
    write(Source(smooth.schema.specs, relabelled), tmp_path / "other")
    before = set(entries_of(LeRobotSource(folder), None, cache))
    assert set(entries_of(LeRobotSource(tmp_path / "other"), None, cache)) == before


def test_longer_datasets_decode_what_is_new(folder, smooth, cache, tmp_path):
    fewer = Source(smooth.schema.specs, smooth.episodes[:2])
    write(fewer, tmp_path / "fewer")
    decoded(LeRobotSource(tmp_path / "fewer"), np.array(LENGTHS[:2]), workers=0, cache=cache)
    before = {entry.path for entry in cache.entries()}
    decode(folder, cache)
    after = {entry.path for entry in cache.entries()}
    assert len(before) == 4
    assert before < after
    assert len(after) == 6


def test_a_video_that_changes_in_place_is_decoded_again(folder, cache):
    """Same length, same times of the file, same sizes of the frames: only a byte of a frame differs."""
    before = entries_of(LeRobotSource(folder), None, cache)
    (video,) = folder.glob(f"videos/{FRONT}/**/*.mp4")
    stat, data = video.stat(), bytearray(video.read_bytes())
    at = data.index(b"mdat") + 2000
    data[at] ^= 1
    with video.open("r+b") as file:
        file.write(data)
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = entries_of(LeRobotSource(folder), None, cache)
    changed = [n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert len(changed) == 1
    assert changed[0] < len(LENGTHS)  # of the front camera
    found = content.encoded(video, cache.root / "digests")
    assert len(found.time_s) == sum(LENGTHS)


def test_episodes_that_look_alike_share_their_pictures(smooth, cache, tmp_path):
    twice = Source(smooth.schema.specs, [smooth.episodes[0]] * 2)
    write(twice, tmp_path / "twice")
    found = decoded(LeRobotSource(tmp_path / "twice"), np.array([6, 6]), workers=0, cache=cache)
    assert len(cache.entries()) == 2
    np.testing.assert_array_equal(found[WRIST].episode(0), found[WRIST].episode(1))


def test_damaged_memory_of_digests_is_made_again(folder, cache):
    before = entries_of(LeRobotSource(folder), None, cache)
    kept = list((cache.root / "digests").glob("*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    kept[1].write_bytes(b"")
    assert entries_of(LeRobotSource(folder), None, cache) == before
    assert all(len(path.read_bytes()) > 100 for path in kept)


def test_a_cache_that_cannot_be_written_is_told_of(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"cannot be used.*ARMATURE_CACHE="):
        decode(folder, FrameCache(tmp_path / "file" / "frames"))


def test_a_truncated_video_is_told_of(folder, cache):
    (video,) = folder.glob(f"videos/{WRIST}/**/*.mp4")
    os.truncate(video, video.stat().st_size // 2)
    with pytest.raises(DatasetError, match=r"file-000.mp4 .*(damaged|truncated)"):
        decode(folder, cache)


def test_digests_depend_on_all_that_decoding_begins_with():
    """Frames 0 (key) 1 2 3 (key) 4: those of a span, and those that it is predicted from."""
    base = content.Encoded(
        np.arange(5) / 10, np.array([1, 0, 0, 1, 0], bool), np.arange(80, dtype=np.uint8).reshape(5, 16), "head"
    )

    def with_changed(frame: int) -> content.Encoded:
        digests = base.digests.copy()
        digests[frame] += 1
        return dataclasses.replace(base, digests=digests)

    def sees(start_s: float, stop_s: float) -> list[int]:
        return [n for n in range(5) if with_changed(n).between(start_s, stop_s) != base.between(start_s, stop_s)]

    assert sees(-0.05, 0.25) == [0, 1, 2]
    assert sees(0.15, 0.25) == [0, 1, 2]
    assert sees(0.25, 0.45) == [3, 4]
    assert sees(0.15, 0.35) == [0, 1, 2, 3, 4]
    assert base.between(0.05, 0.25) != base.between(0.15, 0.25)
    assert dataclasses.replace(base, head="other").between(0, 1) != base.between(0, 1)


def test_a_dataset_that_was_opened_brings_its_source(folder):
    dataset = Dataset.open(folder)
    assert isinstance(dataset.source, LeRobotSource)
    assert FRONT not in dataset.columns
