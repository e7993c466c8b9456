"""The union of BM25 and semantic neighbours, which leans to negative pairs (Augmented SBERT, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transenc.pairs import Index
from transenc.samplers import Encode, check_k
from transenc.samplers.bm25 import Bm25
from transenc.samplers.semantic import Semantic


@dataclass(frozen=True)
class Bm25Semantic:
    """Pair each sentence with its k best BM25 matches and with the k nearest by cosine similarity."""

    k: int = field(default=3, metadata={"help": "Neighbours of each sentence by each of the two ways."})
    needs_encoder = True

    def __post_init__(self) -> None:
        check_k(self.k)

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Return the BM25 pairs, then the semantic ones."""
        found = [way.sample(sentences, rng, encode=encode) for way in (Bm25(self.k), Semantic(self.k))]
        return np.concatenate([left for left, _ in found]), np.concatenate([right for _, right in found])
