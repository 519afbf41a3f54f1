from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.formats import video
from robot.episodes.formats.fingerprint import SIZE, TOLERANCE, distance, fingerprint
from robot.episodes.formats.image_statistics import Histogram, sampled_frames
from robot.episodes.formats.video import Encoding, Joined
from robot.episodes.statistics import QUANTILES, of_column
from robot.errors import DatasetError
from tests.robot.episodes.formats.sources import film

FPS = 20
VIDEOS = ("h264", "hevc", "av1")


def packets(path: Path) -> list[tuple[int, int, bool]]:
    """Number, decoding order and keyframe of every packet."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [packet for packet in container.demux(stream) if packet.pts is not None]
        ticks = 1 / (stream.time_base * FPS)
        assert all(packet.pts % ticks == 0 for packet in found)
        return [(int(packet.pts / ticks), int(packet.dts / ticks), packet.is_keyframe) for packet in found]


@pytest.mark.parametrize("codec", VIDEOS)
def test_frames_are_counted_exactly_and_keyframes_are_where_they_belong(tmp_path, codec):
    frames = film(11, 64, 96, np.random.default_rng(0))
    assert video.encode(frames, tmp_path / "one.mp4", FPS, Encoding(codec=codec)) == 11
    assert packets(tmp_path / "one.mp4") == [(k, k, k % 3 == 0) for k in range(11)]
    with av.open(str(tmp_path / "one.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.duration * stream.time_base * FPS) == (FPS, 11, 11)
        assert stream.codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("codec", VIDEOS)
def test_joined_files_hold_the_packets_of_their_parts_wherever_these_come_from(tmp_path, codec):
    rng = np.random.default_rng(1)
    lengths = {"a": 9, "b": 1, "c": 6}
    for name, length in lengths.items():
        video.encode(film(length, 64, 64, rng), tmp_path / f"{name}.mp4", FPS, Encoding(codec=codec))
    with Joined(tmp_path / "all.mp4", FPS) as joined:
        for name, length in lengths.items():
            joined.append(tmp_path / f"{name}.mp4", 0, length)
    with Joined(tmp_path / "again.mp4", FPS) as joined:
        joined.append(tmp_path / "all.mp4", 0, 9)
        joined.append(tmp_path / "b.mp4", 0, 1)
        joined.append(tmp_path / "all.mp4", 10, 6)
    assert (tmp_path / "all.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()
    numbers = packets(tmp_path / "all.mp4")
    assert [number for number, _, _ in numbers] == list(range(16))
    assert [number for number, _, is_key in numbers if is_key] == [0, 3, 6, 9, 10, 13]
    alone = [
        frame for name, length in lengths.items() for frame in video.decode(tmp_path / f"{name}.mp4", 0, length, FPS)
    ]
    np.testing.assert_array_equal(list(video.decode(tmp_path / "all.mp4", 0, 16, FPS)), alone)
    for first in range(16):
        np.testing.assert_array_equal(next(video.decode(tmp_path / "all.mp4", first, 1, FPS)), alone[first])


def test_headers_say_neither_time_nor_library(tmp_path):
    frames = film(3, 64, 64, np.random.default_rng(0))
    video.encode(frames, tmp_path / "one.mp4", FPS, Encoding())
    with Joined(tmp_path / "joined.mp4", FPS) as joined:
        joined.append(tmp_path / "one.mp4", 0, 3)
    with av.open(str(tmp_path / "joined.mp4")) as container:
        assert "encoder" not in container.metadata
        assert "creation_time" not in container.metadata


def test_colours_come_back_as_they_were(tmp_path):
    for colour in ((230, 20, 30), (20, 200, 40), (10, 30, 220), (128, 128, 128), (255, 255, 255), (0, 0, 0)):
        frames = np.broadcast_to(np.array(colour, np.uint8), (5, 64, 64, 3))
        video.encode(frames, tmp_path / "one.mp4", FPS, Encoding())
        found = np.stack(list(video.decode(tmp_path / "one.mp4", 0, 5, FPS)))
        assert np.abs(found.astype(int) - frames).max() <= 4


def test_equal_pictures_give_equal_bytes_whatever_is_in_memory(tmp_path):
    """With its macroblock tree, libx264 gave other bytes about once in 150 times for pictures as small as these."""
    rng = np.random.default_rng(0)
    frames = film(8, 48, 64, rng)
    found = set()
    for _ in range(200):
        rubbish = [np.full(int(rng.integers(100, 400_000)), int(rng.integers(1, 255)), np.uint8) for _ in range(12)]
        del rubbish[::2]
        video.encode(frames, tmp_path / "one.mp4", FPS, Encoding())
        found.add((tmp_path / "one.mp4").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_odd_sizes_keep_every_pixel(tmp_path, codec):
    frames = film(3, 63, 65, np.random.default_rng(0))
    video.encode(frames, tmp_path / "one.mp4", FPS, Encoding(codec=codec))
    found = np.stack(list(video.decode(tmp_path / "one.mp4", 0, 3, FPS)))
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 4


def test_too_few_frames_are_named(tmp_path):
    video.encode(film(5, 64, 64, np.random.default_rng(0)), tmp_path / "one.mp4", FPS, Encoding())
    with (
        pytest.raises(DatasetError, match=r"one\.mp4 has 5 frames from frame 0 on, expected 6"),
        Joined(tmp_path / "joined.mp4", FPS) as joined,
    ):
        joined.append(tmp_path / "one.mp4", 0, 6)
    with (
        pytest.raises(DatasetError, match=r"frame \d is where frame 2 belongs|has 0 frames"),
        Joined(tmp_path / "joined.mp4", FPS) as joined,
    ):
        joined.append(tmp_path / "one.mp4", 2, 2)  # no keyframe
    with pytest.raises(DatasetError, match=r"has no frame 5 at 0\.250 s"):
        list(video.decode(tmp_path / "one.mp4", 4, 2, FPS))
    with pytest.raises(DatasetError, match="needs at least one picture"):
        video.encode([], tmp_path / "none.mp4", FPS, Encoding())
    (tmp_path / "one.mp4").write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"one\.mp4 is damaged"):
        list(video.decode(tmp_path / "one.mp4", 0, 1, FPS))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_histograms_merge_to_the_statistics_of_all_samples(seed, parts):
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8) for count in parts]
    merged = Histogram()
    for some in frames:
        one = Histogram()
        for frame in some:
            one.add(frame)
        merged.merge(one)
    stats = merged.statistics()
    expected = of_column(np.concatenate(frames).reshape(-1, 3) / 255.0)
    for name in ("min", "max", "mean", "std", *QUANTILES):
        np.testing.assert_allclose(stats[name], expected[name].reshape(3, 1, 1), rtol=1e-9, atol=1e-12, err_msg=name)
    assert stats["count"].tolist() == [sum(parts)]


def test_large_pictures_and_long_episodes_are_sampled_evenly():
    histogram = Histogram()
    histogram.add(np.zeros((480, 640, 3), np.uint8))
    assert histogram.counts[0, 0] == 120 * 160
    assert len(sampled_frames(5000)) == 100
    assert {0, 4999} <= sampled_frames(5000)
    assert sampled_frames(7) == frozenset(range(7))


def test_fingerprints_are_means_of_areas():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 128, 3), dtype=np.uint8)
    luma = picture @ np.array([0.299, 0.587, 0.114])
    expected = luma.reshape(8, 8, 8, 16).mean(axis=(1, 3)).ravel()
    found = fingerprint(picture)
    assert (found.shape, found.dtype) == ((SIZE,), np.uint8)
    assert np.abs(found - expected).max() < 1.1
    assert fingerprint(rng.integers(0, 256, (5, 3, 3), dtype=np.uint8)).shape == (SIZE,)


def test_fingerprints_survive_compression_and_a_shifted_frame_shows(tmp_path):
    frames = film(40, 128, 128, np.random.default_rng(3))
    video.encode(frames, tmp_path / "one.mp4", FPS, Encoding())
    before = np.stack([fingerprint(frame) for frame in frames])
    after = np.stack([fingerprint(frame) for frame in video.decode(tmp_path / "one.mp4", 0, 40, FPS)])
    assert distance(before, after).max() <= TOLERANCE
    assert (distance(before[1:], after[:-1]) > TOLERANCE).mean() > 0.9
