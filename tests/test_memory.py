from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from transenc.memory import release


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no malloc_trim")
def test_free_memory_below_a_block_that_is_kept_goes_back_to_the_system() -> None:
    blocks: list[np.ndarray] = [np.ones(8_000) for _ in range(4_000)]  # 256 MB in blocks that malloc keeps
    kept = blocks.pop()
    full = resident()
    blocks.clear()
    release()
    assert full - resident() > 128 * 2**20
    assert kept.sum() == 8_000
