"""The house rules that a machine can hold: import arrows, folders, sizes, and that the README tells the truth."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import robot

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "robot": {"robot"},
    "perception": {"robot", "perception"},
    "policies": {"robot", "perception", "policies"},
    "hardware": {"robot", "hardware"},
}
NEVER_IMPORTS = {"robot": {"torch", "diffusers"}, "hardware": {"torch", "diffusers"}}
PICKLERS = {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
SOURCES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrow"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_points_up(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    names = imported(path)
    assert names & MAY_IMPORT.keys() <= MAY_IMPORT[package]
    assert not names & NEVER_IMPORTS.get(package, set())
    assert not names & PICKLERS


def test_the_arrow_test_sees_an_arrow(tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("def f():\n    from policies.train import main\n    import torch.nn as nn\n")
    assert imported(probe) == {"policies", "torch"}


def test_no_pickle_by_another_door() -> None:
    doors = re.compile(r"recv_pyobj|send_pyobj|torch\.load\(|torch\.save\(|allow_pickle=True")
    found = [path.name for path in SOURCES if doors.search(path.read_text())]
    assert not found


def test_files_stay_one_idea_long() -> None:
    long = {str(path.relative_to(ROOT)): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_top_level_holds_only_what_the_design_names() -> None:
    allowed = {"robot", "perception", "policies", "hardware", "configs", "tests", "benchmarks", "examples", "docs"}
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders - {"data", "runs", "build", "dist", "armature.egg-info"} <= allowed


def test_robot_is_ours_and_not_robot_framework() -> None:
    assert Path(robot.__file__).parent == ROOT / "robot"


def test_readme_names_only_what_exists() -> None:
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z-]+|bench-%):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z][a-z-]*)", text):
        bench = ROOT / "benchmarks" / (target.removeprefix("bench-").replace("-", "_") + ".py")
        assert target in targets or (target.startswith("bench-") and bench.exists()), f"make {target}"
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
    for folder in re.findall(r"^\| `([a-z]+/)` \|", text, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder


def test_every_dependency_of_the_project_is_pinned_with_a_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name is not None
        assert re.search(rf"^{name.group().lower()}==", lock, re.MULTILINE), requirement
    pins = re.findall(r"^[a-z0-9._-]+==.*?(?=^[a-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
    assert "://" not in lock
