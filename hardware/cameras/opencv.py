"""A camera through OpenCV: V4L2 by path or index above all, streams and video files as well."""

import time
from pathlib import Path

import cv2

from hardware.cameras.config import CameraConfig, OpencvConfig, Sight
from robot.contract import Camera, Frame
from robot.errors import DeviceError
from robot.specs import ArraySpec

FPS_TOLERANCE = 0.1
"""Share by which a driver may announce another rate."""
_STAMP_TOLERANCE_NS = 1_000_000_000
"""A driver's time of capture that is further from now than this is not of this clock."""


class OpencvCamera(Camera):
    """See above. Waits for a picture, so that `read` gives each once; a camera that is unplugged fails at once."""

    def __init__(self, config: CameraConfig, sight: Sight | None = None) -> None:
        """Nothing is touched before `open`; `sight` is for simulated cameras."""
        assert isinstance(config, OpencvConfig)
        self._config = config
        self._is_v4l2 = False
        self.spec = ArraySpec("image", (config.height, config.width, 3), "uint8", 0, 255)
        self._capture: cv2.VideoCapture | None = None
        self._due_ns: int | None = None

    def open(self) -> None:
        """Start the stream at the size and rate asked for.

        Raises:
            DeviceError: The device is absent, in use, or gives another size or rate.
        """
        cv2.setNumThreads(1)
        config = self._config
        source: int | str = int(config.device) if config.device.isdecimal() else config.device
        is_v4l2 = isinstance(source, int) or source.startswith("/dev/")
        capture = cv2.VideoCapture(source, cv2.CAP_V4L2 if is_v4l2 else cv2.CAP_ANY)
        if not capture.isOpened():
            raise DeviceError(f"No camera at {config.device!r}: {_why_not(config.device, is_v4l2)}")
        self._capture = capture
        self._is_v4l2 = is_v4l2
        self._due_ns = time.monotonic_ns() if Path(config.device).is_file() else None
        try:
            if is_v4l2:
                # The format decides which sizes and rates the driver offers, so it comes first.
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
                capture.set(cv2.CAP_PROP_FPS, config.fps)
                capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            self._require_what_was_asked(capture)
        except DeviceError:
            self.close()
            raise

    def read(self) -> Frame:
        """The next picture, with the time at which the driver had captured it where it tells that."""
        if self._capture is None:
            raise DeviceError(f"The camera at {self._config.device!r} is not open. Call open() first.")
        self._pace()
        grabbed = self._capture.grab()
        now_ns = time.monotonic_ns()
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6) if self._is_v4l2 else 0
        ok, image = self._capture.retrieve() if grabbed else (False, None)
        if not ok or image is None:
            raise DeviceError(
                f"The camera at {self._config.device!r} gives no more pictures: it was unplugged, or its stream has "
                "ended. Check the cable and `dmesg`."
            )
        if image.shape != self.spec.shape:
            raise DeviceError(f"The camera at {self._config.device!r} turned from {self.spec.shape} to {image.shape}.")
        return Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), capture_time(stamp_ns, now_ns))

    def close(self) -> None:
        """Give the device back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _pace(self) -> None:
        """A file would give all its pictures at once; they are to come at the rate of a camera."""
        if self._due_ns is not None:
            time.sleep(max(0, self._due_ns - time.monotonic_ns()) / 1e9)
            self._due_ns += round(1e9 / self._config.fps)

    def _require_what_was_asked(self, capture: cv2.VideoCapture) -> None:
        config = self._config
        width, height = (round(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps = capture.get(cv2.CAP_PROP_FPS)
        if (width, height) != (config.width, config.height):
            raise DeviceError(
                f"The camera at {config.device!r} gives {width} × {height}, asked for {config.width} × "
                f"{config.height}. Set width={width} height={height}, or one of `v4l2-ctl --list-formats-ext`."
            )
        if fps > 0 and not abs(fps - config.fps) <= FPS_TOLERANCE * config.fps:
            raise DeviceError(
                f"The camera at {config.device!r} gives {fps:g} pictures a second, asked for {config.fps:g}. Set "
                f"fps={fps:g}, or a size that it is faster at (`v4l2-ctl --list-formats-ext`)."
            )


def capture_time(stamp_ns: int, now_ns: int) -> int:
    """Time of capture, CLOCK_MONOTONIC [ns].

    V4L2 stamps buffers with that clock when the first bytes arrive, but not every driver does; a stamp is believed
    where it is a time that has just passed.
    """
    return stamp_ns if 0 <= now_ns - stamp_ns <= _STAMP_TOLERANCE_NS else now_ns


def _why_not(device: str, is_v4l2: bool) -> str:
    if not is_v4l2:
        return "OpenCV can read no such file or stream. Check the path or address."
    path = Path(f"/dev/video{device}" if device.isdecimal() else device)
    if not path.exists():
        found = sorted(str(entry) for entry in [*Path("/dev").glob("video*"), *Path("/dev/v4l/by-path").glob("*")])
        return f"{path} does not exist. Cameras here: {', '.join(found) or 'none'}. Check the cable, then device=..."
    return "it is there and does not open: another program uses it, or this user is not in the group 'video'."
