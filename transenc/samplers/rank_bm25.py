"""BM25 neighbours by the rank_bm25 package: slow, there to check `bm25` against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transenc.pairs import Index
from transenc.samplers import Encode, check_k, import_package, require
from transenc.samplers.bm25 import K1, B, best, word_ids


@dataclass(frozen=True)
class RankBm25:
    """Pair each sentence with its k best BM25 matches, as `bm25` does but slowly and in double precision."""

    k: int = field(default=3, metadata={"help": "Neighbours of each sentence, itself excluded."})

    def __post_init__(self) -> None:
        check_k(self.k)

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Score the whole corpus for each sentence; ties go to the earlier sentence."""
        require(sentences, self.k + 1)
        words, vocabulary = word_ids(sentences)
        if not vocabulary:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        package = import_package("rank_bm25", "rank-bm25")  # local: an optional package
        # Not BM25Okapi: it gives words that are in half of the sentences or more a made-up weight.
        index = package.BM25Plus(words, k1=K1, b=B, delta=0)
        found = [best(index.get_scores(query), i, self.k) for i, query in enumerate(words)]
        left = np.repeat(np.arange(len(words), dtype=np.int64), [len(docs) for docs in found])
        return left, np.concatenate(found)
