from __future__ import annotations

import platform

import numpy as np
import pytest

from benchmarks.common import resident_mib
from transenc.memory import release


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no malloc_trim")
def test_free_memory_below_a_block_that_is_kept_goes_back_to_the_system() -> None:
    blocks: list[np.ndarray] = [np.ones(8_000) for _ in range(4_000)]  # 256 MB in blocks that malloc keeps
    kept = blocks.pop()
    full = resident_mib()
    blocks.clear()
    release()
    assert full - resident_mib() > 128
    assert kept.sum() == 8_000
