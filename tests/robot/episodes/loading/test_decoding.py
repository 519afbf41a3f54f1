import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.loading import frames as frames_module
from robot.episodes.loading.cache import FrameCache
from robot.episodes.loading.decoding import decoded, entries_of
from robot.errors import ConfigError, DatasetError, WorkerError
from tests.robot.episodes.loading.pictures import (
    FRONT,
    STATE,
    WRIST,
    Broken,
    Defective,
    Killed,
    Source,
    held_by,
    joined,
    picture_dataset,
    picture_episode,
    picture_source,
    source_with,
)

ROOT = Path(__file__).parents[4]


def lengths_of(source: Source) -> np.ndarray:
    return np.array([len(rows) for rows in source.episodes])


def decode(source: Source, cache: FrameCache, **options):
    return decoded(source, lengths_of(source), **{"workers": 0, **options}, cache=cache)


def everything(frames) -> np.ndarray:
    """All pictures, one window of one frame each."""
    out = np.empty((len(frames), 1, *frames.shape[1:]), np.uint8)
    frames.read(np.arange(len(frames))[:, None], out)
    return out[:, 0]


@pytest.fixture
def cache(tmp_path) -> FrameCache:
    return FrameCache(tmp_path / "frames")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_comes_back_is_what_went_in(workers, cache):
    source = picture_source()
    found = decode(source, cache, workers=workers)
    assert list(found) == [FRONT, WRIST]
    for key, frames in found.items():
        assert frames.shape == (15, 8, 12, 3)
        np.testing.assert_array_equal(everything(frames), joined(source, key))
        np.testing.assert_array_equal(frames.episode(2), source.episodes[2].pictures[key])


def test_nothing_is_decoded_twice_and_what_changes_is(cache):
    source = picture_source()
    decode(source, cache)
    assert source.was_read == [0, 1, 2]
    again = picture_source()
    decode(again, cache)
    assert again.was_read == []
    changed = picture_source()
    changed.episodes[1].pictures[WRIST][0, 3, 4, 1] ^= 1
    found = decode(changed, cache)
    assert changed.was_read == [1]
    np.testing.assert_array_equal(everything(found[WRIST]), joined(changed, WRIST))
    longer = Source(changed.schema.specs, [*changed.episodes, picture_episode(4, 99)])
    decode(longer, cache)
    assert longer.was_read == [3]


def test_some_cameras_only(cache):
    source = picture_source()
    assert list(decode(source, cache, keys=[WRIST])) == [WRIST]
    assert len(cache.entries()) == 3
    assert decode(source, cache, keys=[]) == {}
    with pytest.raises(DatasetError, match=r"no pictures 'observation.images.top'; it has observation.images.front"):
        decode(source, cache, keys=["observation.images.top"])


def test_pictures_are_resized_by_averaging_areas(cache):
    source = picture_source()
    found = decode(source, cache, size=(4, 6))
    blocks = joined(source, FRONT).reshape(15, 4, 2, 6, 2, 3).astype(np.float64).mean(axis=(2, 4))
    assert np.abs(everything(found[FRONT]) - blocks).max() <= 0.5
    assert found[FRONT].shape == (15, 4, 6, 3)
    whole = decode(source, cache)  # another entry
    np.testing.assert_array_equal(everything(whole[FRONT]), joined(source, FRONT))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    source = picture_source((5, 1, 9, 2), size=(2, 3))
    return source, decode(source, FrameCache(tmp_path_factory.mktemp("frames")))[FRONT]


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(1, 5), stride=st.integers(1, 3), ends=st.lists(st.integers(0, 16), min_size=1, max_size=9))
def test_windows_of_pictures_equal_those_of_an_array(several, steps, stride, ends):
    source, frames = several
    whole, first = joined(source, FRONT), np.repeat([0, 5, 6, 15], [5, 1, 9, 2])
    rows = np.maximum(np.array(ends)[:, None] + stride * np.arange(1 - steps, 1), first[ends][:, None])
    out = np.zeros((len(ends), steps, 2, 3, 3), np.uint8)
    frames.read(rows, out)
    np.testing.assert_array_equal(out, whole[rows])


def test_few_files_are_open_at_once(cache, monkeypatch):
    monkeypatch.setattr(frames_module, "_OPEN_FILES", 3)
    source = picture_source([2] * 20)
    frames = decode(source, cache)[FRONT]
    np.testing.assert_array_equal(everything(frames), joined(source, FRONT))
    opened = [path for path in held_by(os.getpid()) if path.is_relative_to(cache.root) and path.suffix == ".npy"]
    assert len(opened) == 3
    frames.close()
    np.testing.assert_array_equal(everything(frames), joined(source, FRONT))


