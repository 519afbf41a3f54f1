import errno
import os
import struct
from pathlib import Path

import pytest

from hardware.doctor import devices
from hardware.doctor.devices import ENUM_FMT, QUERYCAP
from hardware.doctor.findings import Level
from tests.hardware.doctor.machines import built, named

CAPTURE, METADATA, DEVICE_CAPS = 0x1, 0x00800000, 0x80000000


class Cameras:
    """Answers as V4L2 does, for files that stand for cameras: name, bus, capabilities, formats."""

    def __init__(self, **cameras: tuple[str, str, int, list[str]]) -> None:
        self.cameras = cameras

    def ioctl(self, fd: int, request: int, buffer: bytearray) -> int:
        camera = self.cameras.get(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        if camera is None:
            raise OSError(errno.ENODEV, "No such device")
        card, bus, capabilities, formats = camera
        if request == QUERYCAP:
            names = [text.encode() for text in ("uvcvideo", card, bus)]
            buffer[:] = struct.pack("=16s32s32sIII12x", *names, 1, CAPTURE | METADATA | DEVICE_CAPS, capabilities)
            return 0
        assert request == ENUM_FMT
        index, kind = struct.unpack_from("=II", buffer)
        assert kind == 1
        if index >= len(formats):
            raise OSError(errno.EINVAL, "Invalid argument")
        struct.pack_into("=I", buffer, 44, struct.unpack("=I", formats[index].encode())[0])
        return 0


def machine(root: Path, *names: str) -> Path:
    return built(root, {f"dev/{name}": "" for name in names})


def test_the_sizes_of_the_requests_are_those_of_the_kernel() -> None:
    for request, layout in ((QUERYCAP, devices._CAPABILITY), (ENUM_FMT, devices._FORMAT)):
        assert request >> 16 & 0x3FFF == struct.calcsize(layout)


def test_cameras_with_their_formats_and_no_metadata_nodes(tmp_path: Path) -> None:
    seen = Cameras(
        video0=("HD Webcam", "usb-0000:00:14.0-1", CAPTURE, ["YUYV", "MJPG"]),
        video1=("HD Webcam", "usb-0000:00:14.0-1", METADATA, []),
        video10=("Other", "usb-0000:00:14.0-2", CAPTURE, ["YUYV"]),
    )
    findings = devices.cameras(machine(tmp_path, "video0", "video1", "video10"), seen.ioctl)
    assert [(f.name, f.value) for f in findings] == [
        ("video0", "HD Webcam: YUYV, MJPG, on usb-0000:00:14.0-1"),
        ("video10", "Other: YUYV, on usb-0000:00:14.0-2"),
    ]


def test_raw_cameras_on_one_bus_are_too_much_for_it(tmp_path: Path) -> None:
    camera = ("Raw", "usb-0000:00:14.0-1", CAPTURE, ["YUYV"])
    findings = devices.cameras(machine(tmp_path, "video0", "video2"), Cameras(video0=camera, video2=camera).ioctl)
    found = named(findings, "cameras' bus")
    assert found.level == Level.WARN
    assert "37 MB/s" in found.value


def test_a_camera_that_does_not_answer(tmp_path: Path) -> None:
    findings = devices.cameras(machine(tmp_path, "video0"), Cameras().ioctl)
    assert (findings[0].level, findings[0].value) == (Level.WARN, "does not answer: No such device")


def test_what_may_not_be_opened_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    hid = {"sys/class/hidraw/hidraw3/device/uevent": "HID_NAME=3Dconnexion SpaceMouse Compact\n"}
    built(machine(tmp_path, "video0", "ttyUSB0", "hidraw3"), hid)
    findings = devices.examined(tmp_path)
    for name, group in (("video0", "video"), ("ttyUSB0", "dialout"), ("hidraw3", "plugdev")):
        found = named(findings, name)
        assert found.level == Level.WARN
        assert f"usermod -aG {group}" in "\n".join(found.fix)


def test_a_servo_bus_that_holds_answers_back(tmp_path: Path) -> None:
    timer = "sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
    built(machine(tmp_path, "ttyUSB0", "ttyACM0"), {timer: "16\n"})
    (tmp_path / "dev/serial/by-id").mkdir(parents=True)
    (tmp_path / "dev/serial/by-id/usb-FTDI_U2D2").symlink_to(tmp_path / "dev/ttyUSB0")
    findings = devices.examined(tmp_path)
    found = named(findings, "ttyUSB0")
    assert found.level == Level.WARN
    assert "usb-FTDI_U2D2, holds answers back for up to 16 ms" in found.value
    assert found.fix == (f"echo 1 | sudo tee /{timer}",)
    assert named(findings, "ttyACM0").level == Level.OK
    built(tmp_path, {timer: "1\n"})
    assert named(devices.examined(tmp_path), "ttyUSB0").level == Level.OK


def test_space_mice_and_gamepads_are_found_and_keyboards_are_not(tmp_path: Path) -> None:
    names = {"hidraw0": "Some Keyboard", "hidraw1": "3Dconnexion SpaceNavigator"}
    files = {f"sys/class/hidraw/{key}/device/uevent": f"HID_ID=1\nHID_NAME={name}\n" for key, name in names.items()}
    built(machine(tmp_path, "hidraw0", "hidraw1", "input/js0"), files)
    findings = devices.examined(tmp_path)
    assert named(findings, "hidraw1").value == "3Dconnexion SpaceNavigator"
    assert named(findings, "gamepads").value == "js0"
    assert not [finding for finding in findings if finding.name == "hidraw0"]


def test_a_machine_with_nothing_attached(tmp_path: Path) -> None:
    assert {finding.level for finding in devices.examined(tmp_path)} == {Level.OK}
