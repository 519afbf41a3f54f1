"""Cameras, servo buses and teleoperation devices, as the kernel lists them."""

import fcntl
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

from hardware.doctor.findings import Finding, Level, number, text

AREA = "devices"
QUERYCAP, ENUM_FMT = 0x80685600, 0xC0405602
"""VIDIOC_QUERYCAP and VIDIOC_ENUM_FMT (linux/videodev2.h)."""
_CAPABILITY, _FORMAT = "=16s32s32sIII12x", "=III32sI16x"
_VIDEO_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000
_MAX_FORMATS = 32
RAW_MBPS = 640 * 480 * 2 * 30 / 1e6
"""A camera of 640 × 480 at 30 Hz as YUYV [MB/s]; one USB 2 bus carries about 35."""
SPACE_MICE = re.compile(r"3dconnexion|space ?mouse|space ?navigator|space ?pilot", re.IGNORECASE)

Ioctl = Callable[[int, int, bytearray], int]


def examined(root: Path, ioctl: Ioctl = fcntl.ioctl) -> list[Finding]:
    """Everything below `root`/dev that a robot is driven or seen with."""
    return [*cameras(root, ioctl), *_serial(root), *_human(root)]


def cameras(root: Path, ioctl: Ioctl = fcntl.ioctl) -> list[Finding]:
    """A line for each camera, and one if several send raw pictures over one bus."""
    findings, raw = [], dict[str, list[str]]()
    for path in sorted((root / "dev").glob("video*"), key=lambda path: (len(path.name), path.name)):
        finding, bus = _camera(path, ioctl)
        findings += [finding] if finding else []
        if bus:
            raw.setdefault(bus, []).append(path.name)
    for bus, names in raw.items():
        if len(names) > 1:
            value = (
                f"{', '.join(names)} on {bus}, raw formats only: {len(names) * RAW_MBPS:.0f} MB/s at 640 x 480, 30 Hz"
            )
            meaning = "A USB 2 bus carries about 35 MB/s; beyond that cameras stop without a word."
            fix = ("lsusb -t   # plug them into different controllers",)
            findings.append(Finding(AREA, "cameras' bus", Level.WARN, value, meaning, fix))
    return findings or [Finding(AREA, "cameras", Level.OK, "none")]


def _camera(path: Path, ioctl: Ioctl) -> tuple[Finding | None, str]:
    """What it is, and its bus if it has no compressed format; None for what takes no pictures."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        fix = ("sudo usermod -aG video $USER   # then log in again",) if isinstance(error, PermissionError) else ()
        return Finding(AREA, path.name, Level.WARN, str(error.strerror), "This camera cannot be opened.", fix), ""
    try:
        asked = bytearray(struct.calcsize(_CAPABILITY))
        ioctl(fd, QUERYCAP, asked)
        _, card, bus, _, capabilities, own = struct.unpack(_CAPABILITY, asked)
        if not (own if capabilities & _DEVICE_CAPS else capabilities) & _VIDEO_CAPTURE:
            return None, ""
        formats = _formats(fd, ioctl)
    except OSError as error:
        return Finding(AREA, path.name, Level.WARN, f"does not answer: {error.strerror}", "Plug it in again."), ""
    finally:
        os.close(fd)
    words, where = (part.rstrip(b"\0").decode(errors="replace") for part in (card, bus))
    value = f"{words}: {', '.join(formats) or 'no formats'}, on {where}"
    return Finding(AREA, path.name, Level.OK, value), "" if "MJPG" in formats or "H264" in formats else where


def _formats(fd: int, ioctl: Ioctl) -> list[str]:
    found = []
    for index in range(_MAX_FORMATS):
        asked = bytearray(struct.pack(_FORMAT, index, 1, 0, b"", 0))
        try:
            ioctl(fd, ENUM_FMT, asked)
        except OSError:
            # The list has ended.
            break
        found.append(struct.pack("=I", struct.unpack(_FORMAT, asked)[4]).decode(errors="replace").strip())
    return found


def _serial(root: Path) -> list[Finding]:
    paths = sorted(path for kind in ("ttyUSB*", "ttyACM*") for path in (root / "dev").glob(kind))
    by_id = root / "dev/serial/by-id"
    names = {link.resolve().name: link.name for link in by_id.iterdir()} if by_id.is_dir() else {}
    return [_bus(root, path, names.get(path.name, "")) for path in paths] or [
        Finding(AREA, "servo buses", Level.OK, "no serial device")
    ]


def _bus(root: Path, path: Path, name: str) -> Finding:
    if not os.access(path, os.R_OK | os.W_OK):
        fix = ("sudo usermod -aG dialout $USER   # then log in again",)
        return Finding(AREA, path.name, Level.WARN, "no right to open it", f"{name or 'This bus'} cannot be used.", fix)
    latency = f"sys/bus/usb-serial/devices/{path.name}/latency_timer"
    if (slow_ms := number(root, latency)) > 1:
        return Finding(
            *(AREA, path.name, Level.WARN, f"{name or 'serial device'}, holds answers back for up to {slow_ms} ms"),
            "A servo bus is read a few times slower than it could be.",
            (f"echo 1 | sudo tee /{latency}",),
        )
    return Finding(AREA, path.name, Level.OK, name or "serial device")


def _human(root: Path) -> list[Finding]:
    """Space mice and gamepads; other HID devices are nobody's concern here."""
    findings = []
    for folder in sorted((root / "sys/class/hidraw").glob("hidraw*")):
        found = re.search(r"^HID_NAME=(.*)$", text(folder, "device/uevent"), re.MULTILINE)
        if found and SPACE_MICE.search(found[1]):
            findings.append(_space_mouse(root / "dev" / folder.name, found[1]))
    pads = sorted(path.name for path in (root / "dev/input").glob("js*")) if (root / "dev/input").is_dir() else []
    if pads:
        findings.append(Finding(AREA, "gamepads", Level.OK, ", ".join(pads)))
    return findings or [Finding(AREA, "teleoperation", Level.OK, "no space mouse, no gamepad")]


def _space_mouse(path: Path, name: str) -> Finding:
    if os.access(path, os.R_OK | os.W_OK):
        return Finding(AREA, path.name, Level.OK, name)
    return Finding(
        *(AREA, path.name, Level.WARN, f"{name}: no right to open it"),
        "The arm cannot be driven with it.",
        (
            'echo \'KERNEL=="hidraw*", ATTRS{idVendor}=="256f", MODE="0660", GROUP="plugdev"\' | '
            "sudo tee /etc/udev/rules.d/99-spacemouse.rules",
            "sudo udevadm control --reload && sudo udevadm trigger; sudo usermod -aG plugdev $USER",
        ),
    )
