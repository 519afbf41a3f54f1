"""Which parts of Armature are installed here; nothing is imported to find out."""

import importlib.metadata
import re
import sys
from collections.abc import Callable

from hardware.doctor.findings import Finding, Level

AREA = "Python"
PURPOSE = {
    "": "the bridge and its clients",
    "sim": "simulated worlds and the twin",
    "data": "recording and datasets",
    "train": "training and running policies",
    "franka": "the Franka arm",
    "cameras": "pictures",
}
"""What the extras are for, the base first; others of `pyproject.toml` are listed without words. `dev` is not listed."""


def examined(
    requires: list[str] | None = None, version: Callable[[str], str] = importlib.metadata.version
) -> list[Finding]:
    """A line for the interpreter, one for what every installation needs and one for each extra."""
    if requires is None:
        requires = importlib.metadata.requires("armature") or []
    groups: dict[str, list[str]] = {}
    for requirement in requires:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        assert name is not None
        groups.setdefault(extra[1] if extra else "", []).append(name.group())
    python = Finding(AREA, "Python", Level.OK, f"{sys.version.split()[0]}, {sys.executable}")
    return [python, *(_group(extra, names, version) for extra, names in groups.items() if extra != "dev")]


def _group(extra: str, names: list[str], version: Callable[[str], str]) -> Finding:
    present, missing = [], []
    for name in sorted(set(names)):
        try:
            present.append(f"{name} {version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    purpose = PURPOSE.get(extra, "")
    label = extra or "base"
    if not missing:
        return Finding(AREA, label, Level.OK, ", ".join(present))
    value = f"{', '.join(missing)} not installed"
    if not extra:
        return Finding(AREA, label, Level.FAIL, value, f"Needed for {purpose}.", ("pip install .   # in a checkout",))
    # Half of an extra is a broken installation; none of it is a choice.
    level = Level.WARN if present else Level.OK
    return Finding(
        AREA, label, level, value, f"Needed for {purpose}." if purpose else "", (f"pip install '.[{extra}]'",)
    )
