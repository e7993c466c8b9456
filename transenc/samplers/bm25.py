"""BM25 neighbours, the default of Augmented SBERT: cheap and never the worst (section 3.1, table 5).

The score of document d is the sum over the query's words t, each time they occur, of
    ln((N + 1) / df(t)) * tf(t, d) * (K1 + 1) / (tf(t, d) + K1 * (1 - B + B * len(d) / mean len)).
This is ATIRE's BM25 with N + 1 for N, so a score is 0 only if no word is shared. bm25s has it as method
"atire" with the idf of "bm25+", rank_bm25 as BM25Plus with delta 0.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc import cores
from transenc.errors import MachineError
from transenc.pairs import Index
from transenc.samplers import Encode, check_k, import_package, require
from transenc.words import word_pattern

log = logging.getLogger(__name__)

K1 = 1.5  # how much a repeated word still adds; both packages' default
B = 0.75  # how much long sentences are held back; likewise
BACKENDS = ("auto", "numpy", "numba")
NUMBA_FROM = 6_000  # sentences; with fewer numpy is done in the seconds that compiling takes, once
# Sentences from which its absence is told: numpy takes 15 s, and twice the text four times that.
SLOW_FROM = 20_000
BLOCK = 4_096  # queries at a time
SPARE = 8  # neighbours fetched beyond k, so that ties at the end seldom need the whole row


@contextmanager
def without_jax() -> Iterator[None]:
    """Hide JAX from what is imported meanwhile, unless it is loaded already.

    bm25s asks it for a first product when it is imported; on a GPU that takes three quarters of the memory.
    """
    hidden = "jax" not in sys.modules
    if hidden:
        sys.modules["jax"] = None  # type: ignore[assignment]  # what makes an import say "not installed"
    try:
        yield
    finally:
        if hidden:
            del sys.modules["jax"]


@dataclass(frozen=True)
class Bm25:
    """Pair each sentence with its k best BM25 matches; one that shares no word with another gets no pair."""

    k: int = field(default=3, metadata={"help": "Neighbours of each sentence, itself excluded."})
    backend: str = field(
        default="auto",
        metadata={"help": "auto, numpy or numba; the same pairs, and auto takes numba for a large corpus."},
    )

    def __post_init__(self) -> None:
        check_k(self.k)
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not '{self.backend}'")

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Query the index with each sentence; ties go to the earlier sentence."""
        require(sentences, self.k + 1)
        words, vocabulary = word_ids(sentences)
        queries = np.flatnonzero([len(ids) > 0 for ids in words])
        if not len(queries):
            return queries, queries
        backend = self.chosen(len(sentences))
        # Local: it imports numba when that is installed, half a second.
        with without_jax():
            bm25s = import_package("bm25s", "bm25s")
        index = bm25s.BM25(k1=K1, b=B, method="atire", idf_method="bm25+")
        index.index((words, vocabulary), create_empty_token=False, show_progress=False)
        asked = [queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK)]
        if backend == "numpy":
            blocks = [_match(index, words, each, self.k) for each in asked]
        else:
            from transenc.samplers import maxscore  # an optional package, and half a second

            matrix = (index.scores[name] for name in ("data", "indices", "indptr"))
            given = maxscore.postings(words, *matrix)
            # The compiled loop releases the interpreter lock; blocks come back in order.
            with ThreadPoolExecutor(cores.threads()) as pool:
                found = pool.map(lambda each: maxscore.match(given, each, self.k), asked)
                blocks = [_columns(each, *of_each) for each, of_each in zip(asked, found, strict=True)]
        return np.concatenate([left for left, _ in blocks]), np.concatenate([right for _, right in blocks])

    def chosen(self, n: int) -> str:
        """Return the backend of n sentences, "numpy" or "numba"; raise MachineError if it is not installed."""
        installed = importlib.util.find_spec("numba") is not None
        if self.backend == "auto":
            if n >= SLOW_FROM and not installed:
                log.info(
                    'BM25 of %d sentences takes a tenth of the time or less with numba: pip install "transenc[fast]"',
                    n,
                )
            return "numba" if installed and n >= NUMBA_FROM else "numpy"
        if self.backend == "numba" and not installed:
            raise MachineError("bm25:backend=numba needs numba: pip install numba, or take backend=auto.")
        return self.backend


def word_ids(sentences: Sequence[str]) -> tuple[list[list[int]], dict[str, int]]:
    """Split lower-cased sentences into words, numbered in order of first use; stop words stay."""
    vocabulary: dict[str, int] = {}
    words = [
        [vocabulary.setdefault(w, len(vocabulary)) for w in word_pattern(s).findall(s)]
        for s in map(str.lower, sentences)
    ]
    return words, vocabulary


def best(scores: npt.NDArray[Any], query: int, k: int) -> Index:
    """Return the k best documents of a whole row by score, then index, without the query and scores of 0."""
    scores[query] = 0
    cut = np.partition(scores, -k)[-k]
    found = np.flatnonzero((scores >= cut) & (scores > 0))
    return found[np.lexsort((found, -scores[found]))][:k]


def _columns(queries: Index, matches: Index, counts: Index) -> tuple[Index, Index]:
    """Return the two columns of (queries, k) matches, of which the first `counts` of each row are some."""
    return np.repeat(queries, counts), matches[np.arange(matches.shape[1]) < counts[:, None]]


def _match(index: Any, words: list[list[int]], queries: Index, k: int) -> tuple[Index, Index]:
    n = len(words)
    fetch = min(n, k + 1 + SPARE)
    asked = [words[q] for q in queries]
    docs, scores = index.retrieve(
        asked, k=fetch, backend_selection="numpy", show_progress=False, sorted=False
    )
    lowest = scores.min(axis=1)
    scores = np.where(docs == queries[:, None], 0, scores)
    order = np.lexsort((docs, -scores), axis=-1)[:, :k]
    docs, scores = np.take_along_axis(docs, order, 1), np.take_along_axis(scores, order, 1)  # (queries, k)
    # bm25s leaves open which of several equal documents it returns: where the k-th is as low as the lowest
    # fetched, an earlier document with that score may be missing.
    unsure = (scores[:, -1] <= lowest) & (scores[:, -1] > 0) & (fetch < n)
    for row in np.flatnonzero(unsure):
        docs[row] = best(index.get_scores_from_ids(asked[row]), queries[row], k)
    return _columns(queries, docs.astype(np.int64), (scores > 0).sum(axis=1))
