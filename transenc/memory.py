"""Give memory back between two models."""

from __future__ import annotations

import ctypes
import gc
import sys


def release() -> None:
    """Free what only reference cycles keep alive, and let glibc's malloc return its free pages to the system.

    After a training there are more of these than of pages in use (docs/speed.md).
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # musl has none
        trim(0)