@pytest.mark.parametrize(("shown", "says"), [(3, "6 rows and 3 pictures"), (8, "6 rows and more pictures")])
def test_rows_and_pictures_must_be_as_many(shown, says, cache):
    pictures = np.zeros((8, 8, 12, 3), np.uint8)
    source = source_with(Broken)
    source.episodes[-1].pictures[WRIST]._pictures = pictures[:shown]
    with pytest.raises(DatasetError, match=f"Episode 1 has {says} of 'observation.images.wrist'"):
        decode(source, cache)
    assert len(cache.entries()) == 3  # both of episode 0, and the front of episode 1


def test_pictures_of_another_shape_are_refused(cache):
    source = picture_source([2])
    source.episodes[0].pictures[FRONT] = np.zeros((2, 8, 11, 3), np.uint8)
    with pytest.raises(DatasetError, match=r"shape \(8, 11, 3\), expected uint8 of shape \(8, 12, 3\)"):
        decode(source, cache)


def test_a_dataset_of_other_lengths_is_refused(cache):
    with pytest.raises(DatasetError, match="3 episodes, the dataset 2"):
        decoded(picture_source(), np.array([5, 1]), cache=cache)


@pytest.mark.parametrize(
    ("broken", "error", "says"),
    [
        (Killed, WorkerError, r"episode 1 ended \(signal SIGKILL\).*run the same command again"),
        (Defective, WorkerError, "a defect in a decoder"),
        (Broken, DatasetError, "6 rows and 3 pictures"),
    ],
)
def test_a_worker_that_fails_is_told_of_and_leaves_what_is_whole(broken, error, says, cache):
    source = source_with(broken)
    with pytest.raises(error, match=f"(?s){says}"):
        decode(source, cache, workers=2)
    paths = entries_of(source, None, cache)  # front of both episodes, then wrist
    assert {entry.path for entry in cache.entries()} <= set(paths[:3])
    assert list(cache.root.glob("*/.*.part")) == [] or broken is Killed
    whole = source_with(Broken, shown=6)  # the same identities
    found = decode(whole, cache)
    assert len(found[WRIST]) == 11


def script(code: str, *arguments: object) -> list[str]:
    lines = "from robot.episodes.loading.cache import *; from robot.episodes.loading.decoding import *\n"
    lines += "from tests.robot.episodes.loading.pictures import *; import sys, time; from pathlib import Path\n"
    return [sys.executable, "-c", lines + code, *map(str, arguments)]


