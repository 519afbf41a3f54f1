"""Loading Triton into a process that may have drawn pictures before."""

import contextlib
import importlib
import os
import sys


def load_triton() -> None:
    """Load Triton's library, if there is one, in such a way that it finds its own LLVM; call it before diffusers.

    Software OpenGL loads an LLVM whose symbols all libraries see. Triton, which diffusers and compiled torch import,
    carries another one and would call the wrong functions: a process that has rendered crashes when it imports Triton.
    """
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
    try:
        with contextlib.suppress(ImportError):  # torch without CUDA comes without it
            importlib.import_module("triton._C.libtriton")
    finally:
        sys.setdlopenflags(flags)
