"""Approximate nearest neighbours by a bi-encoder, for corpora that are too large to compare every pair of.

faiss divides the embeddings into cells and compares each with those in the nearest cells only. Work grows with the
power 1.5 of the corpus, where that of `semantic` grows with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc.cores import threads
from transenc.pairs import Index
from transenc.samplers import Encode, check_k, import_package, require
from transenc.samplers.semantic import embed, nearest
from transenc.samplers.shortlist import ranked

BLOCK = 8_192  # queries at a time
LEARNT_FROM = 39  # embeddings a cell is learnt from: with fewer faiss itself warns
SPARE = 4  # neighbours fetched beyond k, since single precision may swap near ties


@dataclass(frozen=True)
class Approximate:
    """Pair each sentence with nearly its k nearest by cosine similarity; needs the package faiss-cpu."""

    k: int = field(default=3, metadata={"help": "Neighbours of each sentence, itself excluded."})
    probes: int = field(
        default=16,
        metadata={"help": "Cells searched for a sentence: more finds more of the k, and takes longer."},
    )
    needs_encoder = True

    def __post_init__(self) -> None:
        check_k(self.k)
        if self.probes < 1:
            raise ValueError(f"probes must be at least 1, not {self.probes}")

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Encode the corpus once and search it; equal cosines go to the earlier sentence."""
        require(sentences, self.k + 1)
        return approximately_nearest(embed(sentences, encode), self.k, self.probes)


@contextmanager
def _allowed_threads(faiss: Any) -> Iterator[None]:
    """Let faiss use the cores that this process may use, for the block: torch may share its pool of threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def approximately_nearest(
    embeddings: npt.NDArray[np.float32], k: int, probes: int = 16
) -> tuple[Index, Index]:
    """Return (query, neighbour) index columns of nearly each row's k highest inner products.

    A corpus that has no more cells than are searched is searched exactly. The order of the neighbours found is exact.
    """
    n, dim = embeddings.shape
    cells = min(round(4 * n**0.5), n // LEARNT_FROM)
    if cells <= probes:
        return nearest(embeddings, k)
    faiss = import_package("faiss", "faiss-cpu")  # local: an optional package
    with _allowed_threads(faiss):
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True  # cells of unit vectors; faiss's own seed makes them the same at each run
        index.train(embeddings)
        index.add(embeddings)
        index.nprobe = probes
        lefts, rights = [], []
        for start in range(0, n, BLOCK):
            queries = np.arange(start, min(start + BLOCK, n))
            _, found = index.search(embeddings[queries], k + 1 + SPARE)  # (queries, k + 1 + SPARE)
            there = (found >= 0) & (found != queries[:, None])  # -1: its cells hold fewer
            left, right = np.repeat(queries, there.sum(axis=1)), found[there]
            best = ranked(embeddings, left, right, k)
            lefts.append(left[best])
            rights.append(right[best])
    return np.concatenate(lefts), np.concatenate(rights)
