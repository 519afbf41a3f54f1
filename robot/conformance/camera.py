"""What every camera keeps to, as tests: derive a class whose name begins with Test and override `make`."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from robot.contract import Camera
from robot.errors import DeviceError


class CameraConformance:
    """Tests of `robot.contract.Camera`. They look at some tens of pictures of whatever it sees."""

    fps = 30.0
    """Pictures a second that `make` asks for."""
    late_s = 0.05
    """How long after its capture a picture is there, at most, on this machine [s]."""

    def make(self) -> Camera:
        """A new camera, not yet open."""
        raise NotImplementedError(f"{type(self).__name__} overrides make().")

    @pytest.fixture
    def camera(self) -> Iterator[Camera]:
        """An open camera, closed after the test."""
        camera = self.make()
        camera.open()
        yield camera
        camera.close()

    def test_a_closed_camera_does_not_answer(self) -> None:
        """Neither before it is opened nor after it is closed; closing twice is safe."""
        camera = self.make()
        with pytest.raises(DeviceError):
            camera.read()
        camera.open()
        camera.read()
        camera.close()
        camera.close()
        with pytest.raises(DeviceError):
            camera.read()

    def test_opens_again(self) -> None:
        """What was closed gives pictures again."""
        camera = self.make()
        for _ in range(2):
            camera.open()
            camera.spec.validate(camera.read().image)
            camera.close()

    def test_pictures_fit_their_spec(self, camera: Camera) -> None:
        """RGB, uint8, (H, W, 3), each an array of its own that the next picture does not change."""
        first = camera.read().image
        copy = first.copy()
        second = camera.read().image
        for image in (first, second):
            camera.spec.validate(image)
        assert image.shape == camera.spec.shape
        assert not np.shares_memory(first, second)
        np.testing.assert_array_equal(first, copy)

    def test_times_are_of_this_clock_and_increase(self, camera: Camera) -> None:
        """A picture was taken before it is there, not long ago, and after the one before it."""
        last_ns = 0
        for _ in range(10):
            frame = camera.read()
            age_ns = time.monotonic_ns() - frame.t_ns
            assert 0 <= age_ns < (self.late_s + 1 / self.fps) * 1e9
            assert frame.t_ns > last_ns
            last_ns = frame.t_ns

    def test_gives_each_picture_once_at_its_rate(self, camera: Camera) -> None:
        """Reading waits for the next picture, no more and no less."""
        camera.read()
        begin, count = time.monotonic(), 15
        for _ in range(count):
            camera.read()
        assert count / (time.monotonic() - begin) == pytest.approx(self.fps, rel=0.2)

    def test_who_reads_late_gets_a_new_picture(self, camera: Camera) -> None:
        """No queue holds old ones."""
        camera.read()
        time.sleep(5 / self.fps)
        camera.read()
        frame = camera.read()
        assert time.monotonic_ns() - frame.t_ns < (self.late_s + 1 / self.fps) * 1e9
