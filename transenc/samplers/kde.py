"""Choose among labelled random pairs so that silver labels are distributed as gold ones (Augmented SBERT, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from transenc import registry
from transenc.errors import DataError
from transenc.pairs import Index
from transenc.samplers import Encode, sample

Floats = npt.NDArray[np.float64]

RULES = ("auto", "kde", "balance")
GRID = np.linspace(0.0, 1.0, 1025)  # where densities are known; in between they are interpolated
TINY = 1e-12  # keeps a divergence finite where a density is 0


@dataclass(frozen=True)
class Kde:
    """Draw candidates, have them labelled, and keep those that bring the labels' distribution close to gold's."""

    candidates: str = field(
        default="random:per_sentence=10", metadata={"help": "Sampler of the pairs that are labelled."}
    )
    rule: str = field(
        default="auto",
        metadata={"help": "kde (graded gold), balance (gold of 0 and 1), or auto: as the gold is."},
    )
    threshold: float = field(
        default=0.5, metadata={"help": "balance: from this score on a pair counts as positive."}
    )

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, not '{self.rule}'")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, not {self.threshold:g}")
        self._sampler()

    @property
    def needs_encoder(self) -> bool:
        """Tell whether the candidates' sampler compares embeddings."""
        return bool(getattr(self._sampler(), "needs_encoder", False))

    def balances(self, *, binary: bool) -> bool:
        """Tell whether labels are kept by class; binary: as gold's are."""
        return self.rule == "balance" or (self.rule == "auto" and binary)

    def _sampler(self) -> Any:
        return registry.create(registry.SAMPLERS, self.candidates)

    def sample(
        self, sentences: Sequence[str], rng: np.random.Generator, *, encode: Encode | None = None
    ) -> tuple[Index, Index]:
        """Return the candidates; `keep` chooses among them once they have scores."""
        return sample(self._sampler(), sentences, rng, encode)

    def keep(
        self, gold: npt.ArrayLike, silver: npt.ArrayLike, rng: np.random.Generator
    ) -> tuple[Index, dict[str, Any]]:
        """Return the positions of the kept candidates, in order, and a report with both divergences from gold.

        gold, silver: scores in [0, 1].
        """
        want, have = np.asarray(gold, np.float64), np.asarray(silver, np.float64)
        if not len(want):
            raise DataError("kde compares with gold labels: give some with --gold.")
        if self.balances(binary=bool(np.isin(want, (0.0, 1.0)).all())):
            return balance(want >= self.threshold, have >= self.threshold, rng)
        wanted, offered = density(want), density(have)
        kept = np.flatnonzero(rng.random(len(have)) < acceptance(wanted, offered, have))
        if not len(kept):
            raise DataError(f"kde kept none of {len(have)} labelled pairs: none is near a gold label.")
        report = {
            "rule": "kde",
            "offered": len(have),
            "kept": len(kept),
            "kl_offered": divergence(wanted, offered),
            "kl_kept": divergence(wanted, density(have[kept])),
        }
        return kept, report


def acceptance(gold: Floats, silver: Floats, scores: Floats) -> Floats:
    """Return Q(s) = 1 where F_gold(s) >= F_silver(s), else F_gold(s) / F_silver(s), for densities on GRID."""
    f_gold, f_silver = np.interp(scores, GRID, gold), np.interp(scores, GRID, silver)
    ratio = np.divide(f_gold, f_silver, out=np.ones_like(f_gold), where=f_silver > 0)
    return np.minimum(ratio, 1.0)


def density(scores: Floats) -> Floats:
    """Return the Gaussian kernel density of scores in [0, 1] on GRID, with Scott's bandwidth.

    Each score is shared linearly between its two nearest grid points, so a million take no longer than a
    thousand. Equal scores, which have no spread, get the bandwidth of one grid step.
    """
    steps = len(GRID) - 1
    place = np.clip(scores, 0.0, 1.0) * steps
    below = np.minimum(place.astype(np.int64), steps - 1)
    upper = place - below
    mass = np.bincount(below, 1.0 - upper, steps + 1) + np.bincount(below + 1, upper, steps + 1)
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    bandwidth = max(spread * len(scores) ** -0.2, 1.0 / steps)
    offsets = np.arange(-steps, steps + 1) / steps
    kernel = np.exp(-0.5 * (offsets / bandwidth) ** 2) / (bandwidth * np.sqrt(2 * np.pi))
    smoothed: Floats = np.convolve(mass, kernel)[steps : 2 * steps + 1] / len(scores)
    return smoothed


def divergence(gold: Floats, other: Floats) -> float:
    """Return the Kullback-Leibler divergence, in nats, of `other` from `gold`, both densities on GRID."""
    p, q = gold + TINY, other + TINY
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


def balance(
    gold: npt.NDArray[np.bool_], silver: npt.NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Index, dict[str, Any]]:
    """Keep all positives and a seeded sample of the negatives, so that their ratio is that of gold.

    Raise DataError when gold or silver has positives only or none: there is no ratio to reach.
    """
    positives, negatives = np.flatnonzero(silver), np.flatnonzero(~silver)
    if gold.all() or not gold.any():
        raise DataError(f"All {len(gold)} gold labels are of one class; the balance rule needs both.")
    if not len(positives):
        raise DataError(f"None of {len(silver)} labelled pairs is positive; mine closer pairs (bm25).")
    wanted = round(len(positives) * np.count_nonzero(~gold) / np.count_nonzero(gold))
    chosen = rng.choice(negatives, min(wanted, len(negatives)), replace=False)
    kept = np.sort(np.concatenate([positives, chosen])).astype(np.int64)

    def from_gold(labels: npt.NDArray[np.bool_]) -> float:
        p, q = (np.array([1 - x.mean(), x.mean()]) + TINY for x in (gold, labels))
        return float(np.sum(p * np.log(p / q)))

    report = {
        "rule": "balance",
        "offered": len(silver),
        "kept": len(kept),
        "positive_gold": float(gold.mean()),
        "positive_kept": float(silver[kept].mean()),
        "kl_offered": from_gold(silver),
        "kl_kept": from_gold(silver[kept]),
    }
    return kept, report
