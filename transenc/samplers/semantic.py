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
from transenc.samplers.shortlist import Shortlist, products

log = logging.getLogger(__name__)

MANY = 200_000  # sentences from which the cost is told: 15 TFLOP at 384 dimensions, a minute or more on a few cores
TILE = 1536  # sentences compared with as many others at a time: 9 MiB of scores


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
    tile: int = TILE,
) -> tuple[Index, Index]:
    """Return (query, neighbour) index columns of each row's k highest inner products within [min, max] score.

    embeddings: (n, dim) unit vectors. Every two are multiplied once, for both, in an arithmetic that only shortlists.
    Doubles decide, and their sums do not depend on the tile: equal embeddings tie exactly, and all tile sizes and
    arithmetics give the same result.
    """
    n = len(embeddings)
    fast = products(embeddings, k)
    shortlist = Shortlist(embeddings, k, min_score, max_score, fast.slack)
    tiles = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    for own in tiles:
        shortlist.begin(fast.of(own, own), own.start)
    for i, rows in enumerate(tiles):
        for columns in tiles[i + 1 :]:
            shortlist.add(fast.of(rows, columns), rows.start, columns.start)
    return shortlist.nearest()
