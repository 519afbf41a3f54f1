"""What pictures are decoded from, by content: equal digests decode to equal pictures.

An episode in a video file is known by its encoded frames, wherever in whichever file they stand: appending episodes to
a file, merging datasets or relabelling actions changes none of them. Reading a file once for its digests is cheap
beside decoding it, and is remembered until the file changes.
"""

import hashlib
import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot.episodes.rows import RowSource

_FOLDER = "digests"
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Encoded:
    """The encoded frames of a video file, in the order of decoding.

    Attributes:
        time_s: When each is shown, float64, shape (N,).
        is_key: Whether decoding may begin with it, bool, shape (N,).
        digests: Of its bytes, uint8, shape (N, 16).
        head: Digest of what a decoder needs besides: codec, size, parameters.
    """

    time_s: np.ndarray
    is_key: np.ndarray
    digests: np.ndarray
    head: str

    def between(self, start_s: float, stop_s: float) -> str:
        """Digest of everything that the frames shown from `start_s` up to `stop_s` [s] are decoded from."""
        shown = np.flatnonzero((self.time_s >= start_s) & (self.time_s < stop_s))
        if not len(shown):
            return f"nothing {self.head}"
        keys = np.flatnonzero(self.is_key)
        first = keys[np.searchsorted(keys, shown[0], side="right") - 1] if len(keys) and keys[0] <= shown[0] else 0
        after = keys[np.searchsorted(keys, shown[-1], side="right") :]
        last = after[0] if len(after) else len(self.digests)
        digest = hashlib.sha256(self.head.encode() + self.digests[first:last].tobytes())
        skipped = int((self.time_s[first:last] < start_s).sum())  # decoded, but of the episode before
        digest.update(f"{skipped} {len(shown)}".encode())
        return digest.hexdigest()


def identities(source: RowSource, key: str, memory: Path) -> list[str]:
    """A digest for each episode of a source that differs where its pictures `key` would.

    Args:
        source: The episodes.
        key: Which pictures.
        memory: Folder that keeps the digests of video files; made where it is missing.

    Raises:
        DatasetError: A file is missing or damaged.
    """
    from robot.episodes.formats.lerobot_reader import LeRobotSource

    if not isinstance(source, LeRobotSource):
        return [f"{source.identity(number)} {key}" for number in range(len(source))]
    found, files, name = [], dict[Path, Encoded](), source.stored[key]
    quarter_s = 0.25 / source.files.fps  # a frame belongs to the row that is nearer than this
    for number, place in enumerate(source.files.episodes):
        video = place.videos.get(name)
        if video is None:  # encoded pictures inside the table, whose bytes count in the identity
            found.append(f"{source.identity(number)} {key}")
            continue
        if video.path not in files:
            files = {video.path: encoded(video.path, memory / _FOLDER)}
        frames = files[video.path].between(video.start_s - quarter_s, video.stop_s - quarter_s)
        found.append(f"{frames} {place.length} {source.files.fps} {video.stop_s - video.start_s:.6f}")
    return found


def encoded(path: Path, memory: Path) -> Encoded:
    """The encoded frames of a video file; from `memory` where the file is as it was.

    Raises:
        DatasetError: The file is missing or damaged.
    """
    kept = memory / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()}.npz"
    before = _signature(path)
    remembered = _remembered(kept, before)
    if remembered is not None:
        return remembered
    found = _read(path)
    if before and before == _signature(path):
        part = kept.with_name(f".{kept.stem[:16]}-{os.getpid()}.part.npz")
        try:
            memory.mkdir(parents=True, exist_ok=True)
            np.savez(
                part, allow_pickle=False, time_s=found.time_s, is_key=found.is_key, digests=found.digests,
                head=np.frombuffer(json.dumps([before, found.head]).encode(), np.uint8),
            )  # fmt: skip
            part.replace(kept)
        except OSError:  # a full disk costs time only: the file is read again
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return found


def _remembered(kept: Path, signature: list[int]) -> Encoded | None:
    try:
        with np.load(kept, allow_pickle=False) as arrays:
            known, head = json.loads(arrays["head"].tobytes())
            if known != signature:
                return None
            return Encoded(arrays["time_s"], arrays["is_key"], arrays["digests"], head)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or shortened by a power cut


def _signature(path: Path) -> list[int]:
    """Differs after every write: the time of a change of an inode cannot be set."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(path: Path) -> Encoded:
    from robot.episodes.formats.lerobot_pictures import opened

    times, keys, digests = [], [], []
    with opened(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        parameters = [context.name, context.width, context.height, context.pix_fmt, int(context.color_range)]
        head = hashlib.sha256(json.dumps([*parameters, int(context.colorspace)]).encode())
        head.update(context.extradata or b"")
        base = float(stream.time_base or 1)
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                times.append(packet.pts * base)
                keys.append(packet.is_keyframe)
                digests.append(hashlib.blake2b(memoryview(packet), digest_size=_DIGEST_BYTES).digest())
    table = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES)
    return Encoded(np.array(times, np.float64), np.array(keys, bool), table, head.hexdigest())
