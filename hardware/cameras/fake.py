"""A camera of pure arithmetic, whose pictures say which they are: nothing can be lost, mixed or shifted unseen.

Two bands, at the top and at the bottom, hold the picture's number and time of capture as black and white squares that
survive a JPEG. Between them a texture moves, by itself or as the tool of the arm does.
"""

import time
from collections import deque

import numpy as np

from hardware.cameras.config import CameraConfig, FakeConfig, Sight
from robot.contract import Camera, Frame
from robot.errors import ConfigError, DeviceError
from robot.specs import ArraySpec

SQUARE = 8
"""Side of a square [pixels]: a block of a JPEG."""
NUMBER_BITS, TIME_BITS = 32, 64
PIXELS_PER_M = 2000.0
"""How far the texture moves with the tool: along the picture with y, down it with z."""
_SIGHT_S = 0.001
_LATEST_NS = 20_000_000
"""An arm whose state is older than this shows what it did last."""


class FakeCamera(Camera):
    """See above. Numbers begin at 1 and count periods, so that a picture that was not read leaves a gap."""

    def __init__(self, config: CameraConfig, sight: Sight | None = None) -> None:
        """Nothing is shown before `open`.

        Args:
            config: Which; a `FakeConfig`.
            sight: Where the tool is, for `shows: arm`.

        Raises:
            ConfigError: The picture is too small for what it says, or there is no arm to be shown.
        """
        assert isinstance(config, FakeConfig)
        self._rows = _band_rows(config.width)
        if config.width < 4 * SQUARE or config.height < (2 * self._rows + 2) * SQUARE:
            raise ConfigError(
                f"A fake camera of {config.width} × {config.height} pixels cannot say which picture it shows; "
                f"{config.width} wide it needs {(2 * self._rows + 2) * SQUARE} or more of height; 640 × 480 is fine."
            )
        if config.shows == "arm" and sight is None:
            raise ConfigError("A fake camera with shows=arm needs an arm: start it with `armature bridge`.")
        self.spec = ArraySpec("image", (config.height, config.width, 3), "uint8", 0, 255)
        self._period_ns = round(1e9 / config.fps)
        self._lag_ns = round(config.lag_s * 1e9)
        self._sight = sight if config.shows == "arm" else None
        self._seen: deque[tuple[int, np.ndarray]] = deque(maxlen=round((config.lag_s + 0.1) / _SIGHT_S))
        self._texture = _texture(config.height, config.width, 0.0, 0.0)
        self._start_ns = self._number = 0

    def open(self) -> None:
        """Begin; nothing can be absent."""
        self._start_ns, self._number = time.monotonic_ns(), 0

    def read(self) -> Frame:
        """The next picture, or the newest if some are over."""
        if not self._start_ns:
            raise DeviceError("The fake camera is not open. Call open() first.")
        over = (time.monotonic_ns() - self._start_ns) // self._period_ns
        self._number = max(self._number + 1, over)
        due_ns = self._start_ns + self._number * self._period_ns
        self._wait(due_ns)
        if self._sight is None:
            image = np.roll(self._texture, (self._number, 3 * self._number), (0, 1))
        else:
            across, down = self._shift(due_ns)
            image = _texture(self._texture.shape[0], self._texture.shape[1], across, down)
        band = _band(self._number, due_ns, self._rows, image.shape[1])
        image[: len(band)] = image[-len(band) :] = band
        return Frame(image, due_ns)

    def close(self) -> None:
        """Answer no more."""
        self._start_ns = 0

    def _wait(self, due_ns: int) -> None:
        """Until a picture is due; what lags has to be looked at meanwhile."""
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            if self._sight is None:
                time.sleep(left_ns / 1e9)
            else:
                self._seen.append(self._sight())
                time.sleep(min(left_ns / 1e9, _SIGHT_S))
        # What was there at the moment that is shown lies between two looks, once a state later than that is there.
        until_ns = due_ns + _LATEST_NS
        while self._sight is not None:
            self._seen.append(self._sight())
            if self._seen[-1][0] >= due_ns - self._lag_ns or time.monotonic_ns() > until_ns:
                break
            time.sleep(_SIGHT_S)

    def _shift(self, due_ns: int) -> tuple[float, float]:
        """By how many pixels the texture has moved with the tool, across and down; parts of pixels count."""
        times = np.array([t_ns for t_ns, _ in self._seen], np.int64)
        if not len(times):
            return 0.0, 0.0
        positions = np.array([position for _, position in self._seen])
        then = (due_ns - self._lag_ns - times[0]) / 1e9
        across, down = (np.interp(then, (times - times[0]) / 1e9, positions[:, axis]) for axis in (1, 2))
        return float(PIXELS_PER_M * across), float(-PIXELS_PER_M * down)


def decode_bands(image: np.ndarray) -> tuple[int, int]:
    """Number and time of capture [ns] that a picture of the fake camera says.

    Raises:
        DeviceError: Its two bands differ: the picture is torn, shifted, or not of a fake camera.
    """
    rows = _band_rows(image.shape[1])
    told = [_read_band(band, rows) for band in (image[: rows * SQUARE], image[-rows * SQUARE :])]
    if told[0] != told[1]:
        raise DeviceError(f"The bands of a fake camera's picture say {told[0]} and {told[1]}.")
    return told[0]


def _band_rows(width: int) -> int:
    """Rows of squares in a band."""
    return -(-(NUMBER_BITS + TIME_BITS) // max(1, width // SQUARE))


def _band(number: int, t_ns: int, rows: int, width: int) -> np.ndarray:
    value = (number % 2**NUMBER_BITS) << TIME_BITS | t_ns
    content = np.frombuffer(value.to_bytes((NUMBER_BITS + TIME_BITS) // 8, "big"), np.uint8)
    squares = np.zeros((rows, width // SQUARE), np.uint8)
    squares.ravel()[: NUMBER_BITS + TIME_BITS] = np.unpackbits(content) * 255
    band = np.zeros((rows * SQUARE, width, 3), np.uint8)
    band[:, : squares.shape[1] * SQUARE] = np.kron(squares, np.ones((SQUARE, SQUARE), np.uint8))[..., None]
    return band


def _read_band(band: np.ndarray, rows: int) -> tuple[int, int]:
    columns = band.shape[1] // SQUARE
    squares = band[:, : columns * SQUARE].reshape(rows, SQUARE, columns, SQUARE, 3).mean((1, 3, 4))
    bits = squares.ravel()[: NUMBER_BITS + TIME_BITS] > 127
    value = int.from_bytes(np.packbits(bits).tobytes(), "big")
    return value >> TIME_BITS, value & (2**TIME_BITS - 1)


def _texture(height: int, width: int, across: float, down: float) -> np.ndarray:
    """Smooth waves of a few lengths, shifted by pixels; they roll without a seam.

    A wave of x and y is a sum of products of waves of x and of y, which costs a hundredth of a sine for every pixel.
    """
    x = (2 * np.pi * (np.arange(width) - across) / width).astype(np.float32)
    y = (2 * np.pi * (np.arange(height) - down) / height).astype(np.float32)[:, None]
    image = np.empty((height, width, 3), np.uint8)
    waves = ((y, 2 * x), (1 - 3 * y, x), (3 * y + 2, 4 * x))
    for channel, (of_y, of_x) in enumerate(waves):
        wave = np.hstack([np.cos(of_y), np.sin(of_y)]) @ np.stack([100 * np.sin(of_x), 100 * np.cos(of_x)])
        image[..., channel] = wave + 127
    return image
