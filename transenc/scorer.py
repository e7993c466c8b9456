"""Everything that judges a pair is a Scorer; labels are made from scores by one explicit rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from transenc.errors import DataError
from transenc.pairs import Pairs, Scores

CLIP = "clip to [0, 1]"


class Scorer(Protocol):
    """Judge how alike the two sentences of a pair are.

    Scores are comparable within one scorer and grow with similarity: cosines in [-1, 1] for encoders,
    probabilities in [0, 1] for cross-encoders. They are not clipped here, since ties among negatives would
    distort rank metrics; `to_labels` makes training targets of them.
    """

    family: str

    def score(self, pairs: Pairs) -> Scores:
        """Return one float32 score per pair."""
        ...


@dataclass(frozen=True)
class Labels:
    """Training targets in [0, 1], the rule that made them and how many scores it changed."""

    values: Scores
    rule: str
    clipped: int


def to_labels(scores: Scores) -> Labels:
    """Clip scores to [0, 1] and count how many moved; raise DataError for NaN or infinity, naming the pair.

    Unclipped cosines below 0 make binary cross-entropy unbounded below (docs/method.md).
    """
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise DataError(f"The teacher's score of pair {bad[0] + 1} is {scores[bad[0]]}; the model is broken.")
    values = np.clip(scores, 0.0, 1.0).astype(np.float32)
    return Labels(values, CLIP, int(np.count_nonzero(values != scores)))


def mean(columns: Sequence[Scores]) -> Scores:
    """Average several scorers' scores of the same pairs."""
    averaged: Scores = np.stack(columns).astype(np.float64).mean(axis=0).astype(np.float32)
    return averaged


def rank_mean(columns: Sequence[Scores]) -> Scores:
    """Average the ranks that several scorers give the same pairs, scaled to [0, 1].

    Free of each scorer's scale, so a cosine and a probability can be combined.
    """
    from transenc.metrics import ranks

    n = len(columns[0])
    if n < 2:
        return mean(columns)
    return mean([((ranks(c) - 1) / (n - 1)).astype(np.float32) for c in columns])


def weighted_mean(columns: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """Average several scorers' scores of the same pairs with weights of any sum above 0."""
    averaged: Scores = np.average(np.stack(columns).astype(np.float64), axis=0, weights=weights).astype(
        np.float32
    )
    return averaged


COMBINE = {"mean": mean, "rank-mean": rank_mean}


@dataclass(frozen=True)
class Teacher:
    """Score with the mean, or rank mean, of several scorers."""

    members: Sequence[Scorer]
    combine: str = "mean"
    family: str = "ensemble"

    def score(self, pairs: Pairs) -> Scores:
        """Return the combined scores of all members."""
        return COMBINE[self.combine]([member.score(pairs) for member in self.members])
