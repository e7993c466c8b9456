"""Everything that judges a pair is a Scorer; labels are made from scores by one explicit rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from transenc.errors import DataError, MachineError
from transenc.pairs import Encode, Pairs, Scores
from transenc.registry import blaming, package_of

CLIP = "clip to [0, 1]"
NO_CLIP = "no clipping"


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


def scores_of(scorer: Scorer, pairs: Pairs) -> Scores:
    """Return a scorer's score of each pair; raise MachineError naming a plugin's package where it makes none."""
    package = package_of(scorer)
    with blaming(f"The family '{scorer.family}'", package):
        scores = np.asarray(scorer.score(pairs), np.float32)
    if scores.shape != (len(pairs),):
        raise MachineError(
            f"The family '{scorer.family}' of package {package} returned scores of shape {scores.shape} for "
            f"{len(pairs):,} pairs, not one of each."
        )
    return scores


def encoder_of(scorer: Scorer) -> Encode | None:
    """Return how a scorer makes vectors, None where it makes none; a plugin that fails is named as by `scores_of`."""
    encode: Encode | None = getattr(scorer, "encode", None)
    if encode is None:
        return None
    package = package_of(scorer)

    def named(sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        with blaming(f"The family '{scorer.family}'", package):
            vectors: npt.NDArray[np.float32] = np.asarray(encode(sentences), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(sentences):
            raise MachineError(
                f"The family '{scorer.family}' of package {package} returned vectors of shape {vectors.shape} for "
                f"{len(sentences):,} sentences, not one of each."
            )
        return vectors

    return named


@dataclass(frozen=True)
class Labels:
    """Training targets in [0, 1], the rule that made them and how many scores it changed."""

    values: Scores
    rule: str
    clipped: int


def to_labels(scores: Scores, *, clip: bool = True) -> Labels:
    """Clip scores to [0, 1] and count how many moved; raise DataError for NaN or infinity, naming the pair.

    Unclipped cosines below 0 make binary cross-entropy unbounded below (docs/method.md); clip=False leaves them, to
    compare with the published code.
    """
    _check_finite(scores)
    if not clip:
        return Labels(scores.astype(np.float32), NO_CLIP, 0)
    values = np.clip(scores, 0.0, 1.0).astype(np.float32)
    return Labels(values, CLIP, int(np.count_nonzero(values != scores)))


def _check_finite(scores: Scores) -> None:
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise DataError(f"The teacher's score of pair {bad[0] + 1} is {scores[bad[0]]}; the model is broken.")


def mean(columns: Sequence[Scores]) -> Scores:
    """Average several scorers' scores of the same pairs."""
    averaged: Scores = np.stack(columns).astype(np.float64).mean(axis=0).astype(np.float32)
    return averaged


def rank_mean(columns: Sequence[Scores]) -> Scores:
    """Average the ranks that several scorers give the same pairs, scaled to [0, 1].

    Free of each scorer's scale, so a cosine and a probability can be combined.
    """
    return mean([to_ranks(c) for c in columns])


def weighted_mean(columns: Sequence[Scores], weights: Sequence[float]) -> Scores:
    """Average several scorers' scores of the same pairs with weights of any sum above 0."""
    stacked = np.stack(columns).astype(np.float64)
    averaged: Scores = np.average(stacked, axis=0, weights=weights).astype(np.float32)
    return averaged


COMBINE = {"mean": mean, "rank-mean": rank_mean}


def to_ranks(scores: Scores) -> Scores:
    """Replace scores by their ranks, scaled to [0, 1]; ties share their average rank.

    Raise DataError for NaN or infinity, naming the pair: NaN would be the highest rank.
    """
    from transenc.metrics import ranks

    _check_finite(scores)
    n = len(scores)
    return ((ranks(scores) - 1) / (n - 1)).astype(np.float32) if n > 1 else scores


def to_values_of(own: Scores, scores: Scores) -> Scores:
    """Give the lowest of `scores` the lowest value of `own`, and so on: the order of one, the values of the other."""
    places = to_ranks(scores).astype(np.float64) * (len(own) - 1)
    return np.interp(places, np.arange(len(own)), np.sort(own)).astype(np.float32)


def blend(scores: Scores, own: Scores | None, transform: str, mix: float) -> Scores:
    """Transform the teachers' scores and mix in the bi-encoder's own.

    own: the bi-encoder's scores of the same pairs when it is a cross-encoder that teaches, else None. transform:
    "none", "rank", or "match": the values of `own` in the order of `scores`; without `own` it changes nothing.
    mix: the share of `own` in the result.
    """
    if transform == "match" and own is not None:
        scores = to_values_of(own, scores)
    elif transform == "rank":
        scores, own = to_ranks(scores), None if own is None else to_ranks(own)
    if own is None or not mix:
        return scores
    return ((1 - mix) * scores + mix * own).astype(np.float32)


@dataclass
class BothOrders:
    """Score with a cross-encoder's mean over both orders of a pair; for tasks in which they mean the same."""

    scorer: Scorer
    family: str = "cross"

    def score(self, pairs: Pairs) -> Scores:
        """Return the mean of the scores of (a, b) and of (b, a)."""
        return mean([scores_of(self.scorer, pairs), scores_of(self.scorer, pairs.flipped())])
