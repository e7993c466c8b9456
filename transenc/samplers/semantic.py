"""Nearest neighbours by a bi-encoder: the semantic search of Augmented SBERT (section 3.1), exact."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from transenc.errors import ConfigError, DataError
from transenc.pairs import Index
from transenc.samplers import Encode, check_k, require

log = logging.getLogger(__name__)

MANY = 200_000  # sentences from which the cost is told: 31 TFLOP at 384 dimensions, minutes on a few cores
BLOCK = 1 << 23  # scores held at a time: 32 MiB
PIECE = 1 << 14  # pairs scored in double precision at a time


@dataclass(frozen=True)
class Semantic:
    """Pair each sentence with the k nearest by cosine similarity of the encoder's embeddings."""

    k: int = field(default=3, metadata={"help": "Neighbours of each sentence, itself excluded."})
    min_score: float | None = field(default=None, metadata={"help": "Leave out what is less similar."})
    max_score: float | None = field(default=None, metadata={"help": "Pass over what is more similar."})
    needs_encoder = True

    def __post_init__(self) -> None:
        check_k(self.k)

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Encode the corpus once and search it exactly; ties go to the earlier sentence."""
        require(sentences, self.k + 1)
        if (n := len(sentences)) >= MANY:
            log.info(
                "Exact search compares all %.1e pairs of %d sentences: twice the text takes four times as long. "
                "The sampler semantic-approximate finds nearly the same neighbours sooner.",
                n * (n - 1) / 2,
                n,
            )
        embeddings = embed(sentences, encode)
        low = -np.inf if self.min_score is None else self.min_score
        high = np.inf if self.max_score is None else self.max_score
        return nearest(embeddings, self.k, low, high)


def embed(sentences: Sequence[str], encode: Encode | None) -> npt.NDArray[np.float32]:
    """Return (n, dim) embeddings; raise ConfigError without an encoder and DataError if one is not finite."""
    if encode is None:
        raise ConfigError("Semantic search needs a model: name one with --encoder (start model).")
    embeddings = encode(sentences)
    if len(embeddings) != len(sentences) or not np.isfinite(embeddings).all():
        raise DataError(f"The encoder gave no finite embedding for some of {len(sentences)} sentences.")
    return embeddings


def nearest(
    embeddings: npt.NDArray[np.float32],
    k: int,
    min_score: float = -np.inf,
    max_score: float = np.inf,
    block: int = BLOCK,
) -> tuple[Index, Index]:
    """Return (query, neighbour) index columns of each row's k highest inner products within [min, max] score.

    Single precision only shortlists. Doubles decide, and their sums do not depend on the block: equal
    embeddings tie exactly and every block size gives the same result.
    """
    n, dim = embeddings.shape
    slack = dim * np.finfo(np.float32).eps  # bounds the difference of two rounded products of unit vectors
    rows = max(1, block // n)
    floor = max(min_score, -2.0)  # above the -inf of a sentence with itself, below any cosine
    lefts, rights = [], []
    for start in range(0, n, rows):
        queries = embeddings[start : start + rows]
        scores = queries @ embeddings.T  # (queries, n)
        scores[np.arange(len(queries)), np.arange(start, start + len(queries))] = -np.inf
        sure = scores
        if max_score < np.inf:
            scores[scores > max_score + slack] = -np.inf
            sure = np.where(scores > max_score - slack, -np.inf, scores)
        cut = np.maximum(_at_most_kth(sure, k), floor)
        # The nonzero of two dimensions takes many times as long.
        left, right = np.divmod(np.flatnonzero(scores >= (cut - slack)[:, None]), n)
        left += start
        left, right = ranked(embeddings, left, right, k, min_score, max_score)
        lefts.append(left)
        rights.append(right)
    return np.concatenate(lefts), np.concatenate(rights)


def ranked(
    embeddings: npt.NDArray[np.float32],
    left: Index,
    right: Index,
    k: int,
    min_score: float = -np.inf,
    max_score: float = np.inf,
) -> tuple[Index, Index]:
    """Return each query's k best of the candidates (left, right) by exact score, then index, left ascending."""
    exact = _products(embeddings, left, right)
    kept = (exact >= min_score) & (exact <= max_score)
    left, right, exact = left[kept], right[kept], exact[kept]
    order = np.lexsort((right, -exact, left))
    left, right = left[order], right[order]
    rank = np.arange(len(left)) - np.searchsorted(left, left)
    return left[rank < k], right[rank < k]


def _at_most_kth(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    # k groups of columns have a maximum as high as the k-th highest maximum, so k scores are as high. Looking
    # among the maxima alone is several times faster than among all the columns.
    n = scores.shape[1]
    groups = max(k, n // 32)
    top = scores[:, :groups].copy()
    for start in range(groups, n - groups + 1, groups):
        np.maximum(top, scores[:, start : start + groups], out=top)
    kth: npt.NDArray[np.float32] = np.partition(top, groups - k, axis=1)[:, groups - k]
    return kth


def _products(embeddings: npt.NDArray[np.float32], left: Index, right: Index) -> npt.NDArray[np.float64]:
    exact = np.empty(len(left))
    for start in range(0, len(left), PIECE):
        piece = slice(start, start + PIECE)
        exact[piece] = (embeddings[left[piece]].astype(np.float64) * embeddings[right[piece]]).sum(axis=1)
    return exact
