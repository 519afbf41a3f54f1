"""How the hot maths of this folder is compiled: without Python's lock, once, kept on disk."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from numba import njit

_options: Any = njit  # numba's types do not know the flags about wrappers
# What Python never calls needs no wrapper for Python, whose unpacking of arguments takes long to compile.
inner = _options(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

_sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
VERSION = hashlib.sha256(b"".join(source for source in _sources if b"robot.control.compiling" in source)).hexdigest()
"""Of all sources in this folder that are compiled in this way."""


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, with a cache on disk that a change of what it calls outdates.

    By itself numba looks only at the file of the function and at the values in its closure: after a change elsewhere,
    an arm would go on with the old form. So the version becomes a value in the closure.
    """
    code = function.__code__.replace(co_freevars=("version",))
    scope = FunctionType(code, function.__globals__, function.__name__, None, (CellType(VERSION),))
    scope.__doc__ = function.__doc__
    return _options(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)(scope)
