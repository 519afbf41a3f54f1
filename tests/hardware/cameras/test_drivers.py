"""The drivers keep to the contract, and what a device does wrong is said clearly."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from hardware.cameras import opencv as opencv_driver
from hardware.cameras.config import CAMERA_SCHEMAS, build, from_json, selections, to_json
from hardware.cameras.fake import PIXELS_PER_M, FakeCamera, decode_bands
from hardware.cameras.opencv import OpencvCamera, capture_time
from robot import config
from robot.bridge.images import ImageStream, Stamp, encode_image, pixels
from robot.bridge.wire import decode
from robot.conformance.camera import CameraConformance
from robot.contract import Camera
from robot.errors import ConfigError, DeviceError, UnknownNameError
from tests.hardware.cameras.settings import fake, opencv


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures whose brightness says which they are, as a file."""
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 100.0, (160, 120))
    for number in range(60):
        writer.write(np.full((120, 160, 3), 4 * number, np.uint8))
    writer.release()
    return path


class TestFake(CameraConformance):
    fps = 100.0

    def make(self) -> Camera:
        return build(fake())


class TestOpencv(CameraConformance):
    """On a file, which is paced like a camera. It has no queue to be tested, and is not late."""

    fps = 100.0

    @pytest.fixture(autouse=True)
    def _film(self, film: Path) -> None:
        self.film = film

    def make(self) -> Camera:
        return build(opencv(str(self.film)))


