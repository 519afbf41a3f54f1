"""The ring of pictures: never torn, never blocking, readable from another process, whole after a death."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hardware.cameras.ring import SLOTS, FrameRing
from robot.contract import Frame
from robot.errors import DeviceError

WRITER = """
import sys, numpy as np
from hardware.cameras.ring import FrameRing
from robot.contract import Frame
ring = FrameRing(int(sys.argv[1]))
image = np.empty(ring.shape, np.uint8)
count = 0
print("ready", flush=True)
while True:
    count += 1
    image[:] = count % 251
    ring.write(Frame(image, count))
"""


def filled(value: int, shape: tuple[int, int, int] = (48, 64, 3)) -> Frame:
    return Frame(np.full(shape, value % 251, np.uint8), value)


def test_gives_the_newest_and_its_number() -> None:
    ring = FrameRing.create(48, 64)
    assert ring.read() is None
    assert ring.newest() == (0, 0)
    for value in range(1, 3 * SLOTS):
        assert ring.write(filled(value)) == value
        assert ring.newest() == (value, value)
        got = ring.read()
        assert got is not None
        assert (got.number, got.frame.t_ns) == (value, value)
        assert (got.frame.image == value).all()


def test_what_is_read_is_a_copy() -> None:
    ring = FrameRing.create(48, 64)
    ring.write(filled(1))
    got = ring.read()
    assert got is not None
    for value in range(2, 2 + SLOTS):
        ring.write(filled(value))
    assert (got.frame.image == 1).all()


def test_another_mapping_sees_the_same_also_by_its_path() -> None:
    ring = FrameRing.create(48, 64)
    ring.write(filled(7))
    fd = os.open(f"/proc/{os.getpid()}/fd/{ring.fd}", os.O_RDWR)
    other = FrameRing(fd)
    got = other.read()
    assert got is not None
    assert got.frame.t_ns == 7
    assert other.shape == (48, 64, 3)


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(8 * 1000)])
def test_other_memory_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "memory"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    with pytest.raises(DeviceError, match="not a ring"):
        FrameRing(fd)
    os.close(fd)
    with pytest.raises(DeviceError, match="not a ring"):
        FrameRing(-1)


def test_a_picture_that_is_being_written_is_never_given() -> None:
    ring = FrameRing.create(48, 64)
    for value in range(1, 6):
        ring.write(filled(value))
    # A writer that has died in the middle of the sixth.
    slot = 5 % SLOTS
    ring._sequence[slot] = 2 * 5 + 1
    ring._images[slot, :20] = 99
    got = ring.read()
    assert got is not None
    assert got.number == 5
    assert (got.frame.image == 5).all()


def test_memory_that_others_write_to_is_an_error_and_no_picture() -> None:
    ring = FrameRing.create(48, 64)
    ring.write(filled(1))
    ring._images[0, 3, 3] = 77
    with pytest.raises(DeviceError, match="something else writes"):
        ring.read()
    ring._sequence[0] = 1
    with pytest.raises(DeviceError, match="something else writes"):
        ring.newest()


@pytest.mark.parametrize("size", [(48, 64), (480, 640)])
def test_no_picture_is_torn_while_another_process_writes_as_fast_as_it_can(size: tuple[int, int]) -> None:
    ring = FrameRing.create(*size)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(ring.fd)], pass_fds=[ring.fd], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        until, seen, failed = time.monotonic() + 0.7, [], 0
        while time.monotonic() < until:
            try:
                got = ring.read()
            except DeviceError:
                # At a thousand pictures a second every try may be overtaken; it is said, and nothing torn is given.
                failed += 1
                continue
            if got is not None:
                levels = np.unique(got.frame.image)
                assert levels.tolist() == [got.frame.t_ns % 251]
                assert got.number == got.frame.t_ns
                seen.append(got.number)
        assert seen == sorted(seen)
        assert len(set(seen)) > 20
        assert failed < len(seen)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    last = ring.read()
    assert last is not None
    assert np.unique(last.frame.image).tolist() == [last.frame.t_ns % 251]
