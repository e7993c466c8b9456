"""Sentences encoded a second, against SentenceTransformer.encode at its defaults and at equal precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.common import Floats, Row, computes, main, minilm, sentences, spearman
from benchmarks.inference import measure
from benchmarks.limits import products
from transenc.models.bi import BiFamily
from transenc.models.device import Compute

QUICK, FULL = 2_000, 10_000


def run(size: int) -> list[Row]:
    """Encode `size` sentences each way."""
    texts = sentences(size)
    path = minilm()
    transformer = BiFamily().load(path, compute=computes()[-1]).transformer
    lengths = transformer.tokens(texts).lengths
    with torch.inference_mode():
        padded = sum(len(c) * lengths[c].max() for group in transformer.passes(lengths) for c in group)

    def ours(compute: Compute) -> Callable[[], Any]:
        model = BiFamily().load(path, compute=compute)
        return lambda: model.encode(texts)

    def peer(device: str, precision: str = "fp32") -> Callable[[], Any]:
        model = peers.bi(path, device=device, precision=precision)
        return lambda: model.encode(texts)

    def agree(mine: Floats, theirs: Floats) -> str:
        cosines = [(v[:-1] * v[1:]).sum(1) for v in (mine, theirs)]
        return (
            f"Spearman {spearman(*cosines):.6f}, max cosine difference {np.abs(cosines[0] - cosines[1]).max():.1e}; "
            f"{lengths.mean():.1f} tokens a sentence, padding {padded / lengths.sum() - 1:.1%}"
        )

    operations = products(transformer.module.config, lengths)
    return measure(f"encode {size:,} sentences", "sentences/s", size, ours, peer, agree, operations)


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