def test_a_killed_decode_leaves_nothing_that_looks_whole(cache):
    code = "decoded(source_with(Endless), np.array([5, 6]), workers=0, cache=FrameCache(Path(sys.argv[1])))"
    process = subprocess.Popen(script(code, cache.root), cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list(cache.root.glob("*/.*.part")) or len(cache.entries()) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    (part,) = cache.root.glob("*/.*.part")
    found = decode(source_with(Broken, shown=6), cache)
    np.testing.assert_array_equal(everything(found[FRONT]), joined(picture_source((5, 6)), FRONT))
    old = time.time() - 1000
    os.utime(part, (old, old))
    cache.clear([])
    assert list(cache.root.glob("*/.*.part")) == []
    assert len(cache.entries()) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_while_decoding_leaves_nothing(workers, cache):
    code = (
        "decoded(source_with(Endless), np.array([5, 6]), workers=int(sys.argv[2]), cache=FrameCache(Path(sys.argv[1])))"
    )
    process = subprocess.Popen(script(code, cache.root, workers), cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(cache.root.glob("*/.*.part")) or len(cache.entries()) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.decode().strip().splitlines()[-1] == "KeyboardInterrupt"
    assert list(cache.root.glob("*/.*.part")) == []
    while [child for child in children if Path(f"/proc/{child}").exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_dataset_that_is_replaced_meanwhile_is_not_served_under_its_old_name(cache, monkeypatch):
    source = picture_source()
    read = Source.read

    def replacing(self, number):
        source.episodes[1].pictures[FRONT][0] ^= 1
        return read(self, number)

    monkeypatch.setattr(Source, "read", replacing)
    with pytest.raises(DatasetError, match=r"replaced while its pictures were decoded\. Run the same command again"):
        decode(source, cache)
    assert cache.entries() == []


def test_two_processes_decode_the_same_at_once(cache):
    code = "decoded(picture_source([40] * 12), np.array([40] * 12), workers=0, cache=FrameCache(Path(sys.argv[1])))"
    both = [subprocess.Popen(script(code, cache.root), cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    again = picture_source([40] * 12)
    found = decode(again, cache)
    assert again.was_read == []
    np.testing.assert_array_equal(everything(found[WRIST]), joined(again, WRIST))
    assert list(cache.root.glob("*/.*.part")) == []


def test_an_entry_that_a_power_cut_shortened_is_decoded_again(cache):
    source = picture_source()
    decode(source, cache)
    path = entries_of(source, None, cache)[2]
    os.truncate(path, path.stat().st_size - 1)
    again = picture_source()
    found = decode(again, cache)
    assert again.was_read == [2]
    np.testing.assert_array_equal(everything(found[FRONT]), joined(source, FRONT))


def test_entries_that_vanish_while_they_are_in_use_are_told_of(cache):
    source = picture_source()
    frames = decode(source, cache)[FRONT]
    shutil.rmtree(cache.root)
    with pytest.raises(DatasetError, match=r"are gone from .*Start again"):
        everything(frames)
    frames = decode(source, cache)[FRONT]
    everything(frames)
    for path in entries_of(source, None, cache):
        os.truncate(path, 200)
    with pytest.raises(DatasetError, match="was shortened while it was in use"):
        everything(frames)


def test_a_disk_that_is_too_small_is_told_of_before(cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 12 * 10**6))
    source = picture_source()
    with pytest.raises(DatasetError, match=r"Decoding needs 67.1 MB in .*, and 12.0 MB are free.*ARMATURE_CACHE="):
        decode(source, cache)
    assert source.was_read == []
    assert cache.entries() == []


def test_a_disk_that_becomes_full_is_told_of(cache):
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "FrameCache(Path(sys.argv[1])).lease({}); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: decoded(picture_source(), np.array([5, 1, 9]), workers=0, cache=FrameCache(Path(sys.argv[1])))\n"
        "except DatasetError as error: print(error)"
    )
    done = subprocess.run(script(code, cache.root), cwd=ROOT, capture_output=True, text=True, check=True)
    assert "became full while pictures were decoded" in done.stdout
    assert list(cache.root.glob("*/.*.part")) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000


def test_the_least_recently_used_go_first_and_never_those_in_use(cache):
    first, second, third = (picture_source([20], seed=seed) for seed in (1, 2, 3))
    held = decode(first, cache)
    decode(second, cache)
    size = sum(entry.size for entry in cache.entries()) // 2  # of one dataset
    for source, age in ((first, 3000), (second, 2000)):
        for path in entries_of(source, None, cache):
            os.utime(path, (time.time() - age,) * 2)
    small = FrameCache(cache.root, limit_bytes=2 * size)
    decode(third, small)
    kept = {entry.path for entry in small.entries()}
    assert kept == {*entries_of(first, None, cache), *entries_of(third, None, cache)}
    with pytest.raises(DatasetError, match=r"may hold 0.0 MB, of which 0.0 MB are in use.*ARMATURE_CACHE_GB=1"):
        decode(picture_source([50], seed=4), small)
    assert {entry.path for entry in small.entries()} == kept  # nothing goes for what does not fit anyway
    del held
    decode(second, small)
    kept = {entry.path for entry in small.entries()}
    assert kept == {*entries_of(second, None, cache), *entries_of(third, None, cache)}


def test_what_another_process_uses_stays_until_it_is_gone(cache):
    code = (
        "found = decoded(picture_source(), np.array([5, 1, 9]), workers=0, cache=FrameCache(Path(sys.argv[1])))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(script(code, cache.root), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    assert cache.clear() == (0, 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    count, size = cache.clear()
    assert (count, cache.entries()) == (6, [])
    assert size == 2 * (15 * 8 * 12 * 3 + 3 * 128)


def test_clearing_some_leaves_the_others(cache):
    first, second = picture_source(seed=1), picture_source(seed=10)
    decode(first, cache)
    decode(second, cache)
    assert cache.clear(entries_of(first, None, cache))[0] == 6
    assert {entry.path for entry in cache.entries()} == set(entries_of(second, None, cache))


def test_variables_say_where_and_how_much(monkeypatch, tmp_path):
    monkeypatch.setenv("ARMATURE_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("ARMATURE_CACHE_GB", "1.5")
    assert (FrameCache().root, FrameCache().limit_bytes) == (tmp_path / "here", 1_500_000_000)
    for text in ("much", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("ARMATURE_CACHE_GB", text)
        with pytest.raises(ConfigError, match=f"ARMATURE_CACHE_GB is '{text}'"):
            FrameCache()


def test_a_folder_that_cannot_be_written_to_is_told_of(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"cannot be used.*ARMATURE_CACHE="):
        decode(picture_source(), FrameCache(tmp_path / "file" / "frames"))


def test_a_dataset_with_pictures_says_what_it_observes():
    assert list(picture_dataset().specs.observation) == [FRONT, STATE, WRIST]
