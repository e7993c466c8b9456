"""Pairs scored a second, against CrossEncoder.predict at its defaults and at equal precision."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.common import Floats, Row, computes, main, minilm, pairs, spearman
from benchmarks.inference import measure
from benchmarks.limits import products
from transenc.models.cross import CrossFamily
from transenc.models.device import Compute

QUICK, FULL = 800, 10_000


def agree(mine: Floats, theirs: Floats) -> str:
    """Compare the scores."""
    return f"Spearman {spearman(mine, theirs):.6f}, max difference {np.abs(mine - theirs).max():.1e}"


def run(size: int) -> list[Row]:
    """Score `size` pairs each way with minilm under a random head."""
    given = pairs(size)
    texts = list(given.rows())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cross"
        torch.manual_seed(0)
        CrossFamily().create(minilm(), compute=computes()[0], max_length=None).save(path)

        def ours(compute: Compute) -> Callable[[], Any]:
            model = CrossFamily().load(path, compute=compute)
            return lambda: model.score(given)

        def peer(device: str, precision: str = "fp32") -> Callable[[], Any]:
            model = peers.cross(path, device=device, precision=precision)
            return lambda: model.predict(texts)

        transformer = CrossFamily().load(path, compute=computes()[0]).transformer
        operations = products(transformer.module.config, transformer.tokens(texts).lengths, first=True)
        return measure(f"cross-score {size:,} pairs", "pairs/s", size, ours, peer, agree, operations)


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
