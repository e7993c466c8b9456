"""Choose checkpoints and cycles without any label, by how models judge held-out pairs (docs/training.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transenc.errors import DataError
from transenc.metrics import spearman
from transenc.pairs import Index, Pairs, Scores
from transenc.seeds import derive

LEAST = 20  # held-out pairs; with fewer, a rank correlation says nothing
MOST = 2_000


def enough(n: int, share: float) -> bool:
    """Tell whether some of so many pairs can be held out, and others be trained on."""
    return LEAST <= _count(n, share) < n


def held_out(n: int, share: float, seed: int) -> Index:
    """Return the sorted places of the pairs that are judged and never trained on: a function of its arguments.

    At most 2,000; raise DataError when fewer than 20 would be held out.
    """
    count = _count(n, share)
    if not enough(n, share):
        raise DataError(
            f"--select agreement would judge on {count} of {n} pairs; it needs {LEAST} or more and some to train on. "
            f"Give more pairs, another --set held_out, or take --select last."
        )
    chosen = np.random.default_rng(derive(seed, "pairs", "held-out")).choice(n, count, replace=False)
    return np.sort(chosen).astype(np.int64)


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the Spearman correlation of two scorers' scores; 0 where one of them is constant."""
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.min() == x.max() or y.min() == y.max():
        return 0.0
    return spearman(x, y)


def _count(n: int, share: float) -> int:
    return min(MOST, round(n * share))


def word_overlap(pairs: Pairs) -> Scores:
    """Return the Dice coefficient of the lower-cased word sets of each pair."""
    words = [frozenset(sentence.lower().split()) for sentence in pairs.sentences]
    values = [
        2 * len(words[i] & words[j]) / max(1, len(words[i]) + len(words[j]))
        for i, j in zip(pairs.left, pairs.right, strict=True)
    ]
    return np.asarray(values, np.float32)


def alignment(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Return the mean squared distance of two views of the same sentences (Wang and Isola, ICML 2020)."""
    return float(((first - second) ** 2).sum(axis=1).mean())


def uniformity(vectors: npt.NDArray[np.float32]) -> float:
    """Return log E exp(-2 |x - y|^2) over different sentences' unit vectors (Wang and Isola, ICML 2020)."""
    squared = 2 - 2 * (vectors @ vectors.T).astype(np.float64)
    different = squared[~np.eye(len(vectors), dtype=bool)]
    return float(np.log(np.exp(-2 * different).mean()))


@dataclass(frozen=True, eq=False)  # arrays have no one truth value
class Candidate:
    """One model of a run, judged on the held-out pairs.

    labels: its agreement with the silver labels it learnt from; None for a start. needed: the agreement from which on
    it counts as having learnt them.
    """

    model: str
    student: str
    family: str
    cycle: int
    scores: Scores
    labels: float | None = None
    needed: float = 0.0

    @property
    def learnt(self) -> bool:
        """Tell whether the model learnt what it was taught; a start has nothing to learn."""
        return self.labels is None or self.labels >= self.needed


@dataclass(frozen=True)
class Choice:
    """The model kept for one student and family, and why."""

    candidate: Candidate
    agreement: float | None
    reason: str


def choose(candidates: Sequence[Candidate]) -> dict[str, Choice]:
    """Choose one model for each `family/student`, the start standing before its cycles.

    Among the cycles' models that learnt their labels, and whose teacher did, the one that agrees best, on average,
    with all others of these: of the other family, of other students and of other cycles. The first of
    equals is kept. With none: the start, or in a family without one the model nearest to its labels.
    """
    trusted = _trusted(candidates)
    chosen: dict[str, Choice] = {}
    for key in dict.fromkeys((c.family, c.student) for c in candidates):
        own = [c for c in candidates if (c.family, c.student) == key]
        able = [c for c in own if c in trusted]
        starts = [c for c in own if c.labels is None]
        if able:
            values = [consensus(c, trusted) for c in able]
            best = int(np.argmax(values))
            choice = Choice(able[best], values[best], "agrees best with the other models of the run")
        elif starts:
            choice = Choice(starts[0], None, "no cycle learnt its labels well enough to replace the start")
        else:
            nearest = max(own, key=lambda c: c.labels or 0.0)
            choice = Choice(nearest, None, "no cycle learnt its labels well enough; nearest to its labels")
        chosen["/".join(key)] = choice
    return chosen


def _trusted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the trained models that learnt their labels and were taught, all the way, by models that did."""
    trusted: list[Candidate] = []
    broken = False
    taught = [c for c in candidates if c.labels is not None]
    # What one half-cycle teaches comes from all students of the half-cycle before it.
    for half in dict.fromkeys((c.cycle, c.family) for c in taught):
        members = [c for c in taught if (c.cycle, c.family) == half]
        if not broken:
            trusted += [c for c in members if c.learnt]
        broken = broken or not any(c.learnt for c in members)
    return trusted


def consensus(candidate: Candidate, others: Sequence[Candidate]) -> float:
    """Return the mean agreement of a model with the others; 1 when there are none."""
    values = [agreement(candidate.scores, other.scores) for other in others if other is not candidate]
    return float(np.mean(values)) if values else 1.0
