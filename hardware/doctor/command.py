"""`armature doctor`: look at everything, say what to change, and fail if something has to be."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from hardware.arms import ARM_SCHEMAS, ArmConfig
from hardware.doctor import beat, devices, graphics, kernel, machine, network, packages
from hardware.doctor.findings import Finding, Level, as_json, table
from robot import config
from robot.errors import ConfigError, unknown_name

FORMATS = ("table", "json")
KILOHERTZ = ("franka",)
"""Arms whose own protocol beats at 1 kHz, whatever the rate of our loop."""
_NARROW, _WIDE = 60, 120


@dataclass(kw_only=True)
class DoctorConfig:
    """Keys of `configs/doctor.yaml`.

    Attributes:
        format: `table` or `json`.
        arm: Which arm will be driven; one with an address is looked for.
        port: First of the bridge's ports.
        out: Folder of recordings.
        seconds: How long the beat is measured [s].
    """

    arm: ArmConfig
    format: str
    port: int
    out: str
    seconds: float

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown_name("format", self.format, FORMATS)
        if not 1 <= self.port <= 65532:
            raise ConfigError(f"port is {self.port}, expected 1 to 65532.")
        if not 0.05 <= self.seconds <= 600:
            raise ConfigError(f"seconds is {self.seconds}, expected 0.05 to 600.")


def main(overrides: list[str]) -> int:
    """Print what was found; 1 if something has to be mended before a bridge can run, else 0."""
    settings = config.load("doctor", DoctorConfig, overrides, {"arm": ARM_SCHEMAS})
    findings = examined(settings, Path("/"))
    if settings.format == "json":
        print(as_json(findings))
    else:
        width = min(max(shutil.get_terminal_size().columns, _NARROW), _WIDE)
        print(table(findings, width, sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return int(any(finding.level == Level.FAIL for finding in findings))


def examined(settings: DoctorConfig, root: Path) -> list[Finding]:
    """Everything. The beat comes before whatever computes or writes; only the picture is drawn beside the rest."""
    has_fast_loop = settings.arm.driver in KILOHERTZ
    findings = [*kernel.examined(root, has_fast_loop), *beat.examined(root, settings.seconds)]
    picture = graphics.start_picture()
    findings += machine.examined(root, Path(settings.out))
    findings += devices.examined(root)
    findings += network.examined(root, settings.port, str(settings.arm.device.get("address", "")))
    findings += packages.examined()
    return [*findings, *graphics.examined(root, picture)]