@pytest.mark.parametrize("size", [(640, 480), (160, 120), (161, 123), (84, 240)])
@pytest.mark.parametrize("quality", [50, 90])
def test_the_bands_survive_a_jpeg(size: tuple[int, int], quality: int) -> None:
    camera = build(fake(width=size[0], height=size[1]))
    camera.open()
    for _ in range(2):
        frame = camera.read()
    data = cv2.imdecode(cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    for image in (frame.image, data):
        number, t_ns = decode_bands(image)
        assert t_ns == frame.t_ns
        assert number >= 2


def test_bands_that_differ_are_a_torn_picture() -> None:
    camera = build(fake())
    camera.open()
    first, second = camera.read().image, camera.read().image
    for image in (np.vstack([first[:60], second[60:]]), np.roll(first, 8, axis=0)):
        with pytest.raises(DeviceError, match="bands"):
            decode_bands(image)
    assert decode_bands(np.roll(first, 8, axis=1)) != decode_bands(first)


def test_a_fake_picture_that_nobody_read_leaves_a_gap() -> None:
    camera = build(fake())
    camera.open()
    first = decode_bands(camera.read().image)[0]
    time.sleep(0.05)
    assert decode_bands(camera.read().image)[0] >= first + 5


@pytest.mark.parametrize("lag_s", [0.0, 0.05])
def test_the_fake_shows_where_the_tool_was_before_its_lag(lag_s: float) -> None:
    speed_mps = 0.1
    begin_ns = time.monotonic_ns()

    def sight() -> tuple[int, np.ndarray]:
        now_ns = time.monotonic_ns()
        return now_ns, np.array([0.0, speed_mps * (now_ns - begin_ns) / 1e9, 0.0])

    camera = FakeCamera(fake(shows="arm", lag_s=lag_s), sight)
    camera.open()
    for _ in range(15):
        frame = camera.read()
    still = FakeCamera(fake(shows="arm"), lambda: (0, np.zeros(3)))
    still.open()
    texture = still.read().image[60].astype(float)
    shown = min(range(160), key=lambda shift: np.abs(np.roll(texture, shift, 0) - frame.image[60]).sum())
    expected = PIXELS_PER_M * speed_mps * ((frame.t_ns - begin_ns) / 1e9 - lag_s)
    assert shown == pytest.approx(expected, abs=1.5)


def test_a_fake_of_the_arm_needs_an_arm_and_room_for_its_bands() -> None:
    with pytest.raises(ConfigError, match="armature bridge"):
        build(fake(shows="arm"))
    with pytest.raises(ConfigError, match="640 × 480"):
        build(fake(width=40, height=40))


def test_a_missing_device_is_named_with_what_is_there() -> None:
    camera = build(opencv("/dev/video93"))
    with pytest.raises(DeviceError, match=r"/dev/video93 does not exist\. Cameras here: "):
        camera.open()
    with pytest.raises(DeviceError, match="/dev/video94 does not exist"):
        build(opencv("94")).open()
    with pytest.raises(DeviceError, match="no such file or stream"):
        build(opencv("/nowhere/film.avi")).open()


def test_another_size_or_rate_than_asked_for_is_an_error_with_the_fix(film: Path) -> None:
    with pytest.raises(DeviceError, match=r"gives 160 × 120, asked for 640 × 480.*width=160 height=120"):
        build(opencv(str(film), width=640, height=480)).open()
    with pytest.raises(DeviceError, match=r"gives 100 pictures a second, asked for 30.*fps=100"):
        build(opencv(str(film), fps=30.0)).open()


def test_a_stream_that_ends_is_an_unplugged_camera(film: Path) -> None:
    camera = build(opencv(str(film)))
    camera.open()
    levels = [int(camera.read().image.mean()) for _ in range(60)]
    np.testing.assert_allclose(levels, 4 * np.arange(60), atol=3)
    with pytest.raises(DeviceError, match="unplugged, or its stream has ended"):
        camera.read()


class FakeV4L2:
    """What OpenCV does with a V4L2 device, as far as the driver uses it; keeps the order of the settings."""

    def __init__(self, stamp_ms: float, refuses: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.values = {cv2.CAP_PROP_POS_MSEC: stamp_ms}
        self.order: list[int] = []
        self.calls: list[str] = []
        self.refuses = refuses

    def isOpened(self) -> bool:
        return True

    def set(self, key: int, value: float) -> bool:
        self.order.append(key)
        if key not in self.refuses:
            self.values[key] = value
        return True

    def get(self, key: int) -> float:
        return self.values.get(key, 0.0)

    def grab(self) -> bool:
        self.calls.append("grab")
        return True

    def retrieve(self) -> tuple[bool, Any]:
        self.calls.append("retrieve")
        return True, np.dstack([np.full((120, 160), level, np.uint8) for level in (10, 20, 30)])

    def release(self) -> None:
        self.calls.append("release")


def v4l2(monkeypatch: pytest.MonkeyPatch, device: FakeV4L2) -> OpencvCamera:
    fake_cv2 = SimpleNamespace(**{name: getattr(cv2, name) for name in dir(cv2)})
    fake_cv2.VideoCapture = lambda source, api: device
    fake_cv2.VideoWriter = cv2.VideoWriter
    monkeypatch.setattr(opencv_driver, "cv2", fake_cv2)
    camera = OpencvCamera(opencv("/dev/video0"))
    camera.open()
    return camera


def test_v4l2_is_set_up_in_the_order_that_drivers_want(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeV4L2(time.monotonic_ns() / 1e6)
    camera = v4l2(monkeypatch, device)
    assert device.order[0] == cv2.CAP_PROP_FOURCC
    assert device.values[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert device.values[cv2.CAP_PROP_BUFFERSIZE] == 1
    stamp_ms = device.values[cv2.CAP_PROP_POS_MSEC]
    frame = camera.read()
    assert device.calls == ["grab", "retrieve"]
    assert frame.t_ns == round(stamp_ms * 1e6)
    assert frame.image[0, 0].tolist() == [30, 20, 10]


def test_a_size_that_the_device_refuses_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeV4L2(0.0, refuses={cv2.CAP_PROP_FRAME_WIDTH})
    device.values[cv2.CAP_PROP_FRAME_WIDTH] = 320
    with pytest.raises(DeviceError, match="gives 320 × 120"):
        v4l2(monkeypatch, device)
    assert device.calls == ["release"]


@pytest.mark.parametrize(("stamp_ns", "believed"), [(99_970, True), (100_001, False), (0, True), (-(10**12), False)])
def test_only_a_stamp_that_has_just_passed_is_believed(stamp_ns: int, believed: bool) -> None:
    assert capture_time(stamp_ns, 100_000) == (stamp_ns if believed else 100_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a:fake,a:opencv]", "Two cameras are called 'a'"),
        ("[a b]", "letters, digits"),
        (f"[{'x' * 40}]", "at most 32"),
    ],
)
def test_names_of_cameras_are_names(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        selections(text)


def test_a_list_of_cameras_becomes_selections() -> None:
    assert selections("[front:opencv, fake]") == ["+camera@cameras.front=opencv", "+camera@cameras.fake=fake"]
    assert selections("[]") == []


@pytest.mark.parametrize(
    "changed", [{"width": 0}, {"height": 5000}, {"fps": 0.0}, {"quality": 101}, {"encoding": "png"}, {"shows": "cat"}]
)
def test_nonsense_is_refused_before_anything_runs(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        fake(**changed)


def test_configs_travel_as_json() -> None:
    for one in (fake(lag_s=0.1), opencv("/dev/video0")):
        assert from_json(to_json(one)) == one
    assert set(config.options("camera")) == set(CAMERA_SCHEMAS)
    with pytest.raises(UnknownNameError, match="camera"):
        build(fake(driver="realsens"))


def test_encoding_keeps_the_colours() -> None:
    image = np.dstack([np.full((120, 160), level, np.uint8) for level in (200, 100, 10)])
    for encoding in ("jpeg", "raw"):
        data = encode_image(image, Stamp(1, 2, 3, 4, 5), encoding, 90)
        stream = ImageStream("tcp://127.0.0.1:1", 120, 160, encoding, 30.0)
        np.testing.assert_allclose(pixels(decode(data), stream), image, atol=4)
