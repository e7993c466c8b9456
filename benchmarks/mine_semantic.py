"""Exact nearest neighbours (top 10, 384 dimensions), against a flat index of faiss with the same threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.common import Row, in_turn, main, minilm, peak_mib, resident_mib, sentences
from transenc.models.bi import BiFamily
from transenc.models.device import Compute
from transenc.samplers.semantic import nearest

QUICK, FULL = 20_000, 100_000
K = 10
REAL = 2_000  # sentences encoded; the others are near them, since searching, not encoding, is measured


def embeddings(n: int) -> Any:
    """Return n unit vectors spread like those of sentences."""
    real = BiFamily().load(minilm(), compute=Compute()).encode(sentences(min(n, REAL)))
    rng = np.random.default_rng(0)
    vectors = real[rng.integers(0, len(real), n)] + 0.03 * rng.standard_normal((n, real.shape[1]), np.float32)
    vectors[: len(real)] = real
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def run(size: int) -> list[Row]:
    """Find the neighbours of `size` vectors among themselves each way."""
    import faiss

    vectors = embeddings(size)
    faiss.omp_set_num_threads(torch.get_num_threads())

    def flat() -> Any:
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index.search(vectors, K + 1)

    nearest(vectors[:1000], K)
    before = resident_mib()
    nearest(vectors, K)
    memory = peak_mib() - before
    seconds, results = in_turn({"ours": lambda: nearest(vectors, K), "theirs": flat}, rounds=3)
    left, right = results["ours"]
    scores, found = results["theirs"]
    # The peer returns the sentence itself among its own neighbours, nearly always as the first.
    shared = sum(
        len(set(mine) & set(theirs.tolist()))
        for mine, theirs in zip(right.reshape(-1, K).tolist(), found, strict=True)
    )
    mine = (vectors[left].astype(np.float64) * vectors[right]).sum(1).reshape(-1, K)
    low = np.abs(mine[:, -1] - scores[:, -1]).max()
    agreement = (
        f"{shared / len(right):.5f} of the neighbours are faiss's, the 10th cosines differ by at most {low:.1e}; "
        f"{memory:,.0f} MiB; quadratic, as every exact search"
    )
    what = f"exact top {K} of {size:,} x {vectors.shape[1]} vectors, each a query"
    peer = "faiss IndexFlatIP"
    return [
        Row(what, "s", seconds["ours"], agreement, seconds["theirs"], peer, less=True, ratio_goal=1 / 1.3)
    ]


if __name__ == "__main__":
    main(run, quick=QUICK, full=FULL)
