"""How compiled code calls MuJoCo and reads its memory, given integer addresses."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic as _intrinsic

intrinsic: Any = _intrinsic  # numba types it as if the typing context were an argument of the call

_options: Any = njit  # numba's types do not know the flags about wrappers
# What Python never calls needs no wrapper for Python, whose unpacking of arguments takes long to compile.
inner = _options(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)

VERSION = int.from_bytes(
    hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).digest()[:6]
)
"""Of the sources in this folder. An entry point that reads it from its closure makes it a part of its cache's key."""


def entry(make: Callable[[int], Callable[..., Any]]) -> Any:
    """Compile the function that `make(VERSION)` returns, for calls from Python, with a cache on disk.

    numba's cache watches only the file of the function that is called, and the values in its closure. The latter is
    how a change in any file of this folder is noticed: the function has to mention the version.
    """
    return _options(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)(make(VERSION))


@intrinsic
def call_step(typingctx: Any, function: Any, model: Any, data: Any) -> Any:
    """`void function(model, data)` at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word, word])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_jac(typingctx: Any, function: Any, model: Any, data: Any, jac_pos: Any, jac_rot: Any, site: Any) -> Any:
    """`void function(model, data, double*, double*, int site)` at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, number = ir.IntType(64), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [word] * 4 + [number])
        last = builder.trunc(args[5], number)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*args[1:5], last])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def call_full(typingctx: Any, function: Any, model: Any, out: Any, inertia: Any) -> Any:
    """`void function(model, double* out, const double* inertia)` at an integer address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), codegen


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """An integer address as `double*`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.DoubleType().as_pointer())

    return types.CPointer(types.float64)(types.int64), codegen


@inner
def floats(address: int, n: int) -> np.ndarray:
    """A view of n doubles at an address."""
    return carray(_pointer(address), (n,))
