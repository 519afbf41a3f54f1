import importlib.metadata

from hardware.doctor import packages
from hardware.doctor.findings import Level
from tests.hardware.doctor.machines import named

REQUIRES = [
    "numpy<3,>=2",
    "pyzmq>=26",
    'mujoco<3.9,>=3.3; extra == "sim"',
    'robosuite<1.5.2,>=1.5.1; extra == "sim"',
    'torch>=2.6; extra == "train"',
    'pytest>=8; extra == "dev"',
]


def version_of(*present: str) -> object:
    def version(name: str) -> str:
        if name not in present:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    return version


def test_what_is_whole_half_and_left_out() -> None:
    findings = packages.examined(REQUIRES, version_of("numpy", "pyzmq", "mujoco"))  # type: ignore[arg-type]
    assert named(findings, "base").value == "numpy 1.0, pyzmq 1.0"
    half = named(findings, "sim")
    assert (half.level, half.value, half.fix) == (Level.WARN, "robosuite not installed", ("pip install '.[sim]'",))
    assert named(findings, "train").level == Level.OK
    assert not [finding for finding in findings if finding.name == "dev"]


def test_without_the_base_there_is_no_bridge() -> None:
    findings = packages.examined(REQUIRES, version_of("numpy"))  # type: ignore[arg-type]
    assert named(findings, "base").level == Level.FAIL


def test_this_environment() -> None:
    findings = packages.examined()
    assert "pyzmq" in named(findings, "base").value
    assert named(findings, "base").level == Level.OK
