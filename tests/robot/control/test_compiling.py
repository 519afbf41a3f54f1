import importlib.util
from pathlib import Path
from typing import Any

import pytest

from robot.control import compiling

SOURCE = """
from robot.control.compiling import entry

@entry
def triple(x):
    return 3.0 * x
"""


def hits(path: Path, name: str) -> int:
    """Import a file anew, call what it compiles, and say how often the cache on disk had it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.triple(2.0) == 6.0
    return sum(module.triple.stats.cache_hits.values())


def test_what_is_compiled_is_kept_until_a_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "probe.py"
    path.write_text(SOURCE)
    assert hits(path, "probe") == 0
    assert hits(path, "probe") == 1
    monkeypatch.setattr(compiling, "VERSION", "another")
    assert hits(path, "probe") == 0
